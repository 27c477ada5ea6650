"""Programs whose random bits are one native call instead of a loop.

Every `jax.random.split`, `fold_in` and `bits` of a CPU program becomes a loop of its own, of a hundred operations, and
an epoch has dozens: they are a third of what XLA has to compile. `lower` lets one program, and no other, call
xla_ops/threefry/cpu.cc in their place. The bits are the same: JAX's own rule is the specification.
"""

from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
from jax.interpreters import mlir

from pufferjax.xla_ops import ffi

TARGET = "pufferjax.threefry2x32"


def threefry2x32(key0, key1, counter0, counter1):
    """Two u32 arrays of the hashed counters; the operands are u32 and broadcast together."""
    shape = jnp.broadcast_shapes(key0.shape, key1.shape, counter0.shape, counter1.shape)
    struct = jax.ShapeDtypeStruct(shape, jnp.uint32)
    keys, counters = (key0, key1), (counter0, counter1)
    if key0.shape or key1.shape:
        keys = tuple(jnp.broadcast_to(x, shape) for x in keys)
    counters = tuple(jnp.broadcast_to(x, shape) for x in counters)
    return tuple(ffi.native_call(TARGET, [struct, struct], *keys, *counters))


def _rules() -> Any:
    """None where this version of JAX has no such thing: its own rule does the same, only slower to compile."""
    if not ffi.has_native(TARGET, "cpu"):
        return None
    try:
        rule = mlir.lower_fun(threefry2x32, multiple_results=True)
        return mlir.LoweringParameters(override_lowering_rules=((jax.extend.random.threefry2x32_p, rule),))
    except (AttributeError, TypeError):
        return None


_PARAMETERS = _rules()  # one object: JAX remembers what it lowered by it


def lower(jitted, *args, platform: str):
    """`jitted.lower(*args)`, for devices of `platform`."""
    traced = jitted.trace(*args)
    if platform == "cpu" and _PARAMETERS is not None:
        try:
            return traced.lower(_private_parameters=_PARAMETERS)
        except TypeError:  # another version of JAX, without this argument
            pass
    return traced.lower()
