"""Actions as an `EnvSpec` declares them: their form, random ones, and what is wrong with given ones.

B agents, A discrete heads, C continuous components. `Env.step` takes i32[B] of one head, i32[B, A] of several,
f32[B, C] of components alone, and of both a tuple (i32[B, A], f32[B, C]). Masks of discrete choices are
bool[B, choices], those of all heads side by side.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.xla_ops.checks import check_array


def action_form(spec: Any, num_agents: int) -> tuple[tuple[int, ...], Any]:
    """(shape, dtype) of the actions that `Env.step` takes, of one kind alone."""
    if spec.action_low:
        return (num_agents, len(spec.action_low)), jnp.float32
    return (num_agents,) if len(spec.num_actions) == 1 else (num_agents, len(spec.num_actions)), jnp.int32


def split_actions(spec: Any, actions: Any) -> tuple[jax.Array | None, jax.Array | None]:
    """(i32[..., A], f32[..., C]) of what `Env.step` takes; None for the kind that there is not."""
    if spec.num_actions and spec.action_low:
        return actions
    if spec.action_low:
        return None, actions
    return (actions[..., None] if len(spec.num_actions) == 1 else actions), None


def join_actions(spec: Any, choices: jax.Array | None, numbers: jax.Array | None) -> Any:
    """What `Env.step` takes, of i32[..., A] and f32[..., C]; the inverse of `split_actions`."""
    if spec.num_actions and spec.action_low:
        return choices, numbers
    if spec.action_low:
        return numbers
    return choices[..., 0] if len(spec.num_actions) == 1 else choices


def bounds(spec: Any) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), f32[C] each."""
    return np.asarray(spec.action_low, np.float32), np.asarray(spec.action_high, np.float32)


def is_bounded(spec: Any) -> np.ndarray:
    """bool[C]: components whose bounds are both finite, and so is their distance: the largest numbers are no bounds."""
    low, high = bounds(spec)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(high - low)


def idle_actions(spec: Any, shape: tuple[int, ...]) -> Any:
    """The same actions for all: the first choice of every head, and of every component the number nearest to 0."""
    idle = jnp.asarray(np.clip(np.float32(0), *bounds(spec)))
    return join_actions(
        spec,
        jnp.zeros((*shape, len(spec.num_actions)), jnp.int32),
        jnp.broadcast_to(idle, (*shape, len(spec.action_low))),
    )


def random_actions(spec: Any, key: jax.Array, shape: tuple[int, ...], masks: jax.Array | None = None) -> Any:
    """Independent actions in the form of `Env.step`, for leading axes `shape`.

    Discrete ones are uniform, over those that `masks` bool[*shape, choices] allows if it is given; components are
    uniform between finite bounds, otherwise standard normal and cut at the bound there is.
    """
    choices = numbers = None
    key_choices, key_numbers = jax.random.split(key) if spec.num_actions and spec.action_low else (key, key)
    if spec.num_actions:
        heads = (*shape, len(spec.num_actions))
        if masks is None:
            choices = jax.random.randint(key_choices, heads, 0, jnp.asarray(spec.num_actions, jnp.int32), jnp.int32)
        else:
            choices = choose_allowed(spec, jax.random.randint(key_choices, heads, 0, 2**31 - 1, jnp.int32), masks)
    if spec.action_low:
        low, high = bounds(spec)
        shape = (*shape, len(low))
        shares = jax.random.uniform(key_numbers, shape)
        normals = jax.random.normal(jax.random.fold_in(key_numbers, 1), shape)
        first, last = (np.where(is_bounded(spec), x, 0) for x in (low, high))
        uniform = first + (last - first) * shares
        numbers = jnp.clip(jnp.where(is_bounded(spec), uniform, normals), low, high)
    return join_actions(spec, choices, numbers)


def choose_allowed(spec: Any, numbers: jax.Array, masks: jax.Array) -> jax.Array:
    """i32[..., A]: of each head the allowed choice that i32[..., A] `numbers`, at least 0, count round to; of a head
    that allows none, any choice. masks: bool[..., choices]."""
    chosen = []
    for head, mask in enumerate(split_masks(spec, masks)):
        mask = mask | ~jnp.any(mask, axis=-1, keepdims=True)
        ranks = jnp.cumsum(mask, axis=-1, dtype=jnp.int32)
        rank = numbers[..., head] % ranks[..., -1]
        chosen.append(jnp.argmax(ranks == rank[..., None] + 1, axis=-1).astype(jnp.int32))
    return jnp.stack(chosen, axis=-1)


def split_masks(spec: Any, masks: jax.Array) -> list[jax.Array]:
    """bool[..., num_actions[head]] of every head."""
    return jnp.split(masks, np.cumsum(spec.num_actions)[:-1], axis=-1)


def check_mask(name: str, spec: Any, masks: jax.Array) -> jax.Array:
    """`masks` bool[B, choices]; ValueError naming the head if it is concrete and one allows nothing."""
    if is_concrete(masks):
        for head, mask in enumerate(split_masks(spec, np.asarray(masks))):
            for i in np.flatnonzero(~np.any(mask, axis=-1))[:1]:
                raise ValueError(f"{name}: the mask of agent {i} allows no action of head {head}")
    return masks


def is_concrete(x: Any) -> bool:
    """Whether `x` has values to look at now."""
    return not isinstance(x, jax.core.Tracer)


def check_actions(name: str, spec: Any, actions: Any, num_agents: int) -> Any:
    """`actions` as arrays in the form of `Env.step`.

    Raises TypeError for a wrong dtype or structure, ValueError for a wrong shape and, where they are concrete, for
    actions that are none: the first one, and what is valid.
    """
    if not (spec.num_actions and spec.action_low):
        actions = check_array(name, "action", actions, *action_form(spec, num_agents))
        _refuse_invalid(name, "action", spec, actions)
        return actions
    heads, components = len(spec.num_actions), len(spec.action_low)
    if not isinstance(actions, (tuple, list)) or len(actions) != 2:
        what = f"{len(actions)} values" if isinstance(actions, (tuple, list)) else type(actions).__name__
        both = f"(int32[{num_agents}, {heads}], float32[{num_agents}, {components}])"
        raise TypeError(f"{name}: action must be a tuple {both}, got {what}")
    choices = check_array(name, "action[0]", actions[0], (num_agents, heads), jnp.int32)
    numbers = check_array(name, "action[1]", actions[1], (num_agents, components), jnp.float32)
    _refuse_invalid(name, "action[0]", spec, choices)
    _refuse_invalid(name, "action[1]", spec, numbers)
    return choices, numbers


def _refuse_invalid(name: str, argument: str, spec: Any, actions: jax.Array) -> None:
    if not is_concrete(actions):
        return
    values = np.asarray(actions)
    are_numbers = jnp.issubdtype(values.dtype, jnp.floating)
    last = np.asarray(spec.num_actions, int) - 1
    low, high = bounds(spec) if are_numbers else (np.zeros_like(last), last)
    if values.ndim == 1:
        low, high = low[0], high[0]
    is_valid = (values >= low) & (values <= high) & np.isfinite(values)
    for index in np.argwhere(~is_valid)[:1]:
        place = ", ".join(map(str, index))
        low, high = (np.broadcast_to(x, values.shape)[tuple(index)] for x in (low, high))
        valid = f"finite numbers from {low:g} to {high:g}" if are_numbers else f"{low} to {high}"
        raise ValueError(f"{name}: {argument}[{place}] is {values[tuple(index)]}, valid are {valid}")


def are_valid(spec: Any, actions: Any) -> jax.Array:
    """bool[...]: whether all that an agent does is a choice of its head, or a finite number within bounds."""
    choices, numbers = split_actions(spec, actions)
    valid = []
    if choices is not None:
        valid.append((choices >= 0) & (choices < np.asarray(spec.num_actions)))
    if numbers is not None:
        low, high = bounds(spec)
        valid.append((numbers >= low) & (numbers <= high) & jnp.isfinite(numbers))
    return jnp.all(jnp.concatenate(valid, axis=-1), axis=-1)


def made_valid(spec: Any, actions: Any) -> Any:
    """`actions` with numbers that are none, or out of bounds, moved to the nearest valid one, NaN to that nearest to
    0: a simulator that cannot raise keeps a state that can be. Choices stay as they are."""
    choices, numbers = split_actions(spec, actions)
    if numbers is None:
        return actions
    largest = np.finfo(np.float32).max
    low, high = np.clip(bounds(spec), -largest, largest)
    numbers = jnp.clip(jnp.where(jnp.isnan(numbers), np.clip(np.float32(0), low, high), numbers), low, high)
    return join_actions(spec, choices, numbers)
