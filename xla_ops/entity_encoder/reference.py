"""Pure-JAX twin of `entity_encoder`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.linear_max.reference import find_winner, linear_max_of_winners, score


def entity_encoder_reference(x, w1, b1, w2, b2, mask=None):
    """See `pufferjax.xla_ops.entity_encoder`; differentiable in every mode and order."""
    return entity_encoder_saved_reference(x, w1, b1, w2, b2, mask)[0]


def entity_encoder_saved_reference(x, w1, b1, w2, b2, mask=None):
    """(y [..., H], winner [..., H]), as `linear_max_saved_reference`."""
    units = first_layer(x, w1, b1, mask)
    winner = find_winner(score(units, w2, mask), mask)
    return linear_max_of_winners(units, w2, b2, mask, winner), winner


def entity_encoder_backward_reference(x, w1, b1, w2, mask, winner, y_bar):
    """Cotangents of (x, w1, b1, w2, b2) from that of y and what forward saved."""

    def of_winners(x, w1, b1, w2, b2):
        return linear_max_of_winners(first_layer(x, w1, b1, mask), w2, b2, mask, winner)

    b2 = jnp.zeros_like(y_bar, shape=w2.shape[-1:])
    return jax.vjp(of_winners, x, w1, b1, w2, b2)[1](y_bar)


def first_layer(x, w1, b1, mask):
    """relu(x w1 + b1) [..., N, P]."""
    return jax.nn.relu(score(x, w1, mask) + b1)
