"""Environments that break their promise: NaN and infinite rewards, observations and figures."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax.runs.checkpoint import checkpoint_steps


def strict(text):
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def spoilt(tiny_env):
    """A function: the tiny maze with what `spoil(t, observations, rewards, info)` makes of a step."""

    def make(spoil):
        def step(key, state, action):
            observations, state, rewards, terminated, truncated, info = tiny_env.step(key, state, action)
            time, _ = tiny_env.clock(state)
            observations, rewards, info = spoil(time, observations, rewards, info)
            return observations, state, rewards, terminated, truncated, info

        return dataclasses.replace(tiny_env, spec=dataclasses.replace(tiny_env.spec, name="spoilt"), step=step)

    return make


def test_figures_of_episodes_that_are_no_numbers(tmp_path, spoilt, tiny_config):
    def spoil(time, observations, rewards, info):
        return (
            observations,
            rewards,
            info | {"perf": jnp.where((info["episode_length"] + 1) % 3 == 0, jnp.nan, info["perf"])},
        )

    env, options = spoilt(spoil), {"run_dir": tmp_path / "run", "eval_episodes": 50, "devices": 1, "show": False}
    # Nothing but its last line is written in time, so that the checkpoint holds what belongs to it.
    result = pufferjax.train(env, tiny_config(), log_interval=3, **options)
    files = {name: (tmp_path / "run" / name).read_text() for name in ("summary.json", "metrics.jsonl")}
    assert strict(files["summary.json"]) == result.summary
    assert result.evaluation["perf"] is None and result.evaluation["perf_stderr"] is None
    assert result.evaluation["episode_length"] > 0
    assert [strict(line) for line in files["metrics.jsonl"].splitlines()] == result.metrics
    assert all(record["perf"] is None for record in result.metrics if record["episodes"] > 50)
    progress = strict((tmp_path / "run" / "checkpoints" / "2048" / "progress.json").read_text())
    assert len(progress["window"]) == 2 and "nan" in {epoch["perf"] for epoch in progress["window"]}
    # Episodes that say nothing do not spoil the rate by which the state set lets go.
    assert jnp.isfinite(result.train_state.recent_episodes).all()

    again = pufferjax.train(env, tiny_config(), log_interval=3, resume=True, **options)
    assert again.summary == result.summary and again.metrics == result.metrics


def all_finite(train_state):
    tree = jax.device_get((train_state.params, train_state.opt_state))
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("exponent", [0.0, 0.9])
@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
def test_rewards_that_are_no_numbers_are_not_learned_from(spoilt, tiny_config, exponent, bad, capsys):
    def spoil(time, observations, rewards, info):
        return observations, jnp.where(time == 13, bad, rewards), info

    config = tiny_config(ppo=pufferjax.PPOConfig(minibatch_size=64, priority_exponent=exponent, replay_ratio=2.0))
    result = pufferjax.train(spoilt(spoil), config, devices=1, eval_episodes=0, print_interval_seconds=0)
    assert all_finite(result.train_state) and result.stopped_by == "total_steps"
    bad_rows = [record["bad_rows"] for record in result.metrics]
    assert 0 < max(bad_rows) < 16 and bad_rows == [record["bad_reward_rows"] for record in result.metrics]
    # The good rows of such epochs are learned from, whatever the exponent.
    assert all(record["skipped_updates"] == 0 and record["loss"] is not None for record in result.metrics)
    priorities = [record["priority_max"] for record in result.metrics]
    assert None not in priorities and max(priorities) < 1e3
    out = capsys.readouterr().out
    assert out.count("warning:") == 1 and "rewards in" in out and "of 16 rows are NaN or infinite" in out
    assert f"bad rows {max(bad_rows):.0f} an epoch  skipped updates 0 an epoch" in out


def test_a_run_that_cannot_learn_any_more_says_so_and_stops(tmp_path, spoilt, tiny_config):
    def spoil(time, observations, rewards, info):
        return observations, jnp.where(time % 8 == 5, jnp.inf, rewards), info

    env, options = spoilt(spoil), {"devices": 1, "show": False, "eval_episodes": 0, "run_dir": tmp_path / "run"}
    ppo = pufferjax.PPOConfig(minibatch_size=64, replay_ratio=1.0, wait_for_reward=False)
    config = tiny_config(total_steps=256 * 30, ppo=ppo)
    with pytest.warns(UserWarning) as caught:
        result = pufferjax.train(env, config, checkpoint_interval_seconds=0, keep_checkpoints=99, **options)
    warnings = [str(warning.message) for warning in caught if "NaN or infinite" in str(warning.message)]
    assert len(warnings) == 2 and warnings[0].startswith("epoch 1: rewards in 16 of 16 rows are NaN or infinite")
    assert warnings[1].startswith("stopped after 2,816 steps: in 10 epochs in a row every update was NaN or infinite")
    assert result.stopped_by == "non_finite" and len(result.metrics) == 11 and all_finite(result.train_state)
    assert all(record["skipped_updates"] == 4 and record["loss"] is None for record in result.metrics)

    # Killed and resumed it stops where it would have stopped.
    for step in checkpoint_steps(tmp_path / "run"):
        if step > 1024:
            shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.warns(UserWarning):
        resumed = pufferjax.train(env, config, resume=True, **options)
    assert resumed.stopped_by == "non_finite" and len(resumed.metrics) == 11
    with pytest.warns(UserWarning):
        went_on = pufferjax.train(env, config, resume=True, stop_on_non_finite=False, **options)
    assert went_on.stopped_by == "total_steps" and len(went_on.metrics) == 30


def test_observations_that_are_no_numbers(spoilt, tiny_env, tiny_config):
    def spoil(time, observations, rewards, info):
        late = (time == 13).reshape(-1, *[1] * (observations.ndim - 1))
        return jnp.where(late, jnp.inf, observations.astype(jnp.float32)), rewards, info

    def reset(key, num_envs):
        observations, state = tiny_env.reset(key, num_envs)
        return observations.astype(jnp.float32), state

    env = spoilt(spoil)
    env = dataclasses.replace(
        env,
        spec=dataclasses.replace(env.spec, obs_dtype=np.dtype(np.float32), obs_max=None),
        reset=reset,
        observe=lambda state: tiny_env.observe(state).astype(jnp.float32),
    )
    config = tiny_config(ppo=pufferjax.PPOConfig(minibatch_size=64, replay_ratio=2.0, priority_exponent=0.0))
    with pytest.warns(UserWarning, match="observations, or what the policy makes of them, in"):
        result = pufferjax.train(env, config, devices=1, show=False, eval_episodes=0)
    assert all_finite(result.train_state) and max(record["bad_rows"] for record in result.metrics) > 0
    assert all(record["bad_reward_rows"] == record["skipped_updates"] == 0 for record in result.metrics)


def test_an_update_beyond_all_numbers_is_not_made(tiny_env, tiny_config):
    config = tiny_config(ppo=pufferjax.PPOConfig(optimizer="adam", minibatch_size=64, wait_for_reward=False))
    hypers = config.hypers()._replace(learning_rate=jnp.float32(3e38))
    train_state, metrics = jax.jit(pufferjax.make_train(tiny_env, config))(jax.random.key(0), hypers)
    assert all_finite(train_state)
    assert (metrics["skipped_updates"] > 0).any() and (metrics["bad_rows"] <= 16).all()
