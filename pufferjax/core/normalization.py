"""Observations and rewards on the scale of one: running statistics, as pure parts of the train state.

Observations: their mean and variance are leaves of the policy's parameters, beside the weights, so that whatever takes
parameters (evaluation, checkpoints, play) has them too, as they are: only training renews them, once per epoch after
the updates, so that the policy that is trained sees what the policy that acted saw. They have no gradient.

Rewards: divided by the running standard deviation of the discounted returns of the agents (Engstrom et al. 2020,
"Implementation matters in deep policy gradients", appendix A.2), of which nothing is subtracted: the sign of a reward
stays. Statistics are merged as in Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample
variances", over steps, agents and devices.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import xla_ops
from pufferjax.core.types import RewardScale, Transitions
from pufferjax.envs import EnvSpec

OBSERVATION_NORM = "observation_norm"  # the name of an ObservationNorm in a policy, by which its statistics are found
SMALLEST_VARIANCE = 1e-8


class ObservationNorm(nn.Module):
    """(x - mean) / standard deviation, cut at +-`clip` (0: not cut), of what is no code: x f32[..., *obs_shape] -> the
    same shape.

    Any policy may have one; named "observation_norm" at its top, its statistics are kept by training.
    """

    spec: EnvSpec
    clip: float = 10.0

    @nn.compact
    def __call__(self, x):
        shape = self.spec.obs_shape
        mean = self.param("mean", nn.initializers.zeros, shape, jnp.float32)
        variance = self.param("variance", nn.initializers.ones, shape, jnp.float32)
        self.param("count", nn.initializers.zeros, (), jnp.float32)
        mean, variance = jax.lax.stop_gradient((mean, variance))
        normal = (x - mean) * jax.lax.rsqrt(variance + SMALLEST_VARIANCE)
        normal = jnp.clip(normal, -self.clip, self.clip) if self.clip else normal
        return jnp.where(are_normalized(self.spec), normal, x)


def are_normalized(spec: EnvSpec) -> np.ndarray:
    """bool[*obs_shape]: which numbers of an observation are quantities: all but those of parts that hold integers."""
    return np.concatenate([np.full(part.size, part.max is None) for part in spec.all_parts]).reshape(spec.obs_shape)


def renew_observation_statistics(spec: EnvSpec, params, observations, is_bad, axis_name: str | None):
    """The parameters with the observations of one more epoch in their statistics; as they are without an
    ObservationNorm.

    observations [T, B, *obs_shape]; rows that `is_bad` (bool[B]) are left out, and an epoch with no others changes
    nothing. The entities of an observation share the statistics of each feature, as they share their weights.
    """
    if not isinstance(params, Mapping) or OBSERVATION_NORM not in params:
        return params
    kept = params[OBSERVATION_NORM]
    is_good = jnp.broadcast_to(~is_bad, observations.shape[:2])
    batch = _moments(observations.astype(jnp.float32), is_good, axis_name)
    if spec.entities is not None:
        batch = _shared_by_entities(spec, batch)
    merged = _merge((kept["mean"], kept["variance"], kept["count"]), batch)
    return {**params, OBSERVATION_NORM: dict(zip(("mean", "variance", "count"), merged, strict=True))}


def create_reward_scale(num_rows: int) -> RewardScale:
    """Of agents whose episode is about to begin, before the first reward."""
    return RewardScale(jnp.zeros(num_rows), jnp.float32(0), jnp.float32(0), jnp.float32(0))


def scale_rewards(
    scale: RewardScale, transitions: Transitions, restarted, gamma, clip: float, axis_name: str | None
) -> tuple[RewardScale, Transitions]:
    """The transitions with rewards divided by the standard deviation of the returns, theirs included, and cut at
    +-`clip` (0: not cut). While all returns were alike the rewards stay as they are.

    restarted bool[B]: agents that begin another episode with the first step. A reward that is NaN or infinite stays
    so, and counts as 0 in the returns.
    """
    rewards, ended = transitions.rewards, transitions.terminated | transitions.truncated
    finite = jnp.where(jnp.isfinite(rewards), rewards, 0.0)
    begins = jnp.concatenate([restarted[None], ended[:-1]])
    returns = xla_ops.linear_recurrence(jnp.broadcast_to(gamma, finite.shape), finite, scale.returns, begins)
    kept = scale.mean, scale.variance, scale.count
    mean, variance, count = _merge(kept, _moments(returns, jnp.ones_like(ended), axis_name))
    carried = jnp.where(ended[-1], 0.0, returns[-1])
    scaled = dataclasses.replace(transitions, rewards=rewards * deviation_factor(variance))
    return RewardScale(carried, mean, variance, count), clip_rewards(scaled, clip)


def clip_rewards(transitions: Transitions, clip: float) -> Transitions:
    """The transitions with rewards cut at +-`clip` (0: not cut). Infinite ones stay: cut, nobody would know of them."""
    rewards = transitions.rewards
    if not clip:
        return transitions
    return dataclasses.replace(
        transitions, rewards=jnp.where(jnp.isfinite(rewards), jnp.clip(rewards, -clip, clip), rewards)
    )


def deviation_factor(variance):
    """f32[]: what brings returns of this variance to a standard deviation of 1; 1 if there is none yet."""
    return jnp.where(variance > 0, jax.lax.rsqrt(jnp.maximum(variance, jnp.finfo(jnp.float32).tiny)), 1.0)


def _moments(x, counted, axis_name: str | None):
    """(mean, variance, count) of x f32[T, B, ...] over T, B and the devices, where counted bool[T, B]; f32[...] and
    f32[]."""

    def total(y):
        y = jnp.sum(y, axis=(0, 1))
        return y if axis_name is None else jax.lax.psum(y, axis_name)

    counted = counted.reshape(*counted.shape, *(1,) * (x.ndim - 2))
    count = total(counted.astype(jnp.float32)).reshape(())
    mean = total(jnp.where(counted, x, 0.0)) / jnp.maximum(count, 1)
    variance = total(jnp.where(counted, jnp.square(x - mean), 0.0)) / jnp.maximum(count, 1)
    return mean, variance, count


def _merge(kept, batch):
    """The moments of two parts as those of both; `kept` may be of nothing, and so may `batch`."""
    (mean, variance, count), (batch_mean, batch_variance, batch_count) = kept, batch
    both = count + batch_count
    share = batch_count / jnp.maximum(both, 1)
    off = batch_mean - mean
    merged_mean = mean + off * share
    merged_variance = variance * (1 - share) + batch_variance * share + jnp.square(off) * share * (1 - share)
    return (
        jnp.where(batch_count > 0, merged_mean, mean),
        jnp.where(batch_count > 0, merged_variance, variance),
        both,
    )


def _shared_by_entities(spec: EnvSpec, moments):
    """The moments with those of an entity's features taken over all entities."""
    layout, (mean, variance, count) = spec.entities, moments
    shape = (layout.num_entities, layout.entity_size)
    own_mean, means = jnp.split(mean.reshape(-1), [layout.num_self])
    own_variance, variances = jnp.split(variance.reshape(-1), [layout.num_self])
    means, variances = means.reshape(shape), variances.reshape(shape)
    shared = jnp.mean(means, axis=0)
    spread = jnp.mean(variances + jnp.square(means - shared), axis=0)

    def whole(own, one):
        return jnp.concatenate([own, jnp.broadcast_to(one, shape).reshape(-1)]).reshape(spec.obs_shape)

    return whole(own_mean, shared), whole(own_variance, spread), count
