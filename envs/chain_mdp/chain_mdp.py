"""The chain: construction and rendering. Rules: envs/chain_mdp/chain_mdp.h."""

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env
from pufferjax.envs.native import make_native, upscale
from pufferjax.xla_ops.checks import check_array, check_count

ACTIONS = ("left", "right")
STATE = np.dtype([("tick", "<u4"), ("thousandths", "<u4"), ("position", "<u4")])  # a row, as in chain_mdp.h
_OUTSIDE, _STATE, _SMALL, _LARGE, _AGENT = range(5)
_PALETTE = np.array([[245, 245, 240], [120, 144, 156], [255, 183, 77], [67, 160, 71], [229, 57, 53]], np.uint8)
_COLUMNS = 16


def make_chain_mdp(*, num_states: int = 128) -> Env:
    """A chain with reward 0.001 at its left end, beside the start, and 1 at its right end.

    Observation u8[1]: the number of the state; actions left and right. Every episode is truncated after num_states + 9
    steps, and perf is 1 if it ends in the last state. score is the return.

    Args:
      num_states: states of the chain, 3 to 256.

    Raises TypeError or ValueError naming the argument and the valid range.
    """
    num_states = check_count("chain_mdp", "num_states", num_states, 3, 256)
    env: Env

    def render(row) -> np.ndarray:
        row = check_array("chain_mdp.render", "row", row, (env.spec.state_bytes,), jnp.uint8)
        cells = np.full(-(-num_states // _COLUMNS) * _COLUMNS, _OUTSIDE)
        cells[:num_states] = _STATE
        cells[0], cells[num_states - 1] = _SMALL, _LARGE
        cells[int(env.observe(row[None])[0, 0])] = _AGENT
        return upscale(cells.reshape(-1, _COLUMNS), _PALETTE)

    env = make_native(
        "chain_mdp",
        {"num_states": num_states},
        (num_states,),
        obs_max=num_states - 1,
        action_names=(ACTIONS,),
        render=render,
    )
    return env
