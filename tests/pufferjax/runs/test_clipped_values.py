"""Runs whose returns are large beside ppo.value_clip_eps."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

import pufferjax
from pufferjax.runs.journal import Journal
from pufferjax.runs.run_config import RunOptions


@pytest.fixture(scope="module")
def dense(tiny_env):
    """A function: the tiny maze with a reward of `scale` for every step."""

    def make(scale):
        def step(key, state, action):
            observations, state, rewards, terminated, truncated, info = tiny_env.step(key, state, action)
            return observations, state, rewards * 0 + scale, terminated, truncated, info

        return dataclasses.replace(tiny_env, spec=dataclasses.replace(tiny_env.spec, name="dense"), step=step)

    return make


@pytest.fixture(scope="module")
def config(tiny_config):
    """A function: 24 epochs of 16 updates, with changes to `PPOConfig`. The first of them clips nothing."""

    def make(**ppo):
        settings = {"optimizer": "adam", "minibatch_size": 64, "replay_ratio": 4.0, "learning_rate": 0.03}
        return tiny_config(total_steps=256 * 24, ppo=pufferjax.PPOConfig(**{**settings, **ppo}))

    return make


@pytest.fixture(scope="module")
def figures(tiny_env, config):
    """The names of what an epoch returns."""
    train = pufferjax.make_train(tiny_env, config())
    _, metrics = jax.eval_shape(train, jax.random.key(0), config().hypers())
    return list(metrics)


OPTIONS = {"devices": 1, "eval_episodes": 0, "print_interval_seconds": 1e9}


def test_large_rewards_are_named_once(dense, config, capsys):
    result = pufferjax.train(dense(10.0), config(), **OPTIONS)
    assert min(record["value_clip_fraction"] for record in result.metrics[3:]) > 0.5
    out = capsys.readouterr().out
    warning = next(line for line in out.splitlines() if line.startswith("warning:"))
    assert out.count("warning:") == 1 and "20 epochs in a row the value loss of most samples was clipped" in warning
    assert "(0.2)" in warning and "Set ppo.scale_rewards" in warning and "raise ppo.value_clip_eps" in warning


def test_small_rewards_and_a_wide_clip_are_not(dense, config, capsys):
    for scale, ppo in ((0.01, {}), (10.0, {"value_clip_eps": 2000.0})):
        result = pufferjax.train(dense(scale), config(**ppo), **OPTIONS)
        assert "warning:" not in capsys.readouterr().out
        assert max(record["value_clip_fraction"] for record in result.metrics) < 0.1


def test_only_epochs_in_a_row_count_also_across_a_kill(tmp_path, config, figures):
    warnings, state = [], {"x": jnp.float32(0)}
    options, settings = RunOptions(), {"ppo.value_clip_eps": 0.2}
    sizes = config().sizes()
    most = 0.5 * (1 - 1 / sizes.num_minibatches)  # the first update of an epoch cannot clip

    def journal():
        return Journal(tmp_path, sizes, options, settings, warnings.append, warnings.append)

    def add(journal, share, epochs):
        for _ in range(epochs):
            journal.add({**dict.fromkeys(figures, 0.0), "value_clip_fraction": share}, float(journal.epoch + 1))

    (tmp_path / "checkpoints").mkdir()
    with journal() as killed:
        killed.start()
        killed.ready(0.0, {})
        for share, epochs in ((1.0, 19), (most, 1), (1.0, 19), (math.nan, 1), (most + 0.01, 15)):
            add(killed, share, epochs)
        killed.try_to_save(state, 56.0)
    with journal() as resumed:
        resumed.start(resumed.load(state))
        resumed.ready(56.0, {})
        add(resumed, most + 0.01, 4)
        assert warnings == []
        add(resumed, most + 0.01, 30)
    assert len(warnings) == 1 and warnings[0].startswith("epoch 60: in 20 epochs in a row")
