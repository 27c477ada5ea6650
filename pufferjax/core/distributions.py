"""Factored categorical distributions over action heads; logits are a tuple of f32[..., num_actions[head]]."""

import jax
import jax.numpy as jnp


def sample(logits, uniforms) -> jax.Array:
    """Actions i32[..., A] by inverting each head's cumulative distribution at uniforms f32[..., A] in [0, 1)."""
    actions = []
    for head, x in enumerate(logits):
        cumulative = jnp.cumsum(jax.nn.softmax(x, axis=-1), axis=-1)
        # Scaled by the total, so that rounding in the sum can never leave the last action's range.
        threshold = uniforms[..., head, None] * cumulative[..., -1:]
        actions.append(jnp.sum(cumulative[..., :-1] <= threshold, axis=-1, dtype=jnp.int32))
    return jnp.stack(actions, axis=-1)


def log_prob(logits, actions) -> jax.Array:
    """f32[...]: log-probability of actions i32[..., A], summed over heads."""
    total = 0.0
    for head, x in enumerate(logits):
        chosen = jax.nn.one_hot(actions[..., head], x.shape[-1], dtype=x.dtype)
        total += jnp.sum(chosen * jax.nn.log_softmax(x, axis=-1), axis=-1)
    return total


def entropy(logits) -> jax.Array:
    """f32[...]: entropy in nats, summed over heads."""
    total = 0.0
    for x in logits:
        log_probs = jax.nn.log_softmax(x, axis=-1)
        total -= jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return total


def log_barrier(logits) -> jax.Array:
    """f32[...]: KL(uniform || policy) in nats, summed over heads.

    Its gradient by a logit is the probability of the action less the uniform one. Unlike that of the entropy it does
    not vanish with the probability: no action dies out (Agarwal et al. 2021, "On the theory of policy gradient methods:
    optimality, approximation, and distribution shift").
    """
    total = 0.0
    for x in logits:
        total -= jnp.mean(jax.nn.log_softmax(x, axis=-1), axis=-1) + jnp.log(x.shape[-1])
    return total
