"""Tiny runs shared by the tests of the shell."""

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
