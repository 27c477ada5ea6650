"""How the observation of a JAX environment, an array or a pytree of arrays, becomes one array of the contract."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import ObservationPart
from pufferjax.envs.rows import is_key, leaf_name


class Reader(NamedTuple):
    """Reads what `step` of one environment returned."""

    read: Callable[[Any], jax.Array]  # to the observation of the contract
    obs_max: int | None
    parts: tuple[ObservationPart, ...]  # (): it was one array


def observation_reader(name: str, obs: Any, space: Any) -> Reader:
    """How to read observations like `obs`, shapes with dtypes; space: the environment's description of them, or None.

    One array keeps its shape. A pytree becomes one vector, uint8 if all its arrays are integers that fit, else float32.
    Raises ValueError for what cannot be observed.
    """
    paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(obs)
    if not paths_and_leaves:
        raise ValueError(f"{name}: the observation holds no array")
    for path, leaf in paths_and_leaves:
        if is_key(leaf.dtype) or jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            which = f" ({leaf_name(path)})" if path else ""
            raise ValueError(f"{name}: an observation must hold real numbers, has {leaf.dtype}{which}")
    if jax.tree_util.treedef_is_leaf(treedef):
        obs_max = _integer_max(paths_and_leaves[0][1].dtype, space)
        dtype = jnp.float32 if obs_max is None else jnp.uint8
        return Reader(lambda obs: jnp.asarray(obs).astype(dtype), obs_max, ())
    parts, offset = [], 0
    for path, leaf in paths_and_leaves:
        largest = _integer_max(leaf.dtype, _space_at(space, path))
        kind = np.dtype(np.float32 if largest is None else np.uint8)
        parts.append(ObservationPart(leaf_name(path), offset, tuple(leaf.shape), kind, largest))
        offset += parts[-1].size
    names = [part.name for part in parts]
    for part in names:
        if names.count(part) > 1:
            raise ValueError(f"{name}: two arrays of the observation are called {part!r}; their names must differ")
    integer = all(part.max is not None for part in parts)
    dtype = jnp.uint8 if integer else jnp.float32

    def read(obs):
        return jnp.concatenate([jnp.ravel(x).astype(dtype) for x in jax.tree.leaves(obs)])

    return Reader(read, max(part.max for part in parts) if integer else None, tuple(parts))


def _integer_max(dtype: Any, space: Any) -> int | None:
    """The largest value of integer observations that fit a byte; None for all others."""
    if dtype == jnp.bool_:
        return 1
    if not jnp.issubdtype(dtype, jnp.integer):
        return None
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if np.ndim(getattr(space, "n", None)) == 0 and getattr(space, "n", None) is not None:
        low, high = 0, space.n - 1
    if low is None or high is None or not np.min(low) >= 0 or not np.max(high) <= 255:
        return 255 if dtype == jnp.uint8 else None
    return max(1, int(np.max(high)))


def _space_at(space: Any, path: Any) -> Any:
    """What a dictionary or tuple of spaces says of the array at `path`; None if it says nothing."""
    for entry in path:
        key = next((getattr(entry, x) for x in ("key", "idx", "name") if hasattr(entry, x)), None)
        inner = getattr(space, "spaces", space)
        if isinstance(inner, Mapping):
            space = inner.get(key)
        elif isinstance(inner, (tuple, list)) and isinstance(key, int) and key < len(inner):
            space = inner[key]
        else:
            return None
    return space
