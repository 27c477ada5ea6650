"""PPO's losses: arrays in, scalars out (Schulman et al. 2017, "Proximal policy optimization algorithms")."""

import jax
import jax.numpy as jnp


def clipped_policy_loss(ratios, advantages, weights, clip_eps):
    """mean of max(-u A q, -u A clip(q, 1 - eps, 1 + eps)) over ratios q, advantages A, sample weights u, all [T, B]."""
    clipped = jnp.clip(ratios, 1 - clip_eps, 1 + clip_eps)
    return jnp.mean(jnp.maximum(-weights * advantages * ratios, -weights * advantages * clipped))


def clipped_value_loss(values, old_values, returns, clip_eps):
    """1/2 mean of max((v - R)^2, (v_old + clip(v - v_old, -eps, eps) - R)^2), all [T, B]."""
    clipped = old_values + jnp.clip(values - old_values, -clip_eps, clip_eps)
    return 0.5 * jnp.mean(jnp.maximum(jnp.square(values - returns), jnp.square(clipped - returns)))


def clipped_value_share(values, old_values, returns, clip_eps):
    """f32[]: the share of samples whose value loss above is the clipped one, and so has no gradient; all [T, B]."""
    clipped = old_values + jnp.clip(values - old_values, -clip_eps, clip_eps)
    # Within the clip the two are equal, but for rounding.
    is_beyond = jnp.abs(values - old_values) > clip_eps
    is_clipped = is_beyond & (jnp.square(clipped - returns) > jnp.square(values - returns))
    return jnp.mean(is_clipped.astype(jnp.float32))


def normalize(x, axis_name=None):
    """Zero mean and unit standard deviation over all elements, of all devices of the mesh axis `axis_name`."""

    def mean(y):
        return jnp.mean(y) if axis_name is None else jax.lax.pmean(jnp.mean(y), axis_name)

    centred = x - mean(x)
    return centred / (jnp.sqrt(mean(jnp.square(centred))) + 1e-8)
