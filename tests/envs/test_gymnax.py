"""from_gymnax and as_gymnax, on small environments of both versions of gymnax's interface, and on gymnax itself."""

import dataclasses
import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.picture import picture, to_rgb
from pufferjax.envs.rows import RowLayout

GOAL, LIMIT = 2, 6


@dataclasses.dataclass(frozen=True)
class Params:
    max_steps_in_episode: int = LIMIT
    step_size: float = 1.0


class LineState(NamedTuple):
    x: jax.Array
    time: jax.Array


class Line:
    """x begins at 0 and changes by action - 1; the reward is x. Terminated at x = 2, truncated after 6 steps."""

    name = "line"
    default_params = Params()

    def __init__(self, version="1.0"):
        self.version = version

    def action_space(self, params):
        return types.SimpleNamespace(n=3, shape=(), dtype=jnp.int32)

    def reset(self, key, params):
        return jnp.zeros(2), LineState(jnp.int32(0), jnp.int32(0))

    def step(self, key, state, action, params):
        after = LineState(state.x + action - 1, state.time + 1)
        terminated = after.x == GOAL
        truncated = (after.time >= params.max_steps_in_episode) & (self.version != "no limit")
        ended = terminated | truncated
        state = jax.tree.map(lambda x: jnp.where(ended, 0, x), after)
        obs = jnp.stack([state.x, state.time]).astype(jnp.float32)
        flags = (ended,) if self.version.startswith("0.x") else (terminated, truncated)
        info = {"truncated": truncated & ~terminated} if self.version == "0.x, says" else {}
        return obs, state, after.x, *flags, info


def line_reference(actions, done_is_truncation):
    """What the line gives for actions i32[T, N], step by step: dicts of [T, N]."""
    found = {name: np.zeros(actions.shape, np.float32) for name in ("x", "time", "reward", "return", "length")}
    flags = {name: np.zeros(actions.shape, bool) for name in ("terminated", "truncated")}
    for env in range(actions.shape[1]):
        x = time = total = 0
        for t, action in enumerate(actions[:, env]):
            x, time = x + action - 1, time + 1
            total += x
            is_late = time == LIMIT
            flags["terminated"][t, env] = x == GOAL and not (is_late and done_is_truncation)
            flags["truncated"][t, env] = is_late and not flags["terminated"][t, env]
            found["reward"][t, env] = x
            if x == GOAL or is_late:
                found["return"][t, env], found["length"][t, env] = total, time
                x = time = total = 0
            found["x"][t, env], found["time"][t, env] = x, time
    return found | flags


@pytest.mark.parametrize("version", ["1.0", "0.x", "0.x, says", "no limit"])
def test_steps_flags_and_figures_are_those_of_the_game(version):
    env = envs.from_gymnax(Line(version), max_episode_steps=LIMIT, perf=lambda x: jax.nn.sigmoid(x))
    actions = np.random.default_rng(0).integers(3, size=(60, 4)).astype(np.int32)

    @jax.jit
    def run(actions):
        _, state = env.reset(jax.random.key(0), 4)

        def step(state, action):
            obs, state, *rest = env.step(jax.random.key(1), state, action)
            return state, (obs, *rest, env.clock(state)[0])

        return jax.lax.scan(step, state, actions)[1]

    obs, reward, terminated, truncated, info, clock = jax.device_get(run(actions))
    expected = line_reference(actions, done_is_truncation=version == "0.x")
    assert (expected["terminated"] & (expected["length"] == LIMIT)).any() == (version != "0.x")  # the case is met
    np.testing.assert_array_equal(obs, np.stack([expected["x"], expected["time"]], axis=-1))
    np.testing.assert_array_equal(reward, expected["reward"])
    np.testing.assert_array_equal(terminated, expected["terminated"])
    np.testing.assert_array_equal(truncated, expected["truncated"])
    np.testing.assert_array_equal(info["episode_return"], expected["return"])
    np.testing.assert_array_equal(info["score"], expected["return"])
    np.testing.assert_array_equal(info["episode_length"], expected["length"])
    np.testing.assert_array_equal(clock, expected["time"])
    ended = expected["length"] > 0
    np.testing.assert_allclose(info["perf"], np.where(ended, 1 / (1 + np.exp(-expected["return"])), 0), rtol=1e-6)
    assert env.spec.max_episode_steps == LIMIT
    assert env.params == {"max_steps_in_episode": LIMIT, "step_size": 1.0, "max_episode_steps": LIMIT}


class ZooState(NamedTuple):
    position: dict[str, Any]
    time: jax.Array
    flags: jax.Array
    half: jax.Array
    tiny: jax.Array
    key: jax.Array
    nothing: jax.Array


class Zoo:
    """States of many dtypes with two kinds of keys, observations in a dict. Every step uses up its typed keys."""

    name = "zoo"
    num_actions = 2
    default_params = Params(max_steps_in_episode=9)

    def reset(self, key, params):
        state = ZooState(
            {"x": jnp.zeros(2), "raw_key": jax.random.key_data(key)},
            jnp.int32(0),
            jnp.zeros(3, bool),
            jnp.bfloat16(0.1),
            jnp.int4(-8),
            jax.random.split(key),
            jnp.zeros((0, 2)),
        )
        return self.observe(state, jnp.zeros((2, 2))), state

    def observe(self, state, noise):
        return {"x": state.position["x"], "flags": state.flags, "noise": noise}

    def step(self, key, state, action, params):
        parts = jax.vmap(jax.random.split)(state.key)
        noise = jax.vmap(lambda k: jax.random.uniform(k, 2))(parts[:, 1])
        after = state._replace(
            position={**state.position, "x": state.position["x"] * 0.5 + noise[0] * action},
            key=parts[:, 0],
            time=state.time + 1,
            flags=jnp.roll(state.flags, 1) | (action == 1),
            half=-state.half,
        )
        reward = (after.position["x"][0] > 0.9).astype(jnp.float16)
        terminated, truncated = after.position["x"][1] > 1.4, after.time >= params.max_steps_in_episode
        _, start = self.reset(key, params)
        ended = terminated | truncated
        state = jax.tree.map(lambda new, old: jnp.where(ended, new, old), start, after)
        return self.observe(state, jnp.where(ended, 0, noise)), state, reward, terminated, truncated, {}


@pytest.fixture(autouse=True)
def quick_compilation():
    """Every program here runs once or a few times: compiling them is what takes time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_an_adapted_environment_keeps_the_contract():
    env = envs.from_gymnax(Zoo())
    assert env.spec.obs_shape == (9,) and env.spec.obs_max is None
    envs.check_env(env, num_envs=4, num_steps=40)


def test_keys_that_every_step_uses_up_are_drawn_anew():
    env = envs.from_gymnax(Zoo())
    assert env.spec.state_bytes == 12 + 4 * 9 + 8 + 8 + 4 + 3 + 2 + 1  # header, observation, and no byte for keys

    @jax.jit
    def futures(keys):
        state = jnp.repeat(env.reset(jax.random.key(0), 1)[1], 2, axis=0)
        state = env.step(keys[0], state, jnp.ones(2, jnp.int32))[1]
        restored = env.restore(state, state[:1], jnp.array([1], jnp.int32))
        return env.observe(restored), jax.vmap(lambda key: env.step(key, restored, jnp.ones(2, jnp.int32))[0])(keys)

    now, (first, again, other) = futures(jax.random.split(jax.random.key(1), 2)[jnp.array([0, 0, 1])])
    np.testing.assert_array_equal(now[0], now[1])
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any() and (first != other).any(axis=1).all()


def test_rows_keep_every_bit_of_every_dtype():
    names = ["bool", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    names += ["float8_e4m3fn", "bfloat16", "float16", "float32", "float64", "complex64", "complex128"]
    with jax.enable_x64(True):
        shapes = {name: jax.ShapeDtypeStruct((3, 2), jnp.dtype(name)) for name in names}
        layout = RowLayout.of({**shapes, "key": jax.random.key(0), "empty": jax.ShapeDtypeStruct((0, 3), jnp.float32)})
        rows = np.random.default_rng(0).integers(256, size=(16, layout.size), dtype=np.uint8)
        for path, offset in zip(layout.paths, layout.offsets, strict=True):
            content = rows[:, offset : offset + 6]
            if path[0].key == "bool":
                content &= 1
            elif path[0].key in ("int4", "uint4"):
                content[:] = (content % 16).astype(np.int8) - (8 if path[0].key == "int4" else 0)
            elif path[0].key == "float32":  # a NaN with a payload, an infinity, a denormal, -0
                special = np.array([0x7FC12345, 0x7F800000, 1, 0x80000000, 0xFFFFFFFF, 0x7F800001], np.uint32)
                rows[0, offset : offset + 24] = special.view(np.uint8)
        unpack = functools.partial(layout.unpack, key=jax.random.key(3))
        tree = jax.jit(jax.vmap(unpack))(rows)
        assert {name: str(tree[name].dtype) for name in names} == {name: name for name in names}
        packed = jax.jit(jax.vmap(layout.pack))(tree)
        values = np.asarray(tree["int16"])
    np.testing.assert_array_equal(packed, rows)
    offset = layout.offsets[[path[0].key for path in layout.paths].index("int16")]
    np.testing.assert_array_equal(values, rows[:, offset : offset + 12].copy().view("<i2").reshape(16, 3, 2))
    assert layout.size == 6 * (3 * 1 + 2 * 2 + 2 * 4 + 2 * 1 + 2 * 2 + 4 + 1 + 8 + 3 * 8 + 16)
    with pytest.raises(ValueError, match="float4_e2m1fn cannot be stored"):
        RowLayout.of(jax.ShapeDtypeStruct((2,), jnp.float4_e2m1fn))


def changed(cls=Line, **attributes):
    return type("Changed", (cls,), attributes)()


def outputs(change):
    return changed(step=lambda self, *arguments: change(Line.step(self, *arguments)))


@pytest.mark.parametrize(
    "env, arguments, text",
    [
        (object(), {}, "env must have reset and step"),
        (changed(default_params=None), {}, "max_episode_steps must be given"),
        (Line(), {"max_episode_steps": 0}, "max_episode_steps must be"),
        (Line(), {"max_episode_steps": 2.5}, "max_episode_steps must be"),
        (changed(action_space=lambda self, params: types.SimpleNamespace(shape=(2,))), {}, "SimpleNamespace of shape"),
        (changed(reset=lambda self, key, params: jnp.zeros(2)), {}, r"reset must return \(obs, state\)"),
        (outputs(lambda out: out[:4]), {}, "it returned 4 values"),
        (outputs(lambda out: (out[0][:1], *out[1:])), {}, r"observation .* float32\[2\] after a reset, float32\[1\]"),
        (outputs(lambda out: (out[0], out[1]._replace(x=1.0), *out[2:])), {}, "state .* x is int32.* float32"),
        (outputs(lambda out: (out[0], tuple(out[1]), *out[2:])), {}, "the state must have one structure"),
        (outputs(lambda out: (*out[:2], jnp.zeros(3), *out[3:])), {}, r"reward .* has shape \(3,\)"),
        (Line(), {"perf": lambda x: jnp.stack([x, x])}, "perf must map a return to one number"),
    ],
)
def test_what_is_no_such_environment_is_refused(env, arguments, text):
    with pytest.raises((TypeError, ValueError), match=text):
        envs.from_gymnax(env, **arguments)


def test_bad_actions_and_foreign_rows_are_refused():
    env, other = envs.from_gymnax(Line()), envs.from_gymnax(Line(), name="other")
    _, state = env.reset(jax.random.key(0), 2)
    ids = np.arange(2, dtype=np.int32)
    with pytest.raises(ValueError, match=r"line.step: action\[1\] is 3, valid are 0 to 2"):
        env.step(jax.random.key(0), state, np.array([0, 3], np.int32))
    reward = jax.jit(env.step)(jax.random.key(0), state, np.array([0, 3], np.int32))[2]
    assert reward[0] == -1 and jnp.isnan(reward[1])
    with pytest.raises(ValueError, match=r"rows\[0\] is not a snapshot .* another environment"):
        env.restore(state, other.reset(jax.random.key(0), 2)[1], ids)
    late = np.array(state)
    late[1, 4:8] = np.array([LIMIT], "<i4").view(np.uint8)
    with pytest.raises(ValueError, match=r"rows\[1\] is not a snapshot .* clock must be 0 to 5"):
        env.restore(state, late, ids)
    with pytest.raises(ValueError, match=r"env_ids\[0\] is -1, valid are 0 to 1"):
        env.restore(state, state, ids - 1)
    marked = np.array(state)
    marked[:, -1] = (1, 2)
    np.testing.assert_array_equal(
        jax.jit(env.restore)(state, marked, ids - 1)[:, -1], (2, 0)
    )  # -1 names no environment


@pytest.mark.parametrize(
    "value, space, expected",
    [
        (jnp.zeros((2, 3), jnp.uint8), None, (jnp.uint8, 255)),
        (jnp.zeros((2, 3), jnp.uint8), types.SimpleNamespace(low=0, high=9), (jnp.uint8, 9)),
        (jnp.zeros((), jnp.int32), types.SimpleNamespace(n=16), (jnp.uint8, 15)),
        (
            jnp.zeros(4, jnp.int32),
            types.SimpleNamespace(low=np.array([0, 0]), high=np.array([1, 300])),
            (jnp.float32, None),
        ),
        (jnp.zeros(4, jnp.int32), None, (jnp.float32, None)),
        (jnp.zeros((2, 2, 4), bool), None, (jnp.uint8, 1)),
        (jnp.zeros(3, jnp.bfloat16), types.SimpleNamespace(low=0, high=1), (jnp.float32, None)),
    ],
)
def test_one_array_is_observed_as_it_is(value, space, expected):
    env = changed(
        reset=lambda self, key, params: (value, jnp.int32(0)),
        step=lambda self, key, state, action, params: (value, state, 0.0, False, False, {}),
        observation_space=lambda self, params: space,
    )
    spec = envs.from_gymnax(env).spec
    assert (spec.obs_shape, spec.obs_dtype, spec.obs_max) == (value.shape, *expected)


def test_pictures():
    blocks = picture(np.array([[0.0, 1.0], [-1.0, 0.5]], np.float32))
    assert blocks.dtype == np.uint8 and blocks.shape == (256, 256, 3)
    dark, bright, below, half = blocks[0, 0], blocks[0, -1], blocks[-1, 0], blocks[-1, -1]
    assert dark.sum() < half.sum() < bright.sum() and below[2] > below[0] and bright[0] > bright[2]
    assert picture(np.arange(40.0)).shape[0] < picture(np.arange(40.0)).shape[1]  # three rows of sixteen
    channels = np.zeros((4, 5, 6), bool)
    channels[1, 1, 2] = channels[2, 2, 5] = True
    colours = {tuple(x) for x in picture(channels).reshape(-1, 3)}
    assert len(colours) == 3
    rgb = np.random.default_rng(0).integers(256, size=(9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(picture(rgb), rgb)
    assert picture(np.array(np.nan)).shape[2] == 3

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 2), dpi=50)
    FigureCanvasAgg(figure)
    assert to_rgb("x", (figure, None)).shape == (100, 50, 3)
    with pytest.raises(TypeError, match="x: render must give u8"):
        to_rgb("x", np.zeros((3, 3)))
    env = envs.from_gymnax(Line(), render=lambda state: np.full((2, 2, 3), state.time + 7, np.uint8))
    assert (env.render(np.asarray(env.reset(jax.random.key(0), 1)[1])[0]) == 7).all()


# --- the other way round ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def maze():
    return envs.make("maze", size=5, num_mazes=7, vision=3)


def test_a_vmapped_step_is_one_native_call(maze):
    env = envs.as_gymnax(maze)
    keys = jax.random.split(jax.random.key(0), 3)
    obs, state = jax.vmap(env.reset, (0, None))(keys, env.default_params)
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    arguments = (keys, state, jnp.array([1, 4, 0]), env.default_params)
    assert step.lower(*arguments).as_text().count("@pufferjax.maze.") == 1
    together = step(*arguments)
    for i in range(3):
        apart = maze.step(keys[i], state[i : i + 1], jnp.array([1, 4, 0])[i : i + 1])
        for a, b in zip(together[:5], apart[:5], strict=True):
            np.testing.assert_array_equal(a[i], b[0])
    assert obs.shape == (3, 3, 3) and state.shape == (3, maze.spec.state_bytes)
    assert together[5]["discount"].shape == (3,)


def test_a_script_in_the_style_of_purejaxrl_runs(maze):
    env = envs.as_gymnax(maze)
    params, num_envs, num_steps, num_updates = env.default_params, 8, 64, 3
    cells, num_actions = int(np.prod(env.observation_space(params).shape)), env.action_space(params).n

    def logits_of(weights, obs):
        return obs.reshape(*obs.shape[:-2], cells).astype(jnp.float32) @ weights

    def train(key):
        key, key_reset = jax.random.split(key)
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, num_envs), params)
        lengths = jnp.zeros(num_envs, jnp.int32)

        def update(carry, _):
            weights, state, obs, lengths, key = carry

            def env_step(carry, _):
                state, obs, lengths, key = carry
                key, key_action, key_step = jax.random.split(key, 3)
                action = jax.random.categorical(key_action, logits_of(weights, obs))
                next_obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
                    jax.random.split(key_step, num_envs), state, action, params
                )
                done = terminated | truncated
                lengths += 1
                logged = jnp.where(done, lengths, 0)  # what a log wrapper counts by itself
                return (state, next_obs, jnp.where(done, 0, lengths), key), (obs, action, reward, logged, info)

            carry = (state, obs, lengths, key)
            (state, obs, lengths, key), (seen, action, reward, logged, info) = jax.lax.scan(
                env_step, carry, None, num_steps
            )

            def loss(weights):
                log_probs = jax.nn.log_softmax(logits_of(weights, seen))
                return -jnp.mean(jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0] * (reward - 0.01))

            weights -= 0.1 * jax.grad(loss)(weights)
            return (weights, state, obs, lengths, key), (reward.sum(), logged, info["episode_length"])

        carry = (jnp.zeros((cells, num_actions)), state, obs, lengths, key)
        return jax.lax.scan(update, carry, None, num_updates)

    (weights, *_), (rewards, logged, lengths) = jax.jit(train)(jax.random.key(0))
    assert jnp.isfinite(weights).all() and (weights != 0).any() and rewards.sum() > 0
    np.testing.assert_array_equal(logged, lengths)
    assert lengths.max() <= params.max_steps_in_episode


def test_the_interface_says_what_it_is(maze, monkeypatch):
    env = envs.as_gymnax(maze)
    assert (env.name, env.num_actions, env.default_params.max_steps_in_episode) == ("maze", 5, 50)
    space = env.observation_space(env.default_params)
    assert (space.low, space.high, space.shape, space.dtype) == (0, 4, (3, 3), jnp.uint8)
    assert space.contains(space.sample(jax.random.key(0))) and env.action_space().contains(4)
    assert not env.action_space().contains(5)
    with pytest.raises(ValueError, match="parameters were fixed when it was made"):
        env.reset(jax.random.key(0), dataclasses.replace(env.default_params, max_steps_in_episode=9))
    with pytest.raises(TypeError, match=r"maze.step: action"):
        env.step(jax.random.key(0), maze.reset(jax.random.key(0), 1)[1][0], jnp.float32(1))
    two = dataclasses.replace(maze, spec=dataclasses.replace(maze.spec, num_agents=2))
    with pytest.raises(ValueError, match="maze has 2 agents, gymnax's interface has one"):
        envs.as_gymnax(two)
    spaces = types.SimpleNamespace(Discrete=lambda n: ("gymnax's", n), Box=None)
    monkeypatch.setitem(__import__("sys").modules, "gymnax.environments.spaces", spaces)
    assert env.action_space() == ("gymnax's", 5)


def test_there_and_back(maze):
    """An environment that went through both adapters plays on as the maze does."""
    env = envs.from_gymnax(envs.as_gymnax(maze))
    assert (env.spec.obs_shape, env.spec.obs_max, env.spec.num_actions) == ((3, 3), 4, (5,))
    _, rows = env.reset(jax.random.key(0), 4)
    own = rows[:, -maze.spec.state_bytes :]
    action = jnp.array([1, 2, 3, 4], jnp.int32)
    obs, rows, *_ = env.step(jax.random.key(1), rows, action)
    expected = maze.step(jax.random.key(2), own, action)
    np.testing.assert_array_equal(obs, expected[0])
    np.testing.assert_array_equal(rows[:, -maze.spec.state_bytes :], expected[1])


# --- names ------------------------------------------------------------------------------------------------------------
def test_an_environment_of_ones_own_has_a_name(monkeypatch):
    monkeypatch.setattr(envs, "_FACTORIES", dict(envs._FACTORIES))
    envs.register("line", lambda *, limit=7: envs.from_gymnax(Line(), max_episode_steps=limit, name="a line"))
    env = envs.make("line", limit=5)
    assert (env.spec.name, env.params, env.spec.max_episode_steps) == ("line", {"limit": 5}, 5)
    assert envs.make("line").params == {"limit": 7} and "line" in envs.names()
    with pytest.raises(ValueError, match="line has no argument 'size'; valid are limit"):
        envs.make("line", size=3)
    for name, factory, text in (("maze", Line, "other than maze"), ("a", lambda size: None, "parameter size of a")):
        with pytest.raises(ValueError, match=text):
            envs.register(name, factory)


def test_gymnax_itself():
    gymnax = pytest.importorskip("gymnax")
    cart, params = gymnax.make("CartPole-v1")
    env = envs.from_gymnax(cart, params.replace(max_steps_in_episode=30), perf=lambda x: x / 30)
    envs.check_env(env, num_envs=4)
    from gymnax.environments.bsuite.deep_sea import DeepSea

    env = envs.from_gymnax(DeepSea(size=4), max_episode_steps=5)
    _, state = env.reset(jax.random.key(0), 2)
    for _ in range(4):
        _, state, _, terminated, truncated, info = env.step(jax.random.key(0), state, jnp.zeros(2, jnp.int32))
    assert terminated.all() and not truncated.any() and (info["episode_length"] == 4).all()
