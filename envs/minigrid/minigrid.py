"""MiniGrid: tasks, construction and rendering. Rules: envs/minigrid/minigrid.h; levels: envs/minigrid/levels.h."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops.checks import check_array, check_count

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
FAMILIES = (
    "Empty", "DoorKey", "MultiRoom", "KeyCorridor", "Unlock", "UnlockPickup", "BlockedUnlockPickup", "ObstructedMaze",
    "Crossing", "RedBlueDoors",
)  # fmt: skip


class Task(NamedTuple):
    """What minigrid.h is given of a task, and the time limit it has in MiniGrid."""

    family: str  # one of FAMILIES
    size: int  # side of the grid, or of its rooms with both walls; of several rooms the greatest
    max_steps: int
    rows: int = 1  # of rooms
    count: int = 0  # of rooms one after the other, of crossing rivers, of quarters with doors
    flags: int = 0


def _tasks() -> dict[str, Task]:
    tasks = {}
    for name, size, is_random in (
        ("5x5", 5, 0), ("Random-5x5", 5, 1), ("6x6", 6, 0), ("Random-6x6", 6, 1), ("8x8", 8, 0), ("16x16", 16, 0)
    ):  # fmt: skip
        tasks[f"Empty-{name}"] = Task("Empty", size, 4 * size**2, flags=is_random)
    for size in (5, 6, 8, 16):
        tasks[f"DoorKey-{size}x{size}"] = Task("DoorKey", size, 10 * size**2)
    for name, rooms, size in (
        ("N2-S4", 2, 4), ("N4-S5", 6, 5), ("N4-S5-v1", 4, 5), ("N6", 6, 10), ("N7-S4", 7, 4), ("N7-S8", 7, 8),
        ("N10-S4", 10, 4), ("N10-S10", 10, 10), ("N12-S10", 12, 10),
    ):  # fmt: skip
        tasks[f"MultiRoom-{name}"] = Task("MultiRoom", size, 20 * rooms, count=rooms)
    for size, rows in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3)):
        tasks[f"KeyCorridorS{size}R{rows}"] = Task("KeyCorridor", size, 30 * size**2, rows=rows)
    tasks["Unlock"] = Task("Unlock", 6, 288)
    tasks["UnlockPickup"] = Task("UnlockPickup", 6, 288)
    tasks["BlockedUnlockPickup"] = Task("BlockedUnlockPickup", 6, 576)
    boxes, balls, keys_last, at_the_side = 1, 2, 4, 8
    for name, quarters, rooms_visited, flags in (
        ("1Dl", 0, 2, 0), ("1Dlh", 0, 2, boxes), ("1Dlhb", 0, 2, boxes + balls),
        ("2Dl", 1, 4, at_the_side), ("2Dlh", 1, 4, boxes + at_the_side), ("2Dlhb", 1, 4, boxes + balls + at_the_side),
        ("1Q", 1, 5, boxes + balls), ("2Q", 2, 11, boxes + balls + at_the_side), ("Full", 4, 25, boxes + balls),
    ):  # fmt: skip
        task = Task("ObstructedMaze", 6, 4 * rooms_visited * 36, count=quarters, flags=flags)
        tasks[f"ObstructedMaze-{name}"] = task
        if quarters and flags & balls:
            tasks[f"ObstructedMaze-{name}-v1"] = task._replace(flags=flags + keys_last)
    for kind, flags in (("Lava", 0), ("Simple", 1)):
        for size, rivers in ((9, 1), (9, 2), (9, 3), (11, 5)):
            tasks[f"{kind}CrossingS{size}N{rivers}"] = Task("Crossing", size, 4 * size**2, count=rivers, flags=flags)
    for size in (6, 8):
        tasks[f"RedBlueDoors-{size}x{size}"] = Task("RedBlueDoors", size, 20 * size**2)
    return tasks


TASKS = _tasks()

# Cells, as in minigrid.h: a kind, plus a colour.
WALL, CLOSED, LOCKED, FREE, OPEN, GOAL, LAVA, KEY, BALL, BOX = 0, 8, 16, 0x80, 0x88, 0x90, 0x98, 0xA0, 0xA8, 0xC0
WITH_KEY = 8  # to a box, times one plus the colour of the key in it


def make_minigrid(
    *,
    task: str = "DoorKey-8x8",
    max_steps: int = 0,
    see_through_walls: bool = False,
    num_levels: int = 0,
    seed: int = 42,
) -> Env:
    """A task of MiniGrid with rules, views, rewards and distribution of levels of the Python package minigrid 3.

    Observation u8[7, 7, 3]: (object, colour, state) of each cell in view, MiniGrid's `image`, which is what published
    agents see; not the direction, nor the mission, which no task here needs. Seven actions. A solved episode ends with
    reward 1 - 0.9 t / max_steps after t steps and has perf 1; any other ends with 0.

    Args:
      task: MiniGrid's name without "MiniGrid-" and "-v0": Empty-{5x5, Random-5x5, 6x6, Random-6x6, 8x8, 16x16},
        DoorKey-{5x5, 6x6, 8x8, 16x16}, MultiRoom-{N2-S4, N4-S5, N4-S5-v1, N6, N7-S4, N7-S8, N10-S4, N10-S10, N12-S10},
        KeyCorridor{S3R1, S3R2, S3R3, S4R3, S5R3, S6R3}, Unlock, UnlockPickup, BlockedUnlockPickup,
        ObstructedMaze-{1Dl, 1Dlh, 1Dlhb, 2Dl, 2Dlh, 2Dlhb, 1Q, 2Q, Full}, the last four of 2Dlhb, 1Q, 2Q, Full with
        -v1 too, {Lava, Simple}Crossing{S9N1, S9N2, S9N3, S11N5}, RedBlueDoors-{6x6, 8x8}.
      max_steps: the episode is truncated after so many steps, 1 to 2**24; 0: as many as the task has in MiniGrid.
      see_through_walls: walls and closed doors hide nothing. In Empty they never do, as in MiniGrid.
      num_levels: levels that all simulators share and draw from, up to 2**20, made once; 0: a new level for every
        episode, as in MiniGrid. Twelve rooms in a row take longer to place than to walk through: there 4096 levels save
        most of the time.
      seed: of the shared levels, 0 to 2**63 - 1.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    if not isinstance(task, str):
        raise TypeError(f"minigrid: task must be a text, got {task!r}")
    if task not in TASKS:
        raise ValueError(f"minigrid: task must be one of {', '.join(TASKS)}, got {task!r}")
    max_steps = check_count("minigrid", "max_steps", max_steps, 0, 2**24)
    if not isinstance(see_through_walls, bool):
        raise TypeError(f"minigrid: see_through_walls must be True or False, got {see_through_walls!r}")
    num_levels = check_count("minigrid", "num_levels", num_levels, 0, 2**20)
    seed = check_count("minigrid", "seed", seed, 0, 2**63 - 1)
    chosen = TASKS[task]
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("minigrid.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        jax.block_until_ready(env.observe(row[None]))  # refuses what is not a state
        return _picture(np.asarray(row).view(layout(task))[0])

    env = make_native(
        "minigrid",
        {
            "task": task,
            "max_steps": max_steps,
            "see_through_walls": see_through_walls,
            "num_levels": num_levels,
            "seed": seed,
        },
        (
            FAMILIES.index(chosen.family),
            chosen.size,
            chosen.rows,
            chosen.count,
            chosen.flags,
            max_steps or chosen.max_steps,
            int(see_through_walls or chosen.family == "Empty"),
            num_levels,
            seed,
        ),
        obs_max=9,
        action_names=(ACTIONS,),
        render=render,
    )
    return env


def grid_shape(task: str) -> tuple[int, int]:
    """(height, width) of the grid of a task."""
    family, size, _, rows, count, _ = TASKS[task]
    if family == "MultiRoom":
        return 25, 25
    if family in ("KeyCorridor", "Unlock", "UnlockPickup", "BlockedUnlockPickup", "ObstructedMaze"):
        is_large = family == "ObstructedMaze" and count > 0
        columns = 3 if is_large or family == "KeyCorridor" else 2
        return (3 if is_large else rows) * (size - 1) + 1, columns * (size - 1) + 1
    return size, 2 * size if family == "RedBlueDoors" else size


def layout(task: str) -> np.dtype:
    """A row of a task, as in minigrid.h; `cells` is [y, x]."""
    height, width = grid_shape(task)
    behind = (-height * width - 6) % 16 + 6
    return np.dtype(
        [("tick", "<u4"), ("x", "u1"), ("y", "u1"), ("heading", "u1"), ("carrying", "u1"), ("target", "u1"),
         ("unused", "u1", 7), ("cells", "u1", (height, width)), ("behind", "u1", behind)]
    )  # fmt: skip


# --- pictures: each cell is 7 x 7 points, in the colours of _PALETTE
_FLOOR, _DARK, _GOAL, _LAVA, _AGENT = range(6, 11)
_PALETTE = np.array(
    [[211, 47, 47], [56, 142, 60], [25, 118, 210], [123, 31, 162], [251, 192, 45], [120, 130, 136],
     [245, 245, 240], [38, 50, 56], [129, 199, 132], [255, 112, 67], [229, 57, 53]], np.uint8
)  # fmt: skip
_GLYPHS = {
    CLOSED: "####### #.....# #.....# #...#.# #.....# #.....# #######",
    LOCKED: "####### #.###.# #.#.#.# ####### ####### ####### #######",
    OPEN: "#.....# ....... ....... ....... ....... ....... #.....#",
    KEY: "....... ..##... .#..#.. ..##... ..#.... ..##... ..##...",
    BALL: "....... ..###.. .#####. .#####. .#####. ..###.. .......",
    BOX: "....... .#####. .#...#. .#####. .#...#. .#####. .......",
    "agent": "....... .##.... .####.. .#####. .####.. .##.... .......",  # looking east
}
_MASKS = {kind: np.array([[c == "#" for c in line] for line in text.split()]) for kind, text in _GLYPHS.items()}
_SIDE = 7


def _picture(state: np.void) -> np.ndarray:
    cells = state["cells"]
    background = np.full(cells.shape, _FLOOR, np.uint8)
    for code, colour in ((WALL, _DARK), (GOAL, _GOAL), (LAVA, _LAVA)):
        background[cells == code] = colour
    points = np.kron(background, np.ones((_SIDE, _SIDE), np.uint8))

    def draw(y, x, mask, colour):
        points[_SIDE * y : _SIDE * (y + 1), _SIDE * x : _SIDE * (x + 1)][mask] = colour

    for y, x in np.ndindex(cells.shape):
        if (kind := _kind(cells[y, x])) in _MASKS:
            draw(y, x, _MASKS[kind], cells[y, x] % 8 % 6)
    y, x = int(state["y"]), int(state["x"])
    draw(y, x, np.rot90(_MASKS["agent"], -int(state["heading"])), _AGENT)
    if state["carrying"]:
        centre = np.zeros((_SIDE, _SIDE), bool)
        centre[2:5, 2:5] = True
        draw(y, x, centre, state["carrying"] % 8 % 6)
    return upscale(points, _PALETTE)


def _kind(code: int) -> int:
    kind = int(code) & 0xF8
    return BOX if kind >= BOX else kind
