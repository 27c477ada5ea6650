"""What may be given as a policy, and what is said of anything else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import pufferjax
from pufferjax.core.policy import ActorCritic, muon_labels


class Bare(nnx.Module):
    pass


@pytest.mark.parametrize(
    "policy, text",
    [
        (ActorCritic, "got the class ActorCritic: make one of it"),
        (Bare, "got the class Bare: make one of it"),
        (Bare(), r"got the nnx module Bare, .* wrapped as flax.nnx.bridge.to_linen\(Bare, ...\)"),
        ("small", "str has no init, apply, initial_state, spec"),
    ],
)
def test_what_is_no_policy_is_refused(policy, text, tiny_env, tiny_config):
    calls = (
        lambda: pufferjax.make_train(tiny_env, tiny_config(), policy),
        lambda: pufferjax.make_update(tiny_env, tiny_config(), policy),
        lambda: pufferjax.train(tiny_env, tiny_config(), policy=policy, devices=1, show=False),
    )
    for call in calls:
        with pytest.raises(TypeError, match=f"policy must be a Flax linen module.*{text}"):
            call()


class NnxActor(nnx.Module):
    """Without memory, written in nnx: a policy that is given as `nnx.bridge.to_linen(NnxActor, spec, ...)`."""

    def __init__(self, spec, hidden_size, rngs, noisy=False):
        self.spec = spec
        size = int(np.prod(spec.obs_shape))
        self.first = nnx.Linear(size, hidden_size, rngs=rngs)
        self.last = nnx.Linear(hidden_size, spec.num_actions[0] + 1, rngs=rngs)
        if noisy:
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def initial_state(self, num_agents):
        return jnp.zeros((0, num_agents, 1))

    def __call__(self, observations, previous_actions, state, starts):
        x = observations.reshape(*observations.shape[:2], -1).astype(jnp.float32)
        out = self.last(nnx.relu(self.first(x)))
        return (out[..., :-1],), out[..., -1], state


def test_an_nnx_class_is_a_policy_by_the_bridge(tiny_env, tiny_config, tmp_path):
    policy, run_dir = nnx.bridge.to_linen(NnxActor, tiny_env.spec, 8), tmp_path / "run"
    run = pufferjax.train(
        tiny_env, tiny_config(), policy=policy, run_dir=run_dir, devices=1, show=False, eval_episodes=16
    )
    params = run.train_state.params
    assert params["first"]["kernel"].shape == (121, 8) and run.evaluation["episodes"] == 16
    _, env, loaded, state = pufferjax.load_run(run_dir, policy=policy)
    again = state.params
    jax.tree.map(np.testing.assert_array_equal, params, again)
    assert pufferjax.evaluate(env, policy, again, jax.random.key(0), 16)["episodes"] == 16
    observations = jax.random.randint(jax.random.key(1), (1, 3, 11, 11), 0, 5).astype(jnp.uint8)
    logits, values, _ = loaded.apply({"params": again}, observations, None, loaded.initial_state(3), None)
    hidden = np.maximum(np.asarray(observations).reshape(3, -1) @ again["first"]["kernel"] + again["first"]["bias"], 0)
    expected = hidden @ again["last"]["kernel"] + again["last"]["bias"]
    np.testing.assert_allclose(np.column_stack([logits[0][0], values[0]]), expected, rtol=1e-4, atol=1e-5)
    init = pufferjax.make_init(tiny_env, tiny_config(), policy)
    kernels = jax.vmap(init)(jax.random.split(jax.random.key(0))).params["first"]["kernel"]
    assert (kernels[0] != kernels[1]).any()  # each seed its own
    with pytest.raises(ValueError, match="a policy of its own, NnxActor"):
        pufferjax.load_run(run_dir)


def test_an_nnx_class_must_be_pure_and_know_its_sizes(tiny_env, tiny_config):
    noisy = nnx.bridge.to_linen(NnxActor, tiny_env.spec, 8, noisy=True)
    with pytest.raises(TypeError, match="NnxActor has variables other than Param, Rng"):
        pufferjax.make_train(tiny_env, tiny_config(), noisy)
    with pytest.raises(TypeError, match="the nnx module Linear must have spec, an EnvSpec, and initial_state"):
        pufferjax.make_train(tiny_env, tiny_config(), nnx.bridge.to_linen(nnx.Linear, 3, 4))


def test_a_config_makes_its_policy(tiny_env, tiny_config):
    config = tiny_config()
    other = pufferjax.PolicyConfig(hidden_size=4, num_layers=1)
    state = jax.eval_shape(pufferjax.make_init(tiny_env, config, other), jax.random.key(0))
    assert state.memory.recurrent.shape == (1, 16, 4)


def test_parameters_may_be_any_pytree():
    matrix, bias = jnp.ones((2, 2)), jnp.ones(2)
    assert muon_labels([{"kernel": matrix}, (bias, matrix)]) == [{"kernel": "muon"}, ("adam", "adam")]
    assert muon_labels(matrix) == "adam"
