"""The minimal multi-agent environment: construction and rendering. Rules: envs/minimal/minimal.h."""

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import EntityLayout, Env
from pufferjax.envs.native import make_native
from pufferjax.xla_ops.checks import check_array, check_count

WIDTH, HEIGHT = 1080, 720  # px
TURNS = tuple(f"turn {turn:+d}/12 rad" for turn in range(-4, 5))
SPEEDUPS = tuple(f"speed {change:+d}" for change in range(-2, 3))
# A row of the state, as in minimal.h.
STATE = np.dtype(
    [
        (
            "agents",
            [("x", "f4"), ("y", "f4"), ("heading", "f4"), ("speed", "f4"), ("type", "u4"), ("waited", "u4")],
            8,
        ),
        ("targets", [("x", "f4"), ("y", "f4"), ("type", "u4"), ("cooldown", "u4")], 8),
        ("tick", "u4"),
        ("pickups", "u4"),
        ("promptness", "f4"),
        ("unused", "u4"),
    ]
)
_COLORS = np.array([[229, 57, 53], [67, 160, 71], [30, 136, 229], [251, 140, 0]], np.uint8)  # of the types
_BACKGROUND, _COOLING = np.array([38, 50, 56], np.uint8), np.array([84, 100, 108], np.uint8)
_SCALE = 3  # px of the plane per pixel of the picture


def make_minimal(*, max_steps: int = 1024) -> Env:
    """Eight agents that pick up targets of their own type, which changes with every pick-up; 16 entities in view.

    The original never ends and reports every pick-up by itself; `max_steps=0` gives that world, of which no figures are
    reported. Otherwise an episode is truncated after max_steps, and its info tells: `score` and `episode_return`, the
    pick-ups of all agents; `perf`, the mean over them of min(30 / steps since the agent's last one, 1).

    Args:
      max_steps: steps of an episode, 1 to 2**31 - 1; 0: it never ends.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    max_steps = check_count("minimal", "max_steps", max_steps, 0)
    return make_native(
        "minimal",
        {"max_steps": max_steps},
        (max_steps,),
        obs_max=None,
        action_names=(TURNS, SPEEDUPS),
        render=_render,
        entities=EntityLayout(num_self=2, num_entities=16, entity_size=4),
    )


def unpack(rows) -> np.ndarray:
    """Rows u8[N, S] as records of `STATE`, one per simulator: a copy."""
    return np.array(check_array("minimal.unpack", "rows", rows, ("N", STATE.itemsize), jnp.uint8)).view(STATE)[:, 0]


def _render(row) -> np.ndarray:
    """Agents are discs with a nose, targets squares, dull while they cool down; the colour is the type."""
    row = check_array("minimal.render", "row", row, (STATE.itemsize,), jnp.uint8)
    state = unpack(row[None])[0]
    y, x = (np.mgrid[: HEIGHT // _SCALE, : WIDTH // _SCALE] + np.float32(0.5)) * _SCALE
    image = np.broadcast_to(_BACKGROUND, (*x.shape, 3)).copy()
    for target in state["targets"]:
        inside = (abs(x - target["x"]) < 14) & (abs(y - target["y"]) < 14)
        image[inside] = _COOLING if target["cooldown"] else _COLORS[target["type"]]
    for agent in state["agents"]:
        dx, dy = x - agent["x"], y - agent["y"]
        forward = dx * np.cos(agent["heading"]) + dy * np.sin(agent["heading"])
        aside = abs(dy * np.cos(agent["heading"]) - dx * np.sin(agent["heading"]))
        image[dx * dx + dy * dy < 12**2] = _COLORS[agent["type"]]
        image[(forward > 0) & (forward < 22) & (aside < 3)] = 255
    return image
