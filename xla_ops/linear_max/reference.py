"""Pure-JAX twin of `linear_max`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops.linear_max.entities import winner_dtype


@jax.custom_jvp
def linear_max_reference(x, weight, bias, mask=None):
    """See `pufferjax.xla_ops.linear_max`; differentiable in every mode and order."""
    return maximum(score(x, weight, mask), bias, mask)


@linear_max_reference.defjvp
def _linear_max_jvp(primals, tangents):
    """The derivative of the winners, taken as given: `jnp.max` would divide it among equals."""
    x, weight, bias, mask = primals
    winner = find_winner(score(x, weight, mask), mask)
    return jax.jvp(lambda *v: linear_max_of_winners(*v, mask, winner), (x, weight, bias), tangents[:3])


def linear_max_saved_reference(x, weight, bias, mask=None):
    """(y [..., H], winner [..., H]): the number of the entity whose score is the maximum, 0 if none is present."""
    scores = score(x, weight, mask)
    return maximum(scores, bias, mask), find_winner(scores, mask)


def linear_max_backward_reference(x, weight, mask, winner, y_bar):
    """Cotangents of (x, weight, bias) from that of y and what forward saved."""
    bias = jnp.zeros_like(y_bar, shape=weight.shape[-1:])
    return jax.vjp(lambda *v: linear_max_of_winners(*v, mask, winner), x, weight, bias)[1](y_bar)


def linear_max_of_winners(x, weight, bias, mask, winner):
    """y from the winners alone. What does not win, be it NaN or infinite, stays out of every derivative."""
    y = jnp.sum(of_winners(x, weight, mask, winner) * weight.T, axis=-1) + bias
    return zero_without_entities(y, x, mask)


def score(x, weight, mask):
    """x weight [..., N, H], computed in float32 (or the wider type of weight)."""
    return jnp.einsum("...nd,dh->...nh", features(x, weight, mask), weight, precision=jax.lax.Precision.HIGHEST)


def features(x, weight, mask):
    """x in the type of the sums; zeros where there is no entity, so that nothing there can turn into NaN."""
    x = x.astype(jnp.promote_types(x.dtype, weight.dtype))
    return x if mask is None else jnp.where(mask[..., None], x, 0)


def maximum(scores, bias, mask):
    """Over entities, plus bias; zeros where none is present."""
    present = scores if mask is None else jnp.where(mask[..., None], scores, -jnp.inf)
    return zero_without_entities(jnp.max(present, axis=-2, initial=-jnp.inf) + bias, scores, mask)


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


def of_winners(x, weight, mask, winner):
    """Features [..., H, D] of the entity that won each hidden unit; zeros where none is present."""
    x = features(x, weight, mask)
    if x.shape[-2] == 0:
        return jnp.zeros_like(x, shape=(*winner.shape, x.shape[-1]))
    return jnp.take_along_axis(x, winner[..., None].astype(jnp.int32), axis=-2, mode="promise_in_bounds")


def zero_without_entities(y, x, mask):
    if x.shape[-2] == 0:
        return jnp.zeros_like(y)
    return y if mask is None else jnp.where(jnp.any(mask, axis=-1, keepdims=True), y, 0)
