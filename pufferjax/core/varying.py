"""Carries inside `jax.shard_map`, whose types say over which axes of the mesh they vary."""

from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi


def vary_as(tree: Any, like: Any) -> Any:
    """`tree`, each array varying over the axes that any of `like` varies over: what a loop makes of its first carry.

    Outside shard_map, or without its checks, nothing is changed. A zero is added rather than the type cast, since a
    cast cannot be batched where vmap has made its operand vary already.
    """
    wanted = frozenset().union(*map(ffi.varying_axes, jax.tree.leaves(like)))
    sources = [x for x in jax.tree.leaves(like) if ffi.varying_axes(x)]

    def of(x):
        if not wanted - ffi.varying_axes(x):
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(of(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        zero = sum(_zero(source) for source in sources)
        return x | zero.astype(bool) if x.dtype == bool else x + zero.astype(x.dtype)

    return jax.tree.map(of, tree)


def _zero(x: jax.Array) -> jax.Array:
    """u32[]: 0, varying as `x` does."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(jax.random.clone(x))
    return (jnp.ravel(x)[0] != jnp.ravel(x)[0]).astype(jnp.uint32) * 0
