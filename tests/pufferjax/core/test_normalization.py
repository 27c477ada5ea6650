"""Running statistics of observations and returns: against float64, over epochs and devices, frozen outside training."""

import dataclasses
import json
import textwrap
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig, envs, make_init, make_train, make_update
from pufferjax.core import normalization
from pufferjax.core.policy import init_params, make_policy
from pufferjax.core.types import Transitions
from pufferjax.envs import EntityLayout


def spec(shape=(3,), entities=None):
    return types.SimpleNamespace(obs_shape=shape, entities=entities)


def fresh(shape=(3,)):
    return {"observation_norm": {"mean": jnp.zeros(shape), "variance": jnp.ones(shape), "count": jnp.float32(0)}}


def transitions(rewards, terminated, truncated):
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Transitions))
    return Transitions(**fields | {"rewards": rewards, "terminated": terminated, "truncated": truncated})


@pytest.fixture(scope="module")
def config():
    return TrainConfig(
        total_steps=8 * 4 * 6, num_envs=8, horizon=4,
        policy=PolicyConfig(hidden_size=8, num_layers=1, normalize_observations=True),
        ppo=PPOConfig(minibatch_size=16, replay_ratio=1.0, scale_rewards=True, reward_clip=5.0),
        state_set=StateSetConfig(capacity=8, fraction=0.5, interval=4, replay_span=4, warmup_envs=4, warmup_rewards=0),
    )  # fmt: skip


def test_observations_of_all_epochs_are_in_mean_and_variance():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(t, b, 3)) * [1e-3, 1.0, 200.0] + [5.0, 0.0, -1e3] for t, b in ((4, 3), (1, 1), (7, 5))]
    params = fresh()
    for batch in batches:
        is_bad = np.zeros(batch.shape[1], bool)
        params = normalization.renew_observation_statistics(spec(), params, jnp.float32(batch), is_bad, None)
    everything = np.concatenate([np.float32(batch).astype(np.float64).reshape(-1, 3) for batch in batches])
    kept = params["observation_norm"]
    np.testing.assert_allclose(kept["mean"], everything.mean(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(kept["variance"], everything.var(0), rtol=2e-3)
    assert float(kept["count"]) == len(everything)


def test_bad_rows_are_left_out_and_an_epoch_of_nothing_else_changes_nothing():
    batch = jnp.float32(np.random.default_rng(1).normal(size=(5, 4, 3))).at[2, 1].set(jnp.nan).at[0, 1].set(jnp.inf)
    is_bad = jnp.array([False, True, False, False])
    kept = normalization.renew_observation_statistics(spec(), fresh(), batch, is_bad, None)["observation_norm"]
    good = np.asarray(batch, np.float64)[:, [0, 2, 3]].reshape(-1, 3)
    np.testing.assert_allclose(kept["mean"], good.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["variance"], good.var(0), rtol=1e-5)
    again = normalization.renew_observation_statistics(
        spec(), {"observation_norm": kept}, batch, jnp.ones(4, bool), None
    )
    jax.tree.map(np.testing.assert_array_equal, again, {"observation_norm": kept})


def test_entities_share_the_statistics_of_their_features():
    layout = EntityLayout(num_self=1, num_entities=4, entity_size=2)
    batch = np.float32(np.random.default_rng(2).normal(size=(6, 5, 9)) + np.arange(9))
    params = normalization.renew_observation_statistics(
        spec((9,), layout), fresh((9,)), jnp.asarray(batch), jnp.zeros(5, bool), None
    )
    own, entities = batch[..., 0].astype(np.float64), batch[..., 1:].astype(np.float64).reshape(-1, 2)
    kept = params["observation_norm"]
    np.testing.assert_allclose(kept["mean"], [own.mean(), *np.tile(entities.mean(0), 4)], rtol=1e-5)
    np.testing.assert_allclose(kept["variance"], [own.var(), *np.tile(entities.var(0), 4)], rtol=1e-5)


def test_devices_have_the_statistics_of_all_of_them():
    batch = jnp.float32(np.random.default_rng(3).normal([[[[1, 2, 3]]], [[[-4, 5, 9]]]], size=(2, 6, 4, 3)))
    is_bad = jnp.zeros((2, 4), bool).at[1, 2].set(True)
    renew = normalization.renew_observation_statistics
    apart = jax.vmap(lambda x, bad: renew(spec(), fresh(), x, bad, "devices"), axis_name="devices")(batch, is_bad)
    together = renew(spec(), fresh(), jnp.concatenate(list(batch), axis=1), is_bad.reshape(-1), None)
    for device in range(2):
        jax.tree.map(lambda a, b, i=device: np.testing.assert_allclose(a[i], b, rtol=1e-6), apart, together)


def returns_of(rewards, ended, carried, gamma):
    """float64[T, B] returns so far and float64[B] what is carried on, step by step."""
    found = np.zeros(rewards.shape)
    for t in range(len(rewards)):
        carried = rewards[t] + gamma * carried
        found[t] = carried
        carried = np.where(ended[t], 0.0, carried)
    return found, carried


def test_rewards_are_divided_by_the_deviation_of_all_returns_so_far():
    rng, gamma = np.random.default_rng(4), 0.9
    scale, carried, seen = normalization.create_reward_scale(5), np.zeros(5), []
    for _ in range(3):
        rewards = rng.normal(size=(7, 5)) * 30
        terminated, truncated = rng.random((2, 7, 5)) < 0.15
        restarted = rng.random(5) < 0.3
        returns, carried = returns_of(rewards, terminated | truncated, np.where(restarted, 0, carried), gamma)
        seen.append(returns.reshape(-1))
        scale, scaled = normalization.scale_rewards(
            scale, transitions(jnp.float32(rewards), jnp.asarray(terminated), jnp.asarray(truncated)),
            jnp.asarray(restarted), jnp.float32(gamma), 0.0, None,
        )  # fmt: skip
        np.testing.assert_allclose(scaled.rewards, rewards / np.concatenate(seen).std(), rtol=1e-4)
        np.testing.assert_allclose(scale.returns, carried, rtol=1e-4, atol=1e-4)


def test_rewards_that_never_were_stay_zero_and_bad_ones_bad():
    flags = jnp.zeros((4, 2), bool)
    scale = normalization.create_reward_scale(2)
    scale, scaled = normalization.scale_rewards(
        scale, transitions(jnp.zeros((4, 2)), flags, flags), jnp.zeros(2, bool), 0.9, 2.0, None
    )
    assert not scaled.rewards.any() and float(normalization.deviation_factor(scale.variance)) == 1
    bad = jnp.float32([[1e-3, jnp.nan], [0, 1], [0, jnp.inf], [1e3, 0]])
    scale, scaled = normalization.scale_rewards(
        scale, transitions(bad, flags, flags), jnp.zeros(2, bool), 0.9, 2.0, None
    )
    assert np.isnan(scaled.rewards[0, 1]) and scaled.rewards[2, 1] == np.inf and scaled.rewards[3, 0] == 2  # the clip
    plain = normalization.clip_rewards(transitions(bad, flags, flags), 2.0).rewards
    np.testing.assert_array_equal(plain, jnp.float32([[1e-3, jnp.nan], [0, 1], [0, jnp.inf], [2, 0]]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(scale))


def test_off_by_default_and_then_not_there(tiny_env, tiny_config):
    state = jax.eval_shape(make_init(tiny_env, tiny_config()), jax.random.key(0))
    assert state.reward_scale is None and "observation_norm" not in state.params


def test_training_renews_what_evaluation_only_reads(timed_game, config):
    """The statistics after every epoch are those of all observations that the rollouts saw; no gradient moves them."""
    env = envs.from_gymnax(timed_game(5, lambda action: 100.0 * action - 20), max_episode_steps=5)
    init, update = make_init(env, config), jax.jit(make_update(env, config))
    state, hypers = init(jax.random.key(0)), config.hypers()
    for epoch in range(1, 4):
        state, metrics = update(state, hypers, jnp.float32(0))
        kept = state.params["observation_norm"]
        assert float(kept["count"]) == 32 * epoch == float(state.reward_scale.count)
        # uniform observations
        assert (abs(kept["mean"] - 0.5) < 0.15).all() and (abs(kept["variance"] - 1 / 12) < 0.03).all()
        assert 0.005 < float(metrics["reward_factor"]) < 0.05  # 1 / of returns of rewards of -20 and 80
    policy = make_policy(env.spec, config.policy)
    before = jax.device_get(state.params)
    pufferjax.evaluate(env, policy, state.params, jax.random.key(1), 4)
    jax.tree.map(np.testing.assert_array_equal, before, state.params)


def test_the_policy_reads_normalised_observations(timed_game):
    env = envs.from_gymnax(timed_game(5, lambda action: 1.0 * action), max_episode_steps=5)
    plain = PolicyConfig(hidden_size=8, num_layers=1, previous_action=False)
    normal = dataclasses.replace(plain, normalize_observations=True, observation_clip=2.0)
    params = init_params(make_policy(env.spec, normal), jax.random.key(0))
    mean, variance = jnp.float32([3, -1]), jnp.float32([4, 0.25])
    params = params | {"observation_norm": {"mean": mean, "variance": variance, "count": jnp.float32(9)}}
    x = jnp.float32([[[4.0, -1.25], [103, -1]]])
    rest = (jnp.zeros((1, 2, 1), jnp.uint8), jnp.zeros((1, 2, 8)), jnp.zeros((1, 2), bool))
    ours = make_policy(env.spec, normal).apply({"params": params}, x, *rest)
    others = {name: x for name, x in params.items() if name != "observation_norm"}
    same = make_policy(env.spec, plain).apply({"params": others}, jnp.float32([[[0.5, -0.5], [2, 0]]]), *rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, same)


def test_codes_are_not_normalised(tiny_env):
    config = PolicyConfig(hidden_size=8, num_layers=1)
    both = [make_policy(tiny_env.spec, dataclasses.replace(config, normalize_observations=x)) for x in (False, True)]
    jax.tree.map(np.testing.assert_array_equal, *(init_params(policy, jax.random.key(0)) for policy in both))


@pytest.mark.nightly
def test_seeds_can_be_vmapped(timed_game, config):
    env = envs.from_gymnax(timed_game(5, lambda action: 1.0 * action), max_episode_steps=5)
    states, metrics = jax.jit(jax.vmap(make_train(env, config)))(jax.random.split(jax.random.key(0), 2))
    assert states.params["observation_norm"]["mean"].shape == (2, 2) and np.isfinite(metrics["loss"]).all()


@pytest.mark.nightly
def test_a_resumed_run_has_the_statistics_of_the_whole(timed_game, config, tmp_path):
    env = envs.from_gymnax(timed_game(5, lambda action: 10.0 * action), max_episode_steps=5)
    options = {"seed": 1, "eval_episodes": 0, "devices": 1, "show": False}
    # Level schedules, since those of a run stretch with its length.
    level = dataclasses.replace(config.ppo, min_learning_rate_ratio=1.0, min_entropy_ratio=1.0)
    config = dataclasses.replace(config, ppo=level)
    half = dataclasses.replace(config, total_steps=config.total_steps // 2)

    whole = pufferjax.train(env, config, run_dir=tmp_path / "whole", **options).train_state
    pufferjax.train(env, half, run_dir=tmp_path / "parts", **options)
    parts = pufferjax.train(env, config, run_dir=tmp_path / "parts", resume=True, **options).train_state
    assert float(whole.params["observation_norm"]["count"]) == float(parts.params["observation_norm"]["count"]) == 192
    assert float(whole.reward_scale.count) == float(parts.reward_scale.count) == 192
    whole, parts = (dataclasses.replace(x, key=jax.random.key_data(x.key)) for x in (whole, parts))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def test_two_devices_hold_the_same_statistics_of_both(run_on_devices):
    source = """
    import json
    from pufferjax import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig
    from pufferjax.core.epochs import OneProgram
    env = envs.make("breakout")
    config = TrainConfig(total_steps=16 * 8 * 3, num_envs=16, horizon=8,
        policy=PolicyConfig(hidden_size=8, num_layers=1, encoder="linear", normalize_observations=True),
        ppo=PPOConfig(minibatch_size=32, replay_ratio=1.0, scale_rewards=True),
        state_set=StateSetConfig(capacity=8, interval=8, replay_span=8, warmup_envs=4, warmup_rewards=4))
    epochs, hypers = OneProgram(env, config, jax.devices()), config.hypers()
    epochs.begin(epochs.warmup(epochs.init(jax.random.key(0)), hypers), hypers)
    for _ in range(3):
        epochs.advance(jnp.float32(0))()
    state = epochs.train_state
    kept = state.params["observation_norm"]
    shards = [np.asarray(s.data) for s in kept["mean"].addressable_shards]
    print(json.dumps({"same": bool((shards[0] == shards[1]).all()), "count": float(kept["count"]),
        "returns": list(state.reward_scale.returns.shape), "rewards": float(state.reward_scale.count)}))
    """
    result = json.loads(run_on_devices(textwrap.dedent(source), 2))
    assert result == {"same": True, "count": 384.0, "returns": [16], "rewards": 384.0}
