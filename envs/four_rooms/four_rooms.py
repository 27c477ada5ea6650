"""Four rooms: construction and rendering. Rules: envs/four_rooms/four_rooms.h."""

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops.checks import check_array, check_count

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
# A row, as in four_rooms.h.
STATE = np.dtype(
    [("tick", "<u4"), ("x", "u1"), ("y", "u1"), ("heading", "u1"), ("goal_x", "u1"), ("goal_y", "u1"),
     ("gaps", "u1", 4), ("unused", "u1", 3)]
)  # fmt: skip
_EMPTY, _WALL, _AGENT, _GOAL = range(4)
_PALETTE = np.array([[245, 245, 240], [38, 50, 56], [229, 57, 53], [67, 160, 71]], np.uint8)
_ARROW = np.array([[1, 0, 0], [1, 1, 1], [1, 0, 0]], bool)  # pointing east; a cell is drawn as 3 x 3


def make_four_rooms(*, size: int = 19) -> Env:
    """MiniGrid's FourRooms: find the goal through the gaps between four rooms, seeing 7 x 7 cells ahead.

    Observation u8[7, 7, 3]: (object, colour, state) of each cell in view, as MiniGrid encodes it; seven actions, of
    which the last four do nothing. Reward 1 - 0.9 t / (4 * size) at the goal after t steps; perf is 1 if it was
    reached. Rooms, agent and goal are new in every episode.

    Args:
      size: side of the grid, odd, 5 to 49. The episode is truncated after 4 * size steps.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    size = check_count("four_rooms", "size", size, 5, 49)
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("four_rooms.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        jax.block_until_ready(env.observe(row[None]))  # refuses what is not a state
        state = np.asarray(row).view(STATE)[0]
        cells = walls(state, size).astype(np.uint8)
        cells[min(state["goal_y"], size - 1), min(state["goal_x"], size - 1)] = _GOAL
        picture = np.kron(cells, np.ones((3, 3), np.uint8))
        x, y = 3 * int(state["x"]), 3 * int(state["y"])
        arrow = np.rot90(_ARROW, -int(state["heading"]))
        picture[y : y + 3, x : x + 3][arrow] = _AGENT
        return upscale(picture, _PALETTE)

    env = make_native(
        "four_rooms",
        {"size": size},
        (size,),
        obs_max=8,
        action_names=(ACTIONS,),
        render=render,
    )
    return env


def walls(state: np.void, size: int) -> np.ndarray:
    """bool[size, size], [y, x]: the walls of one row viewed as `STATE`."""
    half = size // 2
    walls = np.zeros((size, size), bool)
    walls[[0, half, -1]] = walls[:, [0, half, -1]] = True
    upper, lower, left, right = state["gaps"]
    walls[[upper, lower], half] = walls[half, [left, right]] = False
    return walls
