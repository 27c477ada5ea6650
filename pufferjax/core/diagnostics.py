"""Figures of the state set for the log: how old, how late in their episodes, how different its states are. Pure.

M slots of S bytes. On a mesh axis every device has a share of the set, and the figures are those of the whole.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.core.state_set import StateSet
from pufferjax.envs import Env

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
MAX_SLOTS = 1024  # of a larger set (or share) the quantiles and repeats are those of this many evenly spaced slots


def filled_slots(state_set: StateSet) -> jax.Array:
    """bool[M]: the slots that hold a state. `size` may be i32[devices], the sizes of as many equal shares."""
    capacity = state_set.priorities.shape[0]
    sizes = state_set.size.reshape(-1, 1)
    return (jnp.arange(capacity // sizes.shape[0]) < sizes).reshape(-1)


def entered_slots(before: StateSet, after: StateSet) -> jax.Array:
    """bool[M]: the slots filled anew by the inserts that made `after` of `before`.

    No comparison of snapshots is needed: a newcomer takes an empty slot or scores strictly more than the state it
    replaces. Priorities compare by their bits, since the CPU may take denormals for zero.
    """
    old, new = (jax.lax.bitcast_convert_type(x.priorities, jnp.int32) for x in (before, after))
    return (old != new) | (filled_slots(after) & ~filled_slots(before))


def state_set_metrics(
    env: Env, before: StateSet, state_set: StateSet, born, epoch, axis_name: str | None = None
) -> dict[str, jax.Array]:
    """f32 scalars, as described in `pufferjax.runs.metrics`; 0 while the set is empty.

    before: the set before this epoch's inserts (its priorities and size are all that is read). born: i32[M], the epoch
    each state came from; epoch: i32[], this one.
    """
    filled = filled_slots(state_set)
    entered = entered_slots(before, state_set)
    stride = -(-filled.shape[0] // MAX_SLOTS)
    times, timeless = env.clock(state_set.snapshots[::stride])
    columns = {
        "priority": state_set.priorities[::stride],
        "state_age": (epoch - born[::stride]).astype(jnp.float32),
        "state_time": times.astype(jnp.float32),
    }
    sums = {
        "size": jnp.sum(filled.astype(jnp.float32)),
        "priority": jnp.sum(jnp.where(filled, state_set.priorities, 0.0)),
        "inserts": jnp.sum(entered.astype(jnp.float32)),
        "evictions": jnp.sum((entered & filled_slots(before)).astype(jnp.float32)),
    }
    lowest = jnp.min(jnp.where(filled, state_set.priorities, jnp.inf))
    highest = jnp.max(jnp.where(filled, state_set.priorities, 0.0))
    is_known, hashes, table = filled[::stride], _hash(timeless), jnp.stack(list(columns.values()))
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
        lowest, highest = jax.lax.pmin(lowest, axis_name), jax.lax.pmax(highest, axis_name)
        is_known, hashes = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (is_known, hashes))
        table = jax.lax.all_gather(table, axis_name, axis=1, tiled=True)
    count = jnp.sum(is_known)
    quantiles = _quantiles(table, is_known, count)
    return {
        "state_set_size": sums["size"],
        "priority_min": jnp.where(sums["size"] > 0, lowest, 0.0),
        "priority_mean": sums["priority"] / jnp.maximum(sums["size"], 1.0),
        "priority_max": highest,
        **{f"{column}_{name}": quantiles[i, j] for i, column in enumerate(columns) for j, name in enumerate(QUANTILES)},
        "state_repeats": _repeats(hashes, is_known) / jnp.maximum(count, 1).astype(jnp.float32),
        "state_inserts": sums["inserts"],
        "state_evictions": sums["evictions"],
    }


def _quantiles(table, is_known, count):
    """f32[columns, quantiles] of the known entries of f32[columns, M]: the entries nearest to those ranks."""
    ordered = jnp.sort(jnp.where(is_known, table, jnp.inf), axis=1)
    ranks = jnp.round(jnp.asarray(list(QUANTILES.values())) * jnp.maximum(count - 1, 0)).astype(jnp.int32)
    return jnp.where(count > 0, ordered[:, ranks], 0.0)


def _hash(rows):
    """u32[M] of u8[M, S]: sums with random weights; two different rows collide with probability 2^-25 at most."""
    weights = np.random.default_rng(0).integers(2**32, size=rows.shape[1], dtype=np.uint32)
    return jnp.sum(rows.astype(jnp.uint32) * weights, axis=1, dtype=jnp.uint32)


def _repeats(hashes, is_known):
    """f32[]: how many of the known rows equal another one that counts as the first of its kind."""
    is_unknown, hashes = jax.lax.sort((~is_known, hashes), num_keys=2)
    return jnp.sum(((hashes[1:] == hashes[:-1]) & ~is_unknown[1:]).astype(jnp.float32))
