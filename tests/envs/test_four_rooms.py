"""Four rooms against its slow reference, its rules, and what it refuses."""

import jax
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.four_rooms import reference
from pufferjax.envs.four_rooms.four_rooms import STATE, walls

LEFT, RIGHT, FORWARD, DONE = 0, 1, 2, 6
EAST, SOUTH, WEST, NORTH = range(4)


@pytest.fixture
def case(native_case):
    return lambda **params: native_case(envs.make("four_rooms", **params), STATE)


def placed(case, **fields):
    """One environment of size 19: gaps at (9, 4), (9, 14), (4, 9), (14, 9), the goal at (17, 17), unless given."""
    defaults = {"gaps": [4, 14, 4, 14], "goal_x": 17, "goal_y": 17, "x": 1, "y": 1, "heading": EAST}
    return case.edited(case.reset(1), **defaults | fields)


def test_it_keeps_the_contract(case):
    envs.check_env(case(size=7).env, num_envs=4)


CASES = [(5, 200, 100), (19, 400, 200), (49, 8, 220)]


def test_the_steps_compared_are_enough():
    assert sum(num_envs * num_steps for _, num_envs, num_steps in CASES) >= 100_000


@pytest.mark.parametrize("size, num_envs, num_steps", CASES)
def test_reference_agrees(case, size, num_envs, num_steps):
    case, twin = case(size=size), reference.FourRooms(num_envs, size=size)
    key = jax.random.key(size)
    obs, state = case.env.reset(key, num_envs)
    np.testing.assert_array_equal(obs, twin.reset(case.words(key)))
    fields = case.fields(state)
    for i in range(num_envs):
        np.testing.assert_array_equal(walls(fields[i], size).T, twin.walls[i])
    # Forward most of the time: such an agent gets about.
    state, terminated, truncated, info = case.assert_agrees(
        twin, state, num_steps, seed=size, probabilities=(0.2, 0.14, 0.62, *[0.01] * 4), takes_words=True
    )
    fields = case.fields(state)
    np.testing.assert_array_equal(fields["tick"], twin.tick)
    np.testing.assert_array_equal(np.stack([fields["x"], fields["y"]], 1), twin.agent)
    np.testing.assert_array_equal(np.stack([fields["goal_x"], fields["goal_y"]], 1), twin.goal)
    assert truncated.any() and (terminated.any() or size == 49)
    np.testing.assert_array_equal(info["perf"], terminated)


def test_layouts_are_uniform(case):
    num_envs = 26_000
    case = case()
    fields = case.fields(case.reset(num_envs))
    for name, count in (("heading", 4), ("x", 17), ("y", 17)):
        assert len(set(fields[name].tolist())) == count
    for gap, first in enumerate((1, 10, 1, 10)):
        counts = np.bincount(fields["gaps"][:, gap], minlength=19)[first : first + 8]
        assert counts.sum() == num_envs and (abs(counts - num_envs / 8) < 5 * np.sqrt(num_envs * 7 / 64)).all()
    for x, y in ((fields["x"], fields["y"]), (fields["goal_x"], fields["goal_y"])):
        counts = np.zeros((19, 19), int)
        np.add.at(counts, (y, x), 1)
        rooms = np.delete(np.delete(counts[1:-1, 1:-1], 8, 0), 8, 1)
        # 260 free cells, of which 256 are in rooms: about 100 each.
        assert (abs(rooms - 100) < 6 * 10).all() and abs(rooms.sum() - num_envs * 256 / 260) < 5 * np.sqrt(400)
    assert ((fields["x"] != fields["goal_x"]) | (fields["y"] != fields["goal_y"])).all()


def test_actions(case):
    case = case()
    for heading, (dx, dy) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1))):
        state = placed(case, x=5, y=6, heading=heading)
        for action in range(7):
            out = case.step(state, [action])
            (row,) = case.fields(out["state"])
            turned = {LEFT: (heading - 1) % 4, RIGHT: (heading + 1) % 4}.get(action, heading)
            at = (5 + dx, 6 + dy) if action == FORWARD else (5, 6)
            assert (row["x"], row["y"], row["heading"], row["tick"]) == (*at, turned, 1)
            assert out["reward"] == 0 and not out["terminated"] and not out["truncated"]


def test_walls_block_and_gaps_do_not(case):
    case = case()
    for x, y, heading, after in (
        (1, 1, WEST, (1, 1)), (1, 1, NORTH, (1, 1)), (17, 3, EAST, (17, 3)), (8, 5, EAST, (8, 5)),
        (8, 4, EAST, (9, 4)), (10, 14, WEST, (9, 14)), (4, 8, SOUTH, (4, 9)), (14, 10, NORTH, (14, 9)),
        (9, 4, NORTH, (9, 4)), (4, 9, EAST, (4, 9)),
    ):  # fmt: skip
        (row,) = case.fields(case.step(placed(case, x=x, y=y, heading=heading), [FORWARD])["state"])
        assert (row["x"], row["y"]) == after


def test_the_goal_pays_less_the_later_it_comes(case):
    case = case()
    assert case.env.spec.max_episode_steps == 76
    for tick in (0, 30, 75):
        out = case.step(placed(case, x=16, y=17, tick=tick), [FORWARD])
        expected = np.float32(1 - 0.9 * ((tick + 1) / 76))
        assert out["reward"] == expected == out["score"] == out["episode_return"] and out["perf"] == 1
        assert out["terminated"] and not out["truncated"] and out["episode_length"] == tick + 1
        assert case.fields(out["state"])["tick"] == 0
    out = case.step(placed(case, tick=75), [DONE])
    assert out["truncated"] and not out["terminated"] and out["reward"] == out["perf"] == 0
    # Turning on the goal's neighbour is not reaching it.
    assert not case.step(placed(case, x=16, y=17), [LEFT])["terminated"]


def shown(obs):
    """A view u8[7, 7, 3] as text, the agent at the middle of the last line: ? unseen, . empty, # wall, G goal."""
    marks = {(0, 0, 0): "?", (1, 0, 0): ".", (2, 5, 0): "#", (8, 1, 0): "G"}
    return ["".join(marks[tuple(obs[i, j].tolist())] for i in range(7)) for j in range(7)]


@pytest.mark.parametrize(
    "fields, view",
    [
        # East from the corner: the border on the left hand, and nothing seen behind it.
        ({"x": 1, "y": 1}, ["??#...."] * 7),
        # Before the middle wall, beside its gap: behind it sight spreads along every row.
        ({"x": 7, "y": 2}, ["?#.....", "?#.....", "?#.....", "?#.....", "?####.#", "?#.....", "?#....."]),
        # In the gap: the walls on both sides are seen, what is beside them behind is not.
        (
            {"x": 9, "y": 4, "goal_x": 12, "goal_y": 2},
            [".......", ".......", ".......", ".G.....", ".......", ".......", "??#.#??"],
        ),
        # Before the gap, the goal behind it to the right.
        (
            {"x": 7, "y": 4, "goal_x": 12, "goal_y": 5},
            [".......", "....G..", ".......", ".......", "###.###", ".......", "......."],
        ),
    ],
)
def test_views_as_in_minigrid(case, fields, view):
    case = case()
    assert shown(np.asarray(case.env.observe(placed(case, **fields))[0])) == view


def test_a_view_turns_with_the_agent(case):
    case = case()
    for heading, (x, y) in enumerate(((3, 5), (5, 3), (7, 5), (5, 7))):
        view = shown(np.asarray(case.env.observe(placed(case, x=x, y=y, heading=heading, goal_x=5, goal_y=5))[0]))
        assert view[4][3] == "G" and sum(line.count("G") for line in view) == 1
    # A goal behind a wall that nothing shows around is not seen, and what cannot be seen looks the same everywhere.
    hidden = [case.env.observe(placed(case, x=5, y=2, heading=NORTH, goal_x=5, goal_y=y)) for y in (4, 12)]
    np.testing.assert_array_equal(*hidden)


def test_a_stagger_spreads_the_clocks_and_nothing_else(case):
    case = case()
    state = case.reset(2000)
    staggered = np.asarray(case.env.stagger(jax.random.key(0), state))
    ticks = case.fields(staggered)["tick"]
    assert ticks.min() == 0 and ticks.max() == 75 and len(set(ticks.tolist())) == 76
    np.testing.assert_array_equal(case.env.clock(staggered)[1], state)


def test_refusals(case):
    case = case()
    state = placed(case)
    case.assert_refuses(state, "the agent is outside the grid", x=0)
    case.assert_refuses(state, "the agent is outside the grid", y=18)
    case.assert_refuses(state, "the agent is in a wall", x=9, y=5)
    case.assert_refuses(state, "the heading is not 0 to 3", heading=4)
    case.assert_refuses(state, "the goal is in a wall", goal_x=200)
    case.assert_refuses(state, "the goal is in a wall", goal_y=9)
    case.assert_refuses(state, "the agent is already at the goal", x=17, y=17)
    for gaps in ([0, 14, 4, 14], [9, 14, 4, 14], [4, 9, 4, 14], [4, 14, 4, 18], [4, 14, 255, 14]):
        case.assert_refuses(state, "a gap is outside its wall", gaps=gaps)
    case.assert_refuses(state, "the clock is past the step limit", tick=76)
    case.assert_refuses(state, "the reserved bytes are not zero", unused=[0, 0, 1])
    case.assert_survives_garbage()


@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"size": 18}, ValueError, "four_rooms: size must be an odd number from 5 to 49, got 18"),
        ({"size": 3}, ValueError, r"four_rooms: size must be an integer in \[5, 49\], got 3"),
        ({"size": 51}, ValueError, r"four_rooms: size must be an integer in \[5, 49\], got 51"),
        ({"size": 19.0}, TypeError, "four_rooms: size must be a static integer"),
        ({"seed": 1}, ValueError, "four_rooms has no argument 'seed'; valid are size"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("four_rooms", **params)


def test_the_native_side_refuses_as_well():
    from pufferjax.xla_ops import ffi

    for params, text in (([51], "size must be an odd number from 5 to 49, got 51"), ([], "params must be")):
        with pytest.raises(ValueError, match=text):
            ffi.describe_env("four_rooms", params)


def test_render_shows_agent_and_goal(case):
    case = case()
    pictures = [case.env.render(placed(case, heading=heading)[0]) for heading in range(4)]
    assert all(p.shape[2] == 3 and p.dtype == np.uint8 and p.shape[0] == p.shape[1] >= 256 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 4
    scale = pictures[0].shape[0] // 57
    colours = [tuple(pictures[0][y * scale, x * scale]) for x, y in ((0, 0), (4, 4), (52, 52), (7, 7))]
    assert len(set(colours)) == 4
