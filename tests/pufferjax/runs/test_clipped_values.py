"""Runs whose returns are large beside ppo.value_clip_eps."""

import dataclasses
import json

import pytest

import pufferjax
from pufferjax.runs.checkpoint import checkpoint_steps


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
    """A function: 30 epochs of 16 updates, with changes to `PPOConfig`. The first of them clips nothing."""

    def make(**ppo):
        settings = {"optimizer": "adam", "minibatch_size": 64, "replay_ratio": 4.0, "learning_rate": 0.03}
        return tiny_config(total_steps=256 * 30, ppo=pufferjax.PPOConfig(**{**settings, **ppo}))

    return make


OPTIONS = {"devices": 1, "eval_episodes": 0, "print_interval_seconds": 1e9}
WARNING = "epochs in a row the value loss of most samples was clipped"


def test_large_rewards_are_named_once(dense, config, capsys):
    result = pufferjax.train(dense(10.0), config(), **OPTIONS)
    shares = [record["value_clip_fraction"] for record in result.metrics]
    out = capsys.readouterr().out
    print(shares)
    assert out.count("warning:") == 1 and WARNING in out
    assert "0.2" in out and "Scale the rewards" in out and "raise ppo.value_clip_eps" in out


def test_small_rewards_and_a_wide_clip_are_not(dense, config, capsys):
    for scale, ppo in ((0.1, {}), (10.0, {"value_clip_eps": 2000.0})):
        result = pufferjax.train(dense(scale), config(**ppo), **OPTIONS)
        shares = [record["value_clip_fraction"] for record in result.metrics]
        print(shares)
        assert "warning:" not in capsys.readouterr().out and max(shares) < 0.5
