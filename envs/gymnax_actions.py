"""Action spaces as gymnax and those like it describe them, as heads of an `EnvSpec`. No package of theirs is imported.

A space is told by what it has: `spaces` (a tuple, or a dictionary), `n` (one choice), `nvec` or `num_categories`
(several), `low`, `high` and `shape` (numbers). Depth first, tuples in their order and dictionaries by name, as JAX
orders them: every choice is a discrete head, every real number a continuous component, arrays row by row.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.actions import bounds, is_bounded, is_concrete, join_actions
from pufferjax.xla_ops.checks import check_count

_MOST_CHOICES = 65536  # of a whole number between bounds: what has more is no choice


@dataclasses.dataclass(frozen=True)
class ActionHeads:
    """What an action space comes to."""

    num_actions: tuple[int, ...]  # choices of each discrete head
    action_low: tuple[float, ...]  # of each continuous component, as float32
    action_high: tuple[float, ...]
    action_names: tuple[tuple[str, ...], ...]  # the choices of each head, as the environment numbers them
    build: Callable[[jax.Array, jax.Array], Any]  # (i32[A], f32[C]) -> one action, as the environment expects it


@dataclasses.dataclass(frozen=True)
class _Choices:
    """An array of choices: that of head i is starts[i] plus an action."""

    counts: tuple[int, ...]
    starts: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any

    def build(self, choices):
        starts = np.asarray(self.starts, np.int32)
        return (choices + starts if starts.any() else choices).reshape(self.shape).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """An array of numbers."""

    low: np.ndarray  # f32[size]
    high: np.ndarray
    shape: tuple[int, ...]
    dtype: Any

    def build(self, numbers):
        return numbers.reshape(self.shape).astype(self.dtype)


def action_heads(name: str, env: Any, params: Any) -> ActionHeads:
    """The heads of `env.action_space(params)`, or of `env.num_actions` if it has no such method. Raises ValueError
    saying what about it cannot be acted on."""
    function = getattr(env, "action_space", None)
    if callable(function):
        with jax.ensure_compile_time_eval():  # bounds are static; the caller may be traced
            space = function(params)
        pieces, treedef = jax.tree.flatten(_pieces(name, space, ""), is_leaf=_is_piece)
    elif getattr(env, "num_actions", None) is None or np.ndim(env.num_actions) != 0:
        raise ValueError(f"{name}: it has neither action_space(params) nor num_actions, a number")
    else:
        pieces, treedef = jax.tree.flatten(_choices(name, "", env.num_actions, 0, (), jnp.int32), is_leaf=_is_piece)
    counts = [n for piece in pieces if isinstance(piece, _Choices) for n in piece.counts]
    starts = [n for piece in pieces if isinstance(piece, _Choices) for n in piece.starts]
    numbers = [piece for piece in pieces if isinstance(piece, _Numbers)]
    low, high = (
        tuple(float(x) for piece in numbers for x in getattr(piece, bound)) for bound in ("low", "high")
    )  # fmt: skip
    if not counts and not low:
        raise ValueError(f"{name}: its action space {_shown(space)} holds nothing to choose")

    def build(choices, values):
        built, next_choice, next_value = [], 0, 0
        for piece in pieces:
            if isinstance(piece, _Choices):
                built.append(piece.build(choices[next_choice : next_choice + len(piece.counts)]))
                next_choice += len(piece.counts)
            else:
                built.append(piece.build(values[next_value : next_value + len(piece.low)]))
                next_value += len(piece.low)
        return jax.tree.unflatten(treedef, built)

    return ActionHeads(
        num_actions=tuple(counts),
        action_low=low,
        action_high=high,
        action_names=tuple(tuple(str(start + i) for i in range(n)) for n, start in zip(counts, starts, strict=True)),
        build=build,
    )


def _is_piece(x: Any) -> bool:
    return isinstance(x, (_Choices, _Numbers))


def _pieces(name: str, space: Any, where: str) -> Any:
    """`space` with pieces in place of its arrays, in the structure of an action."""
    inner = getattr(space, "spaces", space if isinstance(space, (Mapping, tuple, list)) else None)
    if isinstance(inner, Mapping):
        return {key: _pieces(name, inner[key], f"{where}[{key!r}]") for key in inner}
    if isinstance(inner, (tuple, list)):
        parts = [_pieces(name, x, f"{where}[{i}]") for i, x in enumerate(inner)]
        return type(inner)(*parts) if hasattr(inner, "_fields") else tuple(parts)
    shape = getattr(space, "shape", None)
    shape = () if shape is None else tuple(shape)
    dtype = getattr(space, "dtype", None)
    count, several = getattr(space, "n", None), getattr(space, "nvec", getattr(space, "num_categories", None))
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    start = getattr(space, "start", 0)
    if count is not None and np.ndim(count) == 0 and np.prod(shape) == 1:
        return _choices(name, where, count, 0 if start is None else start, shape, jnp.int32 if dtype is None else dtype)
    if several is not None and np.ndim(several) == len(shape):
        return _choices(name, where, several, start, shape, jnp.int32 if dtype is None else dtype)
    if low is not None and high is not None:
        return _box(name, where, low, high, shape, jnp.float32 if dtype is None else dtype)
    raise ValueError(
        f"{name}: its action space{where} must have n, nvec or num_categories (choices), low and high (numbers), or "
        f"spaces (several of them); it is {_shown(space)}"
    )


def _choices(name: str, where: str, counts: Any, starts: Any, shape: tuple[int, ...], dtype: Any) -> _Choices:
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.integer) and dtype != jnp.bool_:
        raise ValueError(f"{name}: the choices of its action space{where} must be integers, are {dtype}")
    counts = [check_count(name, "the number of actions", int(n), 1) for n in np.ravel(_static(name, where, counts))]
    starts = np.broadcast_to(_static(name, where, starts), shape).ravel()
    return _Choices(tuple(counts), tuple(map(int, starts)), shape, dtype)


def _box(name: str, where: str, low: Any, high: Any, shape: tuple[int, ...], dtype: Any) -> _Choices | _Numbers:
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    ends = [np.asarray(_static(name, where, x), np.float64) for x in (low, high)]
    if any(x.size != 1 and x.shape != shape for x in ends):
        raise ValueError(f"{name}: the bounds of its action space{where} must have its shape {shape}")
    low, high = (np.broadcast_to(x if x.size > 1 else x.reshape(()), shape).ravel() for x in ends)
    for i in np.flatnonzero(~(low <= high))[:1]:
        raise ValueError(f"{name}: the bounds of its action space{where} must be in order, are {low[i]} and {high[i]}")
    if jnp.issubdtype(dtype, jnp.floating):
        with np.errstate(over="ignore"):  # what float32 does not reach is no bound
            return _Numbers(low.astype(np.float32), high.astype(np.float32), shape, dtype)
    if not jnp.issubdtype(dtype, jnp.integer) and dtype != jnp.bool_:
        raise ValueError(f"{name}: the numbers of its action space{where} must be real, are {dtype}")
    if not np.all(high - low < _MOST_CHOICES):
        raise ValueError(
            f"{name}: whole numbers in its action space{where} must be at most {_MOST_CHOICES} choices, are from "
            f"{low.min():g} to {high.max():g}"
        )
    counts = tuple(int(b) - int(a) + 1 for a, b in zip(low, high, strict=True))
    return _Choices(counts, tuple(int(a) for a in low), shape, dtype)


def _static(name: str, where: str, x: Any) -> np.ndarray:
    if not all(map(is_concrete, jax.tree.leaves(x))):
        raise ValueError(f"{name}: the bounds of its action space{where} must be numbers, they are traced")
    return np.asarray(x)


def _shown(space: Any) -> str:
    shape = getattr(space, "shape", None)
    return type(space).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def trial_actions(heads: ActionHeads, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Random actions with leading axes `shape`, drawn by NumPy; where a bound is infinite, normal."""
    choices = [rng.integers(n, size=shape, dtype=np.int32) for n in heads.num_actions]
    numbers = [
        rng.uniform(low, high, shape) if both else np.clip(rng.normal(size=shape), low, high)
        for low, high, both in zip(*bounds(heads), is_bounded(heads), strict=True)
    ]
    return join_actions(
        heads,
        np.stack(choices, axis=-1) if choices else None,
        np.stack(numbers, axis=-1).astype(np.float32) if numbers else None,
    )
