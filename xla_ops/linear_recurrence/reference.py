"""Pure-JAX twin of `linear_recurrence`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp


def linear_recurrence_reference(a, b, h0, reset=None):
    """See `pufferjax.xla_ops.linear_recurrence`; a scan over T, differentiable in every mode and order."""

    def step(h, x):
        a_t, b_t, reset_t = x
        h = a_t * _zero_where(reset_t, h) + b_t
        return h, h

    return jax.lax.scan(step, h0, (a, b, reset))[1]


def linear_recurrence_backward_reference(a, h, h0, reset, h_bar):
    """Cotangents of (a, b, h0) for the cotangent `h_bar` of `h`, from the saved result instead of a second scan."""
    h_previous = jnp.concatenate([h0[None], h[:-1]])

    def step(carried, x):
        a_t, h_previous_t, reset_t, h_bar_t = x
        g = h_bar_t + carried
        return _zero_where(reset_t, a_t * g), (g * _zero_where(reset_t, h_previous_t), g)

    h0_bar, (a_bar, b_bar) = jax.lax.scan(step, jnp.zeros_like(h0), (a, h_previous, reset, h_bar), reverse=True)
    return a_bar, b_bar, h0_bar


def _zero_where(reset, x):
    if reset is None:
        return x
    return jnp.where(reset.reshape(reset.shape + (1,) * (x.ndim - reset.ndim)), 0.0, x)
