"""Observations of several arrays: dictionaries, tuples, nests of them. Read, taken apart, made again, learned from."""

import types
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import envs
from pufferjax.core.policy import make_policy

SIDE, LIMIT = 5, 12


class GridState(NamedTuple):
    at: jax.Array
    goal: jax.Array
    heading: jax.Array
    time: jax.Array


class Grid:
    """An agent walks to a goal. Observed are the map, and in a tuple the heading and how near the goal is."""

    name = "grid"
    num_actions = 4
    limit = LIMIT

    def observation_space(self, params):
        spaces = {"map": types.SimpleNamespace(low=0, high=2), "self": (types.SimpleNamespace(n=4), None)}
        return types.SimpleNamespace(spaces=spaces)

    def get_obs(self, state, params=None):
        cells = jnp.zeros((SIDE, SIDE), jnp.int32).at[tuple(state.goal)].set(2).at[tuple(state.at)].set(1)
        near = -jnp.abs(state.at - state.goal).astype(jnp.float32)
        return {"map": cells, "self": (state.heading, near)}

    def reset(self, key, params):
        goal = jax.random.randint(key, (2,), 0, SIDE)
        state = GridState(jnp.array([2, 2]), goal, jnp.int32(0), jnp.int32(0))
        return self.get_obs(state), state

    def step(self, key, state, action, params):
        move = jnp.array([[0, 1], [1, 0], [0, -1], [-1, 0]])[action]
        after = GridState(jnp.clip(state.at + move, 0, SIDE - 1), state.goal, action, state.time + 1)
        terminated, truncated = (after.at == after.goal).all(), after.time >= self.limit
        _, start = self.reset(key, params)
        state = jax.tree.map(lambda new, old: jnp.where(terminated | truncated, new, old), start, after)
        return self.show(state, key, truncated), state, terminated.astype(jnp.float32), terminated, truncated, {}

    def show(self, state, key, truncated):
        """What a step shows; subclasses show what the state does not."""
        return self.get_obs(state)


class NoisyGrid(Grid):
    def show(self, state, key, truncated):
        obs = self.get_obs(state)
        return {**obs, "map": obs["map"].at[0, 0].add(jax.random.bernoulli(key, 0.01).astype(jnp.int32))}


class LateGrid(Grid):
    """Only after a time-out is something else shown, and no episode gets that far by itself in the trial."""

    limit = 1000

    def show(self, state, key, truncated):
        obs = self.get_obs(state)
        return {**obs, "self": (jnp.where(truncated, 3, obs["self"][0]), obs["self"][1])}


class BareGrid(Grid):
    get_obs = property()

    def show(self, state, key, truncated):
        return Grid.get_obs(self, state)

    def reset(self, key, params):
        state = GridState(jnp.array([2, 2]), jax.random.randint(key, (2,), 0, SIDE), jnp.int32(0), jnp.int32(0))
        return Grid.get_obs(self, state), state


class KeyedState(NamedTuple):
    count: jax.Array
    key: jax.Array


class KeyedGame:
    """Shows numbers made from a key that every step uses up, which rows do not hold."""

    name = "keyed"
    num_actions = 2

    def get_obs(self, state):
        return {"drawn": jax.random.uniform(state.key, (20,))}

    def reset(self, key, params):
        state = KeyedState(jnp.int32(0), key)
        return {"drawn": jnp.zeros(20)}, state

    def step(self, key, state, action, params):
        state = KeyedState(state.count + 1, jax.random.split(state.key)[0])
        return {"drawn": jnp.zeros(20)}, state, 0.0, jnp.bool_(False), state.count > 5, {}


@pytest.fixture(scope="module")
def grid():
    return envs.from_gymnax(Grid(), max_episode_steps=LIMIT)


@pytest.fixture(autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_a_nested_observation_is_one_vector_with_parts(grid):
    spec = grid.spec
    assert (spec.obs_shape, spec.obs_dtype, spec.obs_max) == ((28,), np.float32, None)
    assert [(x.name, x.offset, x.shape, x.dtype, x.max) for x in spec.obs_parts] == [
        ("map", 0, (SIDE, SIDE), np.uint8, 2),
        ("self.0", 25, (), np.uint8, 3),
        ("self.1", 26, (2,), np.float32, None),
    ]
    obs, state = grid.reset(jax.random.key(0), 6)
    assert obs.shape == (6, 28)
    parts = spec.split(obs.reshape(2, 3, 28))
    goals = np.asarray(state[:, 12 + 8 : 12 + 16]).copy().view("<i4")  # behind the header and `at`
    for i, goal in enumerate(goals):
        t, b = divmod(i, 3)
        cells = np.zeros((SIDE, SIDE), np.uint8)
        cells[tuple(goal)] = 2
        cells[2, 2] = 1
        np.testing.assert_array_equal(parts["map"][t, b], cells)
        np.testing.assert_array_equal(parts["self.1"][t, b], -np.abs(np.array([2, 2]) - goal))
    assert parts["map"].dtype == jnp.uint8 and parts["self.0"].shape == (2, 3) and parts["self.1"].shape == (2, 3, 2)
    with pytest.raises(ValueError, match=r"grid: split: observations must have shape \[..., 28\], got \[2, 27\]"):
        spec.split(obs[:2, :27])
    maze = envs.make("maze", size=5, num_mazes=4)
    first = maze.reset(jax.random.key(0), 2)[0]
    assert list(maze.spec.split(first)) == ["observation"] and maze.spec.all_parts[0].shape == (11, 11)


def test_integers_that_fit_stay_bytes():
    obs = (jnp.uint8(7), {"b": jnp.zeros((2, 2), bool), "a": jnp.zeros(3, jnp.int32)})
    space = (None, {"a": types.SimpleNamespace(low=np.zeros(3), high=np.full(3, 9))})
    game = types.SimpleNamespace(
        num_actions=2,
        reset=lambda key, params: (obs, jnp.int32(0)),
        step=lambda key, state, action, params: (obs, state, 0.0, False, False, {}),
        observation_space=lambda params: space,
    )
    spec = envs.from_gymnax(game, max_episode_steps=9).spec
    assert (spec.obs_shape, spec.obs_dtype, spec.obs_max) == ((8,), np.uint8, 255)
    assert [(x.name, x.max) for x in spec.obs_parts] == [("0", 255), ("1.a", 9), ("1.b", 1)]
    game.reset = lambda key, params: ({"a.b": obs[0], "a": {"b": obs[0]}}, jnp.int32(0))
    game.step = lambda key, state, action, params: (game.reset(0, 0)[0], state, 0.0, False, False, {})
    with pytest.raises(ValueError, match=r"two arrays of the observation are called 'a\.b'"):
        envs.from_gymnax(game, max_episode_steps=9)


def test_an_environment_of_parts_keeps_the_contract(grid):
    envs.check_env(grid, num_envs=4, num_steps=40)


def test_what_the_state_shows_again_is_not_stored(grid):
    stored = envs.from_gymnax(Grid(), max_episode_steps=LIMIT, store_observation=True)
    assert grid.spec.state_bytes == 12 + 4 * 6 and stored.spec.state_bytes == 12 + 4 * 6 + 4 * 28
    actions = jax.random.randint(jax.random.key(1), (60, 8), 0, 4, jnp.int32)

    def run(env):
        def step(state, xs):
            obs, state, *others = env.step(xs[0], state, xs[1])
            return state, (obs, env.observe(state), *others)

        first, state = env.reset(jax.random.key(0), 8)
        state, outputs = jax.lax.scan(step, state, (jax.random.split(jax.random.key(2), 60), actions))
        restored = env.restore(state, state[::-1], jnp.arange(8, dtype=jnp.int32))
        return first, outputs, env.observe(restored)

    small, large = (jax.device_get(jax.jit(run, static_argnums=0)(env)) for env in (grid, stored))
    jax.tree.map(np.testing.assert_array_equal, small, large)
    _, (obs, again, _, terminated, truncated, _), restored = small
    np.testing.assert_array_equal(obs, again)
    np.testing.assert_array_equal(obs[-1], restored[::-1])
    assert terminated.any() and truncated.any()


@pytest.mark.parametrize(
    "game, why",
    [
        (NoisyGrid(), "that differs from what reset and step show"),
        (LateGrid(), "that differs from what reset and step show"),
        (KeyedGame(), "that differs"),
        (BareGrid(), "it has none of the methods get_obs, observation, observe"),
    ],
)
def test_what_the_state_does_not_show_is_stored(game, why):
    limit = getattr(game, "limit", LIMIT)
    env = envs.from_gymnax(game, max_episode_steps=limit)
    assert env.spec.state_bytes >= 4 * env.spec.obs_shape[0]
    with pytest.raises(ValueError, match=f"{game.name}: store_observation must be True or None, .* again: {why}"):
        envs.from_gymnax(game, max_episode_steps=limit, store_observation=False)


def test_store_observation_is_a_switch():
    with pytest.raises(TypeError, match="store_observation must be True, False or None, got 'no'"):
        envs.from_gymnax(Grid(), max_episode_steps=LIMIT, store_observation="no")


def test_the_picture_is_of_the_largest_board(grid):
    image = grid.render(np.asarray(grid.reset(jax.random.key(0), 1)[1])[0])
    side = image.shape[0] // SIDE
    cells = image[side // 2 :: side, side // 2 :: side].sum(axis=2)
    assert cells.shape == (SIDE, SIDE) and len(np.unique(cells)) in (2, 3) and cells[2, 2] > cells.min()


class OwnEncoder(nn.Module):
    """A layer on what it is given."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(16)(x.reshape(*x.shape[:2], -1).astype(jnp.float32))


@pytest.mark.parametrize(
    "encoder, epochs, least",
    [("board", 2, 0.0), pytest.param("own", 48, 0.8, marks=pytest.mark.nightly)],  # at random 0.37
)
def test_a_run_learns_from_parts_and_can_be_loaded(encoder, epochs, least, grid, tmp_path):
    config = pufferjax.TrainConfig(
        total_steps=64 * 16 * epochs,
        num_envs=64,
        horizon=16,
        policy=pufferjax.PolicyConfig(
            hidden_size=16, num_layers=1, encoder_layers=1, encoder="auto" if encoder == "own" else encoder
        ),
        ppo=pufferjax.PPOConfig(minibatch_size=256, replay_ratio=2.0, gamma=0.9, gae_lambda=0.9),
        state_set=pufferjax.StateSetConfig(fraction=0.0, interval=8, replay_span=8),
    )
    policy = make_policy(grid.spec, config.policy, encoder={"self.1": OwnEncoder()}) if encoder == "own" else None
    options = {"show": False, "devices": 1, "eval_episodes": 64, "run_dir": tmp_path / "run"}
    result = pufferjax.train(grid, config, policy=policy, **options)
    assert result.evaluation["episode_return"] > least
    if encoder == "own":
        with pytest.raises(ValueError, match=r"a policy of its own, ActorCritic\(OwnEncoder\)"):
            pufferjax.load_run(tmp_path / "run", env=grid)
    _, _, _, state = pufferjax.load_run(tmp_path / "run", env=grid, policy=policy)
    assert ("own_encoder_self.1" in state.params) == (encoder == "own") and "part_map" in state.params
    jax.tree.map(np.testing.assert_array_equal, state.params, result.train_state.params)
