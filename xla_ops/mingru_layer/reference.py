"""Pure-JAX twin of `mingru_layer`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.linear_recurrence.reference import (
    linear_recurrence_backward_reference,
    linear_recurrence_reference,
)


def mingru_layer_reference(x, kernel, h0, reset=None, *, precision="highest"):
    """See `pufferjax.xla_ops.mingru_layer`; differentiable in every mode and order."""
    y, h, _ = mingru_layer_saved_reference(x, kernel, h0, reset, precision=precision)
    return y, h[-1]


def mingru_layer_saved_reference(x, kernel, h0, reset=None, *, precision="highest"):
    """(y f32[T, B, H], h f32[T, B, H], gates f32[T, B, 3H]): what backward needs besides the operands.

    gates = (c, z, s). c < 1/2 exactly where h_in < 0: rounding up to 1/2 is undone, so c tells its branch.
    """
    h_in, g, p = jnp.split(jnp.matmul(x, kernel, precision=precision), 3, axis=-1)
    below_half = jnp.nextafter(jnp.asarray(0.5, h_in.dtype), jnp.asarray(0, h_in.dtype))
    low = jax.nn.sigmoid(h_in)
    low += jax.lax.stop_gradient(jnp.where(low >= 0.5, below_half - low, 0))
    c = jnp.where(h_in >= 0, h_in + 0.5, low)
    z, s = jax.nn.sigmoid(g), jax.nn.sigmoid(p)
    h = linear_recurrence_reference(1 - z, z * c, h0, reset)
    return s * h + (1 - s) * x, h, jnp.concatenate([c, z, s], axis=-1)


def mingru_layer_backward_reference(x, kernel, h0, reset, h, gates, y_bar, h_last_bar, *, precision="highest"):
    """Cotangents of (x, kernel, h0) from those of y and h_last and what forward saved."""
    c, z, s = jnp.split(gates, 3, axis=-1)
    h_bar = (y_bar * s).at[-1].add(h_last_bar)
    keep_bar, write_bar, h0_bar = linear_recurrence_backward_reference(1 - z, h, h0, reset, h_bar)
    z_bar = write_bar * c - keep_bar
    h_in_bar = write_bar * z * jnp.where(c >= 0.5, 1.0, c * (1 - c))
    s_bar = y_bar * (h - x)
    projected_bar = jnp.concatenate([h_in_bar, z_bar * (z * (1 - z)), s_bar * (s * (1 - s))], axis=-1)
    x_bar = y_bar * (1 - s) + jnp.matmul(projected_bar, kernel.T, precision=precision)
    return x_bar, jnp.einsum("tbi,tbj->ij", x, projected_bar, precision=precision), h0_bar
