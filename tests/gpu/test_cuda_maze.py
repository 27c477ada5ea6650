"""The maze on a GPU has the bits of the maze on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs

pytestmark = pytest.mark.gpu

CPU = jax.devices("cpu")[0]
CASES = [
    {"size": 5, "num_mazes": 0},
    {"size": 9, "num_mazes": 16},
    {"size": 35, "num_mazes": 64, "vision": 31},
    {"size": 127, "num_mazes": 3, "vision": 3},
]
NUM_ENVS = 333


@pytest.fixture(params=CASES, ids=str)
def maze(request):
    return envs.make("maze", seed=7, **request.param)


def on_both(gpu, function, *operands):
    """The results of `function` on the GPU, which must be those on the CPU."""
    found = [jax.tree.map(np.asarray, jax.jit(function)(*jax.device_put(operands, d))) for d in (gpu, CPU)]
    jax.tree.map(np.testing.assert_array_equal, *found)
    return found[0]


def rollout(env, num_steps):
    def run(key):
        key_reset, key_stagger, key_steps = jax.random.split(key, 3)
        _, state = env.reset(key_reset, NUM_ENVS)

        def step(state, key):
            key_action, key_step = jax.random.split(key)
            action = jax.random.randint(key_action, (NUM_ENVS,), 0, 5)
            obs, state, *rest = env.step(key_step, state, action)
            return state, (obs, *rest)

        return jax.lax.scan(step, env.stagger(key_stagger, state), jax.random.split(key_steps, num_steps))

    return run


def test_rollouts(gpu, maze):
    _, (_, _, terminated, truncated, _) = on_both(gpu, rollout(maze, 100), jax.random.key(0))
    assert (terminated | truncated).any() or maze.params["size"] > 9


def test_observe_clock_and_restore(gpu, maze):
    state, _ = on_both(gpu, rollout(maze, 7), jax.random.key(1))
    on_both(gpu, maze.observe, state)
    on_both(gpu, maze.clock, state)
    env_ids = np.array([3, 330, 3, 0, 5, 3, 0], np.int32)  # the last of several counts
    on_both(gpu, maze.restore, state, state[10:17], env_ids)


def test_lanes_with_their_own_keys(gpu, maze):
    keys = jax.random.split(jax.random.key(2), 3)
    obs, state = on_both(gpu, jax.vmap(lambda key: maze.reset(key, 5)), keys)
    assert not np.array_equal(obs[0], obs[1]) or maze.params["size"] > 9
    on_both(gpu, jax.vmap(maze.step), keys, state, np.ones((3, 5), np.int32))


def test_bad_values_are_visible_and_harmless(gpu, maze):
    _, state = maze.reset(jax.random.key(0), 4)
    state = jax.device_put(jnp.asarray(state).at[2].set(255), gpu)  # no state of any maze
    _, after, reward, terminated, truncated, _ = maze.step(jax.random.key(1), state, jnp.array([0, 5, 0, -1]))
    np.testing.assert_array_equal(np.isnan(reward), [False, True, True, True])
    np.testing.assert_array_equal(after[1:], state[1:])
    assert not (terminated | truncated)[1:].any()
