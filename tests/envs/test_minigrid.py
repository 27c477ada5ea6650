"""MiniGrid against its slow reference, its rules, and what it refuses. test_minigrid_package.py has the package."""

import jax
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.minigrid import reference
from pufferjax.envs.minigrid.minigrid import (
    BALL,
    BOX,
    CLOSED,
    FREE,
    GOAL,
    KEY,
    LAVA,
    LOCKED,
    OPEN,
    TASKS,
    WALL,
    WITH_KEY,
    layout,
)

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
EAST, SOUTH, WEST, NORTH = range(4)
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(6)


@pytest.fixture
def case(native_case):
    return lambda task, **params: native_case(envs.make("minigrid", task=task, **params), layout(task))


def placed(case, cells=None, **fields):
    """One environment, its board drawn from text if `cells` is given; the agent at (1, 1) looking east unless given."""
    state = case.reset(1)
    if cells is not None:
        codes = {"#": WALL, " ": FREE, "G": GOAL, "~": LAVA, "d": CLOSED + RED, "L": LOCKED + RED, "o": OPEN + RED,
                 "k": KEY + RED, "b": BALL + RED, "B": BOX + RED, "K": BOX + GREY + WITH_KEY * (1 + RED),
                 "D": CLOSED + BLUE}  # fmt: skip
        fields["cells"] = [[codes[mark] for mark in line] for line in cells]
    return case.edited(state, **{"x": 1, "y": 1, "heading": EAST, "carrying": 0} | fields)


def after(case, state, *actions):
    """The outcome of the last of `actions`, and the row it leaves."""
    for action in actions:
        out = case.step(state, [action])
        state = out["state"]
    return out, case.fields(state)[0]


def test_it_keeps_the_contract():
    envs.check_env(envs.make("minigrid", task="ObstructedMaze-2Dlhb", max_steps=40), num_envs=4)


# Short episodes: many levels.
CASES = [
    ("Empty-Random-6x6", 40, 200, {}), ("DoorKey-8x8", 60, 250, {"max_steps": 50}), ("MultiRoom-N4-S5-v1", 40, 250, {}),
    ("MultiRoom-N7-S8", 20, 250, {}), ("KeyCorridorS3R3", 60, 250, {"max_steps": 60}),
    ("KeyCorridorS6R3", 20, 250, {"max_steps": 60, "num_levels": 5, "seed": 2**40 + 3}),
    ("Unlock", 60, 200, {"see_through_walls": True, "max_steps": 60}),
    ("UnlockPickup", 40, 200, {"max_steps": 60}), ("BlockedUnlockPickup", 40, 200, {"max_steps": 60}),
    ("ObstructedMaze-1Dlhb", 40, 200, {"max_steps": 60}), ("ObstructedMaze-2Q", 20, 200, {"max_steps": 60}),
    ("ObstructedMaze-Full-v1", 20, 250, {"max_steps": 60}), ("LavaCrossingS11N5", 20, 250, {"max_steps": 60}),
    ("SimpleCrossingS9N3", 20, 250, {"max_steps": 60}), ("RedBlueDoors-6x6", 40, 200, {"max_steps": 60}),
]  # fmt: skip


def test_the_steps_compared_are_enough():
    assert sum(num_envs * num_steps for _, num_envs, num_steps, _ in CASES) >= 100_000


def assert_same_rows(case, state, twin):
    for i, row in enumerate(case.fields(state)):
        np.testing.assert_array_equal(reference.board(row["cells"]), twin.grid(i))
        assert (row["x"], row["y"]) == twin.agent[i] and row["heading"] == twin.heading[i]
        target, carrying = (tuple(reference.board(row[name]).tolist()) for name in ("target", "carrying"))
        assert target[:3] == (twin.target[i] or reference.WALL)
        assert carrying == ((*twin.carrying[i][0], twin.carrying[i][1]) if twin.carrying[i] else (*reference.WALL, 0))
    np.testing.assert_array_equal(case.fields(state)["tick"], twin.tick)


@pytest.mark.parametrize("task, num_envs, num_steps, params", CASES)
def test_reference_agrees(case, task, num_envs, num_steps, params):
    case, twin = case(task, **params), reference.MiniGrid(num_envs, task=task, **params)
    key = jax.random.key(num_envs)
    obs, state = case.env.reset(key, num_envs)
    np.testing.assert_array_equal(obs, twin.reset(case.words(key)))
    assert_same_rows(case, state, twin)
    state, terminated, truncated, info = case.assert_agrees(
        twin, state, num_steps, seed=1, probabilities=(0.12, 0.12, 0.32, 0.14, 0.08, 0.2, 0.02), takes_words=True
    )
    assert_same_rows(case, state, twin)
    assert truncated.any() and (info["perf"] <= terminated).all()


@pytest.mark.parametrize("task", TASKS)
def test_levels_are_those_of_the_reference(case, task):
    num_envs = 1 if task == "MultiRoom-N12-S10" else 3
    case, twin = case(task), reference.MiniGrid(num_envs, task=task)
    key = jax.random.key(5)
    twin.reset(case.words(key))
    assert_same_rows(case, case.env.reset(key, num_envs)[1], twin)
    assert case.env.spec.max_episode_steps == TASKS[task].max_steps


def test_shared_levels_are_few_and_of_their_seed(case):
    rows = {}
    for seed in (1, 2):
        shared = case("UnlockPickup", num_levels=3, seed=seed)
        states = {bytes(row) for key in (0, 1) for row in np.asarray(shared.reset(200, key))}
        assert len(states) == 3
        rows[seed] = states
    assert not rows[1] & rows[2]
    assert len({bytes(row) for row in np.asarray(case("UnlockPickup").reset(200))}) > 190


def test_the_agent_turns_and_walks(case):
    case = case("Empty-5x5")
    for heading, (dx, dy) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1))):
        state = placed(case, x=2, y=2, heading=heading)
        for action in range(7):
            out, row = after(case, state, action)
            turned = {LEFT: (heading - 1) % 4, RIGHT: (heading + 1) % 4}.get(action, heading)
            at = (2 + dx, 2 + dy) if action == FORWARD else (2, 2)
            assert (row["x"], row["y"], row["heading"], row["tick"]) == (*at, turned, 1)
            assert out["reward"] == 0 and not out["terminated"] and not out["truncated"]
    out, row = after(case, placed(case, heading=NORTH), FORWARD)
    assert (row["x"], row["y"]) == (1, 1)


def test_what_can_be_entered(case):
    case = case("LavaCrossingS9N1")
    for mark in "# dLokbBG~":
        rest = ["#       #"] * 5 + ["#       #" if mark == "G" else "#      G#", "#########"]
        out, row = after(case, placed(case, ["#########", f"# {mark}     #", *rest], x=1), FORWARD)
        ends = mark in "G~"
        assert out["terminated"] == ends and (out["reward"] > 0) == (mark == "G") == (out["perf"] == 1)
        if not ends:
            assert row["x"] == (2 if mark in " o" else 1)


def test_things_are_carried(case):
    case = case("UnlockPickup")
    blue_box = BOX + BLUE
    board = ["###########", "# b  #    #", "#  k d    #", "#    #    #", "#    #    #", "###########"]
    _, row = after(case, placed(case, board, heading=WEST, target=blue_box), PICK_UP)
    assert row["carrying"] == 0 and row["cells"][1, 0] == WALL
    state = placed(case, board, x=2, y=2, heading=NORTH, target=blue_box)
    out, row = after(case, state, PICK_UP)
    assert row["carrying"] == BALL + RED and row["cells"][1, 2] == FREE and not out["terminated"]
    assert out["obs"][0, 3, 6].tolist() == [6, RED, 0] and out["obs"][0, 3, 5].tolist() == [1, 0, 0]
    _, row = after(case, state, PICK_UP, RIGHT, PICK_UP)  # one at a time
    assert row["carrying"] == BALL + RED and row["cells"][2, 3] == KEY + RED
    _, row = after(case, state, PICK_UP, RIGHT, DROP)  # not onto the key
    assert row["carrying"] == BALL + RED
    _, row = after(case, state, PICK_UP, LEFT, DROP)
    assert row["carrying"] == 0 and row["cells"][2, 1] == BALL + RED
    _, row = after(case, state, DROP)  # nothing in hand
    assert row["cells"][1, 2] == BALL + RED


def test_boxes_open_to_what_is_in_them(case):
    case = case("ObstructedMaze-1Dlh")
    board = ["###########", "# K  #    #", "#    L    #", "# B  #    #", "#    #    #", "###########"]
    state = placed(case, board)
    assert np.asarray(case.env.observe(state))[0, 3, 5].tolist() == [7, GREY, 0]
    _, row = after(case, state, TOGGLE)
    assert row["cells"][1, 2] == KEY + RED
    _, row = after(case, state, PICK_UP, RIGHT, DROP)  # a carried box keeps its key
    assert row["cells"][2, 1] == BOX + GREY + WITH_KEY * (1 + RED)
    _, row = after(case, placed(case, board, y=3), TOGGLE)
    assert row["cells"][3, 2] == FREE


def test_doors(case):
    case = case("BlockedUnlockPickup")
    board = ["###########", "#   dL    #", "#    #    #", "#    #    #", "#    #    #", "###########"]
    state = placed(case, board, x=3, target=BOX + GREEN)
    for number, shown in ((1, 0), (2, 1), (3, 0)):  # open, closed, open
        out, row = after(case, state, *[TOGGLE] * number)
        assert row["cells"][1, 4] == (CLOSED if shown else OPEN) + RED and out["obs"][0, 3, 5].tolist() == [
            4,
            RED,
            shown,
        ]
    _, row = after(case, state, TOGGLE, FORWARD, TOGGLE)
    assert row["cells"][1, 5] == LOCKED + RED and row["x"] == 4  # without a key
    for carrying in (KEY + GREEN, BALL + RED, BOX + RED):
        _, row = after(case, placed(case, board, x=3, target=BOX + GREEN, carrying=carrying), TOGGLE, FORWARD, TOGGLE)
        assert row["cells"][1, 5] == LOCKED + RED
    out, row = after(case, placed(case, board, x=3, target=BOX + GREEN, carrying=KEY + RED), TOGGLE, FORWARD, TOGGLE)
    assert row["cells"][1, 5] == OPEN + RED and row["carrying"] == KEY + RED and not out["terminated"]


def test_each_task_ends_as_it_should(case):
    unlock, board = case("Unlock"), ["###########", "#    #    #", "#    L    #", *["#    #    #"] * 2, "###########"]
    out, _ = after(unlock, placed(unlock, board, x=4, y=2, carrying=KEY + RED, tick=99), TOGGLE)
    assert out["terminated"] and out["reward"] == np.float32(1 - 0.9 * (100 / 288)) and out["episode_length"] == 100
    fetch = case("UnlockPickup")
    board = ["###########", "# B  #    #", *["#    #    #"] * 3, "###########"]
    for target, ends in ((BOX + RED, True), (BOX + BLUE, False)):
        out, _ = after(fetch, placed(fetch, board, target=target), PICK_UP)
        assert out["terminated"] == ends == (out["reward"] > 0)
    doors = case("RedBlueDoors-6x6")
    board = ["############", "#  #    #  #", "#  o    D  #", "#  #    #  #", "#  #    #  #", "############"]
    for red, solved in (("o", True), ("d", False)):
        rows = [line.replace("o", red) for line in board]
        out, _ = after(doors, placed(doors, rows, x=7, y=2), TOGGLE)
        assert out["terminated"] and not out["truncated"] and (out["reward"] > 0) == solved == (out["perf"] == 1)


def test_a_reward_is_less_the_later_it_comes(case):
    case = case("Empty-5x5", max_steps=60)
    for tick in (0, 30, 59):
        out, _ = after(case, placed(case, x=2, y=3, tick=tick), FORWARD)
        expected = np.float32(1 - 0.9 * ((tick + 1) / 60))
        assert out["reward"] == expected == out["score"] == out["episode_return"] and out["perf"] == 1
        assert out["terminated"] and not out["truncated"] and out["episode_length"] == tick + 1
    out, _ = after(case, placed(case, tick=59), DONE)
    assert out["truncated"] and not out["terminated"] and out["reward"] == out["perf"] == 0


def shown(obs):
    """A view u8[7, 7, 3] as text, the agent at the middle of the last line: ? unseen, . empty, else as in `placed`."""
    marks = "?.#fdkbBG~"
    return ["".join(marks[obs[i, j, 0]] for i in range(7)) for j in range(7)]


def test_closed_doors_hide_and_open_ones_do_not(case):
    case = case("UnlockPickup")
    board = ["###########", "#    #    #", "#    d    #", "#    # b  #", "#    #    #", "###########"]
    views = {}
    for door in "dLo":
        state = placed(case, [line.replace("d", door) for line in board], x=3, y=2, target=BOX + BLUE)
        views[door] = shown(np.asarray(case.env.observe(state)[0]))
    near = ["?##d###", "?#....#", "?#....#"]
    assert views["d"] == views["L"] == ["???????"] * 4 + near
    assert views["o"] == ["?#....#", "?#....#", "?#..b.#", "?#....#", *near]
    everything = envs.make("minigrid", task="UnlockPickup", see_through_walls=True).observe(state)[0]
    assert shown(np.asarray(everything)) == [line.replace("?", "#") for line in views["o"]]


def test_a_stagger_spreads_the_clocks_and_nothing_else(case):
    case = case("DoorKey-5x5")
    state = case.reset(2000)
    staggered = np.asarray(case.env.stagger(jax.random.key(0), state))
    ticks = case.fields(staggered)["tick"]
    assert ticks.min() < 5 and ticks.max() > 244 and len(set(ticks.tolist())) > 230
    np.testing.assert_array_equal(case.env.clock(staggered)[1], state)


def test_refusals(case):
    doorkey = case("DoorKey-5x5")
    state, cells = doorkey.reset(1), doorkey.fields(doorkey.reset(1))["cells"][0]

    def changed(y, x, code):
        other = cells.copy()
        other[y, x] = code
        return other

    refuse = doorkey.assert_refuses
    refuse(state, "the agent is outside the grid", x=0)
    refuse(state, "the agent is outside the grid", y=4)
    refuse(state, "the heading is not 0 to 3", heading=4)
    refuse(state, "the clock is past the step limit", tick=250)
    refuse(state, "the reserved bytes are not zero", unused=[0, 0, 0, 0, 0, 0, 1])
    refuse(state, "the reserved bytes are not zero", behind=1)
    for code in (1, CLOSED + 6, FREE + 1, GOAL + 1, 0xB0, BOX + 7 * WITH_KEY, 0xFF):
        refuse(state, "a cell holds what there is not", cells=changed(2, 2, code))
    refuse(state, "the border is not of walls", cells=changed(0, 2, FREE))
    refuse(state, "the agent is already at the goal", x=3, y=3)
    refuse(state, "the agent is where it cannot stand", cells=changed(1, 1, WALL), x=1, y=1)
    refuse(state, "the goal contradicts the task", cells=changed(3, 3, FREE))
    refuse(state, "the goal contradicts the task", cells=changed(2, 3, GOAL))
    refuse(state, "the target contradicts the task", target=BALL)
    for carrying in (FREE, GOAL, KEY + 7, 3):
        refuse(state, "what is carried cannot be", carrying=carrying)
    for task, targets in (
        ("KeyCorridorS3R1", (0, BALL + 6, KEY)), ("UnlockPickup", (0, BALL, BOX + WITH_KEY)),
        ("ObstructedMaze-1Dl", (0, BALL + RED)),
    ):  # fmt: skip
        fetching = case(task)
        for target in targets:
            fetching.assert_refuses(fetching.reset(1), "the target contradicts the task", target=target)
        target = fetching.fields(fetching.reset(1))["target"][0]
        fetching.assert_refuses(fetching.reset(1), "the agent already has the target", carrying=target)
    for task, text in (("Unlock", "the door is already open"), ("RedBlueDoors-6x6", "the blue door is already open")):
        opening = case(task)
        cells = opening.fields(opening.reset(1))["cells"][0]
        doors = (cells & 0xF8 == LOCKED) | (cells == CLOSED + BLUE)
        opening.assert_refuses(opening.reset(1), text, cells=np.where(doors, OPEN + cells % 8, cells))
    case("MultiRoom-N6").assert_survives_garbage()


@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"task": "DoorKey"}, ValueError, "minigrid: task must be one of Empty-5x5, .*, got 'DoorKey'"),
        ({"task": 3}, TypeError, "minigrid: task must be a text, got 3"),
        ({"max_steps": -1}, ValueError, r"minigrid: max_steps must be an integer in \[0, 16777216\], got -1"),
        ({"max_steps": 9.0}, TypeError, "minigrid: max_steps must be a static integer"),
        ({"see_through_walls": 1}, TypeError, "minigrid: see_through_walls must be True or False, got 1"),
        ({"num_levels": 2**20 + 1}, ValueError, r"minigrid: num_levels must be an integer in \[0, 1048576\]"),
        ({"seed": -1}, ValueError, r"minigrid: seed must be an integer in \[0, 9223372036854775807\], got -1"),
        ({"size": 5}, ValueError, "minigrid has no argument 'size'; valid are task"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("minigrid", **params)


@pytest.mark.parametrize(
    "params, text",
    [
        ([], "params must be"),
        ([10, 6, 1, 0, 0, 9, 0, 0, 0], "family must be 0 to 9, got 10"),
        ([0, 17, 1, 0, 0, 9, 0, 0, 0], "size must be 4 to 16, got 17"),
        ([2, 10, 1, 13, 0, 9, 0, 0, 0], "count must be 2 to 12, got 13"),
        ([3, 6, 4, 0, 0, 9, 0, 0, 0], "rows must be 1 to 3, got 4"),
        ([7, 6, 1, 5, 0, 9, 0, 0, 0], "count must be 0 to 4, got 5"),
        ([8, 10, 1, 1, 0, 9, 0, 0, 0], "size must be an odd number from 9 to 15, got 10"),
        ([9, 6, 1, 0, 1, 9, 0, 0, 0], "flags must be 0 to 0, got 1"),
        ([9, 6, 1, 0, 0, 0, 0, 0, 0], "max_steps must be 1 to 16777216, got 0"),
        ([9, 6, 1, 0, 0, 9, 2, 0, 0], "see_through_walls must be 0 to 1, got 2"),
        ([9, 6, 1, 0, 0, 9, 0, -1, 0], "num_levels must be 0 to 1048576, got -1"),
    ],
)
def test_the_native_side_refuses_as_well(params, text):
    from pufferjax.xla_ops import ffi

    with pytest.raises(ValueError, match=text):
        ffi.describe_env("minigrid", params)


def test_render_shows_the_board(case):
    case = case("BlockedUnlockPickup")
    pictures = [case.env.render(placed(case, heading=heading)[0]) for heading in range(4)]
    assert all(p.shape[2] == 3 and p.dtype == np.uint8 and max(p.shape) >= 256 for p in pictures)
    assert len({p.tobytes() for p in pictures}) == 4
    carrying = case.env.render(placed(case, carrying=KEY + PURPLE)[0])
    assert carrying.tobytes() != pictures[0].tobytes()
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) >= 5
