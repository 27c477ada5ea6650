"""The password: construction and rendering. Rules: envs/password/password.h."""

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops.checks import check_array, check_count

SYMBOLS = tuple("123456789")
STATE = np.dtype([("tick", "<u4"), ("position", "<u4")])  # a row, as in password.h
_PALETTE = np.array(
    [[38, 50, 56], [229, 57, 53], [251, 140, 0], [253, 216, 53], [124, 179, 66], [0, 137, 123], [3, 155, 229],
     [57, 73, 171], [142, 36, 170], [216, 27, 96]], np.uint8,
)  # fmt: skip
_COLUMNS = 16


def make_password(*, length: int = 128) -> Env:
    """A fixed secret word; reward 1 for each symbol guessed right, and the first wrong guess ends the episode.

    Observation u8[length]: the symbols known so far, 1 to 9, and 0 beyond; nine actions. perf is the share of the word
    that was known at the end, score the number of symbols. There is no time limit.

    Args:
      length: of the word, 1 to 512. A shorter word is the beginning of a longer one.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    length = check_count("password", "length", length, 1, 512)
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("password.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        cells = np.zeros(-(-length // _COLUMNS) * _COLUMNS, np.uint8)
        cells[:length] = env.observe(row[None])[0]
        return upscale(cells.reshape(-1, _COLUMNS), _PALETTE)

    env = make_native(
        "password",
        {"length": length},
        (length,),
        obs_max=len(SYMBOLS),
        action_names=(SYMBOLS,),
        render=render,
    )
    return env
