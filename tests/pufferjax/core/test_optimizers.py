"""Steps of every optimizer against float64: Muon, Aurora, Adam, averages without a schedule, and widths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import PolicyConfig, PPOConfig, TrainConfig, envs
from pufferjax.core import ppo
from pufferjax.core.optimizers import acting_params, learning_rates, make_optimizer, scale_by_aurora
from pufferjax.core.policy import init_params, make_policy
from pufferjax.runs.load import load_run

SPEC = envs.make("maze", size=5, num_mazes=4).spec


def config_of(hidden_size=64, **settings):
    return TrainConfig(policy=PolicyConfig(hidden_size=hidden_size), ppo=PPOConfig(learning_rate=0.01, **settings))


def normal_grads(params):
    return jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)


def first_step(config):
    """(parameters, gradients, what is added to the parameters)"""
    params = init_params(make_policy(SPEC, config.policy), jax.random.key(0))
    optimizer, grads = make_optimizer(config), normal_grads(params)
    rates = learning_rates(config, params, config.hypers(), jnp.float32(0.01))
    return params, grads, optimizer.update(grads, optimizer.init(params), params, rates=rates)[0]


def polar64(x):
    u, _, v = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    return u @ v


def aurora64(x):
    """`scale_by_aurora` with polar factors by SVD, in its paper's orientation: a row for every output."""
    x = np.asarray(x, np.float64).T
    scales = np.ones((len(x), 1))
    for _ in range(2):
        norms = np.linalg.norm(polar64(scales * x), axis=1, keepdims=True)
        scales *= np.where(norms > 0, np.sqrt(x.shape[1] / len(x)) / np.where(norms > 0, norms, 1), 1)
    return polar64(scales * x).T * np.sqrt(len(x) / x.shape[1])


def test_muon_steps_are_orthogonal_and_adam_steps_a_tenth():
    _, grads, step = first_step(config_of(other_learning_rate_ratio=0.1))
    # Newton-Schulz leaves singular values within about 0.7 to 1.2 of 1, times sqrt(fan_out / fan_in).
    singular = np.linalg.svd(np.asarray(step["mingru_0"]["kernel"]), compute_uv=False) / (0.01 * 3**0.5)
    assert singular.min() > 0.6 and singular.max() < 1.3
    np.testing.assert_allclose(np.abs(step["decoder"]["kernel"]), 0.001, rtol=1e-3)
    assert float(jnp.vdot(step["mingru_0"]["kernel"], grads["mingru_0"]["kernel"])) < 0  # downhill


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 2), (3, 4), (8, 24), (16, 20)])
def test_aurora_is_its_definition(inputs, outputs):
    x = np.random.default_rng(inputs).normal(size=(inputs, outputs)) * np.geomspace(0.1, 3, outputs)
    optimizer = scale_by_aurora()
    ours = optimizer.update(jnp.float32(x), optimizer.init(jnp.float32(x)))[0]
    np.testing.assert_allclose(ours, aurora64(x), rtol=2e-3, atol=2e-3)


def test_aurora_lets_all_outputs_learn_alike_and_stays_orthogonal():
    x = jnp.float32(np.random.default_rng(0).normal(size=(16, 48)) * np.geomspace(0.01, 10, 48)).at[:, 5].set(0)
    optimizer = scale_by_aurora()
    step = np.asarray(optimizer.update(x, optimizer.init(x))[0])
    norms, plain = (np.delete(np.linalg.norm(u, axis=0), 5) for u in (step, polar64(x) * 3**0.5))
    assert norms.std() < 0.5 * plain.std() and norms.min() > 5 * plain.min()
    np.testing.assert_allclose(np.linalg.svd(step, compute_uv=False), 3**0.5, rtol=1e-3)
    assert (step[:, 5] == 0).all() and np.isfinite(step).all()  # no gradient, no step


def test_aurora_is_muon_but_for_matrices_that_widen():
    (_, grads, ours), (_, _, muon) = (first_step(config_of(optimizer=name)) for name in ("aurora", "muon"))
    # With Nesterov's momentum the first step looks along the gradient itself.
    expected = -0.01 * aurora64(grads["mingru_0"]["kernel"])
    np.testing.assert_allclose(ours["mingru_0"]["kernel"], expected, rtol=5e-3, atol=2e-5)
    widens = [path for path, x in jax.tree_util.tree_leaves_with_path(muon) if "mingru" in str(path)]
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(muon), strict=True):
        assert (path in widens) == (not np.array_equal(a, b))


def test_schedule_free_is_its_definition():
    """y: where gradients are taken; z: Adam's, without momentum; x: the mean of all z, which acts."""
    config = config_of(8, optimizer="schedule_free", momentum=0.9)
    params = init_params(make_policy(SPEC, config.policy), jax.random.key(0))
    optimizer = make_optimizer(config)
    state = optimizer.init(params)
    leaf = lambda tree: np.asarray(tree["decoder"]["kernel"], np.float64)  # noqa: E731
    z, mean_of_squares = leaf(params), 0
    x, y = z, z
    for t in range(1, 6):
        grads = jax.tree.map(lambda p, t=t: jnp.sin(p * t + t), params)
        rates = learning_rates(config, params, config.hypers(), jnp.float32(0.01 * t))
        updates, state = optimizer.update(grads, state, params, rates=rates)
        params = jax.tree.map(jnp.add, params, updates)
        g = np.sin(y * t + t)
        mean_of_squares = 0.999 * mean_of_squares + 0.001 * g**2
        z = z - 0.01 * t * g / (np.sqrt(mean_of_squares / (1 - 0.999**t)) + 1e-8)
        x = (1 - 1 / t) * x + z / t
        y = 0.9 * x + 0.1 * z
        np.testing.assert_allclose(leaf(params), y, rtol=1e-4, atol=1e-6)
    train_state = type("", (), {"params": params, "opt_state": state})
    np.testing.assert_allclose(leaf(acting_params(config, train_state)), x, rtol=1e-4, atol=1e-5)
    assert acting_params(config_of(8), train_state) is params


def test_a_step_changes_what_a_wider_network_says_as_much():
    """By the sum over its inputs an output moves with Adam's step times the width, unless told where it fits."""

    def change(hidden_size, **settings):
        _, grads, step = first_step(config_of(hidden_size, optimizer="adam", **settings))
        features = jnp.sign(grads["decoder"]["kernel"])[:, 0]  # of one sign with what they move
        return abs(float(features @ step["decoder"]["kernel"][:, 0]))

    assert change(64) == pytest.approx(4 * change(16), rel=0.01)
    assert change(64, base_width=16) == pytest.approx(change(16, base_width=16), rel=0.01) == change(16)
    rates = learning_rates(
        config_of(64, base_width=16), first_step(config_of(64))[0], config_of().hypers(), jnp.float32(1)
    )
    assert rates["decoder"]["kernel"] == pytest.approx(0.1 / 4)  # Adam's share beside Muon's, whose step fits any width
    assert float(rates["mingru_0"]["kernel"]) == 1 and float(rates["decoder"]["bias"]) == pytest.approx(0.1)
    adam = config_of(64, optimizer="adam", base_width=16)
    rates = learning_rates(adam, first_step(adam)[0], adam.hypers(), jnp.float32(1))
    assert float(rates["mingru_0"]["kernel"]) == 1 / 4 and float(rates["encoder"]["table"]) == 1


@pytest.mark.nightly
def test_a_run_of_averages_goes_on_exactly(tmp_path, tiny_env, tiny_config):
    settings = PPOConfig(optimizer="schedule_free", minibatch_size=64, replay_ratio=1.0, min_learning_rate_ratio=1.0,
                         min_entropy_ratio=1.0)  # fmt: skip
    config = tiny_config(ppo=settings)
    options = {"seed": 2, "eval_episodes": 8, "devices": 1, "show": False}
    whole = pufferjax.train(tiny_env, config, **options)
    half = dataclasses.replace(config, total_steps=config.total_steps // 2)
    pufferjax.train(tiny_env, half, run_dir=tmp_path, **options)
    parts = pufferjax.train(tiny_env, config, run_dir=tmp_path, resume=True, **options)
    jax.tree.map(np.testing.assert_array_equal, whole.train_state.params, parts.train_state.params)
    assert whole.evaluation["score"] == parts.evaluation["score"]
    loaded, _, _, state = load_run(tmp_path)
    start = init_params(make_policy(tiny_env.spec, config.policy), jax.random.key(0))
    acting = acting_params(loaded.train, state)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(acting))
    differs = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (acting, start)), strict=True)]
    assert any(differs)


def test_a_rate_of_zero_changes_nothing():
    for name in ("muon", "aurora", "adam", "schedule_free"):
        config = config_of(8, optimizer=name)
        params = init_params(make_policy(SPEC, config.policy), jax.random.key(0))
        optimizer, rates = make_optimizer(config), learning_rates(config, params, config.hypers(), jnp.float32(0))
        step, _ = optimizer.update(normal_grads(params), optimizer.init(params), params, rates=rates)
        assert all(np.abs(x).max() < 1e-7 for x in jax.tree.leaves(step))
    assert ppo.schedule(config_of().hypers(), jnp.float32(0))[0] == pytest.approx(0.01)
