"""A pytree of arrays as one row of bytes and back, every bit of every dtype kept."""

import dataclasses
from collections.abc import Collection
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

    Typed PRNG keys take no bytes, since they are randomness, which a row does not hold; but for those that are kept.
    """

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    paths: tuple[Any, ...]
    offsets: tuple[int, ...]
    is_kept: tuple[bool, ...]  # in the row; False for PRNG keys that are drawn anew
    size: int  # S, bytes of a row

    @classmethod
    def of(cls, tree: Any, kept_keys: Collection[str] = ()) -> "RowLayout":
        """The layout of pytrees like `tree`, arrays or shapes with dtypes; kept_keys: names of the leaves whose PRNG
        keys are stored. ValueError for a dtype of less than a byte that is no integer."""
        paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
        offsets, is_kept, size = [], [], 0
        for path, leaf in paths_and_leaves:
            offsets.append(size)
            is_kept.append(not is_key(leaf.dtype) or leaf_name(path) in kept_keys)
            if not is_kept[-1]:
                continue
            if is_key(leaf.dtype):
                leaf = _key_data(leaf)[0]
            if jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 8:
                raise ValueError(f"{leaf_name(path)}: {leaf.dtype} cannot be stored in a row of bytes")
            size += num_bytes(leaf.shape, leaf.dtype)
        leaves = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for _, leaf in paths_and_leaves)
        paths = tuple(path for path, _ in paths_and_leaves)
        return cls(treedef, leaves, paths, tuple(offsets), tuple(is_kept), size)

    def describe(self) -> tuple[tuple[str, tuple[int, ...], str], ...]:
        """(path, shape, dtype) of every leaf: what two layouts must agree in to read each other's rows."""
        return tuple(
            (leaf_name(path), leaf.shape, str(leaf.dtype) + " kept" * (is_kept and is_key(leaf.dtype)))
            for path, leaf, is_kept in zip(self.paths, self.leaves, self.is_kept, strict=True)
        )

    def pack(self, tree: Any) -> jax.Array:
        """u8[S]: one pytree as a row."""
        pieces = [
            to_bytes(jax.random.key_data(x) if is_key(leaf.dtype) else jnp.asarray(x, leaf.dtype))
            for x, leaf, is_kept in zip(jax.tree.leaves(tree), self.leaves, self.is_kept, strict=True)
            if is_kept
        ]
        return jnp.concatenate(pieces) if pieces else jnp.zeros(0, jnp.uint8)

    def unpack(self, row: jax.Array, key: jax.Array) -> Any:
        """The pytree of a row u8[S]; PRNG keys that it does not hold are drawn from `key`."""
        leaves = []
        for index, (offset, leaf, is_kept) in enumerate(zip(self.offsets, self.leaves, self.is_kept, strict=True)):
            if not is_kept:
                leaves.append(draw_keys(key, index, leaf))
                continue
            stored, impl = _key_data(leaf) if is_key(leaf.dtype) else (leaf, None)
            content = jax.lax.slice(row, (offset,), (offset + num_bytes(stored.shape, stored.dtype),))
            x = from_bytes(content, stored.shape, stored.dtype)
            leaves.append(x if impl is None else jax.random.wrap_key_data(x, impl=impl))
        return jax.tree.unflatten(self.treedef, leaves)


def draw_keys(key: jax.Array, index: int, like: Any) -> jax.Array:
    """New keys of the shape and generator of `like`, for the leaf `index` of a pytree."""
    data, impl = _key_data(like)
    bits = jax.random.bits(jax.random.fold_in(key, index), data.shape, jnp.uint32)
    return jax.random.wrap_key_data(bits, impl=impl)


def _key_data(like: Any) -> tuple[jax.ShapeDtypeStruct, Any]:
    """(shape and dtype of the words of the keys `like`, their generator)."""
    found = []  # the generator of a dtype is only told by an array of it
    like = jax.ShapeDtypeStruct(like.shape, like.dtype)
    data = jax.eval_shape(lambda keys: found.append(jax.random.key_impl(keys)) or jax.random.key_data(keys), like)
    return data, found[0]
