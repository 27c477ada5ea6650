"""The maze: construction and rendering. Rules: envs/maze/maze.h."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_count

ACTIONS = ("stay", "east", "north", "west", "south")
EMPTY, WALL, AGENT, GOAL = 0, 1, 2, 4
_PALETTE = np.array([[245, 245, 240], [38, 50, 56], [229, 57, 53], [0, 0, 0], [67, 160, 71]], np.uint8)


def make_maze(*, size: int = 35, num_mazes: int = 8192, seed: int = 42, vision: int = 11) -> Env:
    """A maze with one reward, 1 at the goal.

    Args:
      size: side of the grid, odd, 5 to 127. The episode is truncated after 2 * size * size steps.
      num_mazes: levels shared by all simulators, drawn uniformly at each reset; 0 grows a new maze for every episode.
      seed: of the level set, 0 to 2**63 - 1. Another seed gives mazes never seen before.
      vision: side of the observed window u8[vision, vision] around the agent, odd, 3 to 31.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    size = check_count("maze", "size", size, 5, 127)
    num_mazes = check_count("maze", "num_mazes", num_mazes, 0, 2**20)
    seed = check_count("maze", "seed", seed, 0, 2**63 - 1)
    vision = check_count("maze", "vision", vision, 3, 31)
    native_params = (size, num_mazes, seed, vision)
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("maze.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        cells, _ = inspect(env, row[None])
        return upscale(np.asarray(cells[0]), _PALETTE)

    env = make_native(
        "maze",
        {"size": size, "num_mazes": num_mazes, "seed": seed, "vision": vision},
        native_params,
        obs_max=GOAL,
        action_names=(ACTIONS,),
        render=render,
    )
    return env


def inspect(env: Env, state) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The whole mazes behind states u8[N, S]: cells u8[N, size, size] (0 empty, 1 wall, 2 agent, 4 goal) and facts,
    each i32[N]: level, tick (steps since the episode began), x, y."""
    p = env.params
    state = check_array("maze.inspect", "state", state, ("N", env.spec.state_bytes), jnp.uint8)
    num_envs = state.shape[0]
    cells, facts = ffi.native_call(
        "pufferjax.maze.inspect",
        [
            jax.ShapeDtypeStruct((num_envs, p["size"], p["size"]), jnp.uint8),
            jax.ShapeDtypeStruct((num_envs, 4), jnp.int32),
        ],
        state,
        params=np.asarray((p["size"], p["num_mazes"], p["seed"], p["vision"]), np.int64),
    )
    return cells, dict(zip(("level", "tick", "x", "y"), facts.T, strict=True))


def steps_to_goal(walls: np.ndarray) -> np.ndarray:
    """i32[size, size], indexed [y, x]: steps of the shortest path to the goal from each cell of a maze, whose walls are
    bool[size, size]; -1 in walls."""
    goal = (len(walls) - 2, len(walls) - 2)
    steps = np.full(walls.shape, -1, np.int32)
    steps[goal] = 0
    queue = deque([goal])
    while queue:
        y, x = queue.popleft()
        for cell in ((y, x + 1), (y - 1, x), (y, x - 1), (y + 1, x)):
            if not walls[cell] and steps[cell] < 0:
                steps[cell] = steps[y, x] + 1
                queue.append(cell)
    return steps
