"""Pure-JAX twin of `linear_max`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.linear_max.entities import winner_dtype


def linear_max_reference(x, weight, bias, mask=None):
    """See `pufferjax.xla_ops.linear_max`; differentiable in every mode and order."""
    return linear_max_saved_reference(x, weight, bias, mask)[0]


def linear_max_saved_reference(x, weight, bias, mask=None):
    """(y [..., H], winner [..., H]): the number of the entity whose score is the maximum, 0 if none is present."""
    winner = find_winner(score(x, weight, mask), mask)
    return linear_max_of_winners(x, weight, bias, mask, winner), winner


def linear_max_backward_reference(x, weight, mask, winner, y_bar):
    """Cotangents of (x, weight, bias) from that of y and what forward saved."""
    bias = jnp.zeros_like(y_bar, shape=weight.shape[-1:])
    return jax.vjp(lambda *v: linear_max_of_winners(*v, mask, winner), x, weight, bias)[1](y_bar)


def score(x, weight, mask):
    """[..., N, H], computed in float32 (or the wider of the two types). Absent entities count as zeros, not as NaN."""
    x = x.astype(jnp.promote_types(x.dtype, weight.dtype))
    if mask is not None:
        x = jnp.where(mask[..., None], x, 0)
    return jnp.einsum("...nd,dh->...nh", x, weight, precision=jax.lax.Precision.HIGHEST)


def find_winner(scores, mask):
    """The lowest number among ties; the first NaN, if there is one."""
    num_entities = scores.shape[-2]
    if num_entities == 0:
        return jnp.zeros_like(scores, winner_dtype(0), shape=(*scores.shape[:-2], scores.shape[-1]))
    if mask is not None:
        scores = jnp.where(mask[..., None], scores, -jnp.inf)
    winner = jnp.argmax(scores, axis=-2)
    if mask is not None:  # all scores minus infinity: an absent entity came first
        is_present = jnp.take_along_axis(mask, winner, axis=-1)
        winner = jnp.where(is_present, winner, jnp.argmax(mask, axis=-1, keepdims=True))
    return winner.astype(winner_dtype(num_entities))


def linear_max_of_winners(x, weight, bias, mask, winner):
    """The scores of these entities plus bias; zeros where no entity is present."""
    scores = score(x, weight, mask)
    is_winner = winner[..., None, :] == jnp.arange(scores.shape[-2], dtype=winner.dtype)[:, None]
    y = jnp.sum(jnp.where(is_winner, scores, 0), axis=-2) + bias
    if scores.shape[-2] == 0:
        return jnp.zeros_like(y)
    return y if mask is None else jnp.where(jnp.any(mask, axis=-1, keepdims=True), y, 0)
