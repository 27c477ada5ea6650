"""Gate, scan and highway of one MinGRU layer in one pass."""

import functools

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array
from pufferjax.xla_ops.mingru_scan.reference import (
    mingru_scan_backward_reference,
    mingru_scan_reference,
    mingru_scan_states_reference,
)

TARGET = "pufferjax.mingru_scan"
TARGET_FORWARD = "pufferjax.mingru_scan.fwd"
TARGET_BACKWARD = "pufferjax.mingru_scan.bwd"


def mingru_scan(projected, x, h0, reset=None, *, impl=None) -> tuple[jax.Array, jax.Array]:
    """Outputs y f32[T, B, H] and final state h_last f32[B, H] of a MinGRU layer with a highway.

    With `projected`, a linear map of the layer's input x, split in three along its last axis as (h_in, g, p):

        z_t = sigmoid(g_t)
        c_t = h_in_t + 1/2 where h_in_t >= 0, else sigmoid(h_in_t)
        h_t = (1 - z_t) h'_{t-1} + z_t c_t,   h'_{t-1} = 0 where reset_t, else h_{t-1};   h_{-1} = h0
        y_t = sigmoid(p_t) h_t + (1 - sigmoid(p_t)) x_t,   h_last = h_{T-1}

    The cell is the MinGRU of Feng et al. 2024, "Were RNNs all we needed?"; the highway and the linear `projected` are
    PufferLib's layer. The carried state is h, before the highway.

    Args:
      projected: f32[T, B, 3H], T >= 1.
      x: f32[T, B, H].
      h0: f32[B, H].
      reset: bool[T, B] or None (never). A reset selects: nothing of the old state passes it, not a NaN and no gradient.
      impl: "native", "reference" or None (native where there is one).

    The native sigmoid is within 4e-7 of the true one, relatively, and 0 where that is subnormal (below -87.3).
    Differentiable once in reverse mode in projected, x and h0, from both outputs; of the forward pass only h_t is kept.
    impl="reference" is plain JAX, with all modes and orders. Raises TypeError or ValueError naming the argument.
    """
    op = "mingru_scan"
    x = check_array(op, "x", x, ("T", "B", "H"), jnp.float32)
    num_steps, batch, hidden = x.shape
    if num_steps == 0:
        raise ValueError(f"{op}: x must have at least one step, got shape {x.shape}")
    projected = check_array(op, "projected", projected, (num_steps, batch, 3 * hidden), jnp.float32)
    h0 = check_array(op, "h0", h0, (batch, hidden), jnp.float32)
    if reset is not None:
        reset = check_array(op, "reset", reset, (num_steps, batch), jnp.bool_)
    projected, x, h0, reset = ffi.vary_together((projected, x, h0, reset))
    if impl == "reference":
        return mingru_scan_reference(projected, x, h0, reset)
    return _mingru_scan(impl, projected, x, h0, reset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mingru_scan(impl, projected, x, h0, reset):
    return ffi.select(TARGET, _native, mingru_scan_reference, projected, x, h0, reset, impl=impl)


def _forward(impl, projected, x, h0, reset):
    y, h = ffi.select(TARGET_FORWARD, _native_states, mingru_scan_states_reference, projected, x, h0, reset, impl=impl)
    return (y, h[-1]), (projected, x, h0, reset, h)


def _backward(impl, residuals, cotangents):
    cotangents = ffi.select(
        TARGET_BACKWARD, _native_backward, mingru_scan_backward_reference, *residuals, *cotangents, impl=impl
    )
    return *cotangents, None


_mingru_scan.defvjp(_forward, _backward)


def _like(*arrays):
    return [jax.ShapeDtypeStruct(array.shape, jnp.float32) for array in arrays]


def _flags(reset):
    return jnp.zeros((0,), jnp.bool_) if reset is None else reset


def _native(projected, x, h0, reset):
    return tuple(ffi.native_call(TARGET, _like(x, h0), projected, x, h0, _flags(reset)))


def _native_states(projected, x, h0, reset):
    return tuple(ffi.native_call(TARGET_FORWARD, _like(x, x), projected, x, h0, _flags(reset)))


def _native_backward(projected, x, h0, reset, h, y_bar, h_last_bar):
    operands = (projected, x, h0, _flags(reset), h, y_bar, h_last_bar)
    return tuple(ffi.native_call(TARGET_BACKWARD, _like(projected, x, h0), *operands))
