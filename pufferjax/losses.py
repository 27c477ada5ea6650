"""PPO's losses: arrays in, scalars out (Schulman et al. 2017, "Proximal policy optimization algorithms")."""

import jax.numpy as jnp


def clipped_policy_loss(ratios, advantages, weights, clip_eps):
    """mean of max(-u A q, -u A clip(q, 1 - eps, 1 + eps)) over ratios q, advantages A, sample weights u, all [T, B]."""
    clipped = jnp.clip(ratios, 1 - clip_eps, 1 + clip_eps)
    return jnp.mean(jnp.maximum(-weights * advantages * ratios, -weights * advantages * clipped))


def clipped_value_loss(values, old_values, returns, clip_eps):
    """1/2 mean of max((v - R)^2, (v_old + clip(v - v_old, -eps, eps) - R)^2), all [T, B]."""
    clipped = old_values + jnp.clip(values - old_values, -clip_eps, clip_eps)
    return 0.5 * jnp.mean(jnp.maximum(jnp.square(values - returns), jnp.square(clipped - returns)))


def normalize(x):
    """Zero mean and unit (unbiased) standard deviation over all elements."""
    return (x - jnp.mean(x)) / (jnp.std(x, ddof=1) + 1e-8)
