"""What a random walk takes for a reward: all above zero, and of the others those that are not the usual one."""

import ctypes

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax.envs.base import EnvSpec
from pufferjax.envs.walk import make_random_walk


def walk(rewards):
    """(counts, rewarded) of two environments that both give `rewards` one after the other."""
    rewards = jnp.asarray(rewards, jnp.float32)
    spec = EnvSpec("given", (1,), np.dtype(np.uint8), 1, (2,), 1, 2, 0, (("a", "b"),))

    def step(key, state, action):
        reward = jnp.take(rewards, state[:, 0])
        ended = jnp.zeros(2, bool)
        return state, state.at[:, 0].add(1), reward, ended, ended, {}

    _, _, counts, rewarded = make_random_walk(spec, step)(
        jax.random.key(0), np.zeros((2, 2), np.uint8), len(rewards), 1, 4
    )
    return int(counts[0]), int(rewarded[0])


@pytest.fixture(scope="module")
def native(compile_for_host):
    library = compile_for_host("rewards_on_host.cc")
    library.CountRewards.restype = ctypes.c_int64
    return library


@pytest.mark.parametrize(
    "rewards, rewarded",
    [
        ([0, 0, 0, 1, 0, 2], 2),
        ([1] * 6, 6),
        ([0] * 6, 0),
        ([-1] * 40, 0),
        ([*[-1] * 16, 0, *[-1] * 6], 1),
        ([*[-1] * 15, 0, *[-1] * 6], 0),  # one in fifteen is not rare
        ([*[-1] * 16, 0, *[-1] * 14, 0, -1, 0], 1),  # the second comes too soon after the first
        ([*[-1] * 16, 0, *[-1] * 15, 0], 2),
        ([*[0] * 20, -1, 0, 0], 1),
        ([0, 0, *[-1] * 50], 0),  # -1 is elected with its second vote
        ([0, 0, *[-1] * 30, 0], 1),  # and then 0 is rare
        ([0, -0.5] * 40, 0),  # now this, now that: none is usual
        ([*[-0.5] * 30, np.nan, -0.5], 0),
        ([*[-1] * 17, 3, -1, 0], 2),
    ],
)
def test_of_rewards_the_rare_ones_count(rewards, rewarded, native):
    counts, found = walk(rewards)
    assert found == rewarded and (counts > 0) == (rewarded > 0)
    array = np.asarray(rewards, np.float32)
    assert native.CountRewards(array.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(array.size)) == rewarded
