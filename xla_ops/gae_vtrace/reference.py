"""Pure-JAX twin of `gae_vtrace`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp


def gae_vtrace_reference(rewards, values, bootstrap_value, terminated, ratios, gamma, gae_lambda, rho_clip, c_clip):
    """See `pufferjax.xla_ops.gae_vtrace`; a reverse scan over T."""
    next_values = jnp.concatenate([values[1:], bootstrap_value[None]])

    def step(advantage, x):
        reward, value, next_value, ended, ratio = x
        rho = jnp.minimum(ratio, rho_clip)
        c = jnp.minimum(ratio, c_clip)
        delta = rho * (reward + gamma * jnp.where(ended, 0.0, next_value) - value)
        advantage = delta + gamma * gae_lambda * c * jnp.where(ended, 0.0, advantage)
        return advantage, advantage

    inputs = (rewards, values, next_values, terminated, ratios)
    return jax.lax.scan(step, jnp.zeros_like(bootstrap_value), inputs, reverse=True)[1]
