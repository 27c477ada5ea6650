"""Where the host does what several devices did: functions of one share of the state set, over all shares at once.

The shares lie side by side in each array, as in the TrainState of several devices; but for the sizes of state sets,
i32[shares].
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.core.parallel import AXIS
from pufferjax.core.state_set import StateSet


def over_shares(function: Callable, count: int, num_same: int = 0, out_axes: Any = 0) -> Callable:
    """`function` of one share, for all `count` of them.

    The last `num_same` arguments are the same for all shares, and so are results with None in `out_axes`. For the
    function, the shares are the devices of the axis AXIS.
    """
    if count == 1:
        return function

    def split(tree):
        return _by_set(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), tree)

    def merged(tree, axis):
        return tree if axis is None else _merge(tree)

    def whole(*args):
        first_same = len(args) - num_same
        in_axes = [0] * first_same + [None] * num_same
        args = [*map(split, args[:first_same]), *args[first_same:]]
        results = jax.vmap(function, in_axes, out_axes, axis_name=AXIS)(*args)
        return tuple(map(merged, results, out_axes)) if isinstance(out_axes, tuple) else merged(results, out_axes)

    return whole


def alike(share: Any, count: int) -> Any:
    """`count` shares, each as `share`."""
    return share if count == 1 else _merge(jax.tree.map(lambda x: jnp.stack([x] * count), share))


def _merge(tree):
    return _by_set(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def _by_set(change: Callable[[jax.Array], jax.Array], tree):
    """`tree` with every array changed but the sizes of state sets, i32[shares] in either form."""

    def of(x):
        if not isinstance(x, StateSet):
            return change(x)
        return dataclasses.replace(jax.tree.map(change, dataclasses.replace(x, size=None)), size=x.size)

    return jax.tree.map(of, tree, is_leaf=lambda x: isinstance(x, StateSet))
