"""The maze against its slow reference, its rules one by one, and what it refuses."""

import dataclasses
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.maze import reference
from pufferjax.envs.maze.maze import inspect, steps_to_goal

STAY, EAST, NORTH, WEST, SOUTH = range(5)
LEVEL, TICK, X, Y, UNUSED = slice(0, 4), slice(4, 8), slice(8, 10), slice(10, 12), slice(12, 16)  # bytes of a row


def make(**params):
    return envs.make("maze", **{"size": 7, "num_mazes": 7, "seed": 1, "vision": 5} | params)


def words(key):
    return np.asarray(jax.random.bits(key, (2,), jnp.uint32))


def walls_of(env, state):
    """bool[N, size, size] and the facts of the rows."""
    cells, facts = inspect(env, state)
    return np.asarray(cells) == 1, {name: np.asarray(value) for name, value in facts.items()}


def edited(rows, **fields):
    """Rows with some fields overwritten, say x=3."""
    places = {"level": (LEVEL, np.uint32), "tick": (TICK, np.uint32), "x": (X, np.uint16), "y": (Y, np.uint16)}
    places["unused"] = (UNUSED, np.uint32)
    rows = np.array(rows)
    for name, value in fields.items():
        where, dtype = places[name]
        rows[..., where] = np.array([value], dtype).view(np.uint8)
    return rows


def route(walls):
    """The actions of the only path from (1, 1) to the goal."""
    goal = (walls.shape[0] - 2, walls.shape[0] - 2)
    came = {(1, 1): None}
    queue = deque(came)
    while goal not in came:
        x, y = queue.popleft()
        for action in (EAST, NORTH, WEST, SOUTH):
            dx, dy = reference.STEPS[action]
            if not walls[y + dy, x + dx] and (x + dx, y + dy) not in came:
                came[x + dx, y + dy] = (x, y), action
                queue.append((x + dx, y + dy))
    actions, at = [], goal
    while came[at]:
        at, action = came[at]
        actions.append(action)
    return actions[::-1]


def teleported(env, state, **fields):
    """`state` with all its rows edited, through restore, so only possible states are reached."""
    rows = edited(env.snapshot(state), **fields)
    return env.restore(state, rows, np.arange(len(rows), dtype=np.int32))


# --- against the reference --------------------------------------------------------------------------------------------
# 108,000 env-steps in total.
CASES = [  # size, vision, num_mazes, num_envs, num_steps
    (5, 3, 1, 64, 300),
    (5, 5, 0, 64, 300),
    (7, 5, 7, 64, 300),
    (7, 31, 0, 32, 300),
    (15, 7, 8192, 32, 600),
    (15, 11, 0, 32, 300),
    (35, 9, 7, 16, 300),
    (35, 11, 8192, 16, 300),
    (127, 31, 1, 8, 300),
    (127, 11, 7, 8, 300),
    (127, 3, 0, 4, 300),
]


def test_the_cases_cover_enough():
    assert sum(num_envs * num_steps for *_, num_envs, num_steps in CASES) >= 100_000


@pytest.mark.parametrize("size, vision, num_mazes, num_envs, num_steps", CASES)
def test_reference_agrees(size, vision, num_mazes, num_envs, num_steps):
    seed = 2**40 + 5  # both words of the seed count
    env = make(size=size, vision=vision, num_mazes=num_mazes, seed=seed)
    twin = reference.Mazes(num_envs, size=size, num_mazes=num_mazes, seed=seed, vision=vision)
    random = np.random.default_rng(size)
    key = jax.random.key(size)
    obs, state = env.reset(key, num_envs)
    np.testing.assert_array_equal(obs, twin.reset(words(key)))

    # Start close to the time limit and near the goal in some environments, so that both ends occur in every case.
    walls, facts = walls_of(env, state)
    rows = np.array(env.snapshot(state))
    for i in range(0, num_envs, 2):
        twin.tick[i] = 2 * size * size - 1 - int(random.integers(min(num_steps // 2, size * size)))
        rows[i] = edited(rows[i], tick=twin.tick[i])
    for i in range(0, num_envs, 4):
        beside = (size - 3, size - 2) if not walls[i, size - 2, size - 3] else (size - 2, size - 3)
        twin.position[i] = beside
        rows[i] = edited(rows[i], x=beside[0], y=beside[1])
    state = env.restore(state, rows, np.arange(num_envs, dtype=np.int32))
    np.testing.assert_array_equal(env.observe(state), twin.observe())

    keys = jax.random.split(jax.random.key(size + 1), num_steps)
    # Mostly south and east: such an agent gets about.
    actions = random.choice(5, (num_steps, num_envs), p=(0.05, 0.3, 0.15, 0.15, 0.35)).astype(np.int32)

    @jax.jit
    def native(state, actions, keys):
        def body(state, inputs):
            action, key = inputs
            obs, state, reward, terminated, truncated, info = env.step(key, state, action)
            bits = jax.random.bits(key, (2,), jnp.uint32)
            return state, (bits, obs, reward, terminated, truncated, info)

        return jax.lax.scan(body, state, (actions, keys))

    state, (bits, *outputs, info) = jax.tree.map(np.asarray, native(state, actions, keys))
    ends = np.zeros(2, int)
    for t in range(num_steps):
        expected = twin.step(bits[t], actions[t])
        for native_output, reference_output in zip(outputs, expected, strict=False):
            np.testing.assert_array_equal(native_output[t], reference_output, err_msg=f"step {t}")
            assert native_output.dtype == reference_output.dtype
        for name, reference_output in zip(("episode_return", "episode_length"), expected[4:], strict=True):
            np.testing.assert_array_equal(info[name][t], reference_output, err_msg=f"{name}, step {t}")
        np.testing.assert_array_equal(info["score"][t], expected[4])
        np.testing.assert_array_equal(info["perf"][t], expected[4])
        ends += expected[2].sum(), expected[3].sum()
    walls, facts = walls_of(env, state)
    np.testing.assert_array_equal(facts["level"], twin.level)
    np.testing.assert_array_equal(facts["tick"], twin.tick)
    np.testing.assert_array_equal(env.clock(state)[0], twin.tick)
    np.testing.assert_array_equal(np.stack([facts["x"], facts["y"]], 1), twin.position)
    np.testing.assert_array_equal(walls, [w & ~own(twin, i) for i, w in enumerate(twin.walls)])
    assert (ends > 0).all(), "the case exercises neither or only one kind of end"


def own(twin, i):
    """The cell of agent i, which the picture shows instead of what is below it."""
    cell = np.zeros((twin.size, twin.size), bool)
    cell[twin.position[i][1], twin.position[i][0]] = True
    return cell


# --- levels -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size, num_mazes", [(5, 50), (7, 50), (15, 50), (35, 20), (127, 3), (7, 0), (15, 0), (35, 0)])
def test_every_maze_is_perfect(size, num_mazes):
    env = make(size=size, num_mazes=num_mazes, seed=3)
    num_envs = 8 * num_mazes or 32
    walls, facts = walls_of(env, env.reset(jax.random.key(0), num_envs)[1])
    seen = {int(level): walls[i] for i, level in enumerate(facts["level"])} if num_mazes else dict(enumerate(walls))
    for maze in seen.values():
        # The picture shows the agent at (1, 1) and the goal instead of what is below them: both count as open here.
        border = np.ones((size, size), bool)
        border[1:-1, 1:-1] = False
        assert maze[border].all()
        is_open = ~maze
        assert is_open[1, 1] and is_open[size - 2, size - 2]
        nodes = is_open.sum()
        edges = (is_open[1:] & is_open[:-1]).sum() + (is_open[:, 1:] & is_open[:, :-1]).sum()
        assert edges == nodes - 1
        reached, queue = {(1, 1)}, deque([(1, 1)])
        while queue:
            x, y = queue.popleft()
            for dx, dy in reference.STEPS[1:]:
                if is_open[y + dy, x + dx] and (x + dx, y + dy) not in reached:
                    reached.add((x + dx, y + dy))
                    queue.append((x + dx, y + dy))
        assert len(reached) == nodes
        assert is_open[1::2, 1::2].all(), "every odd cell is a room"


def test_steps_to_goal():
    maze = reference.shared_level(15, 3, 4)
    steps = steps_to_goal(maze)
    assert steps[1, 1] == len(route(maze)) and steps[13, 13] == 0
    np.testing.assert_array_equal(steps < 0, maze)
    # A perfect maze has one path between any two cells, so the way to the goal is one step shorter on one side only.
    for y, x in np.argwhere(~maze):
        around = [steps[y + dy, x + dx] for dx, dy in reference.STEPS[1:] if not maze[y + dy, x + dx]]
        assert sum(n == steps[y, x] - 1 for n in around) == (steps[y, x] > 0)
        assert all(abs(n - steps[y, x]) == 1 for n in around)


def test_levels_match_the_reference():
    for size, num_mazes, seed in ((5, 4, 0), (15, 9, 7), (35, 6, 2**62 + 1)):
        env = make(size=size, num_mazes=num_mazes, seed=seed)
        state = env.reset(jax.random.key(0), 4 * num_mazes)[1]
        walls, facts = walls_of(env, state)
        for level in set(facts["level"].tolist()):
            maze = walls[facts["level"].tolist().index(level)]
            np.testing.assert_array_equal(maze, reference.shared_level(size, seed, level))


def test_seeds_give_other_levels_and_the_same_seed_the_same():
    pictures = []
    for seed in (1, 2, 1 + 2**32, 1):
        env = make(size=15, num_mazes=1, seed=seed, vision=3 + 2 * len(pictures))  # the window must not matter
        pictures.append(walls_of(env, env.reset(jax.random.key(0), 1)[1])[0][0])
    assert all((pictures[0] != pictures[i]).any() for i in (1, 2)) and (pictures[1] != pictures[2]).any()
    np.testing.assert_array_equal(pictures[0], pictures[3])


def test_difficulty_spreads_from_bushy_to_corridors():
    # Dead ends per room: about 0.1 for depth-first mazes, 0.3 for random growth.
    env = make(size=35, num_mazes=200, seed=5)
    walls, facts = walls_of(env, env.reset(jax.random.key(0), 2000)[1])
    fractions = []
    for level in range(200):
        is_open = ~walls[facts["level"].tolist().index(level)]
        degree = sum(np.roll(is_open, shift, axis)[1::2, 1::2].astype(int) for axis in (0, 1) for shift in (1, -1))
        fractions.append((degree == 1).mean())
    assert min(fractions) < 0.13 and max(fractions) > 0.26


def test_level_choice_is_uniform():
    num_mazes, num_envs = 64, 64_000
    env = make(num_mazes=num_mazes)
    _, facts = inspect(env, env.reset(jax.random.key(0), num_envs)[1])
    counts = np.bincount(np.asarray(facts["level"]), minlength=num_mazes)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 63 - 5 * np.sqrt(2 * 63) < chi_square < 63 + 5 * np.sqrt(2 * 63)  # mean 63, standard deviation sqrt(2 * 63)


def test_level_is_drawn_once_per_reset():
    # The first word of the stream (key, i), and nothing else, chooses the level.
    env = make(num_mazes=8192)
    key = jax.random.key(9)
    _, facts = inspect(env, env.reset(key, 50)[1])
    expected = [reference.Philox(*words(key), i).below(8192) for i in range(50)]
    np.testing.assert_array_equal(facts["level"], expected)


def test_a_new_maze_for_every_episode():
    env = make(size=15, num_mazes=0)
    _, state = env.reset(jax.random.key(0), 2)
    before = walls_of(env, state)[0]
    state = teleported(env, state, tick=2 * 15 * 15 - 1)
    _, state, *_ = env.step(jax.random.key(1), state, np.zeros(2, np.int32))
    after = walls_of(env, state)[0]
    assert (before[0] != before[1]).any() and all((before[i] != after[i]).any() for i in range(2))


# --- rules ------------------------------------------------------------------------------------------------------------
def test_spec():
    spec = make(size=35, vision=9).spec
    assert spec.obs_shape == (9, 9) and spec.obs_dtype == np.uint8 and spec.obs_max == 4
    assert spec.num_actions == (5,) and spec.num_agents == 1 and spec.max_episode_steps == 2450
    assert spec.action_names == (("stay", "east", "north", "west", "south"),)
    assert spec.state_bytes == 16 and make(num_mazes=0).spec.state_bytes > 16


@pytest.mark.parametrize("num_mazes", [0, 7])
def test_directions_and_walls(num_mazes):
    env = make(size=15, num_mazes=num_mazes)
    _, state = env.reset(jax.random.key(0), 1)
    walls = walls_of(env, state)[0][0]
    for x, y in np.argwhere(~walls.T).tolist():
        if (x, y) == (13, 13):
            continue
        here = teleported(env, state, x=x, y=y)
        for action, (dx, dy) in enumerate([(0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)]):
            expected = (x, y) if walls[y + dy, x + dx] else (x + dx, y + dy)
            _, after, reward, terminated, truncated, info = env.step(
                jax.random.key(0), here, np.array([action], np.int32)
            )
            assert reward[0] == (expected == (13, 13)) == terminated[0] and not truncated[0]
            if not terminated[0]:
                facts = walls_of(env, after)[1]
                assert (facts["x"][0], facts["y"][0], facts["tick"][0]) == (*expected, 1)
                assert all(not np.asarray(value)[0] for value in info.values())


@pytest.mark.parametrize("num_mazes", [0, 3])
def test_the_route_to_the_goal_is_rewarded_once_at_its_end(num_mazes):
    env = make(size=15, num_mazes=num_mazes)
    _, state = env.reset(jax.random.key(4), 1)
    actions = route(walls_of(env, state)[0][0])
    for t, action in enumerate(actions):
        obs, state, reward, terminated, truncated, info = env.step(
            jax.random.key(t), state, np.array([action], np.int32)
        )
        assert reward[0] == terminated[0] == (t == len(actions) - 1) and not truncated[0]
    assert {name: float(value[0]) for name, value in info.items()} == {
        "episode_return": 1.0,
        "episode_length": float(len(actions)),
        "score": 1.0,
        "perf": 1.0,
    }
    facts = walls_of(env, state)[1]
    assert (facts["x"][0], facts["y"][0], facts["tick"][0]) == (1, 1, 0)
    np.testing.assert_array_equal(obs, env.observe(state))


def test_time_out_is_truncated_at_twice_the_area():
    env = make(size=7)
    _, state = env.reset(jax.random.key(0), 3)
    stay = np.zeros(3, np.int32)
    for t in range(2 * 7 * 7):
        _, state, reward, terminated, truncated, info = env.step(jax.random.key(t), state, stay)
        is_last = t == 2 * 7 * 7 - 1
        assert (truncated == is_last).all() and not terminated.any() and not reward.any()
        assert (info["episode_length"] == (98 if is_last else 0)).all()
        assert not info["episode_return"].any() and not info["perf"].any()
    assert (walls_of(env, state)[1]["tick"] == 0).all()


def test_goal_on_the_last_tick_is_terminated_not_truncated():
    env = make(size=7)
    _, state = env.reset(jax.random.key(0), 1)
    walls = walls_of(env, state)[0][0]
    x, y, action = (4, 5, EAST) if not walls[5, 4] else (5, 4, SOUTH)
    state = teleported(env, state, x=x, y=y, tick=97)
    _, _, reward, terminated, truncated, info = env.step(jax.random.key(0), state, np.array([action], np.int32))
    assert reward[0] == 1 and terminated[0] and not truncated[0]
    assert info["episode_length"][0] == 98 and info["episode_return"][0] == 1
    _, _, reward, terminated, truncated, _ = env.step(jax.random.key(0), state, np.array([STAY], np.int32))
    assert reward[0] == 0 and not terminated[0] and truncated[0]


def test_observation_shows_walls_goal_agent_and_nothing_outside():
    env = make(size=5, vision=9)
    obs, state = env.reset(jax.random.key(0), 1)
    walls = walls_of(env, state)[0][0]
    picture = np.zeros((9, 9), np.uint8)
    picture[3:8, 3:8] = walls  # cell (0, 0) is three left of and above the centre (4, 4)
    picture[3 + 3, 3 + 3] = 4
    picture[4, 4] = 2
    np.testing.assert_array_equal(obs[0], picture)


def test_the_clock_is_in_the_snapshot():
    env = make(size=7)
    _, state = env.reset(jax.random.key(0), 2)
    stay = np.zeros(2, np.int32)
    for t in range(90):
        _, state, *_ = env.step(jax.random.key(t), state, stay)
    rows = np.array(env.snapshot(state))
    for t in range(50):  # both restart, at clock 42 now
        _, state, *_ = env.step(jax.random.key(t), state, stay)
    state = env.restore(state, rows[:1], np.array([1], np.int32))
    ends = []
    for t in range(60):
        _, state, _, _, truncated, _ = env.step(jax.random.key(t), state, stay)
        ends += [(t, i) for i in np.flatnonzero(truncated).tolist()]
    assert ends == [(7, 1), (55, 0)]


def test_one_snapshot_has_two_futures():
    env = make(num_mazes=8192)
    _, state = env.reset(jax.random.key(0), 4)
    row = edited(env.snapshot(state)[:1], tick=97)
    ids, stay = np.array([2], np.int32), np.zeros(4, np.int32)
    levels = []
    for seed in (1, 2, 1):
        _, after, _, _, truncated, _ = env.step(jax.random.key(seed), env.restore(state, row, ids), stay)
        assert truncated[2]
        levels.append(int(inspect(env, after)[1]["level"][2]))
    assert levels[0] != levels[1] and levels[0] == levels[2]


def test_render_shows_the_agent():
    env = make(size=15)
    _, state = env.reset(jax.random.key(0), 1)
    image = env.render(state[0])
    assert image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape[:2]) >= 256
    scale = image.shape[0] // 15
    colours = [tuple(image[y * scale, x * scale]) for x, y in ((0, 0), (1, 1), (13, 13))]
    assert len(set(colours)) == 3


# --- the random agent -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size, steps_per_solve", [(15, 3.7e4), (21, 2.9e5)])
def test_a_random_agent_meets_the_reward_as_rarely_as_published(size, steps_per_solve):
    # About 2,700 and 340 solves in 1e8 steps: a Poisson count has relative deviation n**-0.5. The walk visits only some
    # of the 8192 levels, whose difficulties differ by orders of magnitude, and the published rates have two digits:
    # 5 % each for that. Four deviations in total.
    env = make(size=size, num_mazes=8192, seed=42)
    num_envs, num_steps = 1024, 97_657
    _, state = env.reset(jax.random.key(0), num_envs)
    state = env.stagger(jax.random.key(1), state)
    _, _, _, rewarded = env.random_walk(jax.random.key(2), state, num_steps, 8, 1)
    expected = num_envs * num_steps / steps_per_solve
    tolerance = 4 * np.sqrt(1 / expected + 0.05**2 + 0.05**2)
    assert abs(int(rewarded.sum()) / expected - 1) < tolerance


def test_random_walk_snapshots_lead_to_the_reward():
    env = make(size=7, num_mazes=7)
    num_envs, interval, capacity = 300, 4, 3
    _, state = env.reset(jax.random.key(0), num_envs)
    _, snapshots, counts, rewarded = env.random_walk(jax.random.key(1), state, 400, interval, capacity)
    counts, rewarded = np.asarray(counts), np.asarray(rewarded)
    assert ((counts > 0) == (rewarded > 0)).all() and rewarded.sum() > 100 and counts.max() == capacity
    for i in np.flatnonzero(counts):
        facts = walls_of(env, snapshots[i, : counts[i]])[1]
        assert len(set(facts["level"].tolist())) == 1
        assert (np.diff(facts["tick"]) == interval).all() and (facts["tick"] % interval == 0).all()
        # One stretch of `interval` steps at most lies between the last snapshot and the goal at (5, 5).
        assert 5 - facts["x"][-1] + 5 - facts["y"][-1] <= interval
        assert not np.asarray(snapshots[i, counts[i] :]).any()


def test_random_walk_does_not_depend_on_the_batch():
    for num_mazes in (0, 7):
        env = make(num_mazes=num_mazes)
        _, state = env.reset(jax.random.key(0), 37)
        state = env.stagger(jax.random.key(3), state)
        whole = env.random_walk(jax.random.key(1), state, 301, 4, 3)
        for few in (1, 5, 36):
            part = env.random_walk(jax.random.key(1), state[:few], 301, 4, 3)
            for a, b in zip(whole, part, strict=True):
                np.testing.assert_array_equal(a[:few], b)


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"size": 36}, ValueError, "size must be an odd number from 5 to 127, got 36"),
        ({"size": 4}, ValueError, r"size must be an integer in \[5, 127\], got 4"),
        ({"size": 129}, ValueError, r"size must be an integer in \[5, 127\], got 129"),
        ({"size": "15"}, TypeError, r"size must be a static integer in \[5, 127\], got '15'"),
        ({"size": True}, TypeError, r"size must be a static integer in \[5, 127\], got True"),
        ({"size": 15.0}, TypeError, "size must be a static integer"),
        ({"num_mazes": -1}, ValueError, r"num_mazes must be an integer in \[0, 1048576\], got -1"),
        ({"num_mazes": 2**20 + 1}, ValueError, r"num_mazes must be an integer in \[0, 1048576\]"),
        ({"vision": 4}, ValueError, "vision must be an odd number from 3 to 31, got 4"),
        ({"vision": 33}, ValueError, r"vision must be an integer in \[3, 31\], got 33"),
        ({"seed": -1}, ValueError, r"seed must be an integer in \[0, 9223372036854775807\], got -1"),
        ({"width": 7}, ValueError, "maze has no argument 'width'; valid are size, num_mazes, seed, vision"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("maze", **params)


def test_make_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"name must be one of maze.*, got 'mase'"):
        envs.make("mase")


@pytest.mark.parametrize(
    "num_mazes, fields, reason",
    [
        (7, {"level": 7}, "level is out of range"),
        (0, {"level": 1}, "level is out of range"),
        (7, {"x": 0}, "the agent is outside the grid"),
        (7, {"y": 6}, "the agent is outside the grid"),
        (7, {"x": 65535}, "the agent is outside the grid"),
        (7, {"x": 2, "y": 2}, "the agent is in a wall"),
        (0, {"x": 2, "y": 2}, "the agent is in a wall"),
        (7, {"x": 5, "y": 5}, "the agent is already at the goal"),
        (7, {"tick": 98}, "the clock is past the step limit"),
        (0, {"tick": 2**32 - 1}, "the clock is past the step limit"),
        (7, {"unused": 1}, "the reserved bytes are not zero"),
    ],
)
def test_restore_refuses_impossible_rows(num_mazes, fields, reason):
    env = make(num_mazes=num_mazes)
    _, state = env.reset(jax.random.key(0), 2)
    rows = np.array(state)
    rows[1] = edited(rows[1], **fields)
    with pytest.raises(
        (ValueError, jax.errors.JaxRuntimeError), match=rf"rows\[1\] is not a snapshot of this simulator: {reason}"
    ):
        env.restore(state, rows, np.array([1, 0], np.int32)).block_until_ready()


def test_restore_refuses_a_malformed_maze_of_its_own():
    env = make(num_mazes=0)  # size 7, vision 5: rows of 2 bytes, framed by 2 empty cells
    _, state = env.reset(jax.random.key(0), 1)
    ids = np.zeros(1, np.int32)

    def flipped(x, y):
        row = np.array(state)
        row[0, 16 + (y + 2) * 2 + (x + 2) // 8] ^= 1 << (x + 2) % 8
        return row

    for x, y, reason in ((0, 3, "not closed"), (6, 1, "not closed"), (3, 0, "not closed"), (2, 6, "not closed")):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=reason):
            env.restore(state, flipped(x, y), ids).block_until_ready()
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="the goal is in a wall"):
        env.restore(state, flipped(5, 5), ids).block_until_ready()
    for x, y in ((-1, 3), (7, 7), (3, -2)):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="outside the maze"):
            env.restore(state, flipped(x, y), ids).block_until_ready()
    row = np.array(state)
    row[0, -1] = 1
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="outside the maze"):
        env.restore(state, row, ids).block_until_ready()


def test_restore_refuses_wrong_arguments():
    env = make()
    _, state = env.reset(jax.random.key(0), 4)
    rows, ids = np.array(state), np.arange(4, dtype=np.int32)
    for bad in (-1, 4, 2**31 - 1):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=rf"env_ids\[0\] is {bad}, valid are 0 to 3"):
            env.restore(state, rows[:1], np.array([bad], np.int32)).block_until_ready()
    with pytest.raises(ValueError, match=r"maze.restore: rows must have shape uint8\[R, 16\], got \(4, 15\)"):
        env.restore(state, rows[:, :15], ids)
    with pytest.raises(ValueError, match=r"maze.restore: env_ids must have shape int32\[4\], got \(3,\)"):
        env.restore(state, rows, ids[:3])
    with pytest.raises(TypeError, match=r"maze.restore: rows must be uint8"):
        env.restore(state, rows.astype(np.int32), ids)
    np.testing.assert_array_equal(env.restore(state, rows[:0], ids[:0]), state)  # nothing to restore is fine


def test_step_refuses_wrong_arguments():
    env = make()
    key = jax.random.key(0)
    _, state = env.reset(key, 4)
    for bad in (-1, 5, 2**31 - 1):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=rf"action\[2\] is {bad}, valid are 0 to 4"):
            jax.block_until_ready(env.step(key, state, np.array([0, 1, bad, 2], np.int32)))
    with pytest.raises(TypeError, match=r"maze.step: action must be int32\[4\], got dtype float32"):
        env.step(key, state, jnp.zeros(4))
    with pytest.raises(TypeError, match=r"maze.step: action must be int32\[4\], got dtype float64"):
        env.step(key, state, np.zeros(4))
    with pytest.raises(ValueError, match=r"maze.step: action must have shape int32\[4\], got \(3,\)"):
        env.step(key, state, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=r"maze.step: state must have shape uint8\[N, 16\], got \(4, 17\)"):
        env.step(key, np.zeros((4, 17), np.uint8), np.zeros(4, np.int32))
    with pytest.raises(TypeError, match=r"maze.step: key must be a JAX random key"):
        env.step(0, state, np.zeros(4, np.int32))
    for bad, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match=r"maze.reset: num_envs must be"):
            env.reset(key, bad)


@pytest.mark.parametrize("num_mazes, vision", [(7, 5), (0, 5), (0, 31), (1, 3)])
def test_garbage_never_crashes(num_mazes, vision):
    env = make(num_mazes=num_mazes, vision=vision)
    random = np.random.default_rng(0)
    functions = {
        "step": jax.jit(lambda s: env.step(jax.random.key(0), s, jnp.ones(1, jnp.int32))),
        "observe": jax.jit(env.observe),
        "stagger": jax.jit(lambda s: env.stagger(jax.random.key(0), s)),
        "random_walk": jax.jit(lambda s: env.random_walk(jax.random.key(0), s, 200, 4, 2)),
    }
    for trial in range(500):
        row = random.integers(0, 256, (1, env.spec.state_bytes), dtype=np.uint8)
        if trial % 2:  # a position on the grid with everything else garbage: accepted where the level is in range
            row = edited(row, x=random.integers(1, 6), y=random.integers(1, 6))
            if trial % 4 == 1:
                row = edited(row, level=random.integers(max(num_mazes, 1)))
        raised = set()
        for name, function in functions.items():
            try:
                jax.block_until_ready(function(row))
            except (ValueError, jax.errors.JaxRuntimeError) as error:
                assert "is not a state of this simulator" in str(error)
                raised.add(name)
        if trial % 2 == 0:
            assert raised == set(functions)
        if trial % 4 == 1:
            assert not raised


# --- in the compiler's hands ------------------------------------------------------------------------------------------
def test_a_donated_state_is_stepped_in_place():
    env = make(num_mazes=8192)
    num_envs = 64
    _, state = env.reset(jax.random.key(0), num_envs)
    action = jnp.ones(num_envs, jnp.int32)
    step = jax.jit(env.step, donate_argnums=1)
    state = step(jax.random.key(0), jnp.array(state), action)[1]
    pointer = state.unsafe_buffer_pointer()
    expected = env.step(jax.random.key(1), state, action)
    kept = jax.tree.map(np.array, expected)
    outputs = step(jax.random.key(1), state, action)
    assert outputs[1].unsafe_buffer_pointer() == pointer and state.is_deleted()
    jax.tree.map(np.testing.assert_array_equal, kept, jax.tree.map(np.asarray, outputs))


def test_a_scan_copies_no_states():
    env = make(num_mazes=0)
    num_envs, num_steps = 16, 8

    def rollout(key, state, actions):
        def body(state, inputs):
            key, action = inputs
            obs, state, reward, *_ = env.step(key, state, action)
            return state, (obs, reward)

        return jax.lax.scan(body, state, (jax.random.split(key, num_steps), actions))

    _, state = env.reset(jax.random.key(0), num_envs)
    state = jnp.array(state)
    arguments = (jax.random.key(0), state, jnp.ones((num_steps, num_envs), jnp.int32))
    compiled = jax.jit(rollout, donate_argnums=1).lower(*arguments).compile()
    row_type = f"u8[{num_envs},{env.spec.state_bytes}]"
    copies = [line for line in compiled.as_text().splitlines() if " copy(" in line and row_type in line]
    assert not copies
    pointer = state.unsafe_buffer_pointer()
    assert compiled(*arguments)[0].unsafe_buffer_pointer() == pointer


def test_without_donation_the_operand_survives():
    env = make()
    _, state = env.reset(jax.random.key(0), 8)
    before = np.array(state)
    jax.block_until_ready(jax.jit(env.step)(jax.random.key(0), state, jnp.ones(8, jnp.int32)))
    np.testing.assert_array_equal(state, before)


def test_clock_is_all_that_tells_two_visits_apart():
    env = make()
    _, state = env.reset(jax.random.key(0), 4)
    later = teleported(env, state, tick=70)
    for rows, time in ((state, 0), (later, 70)):
        times, timeless = jax.vmap(env.clock)(rows[None])
        np.testing.assert_array_equal(times, np.full((1, 4), time))
        np.testing.assert_array_equal(timeless[0], state)
    assert (env.clock(teleported(env, state, level=1))[1][:, :4] == np.uint8([1, 0, 0, 0])).all()


def test_vmap_over_keys_states_and_both():
    env = make(num_mazes=8192)
    keys = jax.random.split(jax.random.key(0), 3)
    obs, states = jax.vmap(lambda k: env.reset(k, 5))(keys)
    assert obs.shape == (3, 5, 5, 5) and states.shape == (3, 5, 16)
    actions = jax.random.randint(jax.random.key(1), (3, 5), 0, 5)
    together = jax.vmap(env.step)(keys, states, actions)
    shared_key = jax.vmap(env.step, (None, 0, 0))(keys[0], states, actions)
    for i in range(3):
        for outputs, key in ((together, keys[i]), (shared_key, keys[0])):
            alone = env.step(key, states[i], actions[i])
            jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], outputs), alone)
    restored = jax.vmap(env.restore, (None, 0, None))(states[0], states, np.arange(5, dtype=np.int32)[::-1])
    np.testing.assert_array_equal(restored, states[:, ::-1])


def test_two_devices_step_as_one(run_on_devices):
    run_on_devices("""
        env = envs.make("maze", size=7, num_mazes=7, seed=1, vision=5)
        keys = jax.random.split(jax.random.key(0), 2)

        def rollout(key, state, steps):
            def body(state, t):
                action = jnp.full(state.shape[0], t % 5, jnp.int32)
                obs, state, reward, terminated, truncated, info = env.step(jax.random.fold_in(key, t), state, action)
                return state, (obs, terminated, truncated, info)
            return jax.lax.scan(body, state, steps)

        def per_device(keys, steps):
            obs, state = env.reset(keys[0], 8)
            state = env.stagger(keys[0], state)
            state = env.restore(state, env.snapshot(state)[:2], jnp.array([3, 4], jnp.int32))
            state, outputs = rollout(keys[0], state, steps)
            return state[None], jax.tree.map(lambda x: x[None], outputs)

        sharded = jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")))
        got = sharded(keys, jnp.arange(120))
        for i in range(2):
            expected = jax.jit(per_device)(keys[i : i + 1], jnp.arange(120))
            jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a)[i], np.asarray(b)[0]), got, expected)
    """)


def test_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().spec.num_agents = 2
