"""The Python package minigrid beside our simulator: its environments by our names, and its boards as our rows."""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall
from minigrid.envs import MultiRoomEnv

from pufferjax.envs.minigrid.minigrid import (
    BALL, BOX, CLOSED, FREE, GOAL, KEY, LAVA, LOCKED, OPEN, TASKS, WALL, WITH_KEY, layout,
)  # fmt: skip

# What the package has no name for.
UNNAMED = ("MultiRoom-N7-S4", "MultiRoom-N7-S8", "MultiRoom-N10-S4", "MultiRoom-N10-S10", "MultiRoom-N12-S10")


def make(task, **kwargs):
    import gymnasium

    if task in UNNAMED:
        _, size, _, _, count, _ = TASKS[task]
        return MultiRoomEnv(minNumRooms=count, maxNumRooms=count, maxRoomSize=size, **kwargs)
    name = f"MiniGrid-{task}" if task.endswith("-v1") else f"MiniGrid-{task}-v0"
    return gymnasium.make(name, disable_env_checker=True, **kwargs).unwrapped


def code(thing):
    """The byte of a cell that holds `thing`, an object of the package or None."""
    if thing is None:
        return FREE
    colour = COLOR_TO_IDX[thing.color]
    match thing:
        case Wall():
            return WALL
        case Goal():
            return GOAL
        case Lava():
            return LAVA
        case Door():
            return (OPEN if thing.is_open else LOCKED if thing.is_locked else CLOSED) + colour
        case Key():
            return KEY + colour
        case Ball():
            return BALL + colour
        case Box():
            inside = 0 if thing.contains is None else WITH_KEY * (1 + COLOR_TO_IDX[thing.contains.color])
            assert thing.contains is None or isinstance(thing.contains, Key)
            return BOX + inside + colour
    raise AssertionError(thing)


def row(env, task):
    """u8[S]: the state of one of the package's environments."""
    record = np.zeros((), layout(task))
    record["tick"] = env.step_count
    record["x"], record["y"] = env.agent_pos
    record["heading"] = env.agent_dir
    record["carrying"] = 0 if env.carrying is None else code(env.carrying)
    record["target"] = code(env.obj) if hasattr(env, "obj") else 0
    record["cells"] = np.reshape([code(thing) for thing in env.grid.grid], (env.height, env.width))
    return np.frombuffer(record.tobytes(), np.uint8)
