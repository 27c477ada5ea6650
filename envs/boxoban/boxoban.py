"""Boxoban: construction and rendering. Rules: envs/boxoban/boxoban.h; levels: envs/boxoban/levels.h."""

import os

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops.checks import check_array, check_count, check_scalar

ACTIONS = ("stay", "down", "up", "left", "right")
AGENT, WALL, BOX, TARGET = range(4)  # planes of an observation
_FLOOR, _SOLVED, _AGENT_ON_TARGET = 4, 5, 6  # further colours
_PALETTE = np.array(
    [[229, 57, 53], [38, 50, 56], [176, 120, 64], [129, 199, 132], [245, 245, 240], [46, 125, 50], [183, 28, 28]],
    np.uint8,
)


def make_boxoban(
    *,
    num_levels: int = 8192,
    seed: int = 42,
    num_pulls: int = 40,
    levels: str = "",
    max_steps: int = 150,
    int_r_coeff: float = 0.25,
    target_loss_penalty: float = 0.0,
    timeout_reward: float = 0.0,
    egocentric: bool = False,
) -> Env:
    """Sokoban on 10 x 10 cells with four boxes; perf is 1 for a solved level and 0 otherwise.

    Observations are u8[4, 10, 10], planes of zeros and ones: the agent, walls, boxes, targets. A solved level gives
    reward 1 and ends the episode.

    Args:
      num_levels: generated levels shared by all simulators, drawn uniformly at each reset, 1 to 2**20.
      seed: of the generated levels, 0 to 2**63 - 1. Another seed gives levels never seen before.
      num_pulls: how many times a box is pulled backwards from the solution to make a level, 1 to 1000: its difficulty.
        Every level can be solved in max_steps steps.
      levels: path of a level file in the public Boxoban text format, or of a folder of them (*.txt), instead of
        generated levels; num_levels, seed and num_pulls then mean nothing. Read once per process.
      max_steps: the episode is truncated after so many steps, 1 to 65535.
      int_r_coeff: reward for covering a target for the first time in an episode, 0 to 1000; 0: reward only at the end.
      target_loss_penalty: taken from the reward when a box leaves a target, 0 to 1000.
      timeout_reward: reward of the step that runs out of time, -1000 to 1000 (the original gives -1).
      egocentric: roll the planes, what leaves on one side entering on the other, until the agent is at (5, 5).

    Raises TypeError or ValueError naming the argument and the valid range, or the file and the level that is wrong.
    """
    if not isinstance(levels, (str, os.PathLike)):
        raise TypeError(f"boxoban: levels must be a path, got {levels!r}")
    counts = {
        "num_levels": check_count("boxoban", "num_levels", num_levels, 1, 2**20),
        "seed": check_count("boxoban", "seed", seed, 0, 2**63 - 1),
        "num_pulls": check_count("boxoban", "num_pulls", num_pulls, 1, 1000),
        "max_steps": check_count("boxoban", "max_steps", max_steps, 1, 65535),
    }
    rewards = {"int_r_coeff": int_r_coeff, "target_loss_penalty": target_loss_penalty, "timeout_reward": timeout_reward}
    for name, value in rewards.items():
        check_scalar("boxoban", name, value, -1000 if name == "timeout_reward" else 0, 1000)
        rewards[name] = float(value)
    if not isinstance(egocentric, bool):
        raise TypeError(f"boxoban: egocentric must be True or False, got {egocentric!r}")
    # A run is resumed from another folder as well.
    path = os.path.abspath(os.path.expanduser(levels)) if os.fspath(levels) else ""
    bits = [int(np.float32(x).view(np.uint32)) for x in rewards.values()]
    params = {**counts, "levels": path, **rewards, "egocentric": egocentric}

    def native(egocentric: bool, render) -> Env:
        numbers = (*counts.values(), *bits, int(egocentric), *os.fsencode(path))
        return make_native(
            "boxoban", params, numbers, obs_max=1, action_names=(ACTIONS,), render=render, channels_first=True
        )

    def render(row) -> np.ndarray:
        row = check_array("boxoban.render", "row", row, (pictured.spec.state_bytes,), jnp.uint8)
        return upscale(_cells(np.asarray(pictured.observe(row[None])[0]) == 1), _PALETTE)

    pictured = native(False, render)
    return native(egocentric, render)


def _cells(planes: np.ndarray) -> np.ndarray:
    """Colours u8[10, 10] of planes bool[4, 10, 10]."""
    cells = np.full(planes.shape[1:], _FLOOR, np.uint8)
    for plane in (WALL, TARGET, BOX, AGENT):
        cells[planes[plane]] = plane
    cells[planes[BOX] & planes[TARGET]] = _SOLVED
    cells[planes[AGENT] & planes[TARGET]] = _AGENT_ON_TARGET
    return cells
