"""Simulators of several agents: whose rows are whose, what ends together, what a snapshot is worth."""

import dataclasses
import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import PPOConfig, StateSetConfig, cli, envs, make_init, make_train
from pufferjax.core.evaluate import make_first_episodes, make_step
from pufferjax.core.policy import init_params, make_policy
from pufferjax.core.rollout import RolloutConfig, initial_memory, per_agent, per_env, rollout
from pufferjax.runs.checkpoint import checkpoint_steps
from pufferjax.runs.load import load_run
from pufferjax.runs.metrics import read_metrics

K = 8  # of the minimal environment
train_module = importlib.import_module("pufferjax.core.train")


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """There is little to run here: most of the time would go into optimizing it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def minimal():
    return envs.make("minimal", max_steps=20)


@pytest.fixture(scope="module")
def small(tiny_config):
    """A function: settings for eight simulators of eight agents, with changes."""

    def make(**changes):
        state_set = StateSetConfig(
            capacity=16, fraction=0.5, interval=8, replay_span=8, walk_steps=16, warmup_envs=2, warmup_rewards=2,
            release_from=2, release_until=3,
        )  # fmt: skip
        settings = {"num_envs": 8, "horizon": 16, "total_steps": 4 * 8 * K * 16, "state_set": state_set}
        return tiny_config(**{**settings, "ppo": PPOConfig(optimizer="adam", minibatch_size=256), **changes})

    return make


def guessing(num_agents):
    """Each agent is shown a number and rewarded for naming it; episodes of all last 6 steps.

    State: (number, clock) of each agent: grouped otherwise, the same agents meet the same numbers.
    """
    spec = envs.EnvSpec(
        name="guessing",
        obs_shape=(1,),
        obs_dtype=np.dtype(np.uint8),
        obs_max=3,
        num_actions=(4,),
        num_agents=num_agents,
        state_bytes=2 * num_agents,
        max_episode_steps=6,
        action_names=(("0", "1", "2", "3"),),
    )

    def drawn(key, clock):
        number = jax.random.randint(key, clock.shape, 0, 4).astype(jnp.uint8)
        return jnp.stack([number, clock], axis=1).reshape(-1, 2 * num_agents)

    def observe(state):
        return state.reshape(-1, 2)[:, :1]

    def reset(key, num_envs):
        state = drawn(key, jnp.zeros(num_envs * num_agents, jnp.uint8))
        return observe(state), state

    def step(key, state, action):
        number, clock = state.reshape(-1, 2).T
        reward = (action == number).astype(jnp.float32)
        ended = clock + 1 == 6
        state = drawn(key, jnp.where(ended, 0, clock + 1).astype(jnp.uint8))
        zero = jnp.zeros(state.shape[0])
        info = {"episode_return": zero, "episode_length": zero.astype(jnp.int32), "score": zero, "perf": zero}
        return observe(state), state, reward, ended, jnp.zeros_like(ended), info

    return envs.Env(spec, {}, reset, step, observe, None, lambda key, state: state, None, None)


def test_agents_of_one_simulator_learn_as_those_of_many(tiny_config):
    """Agents that share nothing but the clock: the run in which each has a simulator of its own, but for last bits,
    where XLA orders a sum by the shape of its operand."""
    num_agents, results = 3, []
    for k in (1, num_agents):
        config = tiny_config(
            num_envs=24 // k, total_steps=4 * 24 * 16, state_set=StateSetConfig(fraction=0.0, interval=8),
            ppo=PPOConfig(optimizer="adam", minibatch_size=64, replay_ratio=1.0),
        )  # fmt: skip
        results.append(jax.jit(make_train(guessing(k), config))(jax.random.key(1)))
    (alone, alone_metrics), (grouped, grouped_metrics) = results
    assert grouped.env_state.shape == (24 // num_agents, 2 * num_agents)
    assert float(grouped_metrics["grad_norm"].min()) > 0
    for name in ("loss", "entropy", "grad_norm", "rewards"):
        np.testing.assert_allclose(alone_metrics[name], grouped_metrics[name], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(alone.observations, grouped.observations)
    for name in ("params", "memory", "opt_state"):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6, err_msg=name)
        jax.tree.map(close, getattr(alone, name), getattr(grouped, name))
    # 64 steps are ten whole episodes, of each simulator.
    assert float(jnp.sum(grouped_metrics["episodes"])) == 9 * 24 / num_agents  # the first are taken for staggered


def test_one_for_all_and_all_for_one(minimal):
    np.testing.assert_array_equal(per_agent(jnp.arange(3), minimal), np.repeat(np.arange(3), K))
    flags = np.zeros((3, K), bool)
    flags[1, 5] = True
    np.testing.assert_array_equal(per_env(jnp.asarray(flags.reshape(-1)), minimal), [False, True, False])


def test_rows_of_a_rollout(minimal):
    """Observations, memory and ends of the 8 agents of each simulator, against the simulator stepped alone."""
    num_envs, horizon = 3, 16
    policy = make_policy(minimal.spec, pufferjax.PolicyConfig(hidden_size=4, num_layers=1))
    params = init_params(policy, jax.random.key(0))
    observations, state = minimal.reset(jax.random.key(1), num_envs)
    state = minimal.stagger(jax.random.key(2), state)
    clocks = np.asarray(minimal.clock(state)[0])
    memory, flags = initial_memory(policy, num_envs * K), jnp.zeros(num_envs, bool)
    end, _, memory, is_fresh, transitions, snapshots, fresh, _ = jax.jit(
        lambda *x: rollout(RolloutConfig(horizon, 8, 2, True), minimal, policy, *x)
    )(params, jax.random.key(3), state, observations, memory, flags, flags)
    assert transitions.observations.shape == (horizon, num_envs * K, 66) and snapshots.shape == (2, 2, 336)
    keys = jax.random.split(jax.random.split(jax.random.key(3))[0], (2, 8)).reshape(-1)
    for t in range(horizon):
        np.testing.assert_array_equal(transitions.observations[t], minimal.observe(state))
        if t % 8 == 0:
            np.testing.assert_array_equal(snapshots[t // 8], state[:2])
        _, state, reward, _, truncated, _ = minimal.step(keys[t], state, transitions.actions[t])
        np.testing.assert_array_equal(transitions.rewards[t], reward)
        np.testing.assert_array_equal(transitions.truncated[t], truncated)
        # All agents of a simulator begin anew after the end of its episode, and no others.
        begins = np.repeat((clocks + t + 1) % 20 == 0, K)
        starts = transitions.starts[t + 1] if t + 1 < horizon else memory.previous_actions[:, 0] == 0
        np.testing.assert_array_equal(starts, begins)
        remembered = transitions.previous_actions[t + 1] if t + 1 < horizon else memory.previous_actions
        np.testing.assert_array_equal(remembered, np.where(begins[:, None], 0, transitions.actions[t] + 1))
    np.testing.assert_array_equal(end, state)
    np.testing.assert_array_equal(is_fresh, clocks + horizon >= 20)
    assert float(fresh.episodes) == 0  # staggered ones do not count


def stored(minimal, config):
    """A train state whose state set holds three different states, and whose memories are all 1."""
    state = jax.jit(make_init(minimal, config))(jax.random.key(0))
    _, rows = minimal.reset(jax.random.key(5), 3)
    ones = jax.tree.map(jnp.ones_like, state.memory)
    return dataclasses.replace(
        state, memory=ones, state_set=state.state_set.insert(rows, jnp.array([1.0, 2.0, 4.0]))
    ), np.asarray(rows)


def test_a_restored_simulator_takes_all_its_agents_along(minimal, small):
    config = small(state_set=StateSetConfig(
        capacity=16, fraction=0.5, interval=8, walk_fraction=0.0, importance_exponent=1.0, release_from=2,
        release_until=3))  # fmt: skip
    state, rows = stored(minimal, config)
    restarts = train_module.draw_restarts(
        minimal, config, config.hypers(), state.state_set, jax.random.key(1), state.env_state[:1]
    )
    env_state, observations, memory, _, is_restarted, importance = train_module._restart(
        minimal, config, state, restarts, None
    )
    slots = restarts.slots
    np.testing.assert_array_equal(is_restarted, [False] * 4 + [True] * 4)
    np.testing.assert_array_equal(env_state[4:], rows[np.asarray(slots)])
    np.testing.assert_array_equal(env_state[:4], state.env_state[:4])
    np.testing.assert_array_equal(observations, minimal.observe(env_state))
    assert (memory.recurrent[:, : 4 * K] == 1).all() and (memory.recurrent[:, 4 * K :] == 0).all()
    assert (memory.previous_actions[: 4 * K] == 1).all() and (memory.previous_actions[4 * K :] == 0).all()
    # size * probability of the priorities 1, 2, 4, to the power -1; the same for all agents.
    expected = np.array([7 / 3, 7 / 6, 7 / 12])[np.asarray(slots)]
    np.testing.assert_allclose(importance, np.repeat([1, 1, 1, 1, *expected], K), rtol=1e-5)


def test_a_snapshot_is_worth_what_all_its_agents_did_not_expect(small):
    config = small()
    random = np.random.default_rng(0)
    advantages = random.normal(size=(16, 8 * K))
    candidates, replayed = train_module._scores(config, jnp.asarray(advantages, jnp.float32))
    expected = np.zeros((2, 4))
    for t in range(16):
        for agent in range(4 * K):
            expected[t // 8, agent // K] += abs(advantages[t, agent])
    np.testing.assert_allclose(candidates, expected.reshape(-1), rtol=1e-5)
    expected = [abs(advantages[:8, env * K : (env + 1) * K]).sum() for env in range(4, 8)]
    np.testing.assert_allclose(replayed, expected, rtol=1e-5)


def test_vmap_over_seeds(minimal, small):
    """Traced, not run: that lanes of a vmap are separate runs is tested with one agent."""
    config = small()
    keys = jax.random.split(jax.random.key(0), 3)
    states, metrics = jax.eval_shape(jax.vmap(make_train(minimal, config)), keys)
    assert states.observations.shape == (3, 8 * K, 66) and states.env_state.shape == (3, 8, 336)
    assert states.memory.previous_actions.shape == (3, 8 * K, 2) and metrics["loss"].shape == (3, 4)


def test_evaluation_against_a_plain_loop(minimal):
    policy = make_policy(minimal.spec, pufferjax.PolicyConfig(hidden_size=4, num_layers=1))
    params = init_params(policy, jax.random.key(0))
    key, num_envs = jax.random.key(4), 5
    figures = jax.jit(make_first_episodes(minimal, policy, num_envs, False))(params, key, jnp.ones(num_envs, bool))
    step = jax.jit(make_step(minimal, policy, greedy=False))
    key_reset, key_steps = jax.random.split(key)
    observations, state = minimal.reset(key_reset, num_envs)
    agents = (state, observations, initial_memory(policy, num_envs * K))
    for t in range(20):
        agents, ended, info = step(params, jax.random.fold_in(key_steps, t), agents)
    assert ended.all() and ended.shape == (num_envs,)
    for name, values in figures.items():
        np.testing.assert_array_equal(values, info[name].astype(jnp.float32), err_msg=name)
    result = pufferjax.evaluate(minimal, policy, params, key, 5)
    assert result["episodes"] == 5 and result["episode_length"] == 20


# --- the shell --------------------------------------------------------------------------------------------------------
FLAGS = """
    --env.max-steps 0 --num-envs 4 --horizon 16 --total-steps 1024 --policy.hidden-size 8 --policy.num-layers 1
    --ppo.optimizer adam --ppo.minibatch-size 128 --state-set.capacity 8 --state-set.interval 8
    --state-set.fraction 0.5 --state-set.warmup-envs 2 --state-set.warmup-rewards 2 --devices 1
"""


def test_a_run_in_a_world_without_end(tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert cli.main(["train", "minimal", *FLAGS.split(), "--run-dir", str(run_dir)]) == 0
    out = capsys.readouterr().out
    assert "perf - (0 episodes)" in out and "its episodes never end" in out
    records = read_metrics(run_dir / "metrics.jsonl")
    assert all(record["episodes"] == 0 and record["perf"] is None for record in records)
    # Steps are those of agents: 4 simulators x 8 agents x 16.
    assert [record["step"] for record in records] == [512, 1024]
    assert checkpoint_steps(run_dir)[-1] == 1024
    # There is no solve rate that could end the curriculum.
    assert records[-1]["restarted_share"] == 0.5 and records[-1]["rewards"] is not None
    assert json.loads((run_dir / "summary.json").read_text())["evaluation"] is None
    # The state set holds simulators, each with its eight agents.
    _, env, _, state = load_run(run_dir)
    assert state.env_state.shape == (4, 336) and state.is_fresh.shape == (4,)
    assert state.observations.shape == (4 * K, 66) and state.memory.previous_actions.shape == (4 * K, 2)
    rows = np.asarray(state.state_set.snapshots)
    np.testing.assert_array_equal(
        env.restore(env.reset(jax.random.key(1), 8)[1], rows, np.arange(8, dtype=np.int32)), rows
    )
    assert cli.main(["eval", str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert "minimal: its episodes never end (max_episode_steps = 0), so none can be evaluated" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--ppo.minibatch-size", "1024", "ppo.minibatch_size must be at most num_envs * 8 agents * horizon = 512"),
        ("--total-steps", "500", "total_steps must be at least num_envs * 8 agents * horizon = 512, got 500"),
    ],
)
def test_what_does_not_fit_the_agents_is_named(capsys, flag, value, message, tmp_path):
    assert cli.main(["train", "minimal", *FLAGS.split(), flag, value, "--run-dir", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and not (tmp_path / "run").exists()
