"""Actions between a policy and an environment: their units, and the form in which a policy remembers them.

B agents, A discrete heads, C continuous components. Choices are i32[B, A]. Numbers are f32[B, C] in the policy's
units: those in which a component with two finite bounds has [-1, 1], and the environment's own ones for all others,
counted from the valid number nearest to 0. With both kinds actions are a tuple of the two.

Numbers are samples of an unbounded distribution and may lie outside. `env_actions` clips them to the bounds, as if the
environment did, and their log-probability is that of the sample: a density everywhere, whose ratio of two policies
makes the policy gradient exact. The probability of a clipped action would be a density between the bounds and a mass on
them, and a density of the sample at the clipped number would be neither.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs import EnvSpec
from pufferjax.envs.actions import bounds, is_bounded, join_actions


def split(spec: EnvSpec, both: Any) -> tuple[Any, Any]:
    """(what is of choices, what is of numbers) in actions, previous actions or noise; None for a kind there is not."""
    if spec.num_actions and spec.action_low:
        return both
    return (None, both) if spec.action_low else (both, None)


def draw_noise(spec: EnvSpec, key: jax.Array, shape: tuple[int, ...]) -> Any:
    """What decides the actions of agents `shape`: uniform f32[*shape, A] in [0, 1), standard normal f32[*shape, C], or
    a tuple of both."""
    heads, components = len(spec.num_actions), len(spec.action_low)
    if not components:
        return jax.random.uniform(key, (*shape, heads))
    if not heads:
        return jax.random.normal(key, (*shape, components))
    key_choices, key_numbers = jax.random.split(key)
    return jax.random.uniform(key_choices, (*shape, heads)), jax.random.normal(key_numbers, (*shape, components))


def units(spec: EnvSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(offset, scale, low, high), f32[C] each: a number x of the policy is offset + scale x for the environment; low
    and high are the bounds in the policy's units."""
    low, high = bounds(spec)
    both, one = is_bounded(spec), np.float32(1)
    nearest = np.clip(np.float32(0), low, high)
    offset, scale = nearest.copy(), np.ones_like(low)
    offset[both], scale[both] = low[both] / 2 + high[both] / 2, high[both] / 2 - low[both] / 2
    return offset, scale, np.where(both, -one, low - nearest), np.where(both, one, high - nearest)


def env_actions(spec: EnvSpec, actions: Any) -> Any:
    """Actions as `env.step` takes them: within bounds, in the environment's units, a single head without an axis."""
    if not spec.action_low:
        return join_actions(spec, actions, None)
    choices, numbers = split(spec, actions)
    offset, scale, _, _ = units(spec)
    return join_actions(spec, choices, jnp.clip(offset + scale * numbers, *bounds(spec)))


def no_previous_actions(spec: EnvSpec, shape: tuple[int, ...]) -> Any:
    """The previous actions of agents `shape` whose episode is about to begin; see `previous_actions`."""
    choices = jnp.zeros((*shape, len(spec.num_actions)), jnp.uint8)
    if not spec.action_low:
        return choices
    numbers = jnp.zeros((*shape, len(spec.action_low) + 1), jnp.float32)
    return (choices, numbers) if spec.num_actions else numbers


def previous_actions(spec: EnvSpec, actions: Any, ended: jax.Array) -> Any:
    """What a policy is shown of `actions` in the next step, nothing where an episode has `ended` (bool[B]).

    u8[B, A]: 1 + the choice, or 0. f32[B, C + 1]: the numbers within bounds, in the policy's units, then 1; or all 0.
    """
    if not spec.action_low:
        return jnp.where(ended[:, None], 0, actions + 1).astype(jnp.uint8)
    choices, numbers = split(spec, actions)
    _, _, low, high = units(spec)
    numbers = jnp.concatenate([jnp.clip(numbers, low, high), jnp.ones_like(numbers[:, :1])], axis=-1)
    numbers = jnp.where(ended[:, None], 0.0, numbers)
    if not spec.num_actions:
        return numbers
    return jnp.where(ended[:, None], 0, choices + 1).astype(jnp.uint8), numbers


def forget_previous(previous: Any, ended: jax.Array) -> Any:
    """`previous_actions` without those of agents whose episode `ended` (bool[B])."""
    return jax.tree.map(lambda x: jnp.where(ended[:, None], jnp.zeros((), x.dtype), x), previous)
