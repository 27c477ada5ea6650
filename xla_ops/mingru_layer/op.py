"""One MinGRU layer with highway: projection, gates, scan and highway in one pass."""

import functools

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_precision
from pufferjax.xla_ops.mingru_layer.reference import (
    mingru_layer_backward_reference,
    mingru_layer_reference,
    mingru_layer_saved_reference,
)

TARGET = "pufferjax.mingru_layer"
TARGET_FORWARD = "pufferjax.mingru_layer.fwd"
TARGET_BACKWARD = "pufferjax.mingru_layer.bwd"
# On a GPU: all but the products with the kernel, which are XLA's.
TARGET_CELL = "pufferjax.mingru_layer.cell"
TARGET_CELL_BACKWARD = "pufferjax.mingru_layer.cell.bwd"


def mingru_layer(x, kernel, h0, reset=None, *, precision=None, impl=None) -> tuple[jax.Array, jax.Array]:
    """Outputs y f32[T, B, H] and final state h_last f32[B, H] of a MinGRU layer with a highway.

    With (h_in, g, p) = x @ kernel, split in three along the last axis:

        z_t = sigmoid(g_t)
        c_t = h_in_t + 1/2 where h_in_t >= 0, else sigmoid(h_in_t)
        h_t = (1 - z_t) h'_{t-1} + z_t c_t,   h'_{t-1} = 0 where reset_t, else h_{t-1};   h_{-1} = h0
        y_t = sigmoid(p_t) h_t + (1 - sigmoid(p_t)) x_t,   h_last = h_{T-1}

    The cell is the MinGRU of Feng et al. 2024, "Were RNNs all we needed?"; the highway and the one projection for all
    three are PufferLib's layer. The carried state is h, before the highway.

    Args:
      x: f32[T, B, H], T >= 1.
      kernel: f32[H, 3H].
      h0: f32[B, H].
      reset: bool[T, B] or None (never). A reset selects: nothing of the old state passes it, not a NaN and no gradient.
      precision: how exact the products with the kernel must be, in the terms of `jax.lax.Precision`. None, "highest",
        "float32": exact float32. "high" and "default", and their aliases, permit what `jax.lax.Precision` of that name
        permits there: TF32 on a recent GPU. On a CPU they are always exact.
      impl: "native", "reference" or None (native where there is one).

    The native sigmoid is within 4e-7 of the true one, relatively, and 0 where that is subnormal (below -87.3). Native
    results have the same bits from run to run and for any number of threads, but not on every kind of CPU. On a GPU the
    products with the kernel are XLA's.
    Differentiable once in reverse mode in x, kernel and h0, from both outputs. impl="reference" is plain JAX, with all
    modes and orders. Raises TypeError or ValueError naming the argument.
    """
    op = "mingru_layer"
    x = check_array(op, "x", x, ("T", "B", "H"), jnp.float32)
    num_steps, batch, hidden = x.shape
    if num_steps == 0:
        raise ValueError(f"{op}: x must have at least one step, got shape {x.shape}")
    kernel = check_array(op, "kernel", kernel, (hidden, 3 * hidden), jnp.float32)
    h0 = check_array(op, "h0", h0, (batch, hidden), jnp.float32)
    if reset is not None:
        reset = check_array(op, "reset", reset, (num_steps, batch), jnp.bool_)
    precision = _LAX_PRECISION[check_precision(op, precision)]
    ffi.check_impl(impl)
    x, kernel, h0, reset = ffi.vary_together((x, kernel, h0, reset))
    if impl == "reference":
        return mingru_layer_reference(x, kernel, h0, reset, precision=precision)
    return _mingru_layer(impl, precision, x, kernel, h0, reset)


# By the number of passes over bfloat16 parts that check_precision gives.
_LAX_PRECISION = {0: jax.lax.Precision.HIGHEST, 3: jax.lax.Precision.HIGH, 1: jax.lax.Precision.DEFAULT}


def _select(target, native, reference, cell_target, cell, impl, precision, *operands):
    """Native branches on the CPU have no use for a precision; the twin's and the products on a GPU are XLA's."""
    reference, cell = (functools.partial(f, precision=precision) for f in (reference, cell))
    return ffi.select(target, native, reference, *operands, impl=impl, alternative=(cell_target, cell))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mingru_layer(impl, precision, *operands):
    branches = (TARGET, _native, mingru_layer_reference, TARGET_CELL, _cell)
    return _select(*branches, impl, precision, *operands)


def _forward(impl, precision, *operands):
    branches = (TARGET_FORWARD, _native_saved, mingru_layer_saved_reference, TARGET_CELL, _cell_saved)
    y, h, saved = _select(*branches, impl, precision, *operands)
    return (y, h[-1]), (*operands, h, saved)


def _backward(impl, precision, residuals, cotangents):
    branches = (
        *(TARGET_BACKWARD, _native_backward, mingru_layer_backward_reference),
        *(TARGET_CELL_BACKWARD, _cell_backward),
    )
    cotangents = _select(*branches, impl, precision, *residuals, *cotangents)
    return *cotangents, None


_mingru_layer.defvjp(_forward, _backward)


def _like(*arrays):
    return [jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in arrays]


def _flags(reset):
    return jnp.zeros((0,), jnp.bool_) if reset is None else reset


# The state in place, here and in _cell: a loop over single steps would copy it from result to operand in each.
def _native(x, kernel, h0, reset):
    return tuple(ffi.native_call(TARGET, _like(x, h0), x, kernel, h0, _flags(reset), aliases={2: 1}))


def _native_saved(x, kernel, h0, reset):
    gates = jax.ShapeDtypeStruct((*x.shape[:-1], 3 * x.shape[-1]), jnp.float32)
    return tuple(ffi.native_call(TARGET_FORWARD, [*_like(x, x), gates], x, kernel, h0, _flags(reset)))


def _native_backward(x, kernel, h0, reset, h, gates, y_bar, h_last_bar):
    operands = (x, kernel, h0, _flags(reset), h, gates, y_bar, h_last_bar)
    return tuple(ffi.native_call(TARGET_BACKWARD, _like(x, kernel, h0), *operands))


def _cell(x, kernel, h0, reset, precision):
    projected = jnp.matmul(x, kernel, precision=precision)
    return tuple(ffi.native_call(TARGET_CELL, _like(x, h0), projected, x, h0, _flags(reset), aliases={2: 1}))


def _cell_saved(x, kernel, h0, reset, precision):
    """In place of the gates it keeps the projection, of the same size, and its backward computes them again."""
    projected = jnp.matmul(x, kernel, precision=precision)
    return *ffi.native_call(TARGET_CELL, _like(x, x), projected, x, h0, _flags(reset)), projected


def _cell_backward(x, kernel, h0, reset, h, projected, y_bar, h_last_bar, precision):
    operands = (projected, x, h0, _flags(reset), h, y_bar, h_last_bar)
    projected_bar, x_bar, h0_bar = ffi.native_call(TARGET_CELL_BACKWARD, _like(projected, x, h0), *operands)
    x_bar += jnp.matmul(projected_bar, kernel.T, precision=precision)
    return x_bar, jnp.einsum("tbi,tbj->ij", x, projected_bar, precision=precision), h0_bar
