"""Pure-JAX twin of `mingru_scan`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.linear_recurrence.reference import (
    linear_recurrence_backward_reference,
    linear_recurrence_reference,
)


def mingru_scan_reference(projected, x, h0, reset=None):
    """See `pufferjax.xla_ops.mingru_scan`; differentiable in every mode and order."""
    y, h = mingru_scan_states_reference(projected, x, h0, reset)
    return y, h[-1]


def mingru_scan_states_reference(projected, x, h0, reset=None):
    """(y, h), both f32[T, B, H]."""
    z, h_tilde, s = _gates(projected)
    h = linear_recurrence_reference(1 - z, z * h_tilde, h0, reset)
    return s * h + (1 - s) * x, h


def mingru_scan_backward_reference(projected, x, h0, reset, h, y_bar, h_last_bar):
    """Cotangents of (projected, x, h0) from the saved states h f32[T, B, H] and those of y and h_last."""
    z, h_tilde, s = _gates(projected)
    h_bar = (y_bar * s).at[-1].add(h_last_bar)
    keep_bar, write_bar, h0_bar = linear_recurrence_backward_reference(1 - z, h, h0, reset, h_bar)
    z_bar = write_bar * h_tilde - keep_bar
    h_tilde_bar = write_bar * z
    h_in_bar = h_tilde_bar * jnp.where(jnp.split(projected, 3, -1)[0] >= 0, 1.0, h_tilde * (1 - h_tilde))
    s_bar = y_bar * (h - x)
    projected_bar = jnp.concatenate([h_in_bar, z_bar * (z * (1 - z)), s_bar * (s * (1 - s))], axis=-1)
    return projected_bar, y_bar * (1 - s), h0_bar


def _gates(projected):
    h_in, gate, highway = jnp.split(projected, 3, axis=-1)
    h_tilde = jnp.where(h_in >= 0, h_in + 0.5, jax.nn.sigmoid(h_in))
    return jax.nn.sigmoid(gate), h_tilde, jax.nn.sigmoid(highway)
