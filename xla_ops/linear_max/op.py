"""Linear layer and maximum over entities in one pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_precision
from pufferjax.xla_ops.linear_max.entities import check_entities, mask_operand, scratch_floats, winner_dtype
from pufferjax.xla_ops.linear_max.reference import (
    linear_max_backward_reference,
    linear_max_reference,
    linear_max_saved_reference,
)

TARGET = "pufferjax.linear_max"
TARGET_FORWARD = "pufferjax.linear_max.fwd"
TARGET_BACKWARD = "pufferjax.linear_max.bwd"
TARGET_BACKWARD_SCRATCH = "pufferjax.linear_max.bwd.scratch"  # on a GPU


def linear_max(x, weight, bias, mask=None, *, precision=None, impl=None) -> jax.Array:
    """f32[..., H]: a linear layer on each of N entities, and the maximum over them.

        y[..., h] = bias[h] + max over present n of sum over d of x[..., n, d] weight[d, h]

    The native version keeps no score: beyond operands and results its memory depends on neither batch nor N H.

    Args:
      x: f32 or bf16 [..., N, D], N >= 0; any leading axes. Sums are float32 in either case, and so is the result.
      weight: f32[D, H].
      bias: f32[H].
      mask: bool[..., N], True where there is an entity; None: everywhere. What x has elsewhere is without effect.
      precision: how exact forward must be, in the terms of `jax.lax.Precision`. None, "highest", "float32": exact
        float32. "high", "bfloat16_3x", "tensorfloat32": three passes over bfloat16 parts of the factors will do, with
        an error of y below 2^-14 of the sum over d of |x weight|. "default", "bfloat16", "fastest": one pass will, with
        one below 0.8 % of that sum (0.4 % for bf16 x, which loses nothing). A permission: the CUDA version uses it, on
        tensor cores, where D <= 16; everything else stays exact, the CPU and the twin at every precision.
      impl: "native", "reference" or None (native where there is one).

    No entity (all masked, or N = 0): zeros, bias not added, and no gradient. Of equal maxima the one with the lowest n
    takes the whole gradient (`jnp.max` divides it). A NaN wins, as in `jnp.max`; the first one takes the gradient.

    Differentiable once in reverse mode in x, weight and bias; forward then also keeps the winning n, in 1, 2 or 4 bytes
    for each output. A vmapped call shares weights that are not mapped, but its gradient holds one per lane before they
    are summed: rows that share the weights are better passed as leading axes. Native results have the same bits from
    run to run and for any number of threads, but not on every kind of CPU and GPU. impl="reference" is plain JAX, with
    all modes and orders. On a GPU the native version takes at most 8 mapped axes, and gradients at most 65,536 hidden
    units.
    With passes over bfloat16 the winner is that of the scores so computed, gradients are exact float32 for it, and NaN
    and infinite x have the same effect as otherwise; x beyond 3.389e38 counts as infinite, and three passes may make
    NaN of what an infinite weight makes infinite.
    Raises TypeError or ValueError naming the argument.
    """
    op = "linear_max"
    x, mask, leading = check_entities(op, x, mask)
    weight = check_array(op, "weight", weight, (x.shape[-1], "H"), jnp.float32)
    bias = check_array(op, "bias", bias, weight.shape[1:], jnp.float32)
    passes = check_precision(op, precision)
    ffi.check_impl(impl)
    x, weight, bias, mask = ffi.vary_together((x, weight, bias, mask))
    run = linear_max_reference if impl == "reference" else functools.partial(_linear_max, impl, passes)
    return run(x, weight, bias, mask).reshape(*leading, *bias.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _linear_max(impl, passes, x, weight, bias, mask):
    native = functools.partial(_native, passes)
    return ffi.select(TARGET, native, linear_max_reference, x, weight, bias, mask, impl=impl)


def _forward(impl, passes, x, weight, bias, mask):
    native = functools.partial(_native_saved, passes)
    y, winner = ffi.select(TARGET_FORWARD, native, linear_max_saved_reference, x, weight, bias, mask, impl=impl)
    return y, (x, weight, mask, winner)


def _backward(impl, passes, residuals, y_bar):
    del passes  # exact at every precision
    cotangents = ffi.select(
        *(TARGET_BACKWARD, _native_backward, linear_max_backward_reference, *residuals, y_bar),
        impl=impl,
        alternative=(TARGET_BACKWARD_SCRATCH, _native_backward_scratch),
    )
    return *cotangents, None


_linear_max.defvjp(_forward, _backward)


def _call(target, results, *operands, **attributes):
    return tuple(ffi.native_call(target, results, *operands, vmap_method="expand_dims", **attributes))


def _native(passes, x, weight, bias, mask):
    y = jax.ShapeDtypeStruct((x.shape[0], *bias.shape), jnp.float32)
    return _call(TARGET, [y], x, weight, bias, mask_operand(mask), passes=np.int64(passes))[0]


def _native_saved(passes, x, weight, bias, mask):
    shape = (x.shape[0], *bias.shape)
    results = [jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, winner_dtype(x.shape[1]))]
    return _call(TARGET_FORWARD, results, x, weight, bias, mask_operand(mask), passes=np.int64(passes))


def _native_backward(x, weight, mask, winner, y_bar, target=TARGET_BACKWARD, scratch=()):
    bias = jax.ShapeDtypeStruct(weight.shape[1:], jnp.float32)
    results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (x, weight, bias)]
    return _call(target, [*results, *scratch], x, weight, mask_operand(mask), winner, y_bar)


def _native_backward_scratch(x, weight, mask, winner, y_bar):
    sums_size = weight.size + weight.shape[1]
    scratch = jax.ShapeDtypeStruct((scratch_floats(x.shape[0], sums_size),), jnp.float32)
    return _native_backward(x, weight, mask, winner, y_bar, TARGET_BACKWARD_SCRATCH, [scratch])[:-1]
