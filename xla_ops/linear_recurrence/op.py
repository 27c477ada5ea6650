"""The linear recurrence h_t = a_t h_{t-1} + b_t over the leading axis, with resets."""

import functools
import math

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array
from pufferjax.xla_ops.linear_recurrence.reference import (
    linear_recurrence_backward_reference,
    linear_recurrence_reference,
)

TARGET = "pufferjax.linear_recurrence"
TARGET_BACKWARD = "pufferjax.linear_recurrence.bwd"


def linear_recurrence(a, b, h0, reset=None, *, impl=None) -> jax.Array:
    """All states h[T, ...] of a first-order linear recurrence, float32 or bfloat16 as the operands are.

        h_t = a_t h'_{t-1} + b_t,   h'_{t-1} = 0 where reset_t, else h_{t-1};   h_{-1} = h0

    A reset selects, it does not multiply: a NaN or infinity in the old state does not pass it, and neither does the
    gradient. (a_t itself is still multiplied by that 0, so a non-finite a_t gives NaN.)

    Gated recurrent layers without a non-linearity in the state are this recurrence: MinGRU (Feng et al. 2024, "Were
    RNNs all we needed?"), linear state-space models, discounted sums.

    Args:
      a: f32 or bf16 [T, ...], T >= 1, any trailing axes (also none, also empty ones).
      b: the shape and dtype of `a`.
      h0: the shape of `a` without T, the dtype of `a`.
      reset: bool, the shape of `a` or a leading part of it that holds at least T: [T], [T, B], ... It applies to all
        of the axes it lacks. None: no resets.
      impl: "native", "reference" or None (native where there is one).

    With bfloat16 only storage is narrow: what is carried from step to step is float32, and each h_t is rounded once,
    when it is stored; so one call is more precise than two that hand over the last h. The gradients are float32 sums,
    that of a_t times h_{t-1} as it was stored, and rounded once.

    Differentiable once in reverse mode in a, b and h0; impl="reference" is plain JAX, with all modes and orders.
    Raises TypeError or ValueError naming the argument.
    """
    op = "linear_recurrence"
    a = check_array(op, "a", a, ("T", ...), (jnp.float32, jnp.bfloat16))
    if a.shape[0] == 0:
        raise ValueError(f"{op}: a must have at least one step, got shape {a.shape}")
    b = check_array(op, "b", b, a.shape, a.dtype)
    h0 = check_array(op, "h0", h0, a.shape[1:], a.dtype)
    if reset is not None:
        reset = check_array(op, "reset", reset, (a.shape[0], ...), jnp.bool_)
        if reset.shape != a.shape[: reset.ndim]:
            raise ValueError(f"{op}: reset must have the leading axes of a, {a.shape}, got shape {reset.shape}")
    a, b, h0, reset = ffi.vary_together((a, b, h0, reset))
    ffi.check_impl(impl)
    if impl == "reference":
        return linear_recurrence_reference(a, b, h0, reset)
    return _linear_recurrence(impl, a, b, h0, reset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear_recurrence(impl, a, b, h0, reset):
    return ffi.select(_stored_as(a, TARGET), _native, linear_recurrence_reference, a, b, h0, reset, impl=impl)


def _forward(impl, a, b, h0, reset):
    h = _linear_recurrence(impl, a, b, h0, reset)
    return h, (a, h, h0, reset)


def _backward(impl, residuals, h_bar):
    target = _stored_as(h_bar, TARGET_BACKWARD)
    cotangents = ffi.select(
        target, _native_backward, linear_recurrence_backward_reference, *residuals, h_bar, impl=impl
    )
    return *cotangents, None


_linear_recurrence.defvjp(_forward, _backward)


def _stored_as(x, target):
    """The handler of `target` for numbers of the dtype of `x`."""
    return f"{target}.bf16" if x.dtype == jnp.bfloat16 else target


def _native(a, b, h0, reset):
    rows, reset = _rows(a, reset)
    target, result = _stored_as(a, TARGET), jax.ShapeDtypeStruct(rows, a.dtype)
    (h,) = ffi.native_call(target, [result], a.reshape(rows), b.reshape(rows), h0.reshape(rows[1:]), reset)
    return h.reshape(a.shape)


def _native_backward(a, h, h0, reset, h_bar):
    rows, reset = _rows(a, reset)
    row = jax.ShapeDtypeStruct(rows[1:], a.dtype)
    table = jax.ShapeDtypeStruct(rows, a.dtype)
    a_bar, b_bar, h0_bar = ffi.native_call(
        _stored_as(a, TARGET_BACKWARD),
        [table, table, row],
        *(a.reshape(rows), h.reshape(rows), h0.reshape(rows[1:]), reset, h_bar.reshape(rows)),
    )
    return a_bar.reshape(a.shape), b_bar.reshape(a.shape), h0_bar.reshape(h0.shape)


def _rows(a, reset):
    """The shape (T, R, K) the handlers see, K columns to each of the R reset flags of a step; and reset as [T, R].

    Without resets, a flag array of size 0 and K = 1.
    """
    if reset is None:
        return (a.shape[0], math.prod(a.shape[1:]), 1), jnp.zeros((0,), jnp.bool_)
    rows = (a.shape[0], math.prod(reset.shape[1:]), math.prod(a.shape[reset.ndim :]))
    return rows, reset.reshape(rows[:2])
