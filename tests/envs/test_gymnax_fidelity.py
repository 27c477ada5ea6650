"""from_gymnax plays as the environment does: keys that levels are made from, and clocks that games show or read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs import check

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def quick_compilation():
    """Every program here runs once or a few times: compiling them is what takes time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Keyed:
    """The right one of four actions is made from the key `level` in the state. `advance` gives the next state's keys
    from the state's and the key of the step."""

    num_actions = 4

    def __init__(self, advance=lambda state, key: {}, start=lambda key: {"level": key}):
        self.advance, self.start = advance, start

    def see(self, state):
        level = state["level"] if jnp.ndim(state["level"]) == 0 else state["level"][0]
        return jax.nn.one_hot(jax.random.randint(level, (), 0, 4), 4)

    def reset(self, key, params=None):
        state = {**self.start(key), "time": jnp.int32(0)}
        return self.see(state), state

    def step(self, key, state, action, params=None):
        new = {**state, "time": state["time"] + 1, **self.advance(state, key)}
        return self.see(new), new, self.see(state)[action], jnp.bool_(False), jnp.bool_(False), {}


def level_and_stream(key):
    level, stream = jax.random.split(key)
    return {"level": level, "stream": stream}


def next_stream(state, key):
    stream, part = jax.random.split(state["stream"])
    return {"stream": stream, "luck": jax.random.uniform(part)}


def one_level_after_the_other(state, key):
    return {"level": jnp.where(state["time"] % 3 == 2, jax.random.split(state["level"])[0], state["level"])}


def next_of(key):
    return jax.random.split(key)[0]


def same(key):
    return key


def next_in_a_loop(state, key):
    return {"level": jax.lax.fori_loop(0, 2, lambda _, k: jax.random.split(k)[0], state["level"])}


@pytest.mark.parametrize(
    "game, kept_bytes",
    [
        (Keyed(), 8),
        (Keyed(start=lambda key: {"level": jax.random.split(key)}), 16),  # an array of keys
        (Keyed(next_stream, lambda key: {**level_and_stream(key), "luck": jnp.float32(0)}), 8 + 4),  # the stream is not
        (Keyed(one_level_after_the_other), 8),
        (Keyed(lambda state, key: {"level": jax.random.split(state["level"])[0]}), 8),  # shown before it is used
        (Keyed(lambda state, key: {"level": jax.random.fold_in(state["level"], 1)}), 8),
        (Keyed(lambda state, key: {"level": jax.lax.cond(state["time"] == 3, next_of, same, state["level"])}), 8),
        (Keyed(next_in_a_loop), 8),
    ],
)
def test_a_level_made_from_a_key_in_the_state_stays(game, kept_bytes):
    env = envs.from_gymnax(game, max_episode_steps=8, perf=lambda x: x / 8)
    assert env.spec.state_bytes == 4 + 4 + 4 + 16 + 4 + kept_bytes  # header, observation, time

    @jax.jit
    def play(key):
        def step(carry, key):
            obs, state = carry
            obs, state, reward, *_ = env.step(key, state, obs.argmax(-1).astype(jnp.int32))
            return (obs, state), reward

        return jax.lax.scan(step, env.reset(key, 64), jax.random.split(key, 8))[1]

    assert (play(KEY) == 1).all()  # the shown action is the right one


def test_the_choice_of_keys_can_be_made():
    game = Keyed(next_stream, lambda key: {**level_and_stream(key), "luck": jnp.float32(0)})
    sizes = {}
    for choice in (None, True, False, ("level",), ["stream"]):
        env = envs.from_gymnax(game, max_episode_steps=8, perf=lambda x: x / 8, keep_keys=choice)
        sizes[str(choice)] = env.spec.state_bytes - 36
    assert sizes == {"None": 8, "True": 16, "False": 0, "('level',)": 8, "['stream']": 8}
    with pytest.raises(ValueError, match=r"keep_keys must be .* names among \['level', 'stream'\].*; got 'seed'"):
        envs.from_gymnax(game, max_episode_steps=8, keep_keys=["seed"])
    with pytest.raises(TypeError, match=r"keep_keys must be .* got 'level'"):
        envs.from_gymnax(game, max_episode_steps=8, keep_keys="level")


def test_a_stream_gives_a_snapshot_two_futures_and_a_kept_one_does_not():
    game = Keyed(next_stream, lambda key: {**level_and_stream(key), "luck": jnp.float32(0)})
    for keep, num_futures in ((None, 2), (True, 1)):
        env = envs.from_gymnax(game, max_episode_steps=8, keep_keys=keep)
        _, state = env.reset(KEY, 2)
        state = env.restore(state, state[:1], np.array([1], np.int32))
        after = np.asarray(env.step(KEY, state, jnp.zeros(2, jnp.int32))[1])
        assert len(np.unique(after, axis=0)) == num_futures


def test_check_env_finds_levels_that_are_drawn_anew():
    env = envs.from_gymnax(Keyed(), max_episode_steps=8, perf=lambda x: x / 8, keep_keys=False)
    with pytest.raises(envs.EnvCheckError, match=r"the adapter plays as the environment itself: .* differs first at"):
        envs.check_env(env, num_envs=2)


class Timed:
    """A walk on a line whose limit is the clock's. Subclasses show or read the time."""

    num_actions = 2
    own_limit = 20

    def now(self):
        return {"time": jnp.int32(0)}

    def tick(self, state):
        return {"time": state["time"] + 1}

    def see(self, state):
        return jnp.stack([state["x"], jnp.float32(0)])

    def reward(self, state):
        return state["x"]

    def is_over(self, state):
        return state["x"] > 8

    def is_late(self, state):
        return state["time"] >= self.own_limit

    def reset(self, key, params=None):
        state = {"x": jnp.float32(0), **self.now()}
        return self.see(state), state

    def step(self, key, state, action, params=None):
        after = {"x": state["x"] + action, **self.tick(state)}
        over, late = self.is_over(after), self.is_late(after)
        _, start = self.reset(key)
        after_all = jax.tree.map(lambda a, b: jnp.where(over | late, a, b), start, after)
        return self.see(after_all), after_all, self.reward(after), over, late & ~over, {}


class TimeIsShown(Timed):
    def see(self, state):
        return jnp.stack([state["x"], state["time"].astype(jnp.float32)])


class TimeLeftIsShown(Timed):
    def see(self, state):
        return jnp.stack([state["x"], 1 - state["time"] / 20])


class TimeDecidesRewards(Timed):
    def reward(self, state):
        return state["x"] * (state["time"] % 2)


class ShortGame(Timed):
    """Over after five steps, as gymnax's memory chain."""

    def is_over(self, state):
        return state["time"] >= 5


class OwnLimitIsShorter(Timed):
    own_limit = 15


class FloatTime(TimeIsShown):
    def now(self):
        return {"time": jnp.float32(0)}


class OtherName(Timed):
    """Its time has a name that nobody was told."""

    def now(self):
        return {"ticks": jnp.int16(0)}

    def tick(self, state):
        return {"ticks": state["ticks"] + jnp.int16(1)}

    def see(self, state):
        return jnp.stack([state["x"], state["ticks"].astype(jnp.float32)])

    def is_late(self, state):
        return state["ticks"] >= 20


class CountsDown(Timed):
    def now(self):
        return {"left": jnp.array([0, 20])}

    def tick(self, state):
        return {"left": state["left"] - jnp.array([0, 1])}

    def see(self, state):
        return jnp.stack([state["x"], state["left"][1].astype(jnp.float32)])

    def is_late(self, state):
        return state["left"][1] <= 0


class TimeInSeconds(Timed):
    """What is called time counts in halves."""

    def now(self):
        return {"time": jnp.float32(0)}

    def tick(self, state):
        return {"time": state["time"] + 0.5}

    def is_late(self, state):
        return state["time"] >= 10


class TimeDoesNotMatter(Timed):
    pass


class FloatTimeDoesNotMatter(Timed):
    def now(self):
        return {"time": jnp.float32(0)}


class NoTime(Timed):
    def now(self):
        return {}

    def tick(self, state):
        return {}

    def is_late(self, state):
        return jnp.bool_(False)


BOUND = [
    TimeIsShown,
    TimeLeftIsShown,
    TimeDecidesRewards,
    ShortGame,
    OwnLimitIsShorter,
    FloatTime,
    OtherName,
    CountsDown,
]
BOUND += [TimeInSeconds]
FREE = [TimeDoesNotMatter, FloatTimeDoesNotMatter, NoTime]


@pytest.mark.parametrize("game", BOUND + FREE)
def test_the_clock_of_a_game_that_shows_or_reads_it_is_left_alone(game):
    env = envs.from_gymnax(game(), max_episode_steps=20, perf=lambda x: jnp.clip(x, 0, 1))
    assert env.spec.clock_moves == (game in FREE)
    _, state = env.reset(KEY, 16)
    for t in range(3):
        state = env.step(jax.random.fold_in(KEY, t), state, jnp.zeros(16, jnp.int32))[1]
    staggered = env.stagger(KEY, state)
    times, timeless = env.clock(staggered)
    if game in FREE:
        assert len(np.unique(times)) > 4 and (env.clock(timeless)[0] == 0).all()
    else:
        assert (times == 3).all()
        np.testing.assert_array_equal(staggered, state)
        np.testing.assert_array_equal(timeless, state)


def test_time_field_none_moves_no_clock_that_there_is():
    for game, moves in ((TimeDoesNotMatter, False), (NoTime, True)):
        assert envs.from_gymnax(game(), max_episode_steps=20, time_field=None).spec.clock_moves == moves


def test_check_env_accepts_a_clock_that_is_never_moved():
    envs.check_env(envs.from_gymnax(TimeIsShown(), max_episode_steps=20, perf=lambda x: jnp.clip(x, 0, 1)), num_envs=4)


@pytest.mark.parametrize(
    "game, text",
    [
        (TimeIsShown, "obs differs from that of the state as it was, first in step 0: spec.clock_moves must be False"),
        (TimeDecidesRewards, "a moved clock changes nothing else: reward differs"),
        (ShortGame, "a moved clock changes nothing else: terminated differs"),
    ],
)
def test_check_env_finds_a_clock_that_must_not_be_moved(game, text, monkeypatch):
    """As from_gymnax was before it tried environments out."""
    from pufferjax.envs import gymnax

    trial = gymnax.find_game_clock
    monkeypatch.setattr(gymnax, "find_game_clock", lambda *a, **k: trial(*a, **k)._replace(is_free=True))
    env = envs.from_gymnax(game(), max_episode_steps=20, perf=lambda x: jnp.clip(x, 0, 1))
    with pytest.raises(envs.EnvCheckError, match=text):
        envs.check_env(env, num_envs=4)


def _games_of_gymnax():
    try:
        import gymnax
    except ImportError:
        return []
    return gymnax.registered_envs


@pytest.mark.parametrize("name", _games_of_gymnax())
def test_all_games_of_gymnax_play_as_themselves(name):
    import gymnax

    try:
        game, params = gymnax.make(name)
    except OSError:
        pytest.skip("downloads its data")
    env = envs.from_gymnax(game, params)
    check._check_unadapted(env, 4, KEY)
    check._check_clock(env, 4, KEY)
    check._check_moved_clock(env, 8, KEY)
    bound = (
        "MemoryChain", "UmbrellaChain", "DiscountingChain", "MetaMaze", "PointRobot", "BernoulliBandit",
        "GaussianBandit",
    )  # fmt: skip
    assert env.spec.clock_moves == (not name.startswith(bound))


class Pushed(Timed):
    """How far a step goes is a parameter."""

    @property
    def default_params(self):
        return {"force": 1.0, "max_steps_in_episode": 20}

    def step(self, key, state, action, params=None):
        obs, state, reward, over, late, info = Timed.step(self, key, state, action)
        return obs * params["force"], state, reward, over, late, info


def test_parameters_may_be_traced():
    def first_steps(force, limit=20):
        params = {"force": force, "max_steps_in_episode": limit}
        env = envs.from_gymnax(Pushed(), params, max_episode_steps=20, perf=lambda x: x / 100)
        assert env.params == {"max_steps_in_episode": 20, "max_episode_steps": 20} and env.spec.clock_moves
        return env.step(KEY, env.reset(KEY, 2)[1], jnp.ones(2, jnp.int32))[0]

    np.testing.assert_array_equal(jax.vmap(first_steps)(jnp.array([1.0, 3.0]))[:, :, 0], [[1, 1], [3, 3]])

    class Limit:
        max_steps_in_episode = None

    def without_a_limit(limit):
        params = Limit()
        params.max_steps_in_episode = limit
        return envs.from_gymnax(Pushed(), params).reset(KEY, 2)[0]

    with pytest.raises(ValueError, match=r"must be given where params.max_steps_in_episode is traced"):
        jax.jit(without_a_limit)(20)
