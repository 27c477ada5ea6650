"""Breakout: construction and rendering. Rules: envs/breakout/breakout.h."""

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native
from pufferjax.xla_ops.checks import check_array, check_count

ACTIONS = ("stay", "left", "right")
WIDTH, HEIGHT = 576, 330  # of the field, in pixels
_ROWS, _COLUMNS, _BRICK_WIDTH, _BRICK_HEIGHT, _BRICKS_TOP = 6, 18, 32, 12, 50
_BALL, _PADDLE_WIDTH, _PADDLE_HEIGHT = 32, 62, 8
_BACKGROUND, _LIGHT, _RED = (24, 28, 36), (236, 239, 241), (229, 57, 53)
_ROW_COLOURS = ((229, 57, 53), (240, 98, 60), (251, 140, 0), (253, 190, 45), (67, 160, 71), (77, 182, 172))


def make_breakout(
    *, frame_skip: int = 4, max_steps: int = 20_000, clip_reward: bool = True, continuous: bool = False
) -> Env:
    """Breakout with six balls and two boards of bricks; perf is the share of its 864 points.

    Observations are f32[118]: paddle x and y, ball x and y in units of the field, the ball's velocity in pixels per
    second over 512, whether it is served over 5, the score over 864, lives over 5, the paddle's width over its full
    width, and for each brick, row by row from the top, 1 if it is destroyed.

    Args:
      frame_skip: frames of 1/60 s that a step takes with one action, 1 to 64.
      max_steps: the episode is truncated after so many steps, 1 to 10**9.
      clip_reward: the reward of a step is 1 if it earned any points, as the original trains; False: the points.
      continuous: the action is a number from -1 to 1, the share of the paddle's speed to the right; False: stay, left
        or right, as in the original.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    frame_skip = check_count("breakout", "frame_skip", frame_skip, 1, 64)
    max_steps = check_count("breakout", "max_steps", max_steps, 1, 10**9)
    for argument, value in (("clip_reward", clip_reward), ("continuous", continuous)):
        if not isinstance(value, bool):
            raise TypeError(f"breakout: {argument} must be True or False, got {value!r}")
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("breakout.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        return _picture(np.asarray(env.observe(row[None])[0]))

    env = make_native(
        "breakout",
        {"frame_skip": frame_skip, "max_steps": max_steps, "clip_reward": clip_reward, "continuous": continuous},
        (frame_skip, max_steps, int(clip_reward)),
        obs_max=None,
        action_names=() if continuous else (ACTIONS,),
        render=render,
        simulator="breakout_steered" if continuous else "breakout",
    )
    return env


def _picture(observation: np.ndarray) -> np.ndarray:
    """u8[HEIGHT, WIDTH, 3] of an observation."""
    image = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)

    def fill(x, y, width, height, colour):
        x, y = round(float(x)), round(float(y))
        image[max(y, 0) : y + height, max(x, 0) : x + width] = colour

    for brick in np.flatnonzero(observation[10:] == 0):
        row, column = divmod(int(brick), _COLUMNS)
        x, y = column * _BRICK_WIDTH, _BRICKS_TOP + row * _BRICK_HEIGHT
        fill(x + 1, y + 1, _BRICK_WIDTH - 2, _BRICK_HEIGHT - 2, _ROW_COLOURS[row])
    lives = round(float(observation[8]) * 5)
    for life in range(lives):
        fill(8 + 14 * life, 8, 8, 8, _RED)
    fill(observation[0] * WIDTH, observation[1] * HEIGHT, round(observation[9] * _PADDLE_WIDTH), _PADDLE_HEIGHT, _LIGHT)
    fill(observation[2] * WIDTH, observation[3] * HEIGHT, _BALL, _BALL, _LIGHT)
    return image
