"""A pytree of arrays as one row of bytes and back, every bit of every dtype kept."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_key(dtype: Any) -> bool:
    """Whether `dtype` is that of typed PRNG keys."""
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def leaf_name(path: Any) -> str:
    """The path of a leaf as text, say "position.x"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def to_bytes(x: jax.Array) -> jax.Array:
    """u8[bytes]: the bits of `x`, little-endian. A bool, or an integer of less than a byte, takes a whole one."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    return jax.lax.bitcast_convert_type(x.astype(_stored_dtype(x.dtype)), jnp.uint8).reshape(-1)


def from_bytes(content: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Inverse of `to_bytes`."""
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        parts = from_bytes(content, (*shape, 2), jnp.finfo(dtype).dtype)
        return jax.lax.complex(parts[..., 0], parts[..., 1])
    stored = _stored_dtype(dtype)
    content = content.reshape((*shape, stored.itemsize) if stored.itemsize > 1 else shape)
    return jax.lax.bitcast_convert_type(content, stored).astype(dtype)


def num_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """How many bytes `to_bytes` makes of an array."""
    return int(np.prod(shape, dtype=np.int64)) * jnp.dtype(dtype).itemsize


def _stored_dtype(dtype: Any) -> np.dtype:
    dtype = jnp.dtype(dtype)
    if dtype == jnp.bool_:
        return jnp.dtype(jnp.uint8)
    if jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits < 8:
        return jnp.dtype(jnp.uint8 if jnp.issubdtype(dtype, jnp.unsignedinteger) else jnp.int8)
    return dtype


@dataclasses.dataclass(frozen=True)
class RowLayout:
    """Where the leaves of a pytree lie in a row: one after the other, without gaps.

    Typed PRNG keys take no bytes: they are randomness, which a row does not hold.
    """

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    paths: tuple[Any, ...]
    offsets: tuple[int, ...]
    size: int  # S, bytes of a row

    @classmethod
    def of(cls, tree: Any) -> "RowLayout":
        """The layout of pytrees like `tree`, arrays or shapes with dtypes. ValueError for a dtype of less than a byte
        that is no integer."""
        paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
        offsets, size = [], 0
        for path, leaf in paths_and_leaves:
            offsets.append(size)
            if is_key(leaf.dtype):
                continue
            if jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 8:
                raise ValueError(f"{leaf_name(path)}: {leaf.dtype} cannot be stored in a row of bytes")
            size += num_bytes(leaf.shape, leaf.dtype)
        leaves = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for _, leaf in paths_and_leaves)
        return cls(treedef, leaves, tuple(path for path, _ in paths_and_leaves), tuple(offsets), size)

    def describe(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """(path, shape, dtype) of every leaf: what two layouts must agree in to read each other's rows."""
        return tuple(
            (leaf_name(path), leaf.shape, str(leaf.dtype)) for path, leaf in zip(self.paths, self.leaves, strict=True)
        )

    def pack(self, tree: Any) -> jax.Array:
        """u8[S]: one pytree as a row."""
        pieces = [
            to_bytes(jnp.asarray(x, leaf.dtype))
            for x, leaf in zip(jax.tree.leaves(tree), self.leaves, strict=True)
            if not is_key(leaf.dtype)
        ]
        return jnp.concatenate(pieces) if pieces else jnp.zeros(0, jnp.uint8)

    def unpack(self, row: jax.Array, key: jax.Array) -> Any:
        """The pytree of a row u8[S]; PRNG keys in it are drawn from `key`."""
        leaves = []
        for index, (offset, leaf) in enumerate(zip(self.offsets, self.leaves, strict=True)):
            if is_key(leaf.dtype):
                leaves.append(_draw_keys(jax.random.fold_in(key, index), leaf))
            else:
                content = jax.lax.slice(row, (offset,), (offset + num_bytes(leaf.shape, leaf.dtype),))
                leaves.append(from_bytes(content, leaf.shape, leaf.dtype))
        return jax.tree.unflatten(self.treedef, leaves)


def _draw_keys(key: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """New keys of the shape and generator of `like`."""
    found = []  # the generator of a dtype is only told by an array of it
    data = jax.eval_shape(lambda keys: found.append(jax.random.key_impl(keys)) or jax.random.key_data(keys), like)
    return jax.random.wrap_key_data(jax.random.bits(key, data.shape, jnp.uint32), impl=found[0])
