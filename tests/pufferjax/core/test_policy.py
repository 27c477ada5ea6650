"""The policy: what it starts as, what it remembers, and which optimizer steps which parameter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import PolicyConfig, PPOConfig, TrainConfig, envs
from pufferjax.core import ppo
from pufferjax.core.policy import init_params, make_policy, muon_labels

SPEC = envs.make("maze", size=5, num_mazes=4).spec
ENTITIES = envs.make("minimal").spec  # 2 features of the agent, then 16 entities of 4


def forward(policy, params, observations, previous_actions, starts):
    state = policy.initial_state(observations.shape[1])
    return policy.apply({"params": params}, observations, previous_actions, state, starts)


def inputs(num_steps, num_agents):
    observations = jax.random.randint(jax.random.key(1), (num_steps, num_agents, 11, 11), 0, 5).astype(jnp.uint8)
    previous_actions = jax.random.randint(jax.random.key(2), (num_steps, num_agents, 1), 0, 6).astype(jnp.uint8)
    return observations, previous_actions, jnp.zeros((num_steps, num_agents), bool)


@pytest.mark.parametrize("encoder", ["one_hot", "linear"])
def test_starts_nearly_uniform_with_value_zero(encoder):
    policy = make_policy(SPEC, PolicyConfig(encoder=encoder))
    logits, values, _ = forward(policy, init_params(policy, jax.random.key(0)), *inputs(3, 7))
    np.testing.assert_array_equal(values, 0)
    assert float(jnp.max(jnp.abs(jax.nn.softmax(logits[0]) - 0.2))) < 0.01


def test_memory_reaches_back_until_a_start():
    policy = make_policy(SPEC, PolicyConfig(hidden_size=8))
    params = init_params(policy, jax.random.key(0))
    params["decoder"]["kernel"] = jnp.ones_like(params["decoder"]["kernel"])
    observations, previous_actions, starts = inputs(4, 2)
    changed = observations.at[0].set(0)
    starts = starts.at[2, 1].set(True)
    values = forward(policy, params, observations, previous_actions, starts)[1]
    others = forward(policy, params, changed, previous_actions, starts)[1]
    differs = np.asarray(values != others)
    assert differs[3, 0] and differs[1, 1]
    assert not differs[2:, 1].any()


def test_previous_action_can_be_left_out():
    policy = make_policy(SPEC, PolicyConfig(previous_action=False))
    params = init_params(policy, jax.random.key(0))
    params["decoder"]["kernel"] = jnp.ones_like(params["decoder"]["kernel"])
    observations, previous_actions, starts = inputs(2, 3)
    values = forward(policy, params, observations, previous_actions, starts)[1]
    others = forward(policy, params, observations, 5 - previous_actions, starts)[1]
    np.testing.assert_array_equal(values, others)


def test_one_hot_needs_integers():
    spec = dataclasses.replace(SPEC, obs_max=None, obs_dtype=np.dtype(np.float32))
    with pytest.raises(ValueError, match=r"policy\.encoder 'one_hot' needs integer observations"):
        make_policy(spec, PolicyConfig(encoder="one_hot"))


def test_more_choices_than_a_previous_action_can_tell():
    spec = dataclasses.replace(SPEC, num_actions=(256,))
    with pytest.raises(
        ValueError, match=r"policy\.previous_action must be False for more than 255 choices, .* has 256"
    ):
        make_policy(spec, PolicyConfig())
    make_policy(spec, PolicyConfig(previous_action=False))


def entity_forward(config, observations, seed=0):
    """Values f32[T, B] of a fresh policy whose decoder lets every hidden feature through; and its parameters."""
    policy = make_policy(ENTITIES, config)
    params = init_params(policy, jax.random.key(seed))
    params["decoder"]["kernel"] = jax.random.normal(jax.random.key(9), params["decoder"]["kernel"].shape)
    previous_actions = jnp.zeros((*observations.shape[:2], 2), jnp.uint8)
    starts = jnp.zeros(observations.shape[:2], bool)
    return forward(policy, params, observations, previous_actions, starts)[1], params


def test_the_encoder_is_that_of_the_environment():
    def modules(spec, encoder):
        return set(init_params(make_policy(spec, PolicyConfig(encoder=encoder)), jax.random.key(0)))

    assert {"entity_encoder", "action_encoder"} < modules(ENTITIES, "auto") == modules(ENTITIES, "entity")
    assert "encoder" in modules(ENTITIES, "linear") and "entity_encoder" not in modules(ENTITIES, "linear")
    assert modules(SPEC, "auto") == modules(SPEC, "one_hot")
    with pytest.raises(ValueError, match=r"policy\.encoder 'entity' needs an environment that declares entities, maze"):
        make_policy(SPEC, PolicyConfig(encoder="entity"))


def test_entities_are_a_set():
    observations = jax.random.normal(jax.random.key(1), (2, 3, 66))
    entities = observations[..., 2:].reshape(2, 3, 16, 4)[:, :, ::-1].reshape(2, 3, 64)
    reordered = jnp.concatenate([observations[..., :2], entities], axis=-1)
    for encoder, is_same in (("entity", True), ("linear", False)):
        config = PolicyConfig(encoder=encoder, hidden_size=8)
        first, second = (entity_forward(config, x)[0] for x in (observations, reordered))
        assert np.allclose(first, second, rtol=1e-5, atol=1e-5) == is_same
        own = observations.at[..., 0].add(1.0)  # a feature of the agent, which no order can hide
        assert not np.allclose(entity_forward(config, own)[0], first, rtol=1e-3)


def test_entity_encoder_by_hand():
    observations = jax.random.normal(jax.random.key(1), (1, 5, 66))
    config = PolicyConfig(encoder="entity", hidden_size=8, num_layers=0, previous_action=False)
    values, params = entity_forward(config, observations)
    weights = {name: np.asarray(x, np.float64) for name, x in params["entity_encoder"].items()}
    for row, value in zip(np.asarray(observations[0], np.float64), np.asarray(values[0]), strict=True):
        hidden = np.full(8, -np.inf)
        for entity in row[2:].reshape(16, 4):
            inner = np.maximum(entity @ weights["entity_kernel"] + weights["entity_bias"], 0)
            hidden = np.maximum(hidden, inner @ weights["kernel"] + weights["bias"])
        hidden += row[:2] @ weights["self_kernel"]
        assert value == pytest.approx(hidden @ np.asarray(params["decoder"]["kernel"], np.float64)[:, -1], rel=1e-4)


def test_an_observation_of_entities_alone():
    layout = envs.EntityLayout(num_self=0, num_entities=11, entity_size=6)
    spec = dataclasses.replace(ENTITIES, entities=layout)
    params = init_params(make_policy(spec, PolicyConfig()), jax.random.key(0))["entity_encoder"]
    assert params["entity_kernel"].shape == (6, 16) and "self_kernel" not in params


def test_muon_gets_the_hidden_matrices_and_nothing_else():
    policy = make_policy(SPEC, PolicyConfig(num_layers=2, encoder_layers=1))
    labels = muon_labels(init_params(policy, jax.random.key(0)))
    assert labels == {
        "encoder": {"table": "adam", "bias": "adam"},
        "encoder_0": {"kernel": "muon", "bias": "adam"},
        "mingru_0": {"kernel": "muon"},
        "mingru_1": {"kernel": "muon"},
        "decoder": {"kernel": "adam", "bias": "adam"},
    }
    linear = make_policy(SPEC, PolicyConfig(encoder="linear"))
    labels = muon_labels(init_params(linear, jax.random.key(0)))
    assert labels["encoder"] == {"kernel": "adam", "bias": "adam"} and labels["action_encoder"]["table"] == "adam"
    entity = make_policy(ENTITIES, PolicyConfig())
    assert muon_labels(init_params(entity, jax.random.key(0)))["entity_encoder"] == {
        "entity_kernel": "adam", "entity_bias": "adam", "kernel": "muon", "bias": "adam", "self_kernel": "adam",
    }  # fmt: skip


def test_schedule_is_constant_then_cosine():
    settings = {"learning_rate": 1.0, "min_learning_rate_ratio": 0.1, "entropy_coef": 1.0, "min_entropy_ratio": 0.3}
    hypers = TrainConfig(ppo=PPOConfig(anneal_start=0.5, **settings)).hypers()
    for progress, rate, entropy in ((0, 1, 1), (0.5, 1, 1), (0.75, 0.55, 0.65), (1, 0.1, 0.3)):
        assert [float(x) for x in ppo.schedule(hypers, jnp.float32(progress))] == pytest.approx([rate, entropy])


@pytest.mark.parametrize("precision", ["highest", "high", "default"])
@pytest.mark.parametrize("encoder", ["one_hot", "linear", "entity"])
def test_every_product_is_as_exact_as_the_configuration_says(precision, encoder):
    """On a GPU; "highest" is the float32 that the documents promise, where JAX's own default would be TF32."""
    spec = ENTITIES if encoder == "entity" else SPEC
    policy = make_policy(spec, PolicyConfig(hidden_size=8, encoder=encoder, encoder_layers=1, precision=precision))
    params = jax.eval_shape(lambda: init_params(policy, jax.random.key(0)))
    observations = jax.ShapeDtypeStruct((2, 3, *spec.obs_shape), spec.obs_dtype)
    previous = jax.ShapeDtypeStruct((2, 3, len(spec.num_actions)), jnp.uint8)

    def loss(params, observations, previous):
        logits, values, _ = forward(policy, params, observations, previous, jnp.zeros((2, 3), bool))
        return sum(x.sum() for x in logits) + values.sum()

    traced = jax.jit(jax.grad(loss)).trace(params, observations, previous)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    exact = [line for line in products if "[HIGHEST, HIGHEST]" in line]
    if precision == "highest":
        assert len(exact) == len(products) >= 11
        return
    # Decoder, layer of the encoder and two recurrent layers, forward and backward; the entities' twin stays exact.
    assert len(products) - len(exact) >= 11
    assert all(("[HIGH, HIGH]" in line) == (precision == "high") for line in products if line not in exact)
