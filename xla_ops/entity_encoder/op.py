"""Two linear layers on entities with a ReLU between, and the maximum over them, in one pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_precision
from pufferjax.xla_ops.entity_encoder.reference import (
    entity_encoder_backward_reference,
    entity_encoder_reference,
    entity_encoder_saved_reference,
)
from pufferjax.xla_ops.linear_max.entities import check_entities, mask_operand, scratch_floats, winner_dtype

TARGET = "pufferjax.entity_encoder"
TARGET_FORWARD = "pufferjax.entity_encoder.fwd"
TARGET_BACKWARD = "pufferjax.entity_encoder.bwd"
TARGET_BACKWARD_SCRATCH = "pufferjax.entity_encoder.bwd.scratch"  # on a GPU


def entity_encoder(x, w1, b1, w2, b2, mask=None, *, precision=None, impl=None) -> jax.Array:
    """f32[..., H]: `linear_max(relu(x @ w1 + b1), w2, b2, mask)`, the layer in the middle never stored.

        u[..., n, p] = max(0, b1[p] + sum over d of x[..., n, d] w1[d, p])
        y[..., h]    = b2[h] + max over present n of sum over p of u[..., n, p] w2[p, h]

    The encoder of PufferLib's entity environments (P = 16). The native version reads x and writes y; its backward
    computes u again, for the entities that won.

    Args:
      x: f32 or bf16 [..., N, D], N >= 0; any leading axes. Sums are float32 in either case, and so is the result.
      w1: f32[D, P].
      b1: f32[P].
      w2: f32[P, H].
      b2: f32[H].
      mask, precision, impl: as in `linear_max`, like masked rows, ties, NaN, gradients, vmap and reproducibility. With
        passes over bfloat16, each of the two layers has an error of the size given there; the CUDA version makes use of
        it where D and P are at most 16.

    Differentiable once in reverse mode in x, w1, b1, w2 and b2. The ReLU's slope at 0 is 0, as in `jax.nn.relu`.
    Raises TypeError or ValueError naming the argument.
    """
    op = "entity_encoder"
    x, mask, leading = check_entities(op, x, mask)
    w1 = check_array(op, "w1", w1, (x.shape[-1], "P"), jnp.float32)
    b1 = check_array(op, "b1", b1, w1.shape[1:], jnp.float32)
    w2 = check_array(op, "w2", w2, (*b1.shape, "H"), jnp.float32)
    b2 = check_array(op, "b2", b2, w2.shape[1:], jnp.float32)
    passes = check_precision(op, precision)
    ffi.check_impl(impl)
    operands = ffi.vary_together((x, w1, b1, w2, b2, mask))
    run = entity_encoder_reference if impl == "reference" else functools.partial(_entity_encoder, impl, passes)
    return run(*operands).reshape(*leading, *b2.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _entity_encoder(impl, passes, *operands):
    native = functools.partial(_native, passes)
    return ffi.select(TARGET, native, entity_encoder_reference, *operands, impl=impl)


def _forward(impl, passes, x, w1, b1, w2, b2, mask):
    native = functools.partial(_native_saved, passes)
    y, winner = ffi.select(TARGET_FORWARD, native, entity_encoder_saved_reference, x, w1, b1, w2, b2, mask, impl=impl)
    return y, (x, w1, b1, w2, mask, winner)


def _backward(impl, passes, residuals, y_bar):
    del passes  # exact at every precision
    cotangents = ffi.select(
        *(TARGET_BACKWARD, _native_backward, entity_encoder_backward_reference, *residuals, y_bar),
        impl=impl,
        alternative=(TARGET_BACKWARD_SCRATCH, _native_backward_scratch),
    )
    return *cotangents, None


_entity_encoder.defvjp(_forward, _backward)


def _call(target, results, *operands, **attributes):
    return tuple(ffi.native_call(target, results, *operands, vmap_method="expand_dims", **attributes))


def _native(passes, x, w1, b1, w2, b2, mask):
    y = jax.ShapeDtypeStruct((x.shape[0], *b2.shape), jnp.float32)
    return _call(TARGET, [y], x, w1, b1, w2, b2, mask_operand(mask), passes=np.int64(passes))[0]


def _native_saved(passes, x, w1, b1, w2, b2, mask):
    shape = (x.shape[0], *b2.shape)
    results = [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, winner_dtype(x.shape[1]))]
    return _call(TARGET_FORWARD, results, x, w1, b1, w2, b2, mask_operand(mask), passes=np.int64(passes))


def _native_backward(x, w1, b1, w2, mask, winner, y_bar, target=TARGET_BACKWARD, scratch=()):
    b2 = jax.ShapeDtypeStruct(w2.shape[1:], jnp.float32)
    results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (x, w1, b1, w2, b2)]
    return _call(target, [*results, *scratch], x, w1, b1, w2, mask_operand(mask), winner, y_bar)


def _native_backward_scratch(x, w1, b1, w2, mask, winner, y_bar):
    sums_size = w1.size + b1.size + w2.size + w2.shape[1]
    scratch = jax.ShapeDtypeStruct((scratch_floats(x.shape[0], sums_size),), jnp.float32)
    return _native_backward(x, w1, b1, w2, mask, winner, y_bar, TARGET_BACKWARD_SCRATCH, [scratch])[:-1]
