"""Tiny runs shared by the tests of the shell, and a training on several devices."""

import json
import textwrap

import jax
import jax.numpy as jnp
import pytest

import pufferjax
from pufferjax import envs

# The settings of `tiny_config` and `tiny_env` below, as flags.
TINY_FLAGS = """
    --env.size 5 --env.num-mazes 64 --num-envs 16 --horizon 16 --total-steps 2048
    --policy.hidden-size 8 --policy.num-layers 1 --policy.encoder-layers 0
    --ppo.optimizer adam --ppo.minibatch-size 64 --state-set.capacity 32 --state-set.interval 8
    --state-set.warmup-envs 4 --state-set.warmup-rewards 4
    --state-set.release-from 2 --state-set.release-until 3 --eval-episodes 20 --devices 1
"""


@pytest.fixture(scope="session")
def tiny_flags():
    return TINY_FLAGS.split()


@pytest.fixture(scope="session")
def tiny_config():
    """A function: the configuration of eight small epochs, with changes."""

    def make(**changes):
        settings = {
            "total_steps": 2048,
            "num_envs": 16,
            "horizon": 16,
            "policy": pufferjax.PolicyConfig(hidden_size=8, num_layers=1, encoder_layers=0),
            "ppo": pufferjax.PPOConfig(optimizer="adam", minibatch_size=64),
            "state_set": pufferjax.StateSetConfig(
                capacity=32, interval=8, warmup_envs=4, warmup_rewards=4, release_from=2, release_until=3
            ),
        }
        return pufferjax.TrainConfig(**{**settings, **changes})

    return make


@pytest.fixture(scope="session")
def tiny_env():
    return envs.make("maze", size=5, num_mazes=64)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_env, tiny_config):
    """The result of a finished run with a run directory."""
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    return pufferjax.train(tiny_env, tiny_config(), seed=3, run_dir=run_dir, eval_episodes=20, devices=1, show=False)


DEVICES_PRELUDE = """
import dataclasses, json, sys
from pufferjax import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig
from pufferjax.core.epochs import OneProgram

env = envs.make("maze", size=5, num_mazes=64)
config = TrainConfig(
    total_steps=64 * 32 * 40, num_envs=64, horizon=32, policy=PolicyConfig(hidden_size=32),
    ppo=PPOConfig(minibatch_size=256, replay_ratio=3.0, learning_rate=0.02, gae_lambda=0.95),
    state_set=StateSetConfig(capacity=64, interval=8, replay_span=8, warmup_envs=4),
)

def train(epochs, num_epochs=config.sizes().num_epochs):
    # (the metrics of every epoch, the train state after them)
    hypers = config.hypers()
    epochs.begin(epochs.warmup(epochs.init(jax.random.key(0)), hypers), hypers)
    figures = [epochs.advance(jnp.float32(epoch / num_epochs)) for epoch in range(num_epochs)]
    return [{name: float(x) for name, x in f().items()} for f in figures], epochs.train_state

def late_rate(metrics):
    return sum(m["perf"] for m in metrics[-5:]) / sum(m["episodes"] for m in metrics[-5:])
"""


@pytest.fixture(scope="session")
def train_on_devices(run_on_devices):
    """A function: as `run_on_devices`, but of source text that can use what is above, and prints the JSON returned."""

    def run(source, count, arguments=()):
        return json.loads(run_on_devices(DEVICES_PRELUDE + textwrap.dedent(source), count, arguments))

    return run


@pytest.fixture
def timed_game():
    """`timed_game(steps, reward)`: a game with gymnax's interface that shows noise and gives `reward(action)` in each
    of its steps."""

    class TimedGame:
        num_actions = 2

        def __init__(self, steps, reward):
            self._steps, self._reward = steps, reward

        def reset(self, key, params=None):
            return jnp.zeros(2), {"time": jnp.int32(0)}

        def step(self, key, state, action, params=None):
            time = state["time"] + 1
            over = time >= self._steps
            reward = jnp.asarray(self._reward(action)).astype(jnp.float32)
            return jax.random.uniform(key, 2), {"time": jnp.where(over, 0, time)}, reward, jnp.bool_(False), over, {}

    return TimedGame
