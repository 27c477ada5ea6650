"""The GPU executor without a GPU: what one thread does for one maze, on the host, against the CPU executor.

Rows take their turns from the last to the first, where the CPU goes forwards: no order may matter.
"""

import ctypes

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax.xla_ops import ffi

pytestmark = pytest.mark.skipif(
    not ffi.has_native("pufferjax.maze.step", "cpu") or jax.default_backend() != "cpu", reason="no native CPU module"
)

CASES = [(5, 0, 7, 3), (9, 16, 1, 11), (35, 3, 2, 31)]  # size, num_mazes, seed, vision
LANES, NUM_ENVS = 2, 19
ROWS = LANES * NUM_ENVS
STEP_RESULTS = [np.float32, np.bool_, np.bool_, np.float32, np.int32, np.float32, np.float32]


class Mazes:
    """The same calls on the CPU executor and on the host's rows."""

    def __init__(self, library, params):
        self.library, self.params = library, np.array(params, np.int64)
        self.stride = ffi.describe_env("maze", params)["state_bytes"]
        self.vision = params[3]
        self.compiled = {}

    def host(self, function, rows, *arguments):
        arguments = [x.ctypes.data if isinstance(x, np.ndarray) else x for x in arguments]
        getattr(self.library, function)(
            *map(ctypes.c_void_p, [self.params.ctypes.data, NUM_ENVS, rows, *arguments])  # pointers and 64-bit integers
        )

    def cpu(self, function, results, *operands):
        if function not in self.compiled:
            shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results]
            target = f"pufferjax.maze.{function}"
            self.compiled[function] = jax.jit(lambda *x: ffi.native_call(target, shapes, *x, params=self.params))
        return [np.asarray(x) for x in self.compiled[function](*map(jnp.asarray, operands))]

    @property
    def state(self):
        return (LANES, NUM_ENVS, self.stride), np.uint8

    @property
    def obs(self):
        return (LANES, NUM_ENVS, self.vision, self.vision), np.uint8

    def reset(self, keys):
        states, obs = np.zeros(*self.state), np.zeros(*self.obs)
        self.host("reset", ROWS, keys, states, obs)
        return states, obs

    def step(self, keys, states, actions):
        states = states.copy()
        results = [np.full((LANES, NUM_ENVS), 1, dtype) for dtype in STEP_RESULTS]
        obs = np.zeros(*self.obs)
        pointers = np.array([x.ctypes.data for x in results], np.int64)
        self.host("step", ROWS, keys, states, actions, pointers, obs)
        return [states, obs, *results]


@pytest.fixture(scope="module")
def library(compile_for_host):
    return compile_for_host("maze_on_host.cc")


@pytest.fixture(params=CASES, ids=str)
def mazes(request, library):
    return Mazes(library, request.param)


def words(seed):
    return np.random.default_rng(seed).integers(0, 2**32, (LANES, 2), np.uint32)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_reset_and_step_have_the_bits_of_the_cpu(mazes):
    states, obs = mazes.reset(words(0))
    assert_same((states, obs), mazes.cpu("reset", [mazes.state, mazes.obs], words(0)))
    rng = np.random.default_rng(1)
    shapes = [mazes.state, mazes.obs, *(((LANES, NUM_ENVS), dtype) for dtype in STEP_RESULTS)]
    ended = 0
    for t in range(60):  # a 5x5 maze ends after 50
        actions = rng.integers(0, 5, (LANES, NUM_ENVS), np.int32)
        got = mazes.step(words(t), states, actions)
        assert_same(got, mazes.cpu("step", shapes, words(t), states, actions))
        states = got[0]
        ended += (got[3] | got[4]).sum()
    assert ended or mazes.params[0] > 5


def test_observe_stagger_and_clock_have_the_bits_of_the_cpu(mazes):
    states, _ = mazes.reset(words(0))
    expected = mazes.cpu("stagger", [mazes.state], words(5), states)[0]
    mazes.host("stagger", ROWS, words(5), states)
    np.testing.assert_array_equal(states, expected)
    obs = np.zeros(*mazes.obs)
    mazes.host("observe", ROWS, states, obs)
    np.testing.assert_array_equal(obs, mazes.cpu("observe", [mazes.obs], states)[0])
    times, timeless = np.zeros((LANES, NUM_ENVS), np.int32), states.copy()
    mazes.host("clock_of", ROWS, timeless, times)
    assert_same((times, timeless), mazes.cpu("clock", [((LANES, NUM_ENVS), np.int32), mazes.state], states))
    assert times.any()


def test_restore_has_the_bits_of_the_cpu(mazes):
    """The last of several snapshots for one environment counts."""
    states, _ = mazes.reset(words(0))
    snapshots, _ = mazes.reset(words(1))
    snapshots = np.ascontiguousarray(snapshots[:, :7])
    env_ids = np.array([[3, 18, 3, 0, 5, 3, 0], [1, 1, 2, 1, 1, 1, 1]], np.int32)
    expected = mazes.cpu("restore", [mazes.state], states, snapshots, env_ids)[0]
    mazes.host("restore", env_ids.size, states, snapshots, env_ids, 7)
    np.testing.assert_array_equal(states, expected)


def test_bad_values_are_visible_and_harmless(mazes):
    """A GPU cannot raise: the reward is NaN, nothing else changes; bad snapshots are not restored."""
    states, _ = mazes.reset(words(0))
    states[0, 2] = 0xFF  # no state of any maze
    actions = np.ones((LANES, NUM_ENVS), np.int32)
    actions[1, 4], actions[1, 5] = 5, -1
    bad = np.zeros((LANES, NUM_ENVS), bool)
    bad[0, 2] = bad[1, 4] = bad[1, 5] = True
    after, obs, reward, terminated, truncated, *_ = mazes.step(words(3), states, actions)
    np.testing.assert_array_equal(np.isnan(reward), bad)
    np.testing.assert_array_equal(after[bad], states[bad])
    assert not (terminated | truncated)[bad].any()
    assert not obs[0, 2].any() and obs[1, 4].any()
    before, snapshots = after.copy(), np.stack([after[:, 2], after[:, 3]], axis=1)
    env_ids = np.array([[0, -1], [19, 2**31 - 1]], np.int32)  # of lane 0: no maze for 0; the rest for nobody
    mazes.host("restore", 4, after, snapshots, env_ids, 2)
    np.testing.assert_array_equal(after, before)
