"""Pure-JAX twin of `linear_recurrence`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp


def linear_recurrence_reference(a, b, h0, reset=None):
    """See `pufferjax.xla_ops.linear_recurrence`; a scan over T, differentiable in every mode and order."""

    def step(h, x):
        a_t, b_t, reset_t = x
        h = _wide(a_t) * _zero_where(reset_t, h) + _wide(b_t)
        return h, h.astype(a.dtype)

    return jax.lax.scan(step, _wide(h0), (a, b, reset))[1]


def linear_recurrence_backward_reference(a, h, h0, reset, h_bar):
    """Cotangents of (a, b, h0) for the cotangent `h_bar` of `h`, from the saved result instead of a second scan."""
    h_previous = jnp.concatenate([h0[None], h[:-1]])

    def step(carried, x):
        a_t, h_previous_t, reset_t, h_bar_t = x
        g = _wide(h_bar_t) + carried
        a_bar_t = g * _zero_where(reset_t, _wide(h_previous_t))
        return _zero_where(reset_t, _wide(a_t) * g), (a_bar_t.astype(a.dtype), g.astype(a.dtype))

    carried = jnp.zeros_like(_wide(h0))
    h0_bar, (a_bar, b_bar) = jax.lax.scan(step, carried, (a, h_previous, reset, h_bar), reverse=True)
    return a_bar, b_bar, h0_bar.astype(h0.dtype)


def _wide(x):
    """`x` as what is carried from step to step: at least float32, however the operands are stored."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _zero_where(reset, x):
    if reset is None:
        return x
    return jnp.where(reset.reshape(reset.shape + (1,) * (x.ndim - reset.ndim)), 0.0, x)
