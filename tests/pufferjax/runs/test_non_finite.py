"""Environments that break their promise: NaN and infinite rewards, observations and figures."""

import dataclasses
import json

import jax.numpy as jnp
import pytest

import pufferjax


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
