"""The GPU executor without a GPU: what blocks of its threads do for every simulator, on the host, against the CPU's."""

import ctypes
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.xla_ops import ffi

pytestmark = pytest.mark.skipif(
    not ffi.has_native("pufferjax.maze.step", "cpu") or jax.default_backend() != "cpu", reason="no native CPU module"
)

CASES = [
    ("maze", {"size": 5, "num_mazes": 0, "seed": 7, "vision": 3}),
    ("maze", {"size": 9, "num_mazes": 16, "seed": 1}),
    ("maze", {"size": 35, "num_mazes": 3, "vision": 31}),
    ("boxoban", {"num_levels": 5, "max_steps": 30}),
    ("boxoban", {"num_levels": 5, "num_pulls": 4, "target_loss_penalty": 0.5, "max_steps": 30, "egocentric": True}),
    ("breakout", {"frame_skip": 64}),
    ("breakout", {"max_steps": 50, "continuous": True}),
    ("chain_mdp", {"num_states": 30}),
    ("four_rooms", {"size": 9}),
    ("g2048", {"scaffolding": 0.5}),
    ("minigrid", {"task": "MultiRoom-N6", "max_steps": 40}),
    ("minigrid", {"task": "ObstructedMaze-1Q", "max_steps": 40}),
    ("minimal", {"max_steps": 40}),
    ("password", {"length": 16}),
    ("password", {"length": 7}),
]
LANES, NUM_ENVS, NUM_STEPS = 2, 19, 60  # a 5x5 maze ends after 50
ROWS = LANES * NUM_ENVS
STEP_RESULTS = [np.float32, np.bool_, np.bool_, np.float32, np.int32, np.float32, np.float32]


class Rows:
    """The same calls on the CPU executor and on the host's blocks."""

    def __init__(self, library, env):
        self.library, self.spec = library, env.spec
        _, _, params, self.simulator = env.reset.same_as
        self.params = np.array(params, np.int64)
        agents = env.spec.num_agents
        self.agents = (LANES, NUM_ENVS * agents)
        self.state = (LANES, NUM_ENVS, env.spec.state_bytes), np.uint8
        self.obs = (*self.agents, *env.spec.obs_shape), env.spec.obs_dtype
        shapes = [self.agents] * 3 + [(LANES, NUM_ENVS)] * 4
        self.results = list(zip(shapes, STEP_RESULTS, strict=True))
        self.capacity, self.interval, self.num_steps = 3, 4, 301
        snapshots = (LANES, NUM_ENVS, self.capacity, env.spec.state_bytes), np.uint8
        self.walks = [snapshots, ((LANES, NUM_ENVS), np.int32), ((LANES, NUM_ENVS), np.int32), snapshots]
        self.programs = {}

    def host(self, function, rows, *arguments):
        arguments = [x.ctypes.data if isinstance(x, np.ndarray) else x for x in arguments]
        numbers = [self.params.ctypes.data, len(self.params), NUM_ENVS, rows, *arguments]
        getattr(self.library, f"{self.simulator}_{function}")(*map(ctypes.c_void_p, numbers))  # all are 64 bits wide

    def compiled(self, function):
        results = {
            "reset": [self.state, self.obs],
            "step": [self.state, self.obs, *self.results],
            "observe": [self.obs],
            "restore": [self.state],
            "stagger": [self.state],
            "clock": [((LANES, NUM_ENVS), np.int32), self.state],
            "random_walk": [self.state, *self.walks],
        }
        shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results[function]]
        target = f"pufferjax.{self.simulator}.{function}"
        attributes = {"params": self.params}
        if function == "random_walk":
            attributes |= {"num_steps": np.int64(self.num_steps), "interval": np.int64(self.interval)}
        return jax.jit(lambda *x: ffi.native_call(target, shapes, *x, **attributes))

    def cpu(self, function, *operands):
        if function not in self.programs:
            self.programs[function] = self.compiled(function)
        return [np.asarray(x) for x in self.programs[function](*map(jnp.asarray, operands))]

    def reset(self, keys):
        states, obs = np.zeros(*self.state), aligned(*self.obs)
        self.host("reset", ROWS, keys, states, obs)
        return states, obs

    def step(self, keys, states, actions):
        states, obs = states.copy(), aligned(*self.obs)
        results = [np.full(shape, 1, dtype) for shape, dtype in self.results]
        pointers = np.array([x.ctypes.data for x in results], np.int64)
        self.host("step", ROWS, keys, states, actions, pointers, obs)
        return [states, obs, *results]

    def walk(self, keys, states):
        states = states.copy()
        results = [np.zeros(shape, dtype) for shape, dtype in self.walks]
        pointers = np.array([x.ctypes.data for x in results], np.int64)
        memory = np.array([self.interval, self.capacity], np.int64)
        self.host("random_walk", ROWS, keys, states, self.num_steps, memory, pointers)
        return [states, *results[:-1]]

    def actions(self, rng):
        if self.spec.action_low:
            shape = (*self.agents, len(self.spec.action_low))
            return rng.uniform(self.spec.action_low, self.spec.action_high, shape).astype(np.float32)
        return rng.integers(0, self.spec.num_actions, (*self.agents, len(self.spec.num_actions)), np.int32)


def aligned(shape, dtype):
    """An array at an address that is a multiple of 16, and 0xA5 in every byte of it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 16, 0xA5, np.uint8)
    begin = -memory.ctypes.data % 16
    return memory[begin : begin + size].view(dtype).reshape(shape)


@pytest.fixture(scope="module")
def library(compile_for_host):
    return compile_for_host("envs_on_host.cc")


@pytest.fixture(params=CASES, ids=str)
def rows(request, library):
    name, params = request.param
    return Rows(library, envs.make(name, **params))


def words(seed):
    return np.random.default_rng(seed).integers(0, 2**32, (LANES, 2), np.uint32)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_function_has_the_bits_of_the_cpu(rows):
    states, obs = rows.reset(words(0))
    assert_same((states, obs), rows.cpu("reset", words(0)))
    expected = rows.cpu("stagger", words(5), states)[0]
    rows.host("stagger", ROWS, words(5), states)
    np.testing.assert_array_equal(states, expected)
    rng = np.random.default_rng(1)
    ended = 0
    for t in range(NUM_STEPS):
        actions = rows.actions(rng)
        got = rows.step(words(t), states, actions)
        assert_same(got, rows.cpu("step", words(t), states, actions))
        states = got[0]
        ended += (got[3] | got[4]).sum()
    assert ended or rows.spec.max_episode_steps > 1000
    obs = aligned(*rows.obs)
    rows.host("observe", ROWS, states, obs)
    np.testing.assert_array_equal(obs, rows.cpu("observe", states)[0])
    times, timeless = np.zeros((LANES, NUM_ENVS), np.int32), states.copy()
    rows.host("clock", ROWS, timeless, times)
    assert_same((times, timeless), rows.cpu("clock", states))
    assert times.any()
    # The last of several snapshots for one environment counts.
    snapshots = np.ascontiguousarray(states[:, :7])
    env_ids = np.array([[3, 18, 3, 0, 5, 3, 0], [1, 1, 2, 1, 1, 1, 1]], np.int32)
    states = rows.reset(words(1))[0]
    expected = rows.cpu("restore", states, snapshots, env_ids)[0]
    rows.host("restore", env_ids.size, states, snapshots, env_ids, 7)
    np.testing.assert_array_equal(states, expected)


def test_random_walks_have_the_bits_of_the_cpu(rows):
    states, _ = rows.reset(words(0))
    got = rows.walk(words(2), states)
    assert_same(got, rows.cpu("random_walk", words(2), states)[:-1])
    *_, counts, rewarded = got
    assert counts.any() or rows.spec.name in ("maze", "minigrid", "password")  # where rewards are rare
    if rows.spec.name != "minimal":
        states[1, 3] = 0xFF
        after, _, counts, rewarded = rows.walk(words(2), states)
        assert rewarded[1, 3] == -1 and counts[1, 3] == 0 and (after[1, 3] == 0xFF).all()


def test_bad_values_are_visible_and_harmless(rows):
    """A GPU cannot raise: the reward is NaN, nothing else changes; bad snapshots are not restored."""
    num_agents = rows.spec.num_agents
    has_bad_states = rows.spec.name != "minimal"  # where any bytes are safe
    states, _ = rows.reset(words(0))
    if has_bad_states:
        states[0, 2] = 0xFF
    actions = rows.actions(np.random.default_rng(0)).reshape(LANES, NUM_ENVS, num_agents, -1)
    wrong = (1.5, np.nan) if rows.spec.action_low else (rows.spec.num_actions[-1], -1)
    actions[1, 4, -1, -1], actions[1, 5, 0, 0] = wrong
    bad = np.zeros((LANES, NUM_ENVS), bool)
    bad[0, 2], bad[1, 4], bad[1, 5] = has_bad_states, True, True
    after, obs, reward, terminated, truncated, *_ = rows.step(words(3), states, actions)
    bad_agents = np.repeat(bad, num_agents, axis=1)
    np.testing.assert_array_equal(np.isnan(reward), bad_agents)
    np.testing.assert_array_equal(after[bad], states[bad])
    assert not (terminated | truncated)[bad_agents].any()
    seen = obs.reshape(LANES, NUM_ENVS, -1).any(axis=-1)
    assert seen[0, 2] != has_bad_states
    before, snapshots = after.copy(), np.stack([after[:, 2], after[:, 3]], axis=1)
    snapshots[0, 0] = 0xFF
    env_ids = np.array([[0, -1], [19, 2**31 - 1]], np.int32)  # of lane 0: no state for 0; the rest for nobody
    rows.host("restore", 4, after, snapshots, env_ids, 2)
    np.testing.assert_array_equal(after, before)


def test_every_simulator_is_compared():
    assert {name for name, _ in CASES} == set(envs.names())
    sources = {path.parent.name for path in Path(__file__).parents[2].glob("envs/*/cuda.cu")}
    assert sources == set(envs.names())
    host = Path(__file__).parents[1].joinpath("native/envs_on_host.cc").read_text()
    on_host = set(re.findall(r"^PJX_ON_HOST\((\w+),", host, re.MULTILINE))
    assert on_host == {envs.make(name, **params).reset.same_as[3] for name, params in CASES}
