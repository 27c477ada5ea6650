"""Which choices an environment with gymnax's interface allows: by a function of its state, or told by a step."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.envs.actions import choose_allowed, join_actions, split_actions
from pufferjax.envs.gymnax_actions import ActionHeads

_METHODS = ("action_mask", "get_action_mask", "get_legal_actions")


def mask_of_state(
    name: str, env: Any, params: Any, heads: ActionHeads, action_mask: Any, state: Any
) -> Callable[..., jax.Array] | None:
    """What makes a mask, bool[choices], of a state of the environment (and other parameters than `params`); None if
    there is nothing that does. state: its shapes."""
    if action_mask is None:
        if not heads.num_actions:
            return None
        method = next((x for x in _METHODS if callable(getattr(env, x, None))), None)
        if method is None:
            return None
        function = getattr(env, method)
        what = f"{type(env).__name__}.{method}"
    elif action_mask is False:
        return None
    elif not callable(action_mask):
        raise TypeError(f"{name}: action_mask must be a function of the state, False or None, got {action_mask!r}")
    elif not heads.num_actions:
        raise ValueError(f"{name}: action_mask must be None, its actions are numbers: there are no choices to mask")
    else:
        function, what = action_mask, "action_mask"
    arguments = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes_params = action_mask is None and sum(x.kind in kinds for x in arguments) > 1

    def mask(state, params=params):
        return _read_mask(name, what, heads, raw(state, params))

    def raw(state, params):
        return function(state, params) if takes_params else function(state)

    is_found = action_mask is not None or jax.eval_shape(lambda state: raw(state, params), state) is not None
    return mask if is_found else None


def told_mask_of(name: str, heads: ActionHeads, outputs: Any) -> jax.Array | None:
    """bool[choices] that a step tells in its info; None if it does not."""
    info = outputs[-1] if isinstance(outputs, tuple) and outputs else None
    if not heads.num_actions or not isinstance(info, Mapping) or "action_mask" not in info:
        return None
    return _read_mask(name, 'info["action_mask"]', heads, info["action_mask"])


def _read_mask(name: str, what: str, heads: ActionHeads, mask: Any) -> jax.Array:
    leaves = [jnp.ravel(jnp.asarray(x)).astype(bool) for x in jax.tree.leaves(mask)]
    size, needed = sum(x.size for x in leaves), sum(heads.num_actions)
    if size != needed:
        raise ValueError(
            f"{name}: {what} must have {needed} entries, one for every choice of the heads {heads.num_actions}, has "
            f"{size}"
        )
    return jnp.concatenate(leaves)


def allowed_action(heads: ActionHeads, action: Any, mask: jax.Array | None) -> Any:
    """`action` with choices that the mask allows."""
    if mask is None:
        return action
    choices, numbers = split_actions(heads, action)
    return join_actions(heads, choose_allowed(heads, choices, mask), numbers)
