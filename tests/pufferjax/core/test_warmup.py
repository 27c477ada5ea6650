"""The warm-up in parts is the whole one, and a run does not wait for rewards that never come."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

import pufferjax
from pufferjax import envs, make_init, make_warmup
from pufferjax.core.warmup import make_walk
from pufferjax.runs import loop


def test_a_walk_in_parts_is_the_same_walk(tiny_env, tiny_config):
    config = tiny_config()
    state_set = dataclasses.replace(config.state_set, warmup_rewards=10**6, warmup_max_steps=5 * 4 * 8192)
    config = dataclasses.replace(config, state_set=state_set)
    train_state = make_init(tiny_env, config)(jax.random.key(0))
    whole = jax.jit(make_warmup(tiny_env, config))(train_state, config.hypers())
    begin, go_on = map(jax.jit, make_walk(tiny_env, config))
    state, walk = begin(train_state)
    steps = []
    for chunks in (1, 3, 7, 1):
        state, walk = go_on(state, walk, config.hypers(), jnp.int32(chunks))
        steps.append(int(state.warmup_steps) // (4 * 8192))
    assert steps == [1, 4, 5, 5] and int(whole.warmup_rewards) > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(
            *(x if x.dtype != whole.key.dtype else jax.random.key_data(x) for x in (a, b))
        ),
        whole,
        state,
    )


def test_a_warm_up_without_rewards_ends_by_the_clock(tiny_config, timed_game, capsys, monkeypatch):
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 1)
    config = tiny_config()
    for overlap, seconds in ((False, 2.5), (True, 0.5)):
        state_set = dataclasses.replace(config.state_set, warmup_max_seconds=seconds)
        started, run = time.perf_counter(), dataclasses.replace(config, state_set=state_set)
        env = envs.from_gymnax(timed_game(20, lambda action: -1), max_episode_steps=20)
        result = pufferjax.train(env, run, eval_episodes=0, devices=1, overlap=overlap)
        assert result.summary["warmup_rewards"] == 0 and result.summary["warmup_steps"] > 0
        assert time.perf_counter() - started < 100  # the whole walk would take hours
        shown = capsys.readouterr().out
        assert ("random steps, " in shown and " s so far" in shown) == (seconds > 1)
        assert result.metrics[0]["loss"] != 0  # -1 is something to learn from
