"""Pure-JAX twin of `entity_encoder`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.linear_max.reference import (
    find_winner,
    maximum,
    of_winners,
    score,
    zero_without_entities,
)


@jax.custom_jvp
def entity_encoder_reference(x, w1, b1, w2, b2, mask=None):
    """See `pufferjax.xla_ops.entity_encoder`; differentiable in every mode and order."""
    return maximum(_score(x, w1, b1, w2, mask), b2, mask)


@entity_encoder_reference.defjvp
def _entity_encoder_jvp(primals, tangents):
    """The derivative of the winners, taken as given."""
    *primals, mask = primals
    winner = find_winner(_score(*primals[:4], mask), mask)
    return jax.jvp(lambda *v: _of_winners(*v, mask, winner), tuple(primals), tangents[:5])


def entity_encoder_saved_reference(x, w1, b1, w2, b2, mask=None):
    """(y [..., H], winner [..., H]), as `linear_max_saved_reference`."""
    scores = _score(x, w1, b1, w2, mask)
    return maximum(scores, b2, mask), find_winner(scores, mask)


def entity_encoder_backward_reference(x, w1, b1, w2, mask, winner, y_bar):
    """Cotangents of (x, w1, b1, w2, b2) from that of y and what forward saved."""
    b2 = jnp.zeros_like(y_bar, shape=w2.shape[-1:])
    return jax.vjp(lambda *v: _of_winners(*v, mask, winner), x, w1, b1, w2, b2)[1](y_bar)


def _score(x, w1, b1, w2, mask):
    return score(jax.nn.relu(score(x, w1, mask) + b1), w2, mask)


def _of_winners(x, w1, b1, w2, b2, mask, winner):
    units = jax.nn.relu(jnp.matmul(of_winners(x, w1, mask, winner), w1, precision=jax.lax.Precision.HIGHEST) + b1)
    return zero_without_entities(jnp.sum(units * w2.T, axis=-1) + b2, x, mask)
