"""What linear_max and entity_encoder have in common: their checks of entities, and how winners are stored."""

import math

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.checks import check_array


def check_entities(op, x, mask) -> tuple[jax.Array, jax.Array | None, tuple[int, ...]]:
    """(x f32 or bf16 [R, N, D], mask bool[R, N] or None, leading axes), R their product; TypeError or ValueError."""
    x = check_array(op, "x", x, (..., "N", "D"), (jnp.float32, jnp.bfloat16))
    *leading, num_entities, num_features = x.shape
    if num_entities >= 2**31:
        raise ValueError(f"{op}: x must have N < 2^31 entities, got shape {x.shape}")
    rows = math.prod(leading)
    if mask is not None:
        mask = check_array(op, "mask", mask, (*leading, num_entities), jnp.bool_).reshape(rows, num_entities)
    return x.reshape(rows, num_entities, num_features), mask, tuple(leading)


def winner_dtype(num_entities: int):
    """The smallest type that numbers the entities, as in rules.h."""
    return jnp.uint8 if num_entities <= 256 else jnp.uint16 if num_entities <= 65536 else jnp.int32


def scratch_floats(num_rows: int, sums_size: int) -> int:
    """How many floats backward needs on a GPU for a lane: `sums_size` for each part of its rows (backward_kernels.h).

    Under vmap every lane brings as many, where a call over several lanes divides each into fewer parts.
    """
    parts = min(1024, num_rows // 8)
    return sums_size * max(1, min(parts, 2**22 // sums_size) if sums_size else parts)


def mask_operand(mask) -> jax.Array:
    """What the handlers take for a mask; without entries: all are present."""
    return jnp.zeros((0, 0), jnp.bool_) if mask is None else mask
