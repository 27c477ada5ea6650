"""Runs whose actions are numbers, masked choices, or both: units, memory, learning, many lanes, several devices."""

import dataclasses
import types
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig, envs
from pufferjax.core import actions, distributions
from pufferjax.core.distributions import Gaussian
from pufferjax.core.epochs import OneProgram
from pufferjax.core.policy import init_params, make_policy
from pufferjax.core.rollout import RolloutConfig, initial_memory, rollout
from pufferjax.core.two_programs import TwoPrograms

GOAL, LIMIT = 3.0, 6


class State(NamedTuple):
    time: jax.Array
    last: jax.Array


class Aim:
    """Episodes of 6 steps; the best push, from 0 to 4, is 3 for everybody; the gear must be one the state allows."""

    name = "aim"
    default_params = types.SimpleNamespace(max_steps_in_episode=LIMIT)

    def __init__(self, gears=False):
        self.gears = gears

    def action_space(self, params):
        push = types.SimpleNamespace(low=0.0, high=4.0, shape=(1,), dtype=jnp.float32)
        if not self.gears:
            return push
        gear = types.SimpleNamespace(n=4)
        return types.SimpleNamespace(spaces={"gear": gear, "push": push})

    def action_mask(self, state):
        return jnp.arange(4) % 2 == state.time % 2 if self.gears else None

    def reset(self, key, params):
        state = State(jnp.int32(0), jnp.float32(0))
        return self.observe(state), state

    def observe(self, state):
        return jnp.stack([state.time / LIMIT, state.last])

    def step(self, key, state, action, params):
        push = action["push"][0] if self.gears else action[0]
        reward = 1 - jnp.square(push - GOAL) / 4
        if self.gears:  # among those that are allowed the larger one is better
            gear = action["gear"]
            reward = jnp.where(self.action_mask(state)[gear], reward + (gear >= 2), -1000.0)
        time = state.time + 1
        ended = time == LIMIT
        state = State(jnp.where(ended, 0, time), jnp.where(ended, 0.0, push))
        return self.observe(state), state, reward, jnp.bool_(False), ended, {}


def config(**changes):
    settings = {
        "total_steps": 64 * 12 * 60,
        "num_envs": 64,
        "horizon": 12,
        "policy": PolicyConfig(hidden_size=16, num_layers=1, initial_log_std=-0.5),
        "ppo": PPOConfig(minibatch_size=192, replay_ratio=2.0, learning_rate=0.02, gamma=0.5, gae_lambda=0.5),
        "state_set": StateSetConfig(
            capacity=16, interval=4, replay_span=4, walk_steps=16, warmup_envs=4, warmup_rewards=8
        ),
    }
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def aim():
    return envs.from_gymnax(Aim())


@pytest.fixture(scope="module")
def geared():
    return envs.from_gymnax(Aim(gears=True))


def spec_of(env, **changes):
    return dataclasses.replace(env.spec, **changes)


# --- units ------------------------------------------------------------------------------------------------------------
def test_numbers_are_in_units_of_the_bounds_and_reach_the_environment_within_them(aim):
    inf = np.inf
    largest = float(np.finfo(np.float32).max)
    spec = spec_of(aim, action_low=(0.0, 2.0, -inf, -inf, -largest), action_high=(4.0, inf, -1.0, inf, largest))
    x = jnp.array([[-1.0, 0, 0, 0, 0], [0, 1, -1, 5, -6], [0.5, -1, 1, -5, 6], [9, 9, 9, 9, 9]])
    expected = [[0, 2, -1, 0, 0], [2, 3, -2, 5, -6], [3, 2, -1, -5, 6], [4, 11, -1, 9, 9]]
    np.testing.assert_array_equal(actions.env_actions(spec, x), expected)
    previous = actions.previous_actions(spec, x, jnp.array([False, False, False, True]))
    np.testing.assert_array_equal(previous, [[-1, 0, 0, 0, 0, 1], [0, 1, -1, 5, -6, 1], [0.5, 0, 0, -5, 6, 1], [0] * 6])
    # In float32 the middle and half of a width may round beyond a bound.
    rng = np.random.default_rng(0)
    low = rng.normal(size=500).astype(np.float32) * 10.0 ** rng.integers(-3, 4, 500)
    low, high = np.float32(low), np.float32(low + rng.random(500).astype(np.float32))
    spec = spec_of(aim, action_low=tuple(map(float, low)), action_high=tuple(map(float, high)))
    for edge in (-1.0, 1.0):
        reached = np.asarray(actions.env_actions(spec, jnp.full((1, 500), edge)))[0]
        assert (reached >= low).all() and (reached <= high).all()


def test_a_fresh_policy_aims_at_the_middle_with_the_initial_deviation(geared):
    policy = make_policy(geared.spec, PolicyConfig(hidden_size=16, num_layers=1, initial_log_std=-1.5))
    params = init_params(policy, jax.random.key(0))
    assert params["log_std"].shape == (1,) and params["decoder"]["kernel"].shape == (16, 4 + 1 + 1)  # one product
    observations, _ = geared.reset(jax.random.key(1), 3)
    memory = initial_memory(policy, 3)
    assert [x.shape for x in memory.previous_actions] == [(3, 1), (3, 2)]
    assert [x.dtype for x in memory.previous_actions] == [jnp.uint8, jnp.float32]
    previous = jax.tree.map(lambda x: x[None], memory.previous_actions)
    heads, value, _ = policy.apply(
        {"params": params}, observations[None], previous, memory.recurrent, jnp.zeros((1, 3), bool)
    )
    assert isinstance(heads[1], Gaussian) and np.abs(heads[1].mean).max() < 0.05 and (value == 0).all()
    np.testing.assert_array_equal(heads[1].log_std, np.full((1, 3, 1), -1.5, np.float32))
    # What was done before is an input.
    others = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), previous)
    for changed in ((others[0], previous[1]), (previous[0], others[1])):
        after, *_ = policy.apply(
            {"params": params}, observations[None], changed, memory.recurrent, jnp.zeros((1, 3), bool)
        )
        assert (after[1].mean != heads[1].mean).any()


def test_a_rollout_remembers_what_was_done_and_learns_of_the_sample(geared):
    """Every log-probability is that of the unclipped sample under the mask that was in force."""
    policy = make_policy(geared.spec, PolicyConfig(hidden_size=8, num_layers=1, initial_log_std=0.5))
    params = init_params(policy, jax.random.key(0))
    observations, state = geared.reset(jax.random.key(1), 8)
    flags = jnp.zeros(8, bool)
    _, _, memory, _, transitions, *_ = jax.jit(
        lambda key, *agents: rollout(RolloutConfig(12, 4, 8, True), geared, policy, params, key, *agents, flags, flags)
    )(jax.random.key(2), state, observations, initial_memory(policy, 8))
    gears, pushes = transitions.actions
    assert gears.shape == pushes.shape == (12, 8, 1) and (np.abs(pushes) > 1).any()
    times = np.arange(12)[:, None, None] % LIMIT
    np.testing.assert_array_equal(transitions.action_masks, np.broadcast_to(np.arange(4) % 2 == times % 2, (12, 8, 4)))
    assert (gears % 2 == times % 2).all() and (transitions.rewards > -1000).all()
    in_env = np.clip(np.asarray(pushes)[..., 0], -1, 1) * 2 + 2
    np.testing.assert_allclose(transitions.rewards, 1 - (in_env - GOAL) ** 2 / 4 + (gears[..., 0] >= 2), rtol=1e-4)

    heads, _, _ = policy.apply(
        {"params": params}, transitions.observations, transitions.previous_actions, jnp.zeros((1, 8, 8)),
        transitions.starts,
    )  # fmt: skip
    heads = distributions.masked(heads, transitions.action_masks)
    again = distributions.log_prob(heads, transitions.actions)
    np.testing.assert_allclose(again, transitions.log_probs, rtol=1e-3, atol=1e-4)
    began = transitions.previous_actions[0][1:] == 0
    np.testing.assert_array_equal(began[..., 0], transitions.starts[1:])
    np.testing.assert_array_equal(transitions.previous_actions[0][1:], np.where(began, 0, gears[:-1] + 1))
    shown = np.where(began, 0, np.concatenate([np.clip(pushes[:-1], -1, 1), np.ones_like(pushes[:-1])], axis=-1))
    np.testing.assert_allclose(transitions.previous_actions[1][1:], shown)
    assert memory.previous_actions[1].shape == (8, 2)


# --- learning ---------------------------------------------------------------------------------------------------------
@pytest.mark.nightly
def test_two_lanes_learn_numbers_and_greedy_evaluation_takes_the_mean(aim):
    keys = jax.random.split(jax.random.key(0), 2)
    states, metrics = jax.jit(jax.vmap(pufferjax.make_train(aim, config())))(keys)
    late = metrics["episode_return"][:, -5:].sum(axis=1) / metrics["episodes"][:, -5:].sum(axis=1)
    assert (late > 0.9 * LIMIT).all()  # at the start, from the middle: at most 6 (1 - 1/4 - variance)
    assert (metrics["skipped_updates"] == 0).all()
    assert (states.params["log_std"] < -0.6).all()  # less noise is better
    np.testing.assert_allclose(metrics["entropy"][:, 0], -0.5 + 0.5 * (1 + np.log(2 * np.pi)), atol=0.02)
    params = jax.tree.map(lambda x: x[0], states.params)
    figures = [
        pufferjax.evaluate(aim, config().policy, params, jax.random.key(1), 64, greedy=greedy)["episode_return"]
        for greedy in (True, False)
    ]
    assert figures[0] > 0.98 * LIMIT and figures[0] > figures[1]
    # All greedy episodes are the same one: no noise is left.
    other = pufferjax.evaluate(aim, config().policy, params, jax.random.key(2), 64, greedy=True)["episode_return"]
    assert other == pytest.approx(figures[0], rel=1e-6)


@pytest.mark.nightly
def test_masked_choices_and_numbers_are_learned_together(geared):
    ppo = dataclasses.replace(config().ppo, log_barrier_coef=1e-3)
    state, metrics = jax.jit(pufferjax.make_train(geared, config(ppo=ppo)))(jax.random.key(3))
    late = metrics["episode_return"][-5:].sum() / metrics["episodes"][-5:].sum()
    assert late > 1.8 * LIMIT  # both right: 2; nothing that is not allowed was ever done: -1000
    assert all(np.isfinite(x).all() for x in metrics.values())
    figures = pufferjax.evaluate(geared, config().policy, state.params, jax.random.key(1), 64, greedy=True)
    assert figures["episode_return"] > 1.9 * LIMIT


@pytest.mark.nightly
def test_with_the_set_on_the_host_everything_is_learned_alike(geared):
    """Numbers, masks and statistics through both programs: in turn bit for bit, overlapped to the end."""
    settings = config(
        policy=PolicyConfig(hidden_size=8, num_layers=1, normalize_observations=True),
        ppo=PPOConfig(minibatch_size=192, replay_ratio=1.0, learning_rate=0.01, scale_rewards=True, reward_clip=4.0),
    )
    hypers, devices = settings.hypers(), jax.devices()[:1]

    def trained(epochs):
        epochs.begin(epochs.warmup(epochs.init(jax.random.key(0)), hypers), hypers)
        figures = [epochs.advance(jnp.float32(epoch / 4))() for epoch in range(4)]
        return figures, dataclasses.replace(epochs.train_state, key=jax.random.key_data(epochs.train_state.key))

    figures, state = trained(OneProgram(geared, settings, devices))
    ours, our_state = trained(TwoPrograms(geared, settings, devices, overlap=False))
    assert ours == figures and figures[-1]["restarted_envs"] > 0
    jax.tree.map(np.testing.assert_array_equal, our_state, state)
    assert float(state.reward_scale.count) == 4 * 12 * 64 and float(state.params["observation_norm"]["count"]) > 0
    ahead, ahead_state = trained(TwoPrograms(geared, settings, devices, overlap=True))
    assert all(np.isfinite(x["loss"]) for x in ahead) and float(ahead_state.reward_scale.count) == 4 * 12 * 64


def test_two_devices_train_numbers_as_one_would(train_on_devices):
    found = train_on_devices(
        """
        import os
        import numpy as np
        sys.path.insert(0, sys.argv[1])
        from test_actions import Aim, config as settings

        env = envs.from_gymnax(Aim(gears=True))
        config = settings()
        metrics, state = train(OneProgram(env, config, jax.devices()), config.sizes().num_epochs)
        late = metrics[-5:]
        print(json.dumps({
            "return": sum(m["episode_return"] for m in late) / sum(m["episodes"] for m in late),
            "devices": len(state.memory.previous_actions[1].devices()),
            "finite": all(np.isfinite(list(m.values())).all() for m in metrics),
            "log_std": float(state.params["log_std"][0]),
        }))
        """,
        2,
        [__file__.rpartition("/")[0]],
    )
    assert found["devices"] == 2 and found["finite"] and found["return"] > 1.8 * LIMIT and found["log_std"] < -0.6


def test_a_run_of_numbers_is_stopped_resumed_and_loaded(tmp_path):
    """Native: breakout's paddle as a number."""
    env = envs.make("breakout", max_steps=40, continuous=True)
    few = config(
        total_steps=64 * 12 * 4,
        state_set=StateSetConfig(capacity=16, interval=4, replay_span=4, walk_steps=16, warmup_rewards=0),
    )
    options = {"eval_episodes": 8, "devices": 1, "show": False, "seed": 3}
    pufferjax.train(env, few, run_dir=tmp_path / "a", **options)
    pufferjax.train(env, few, run_dir=tmp_path / "b", max_seconds=1e-3, **options)
    pufferjax.train(env, few, run_dir=tmp_path / "b", resume=True, **options)
    (_, whole_env, policy, whole), (*_, parts) = (pufferjax.load_run(tmp_path / x) for x in "ab")
    assert whole_env.params["continuous"] is True and whole_env.spec.action_high == (1.0,)
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)
    assert whole.memory.previous_actions.shape == (64, 2) and int(whole.epoch) == 4
    figures = pufferjax.evaluate(whole_env, policy, whole.params, jax.random.key(0), 8, greedy=True)
    assert figures["episode_length"] == 40


# --- a policy of one's own --------------------------------------------------------------------------------------------
class Own(nn.Module):
    spec: envs.EnvSpec
    with_gaussian: bool = True

    def initial_state(self, num_agents):
        return jnp.zeros((0, num_agents, 0))

    @nn.compact
    def __call__(self, observations, previous_actions, state, starts):
        mean = nn.Dense(1)(observations)
        head = Gaussian(mean, jnp.full_like(mean, -1.0)) if self.with_gaussian else mean
        return (head,), jnp.zeros(observations.shape[:2]), state


def test_a_policy_must_return_the_heads_of_the_environment(aim):
    small = config(total_steps=64 * 12)
    with pytest.raises(TypeError, match=r"return heads for aim: logits of sizes \(\) and, last, a .*Gaussian"):
        jax.jit(pufferjax.make_train(aim, small, Own(aim.spec, False)))(jax.random.key(0))
    _, metrics = jax.jit(pufferjax.make_train(aim, small, Own(aim.spec)))(jax.random.key(0))
    assert np.isfinite(metrics["loss"]).all()
