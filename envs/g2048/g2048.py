"""2048: construction and rendering. Rules: envs/g2048/g2048.h."""

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops.checks import check_array

ACTIONS = ("up", "down", "left", "right")
MAX_EXPONENT = 17
# A row, as in g2048.h.
STATE = np.dtype(
    [("cells", "u1", (4, 4)), ("tick", "<u4"), ("score", "<u4"), ("reward_units", "<i4"), ("best", "u1"),
     ("has_moved", "u1"), ("is_scaffolding", "u1"), ("unused", "u1")]
)  # fmt: skip
_RATIO_UNITS = 2**24


def _palette() -> np.ndarray:
    """u8[18, 3]: empty, then from sand over red to violet."""
    stops = np.array([[238, 228, 218], [242, 177, 121], [229, 57, 53], [142, 36, 170], [40, 20, 90]])
    at = np.linspace(0, len(stops) - 1, MAX_EXPONENT)
    tiles = np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=1)
    return np.concatenate([[[187, 173, 160]], tiles]).astype(np.uint8)


_PALETTE = _palette()


def make_g2048(*, scaffolding: float = 0.0) -> Env:
    """2048: slide and merge tiles; a move that changes nothing costs 0.05, the end of the game 1.

    Observation u8[4, 4]: exponents of the tiles, 0 for an empty cell; actions up, down, left, right. score is the
    highest tile, perf min(1, 0.8 * score / 65536). The limit for stalled games grows with the best tile that an
    environment has met so far, which is part of its state and outlives its episodes. Episodes have no fixed length:
    `spec.max_episode_steps` is what the limit can reach at most.

    Args:
      scaffolding: probability in [0, 1] that an episode begins with one or two tiles of 2^12 or more instead of with
        two small ones, to practise the late game. The figures of such episodes count like all others (the original
        leaves them out), so compare scores at 0 only.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    if isinstance(scaffolding, bool) or not isinstance(scaffolding, (int, float)):
        raise TypeError(f"g2048: scaffolding must be a number in [0, 1], got {scaffolding!r}")
    if not 0 <= scaffolding <= 1:
        raise ValueError(f"g2048: scaffolding must be a number in [0, 1], got {scaffolding!r}")
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("g2048.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        return upscale(np.asarray(env.observe(row[None])[0]), _PALETTE)

    env = make_native(
        "g2048",
        {"scaffolding": float(scaffolding)},
        (round(scaffolding * _RATIO_UNITS),),
        obs_max=MAX_EXPONENT,
        action_names=(ACTIONS,),
        render=render,
    )
    return env
