"""Which numbers in the state of a JAX environment count the steps of the episode, and whether they may be set.

Setting a clock is harmless where nothing but the time limit depends on it, and makes states that cannot be where the
game shows the time, or its rules read it. Whether they do is found by trying: the same steps, with the same keys and
actions, from states that differ in nothing but the time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.rows import is_key, leaf_name

_LANES, _MOST_STEPS = 64, 64  # of the trial
_FEWEST_STEPS = 3  # of a trial that can tell a clock from a coincidence
# The trial runs once: what takes time is to compile it.
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_TOLERANCE = 1e-5  # relative; lanes of one program may round differently


class GameClock(NamedTuple):
    """What a trial found."""

    leaves: tuple[int, ...]  # of the state: what is set together with the row's clock
    is_free: bool  # setting them changes nothing else before the time limit


def named_clocks(state: Any, time_field: str | None) -> list[int]:
    """Leaves of `state`, its shapes, that are single numbers called `time_field`."""
    paths_and_leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return [
        i
        for i, (path, leaf) in enumerate(paths_and_leaves)
        if leaf.shape == () and _is_number(leaf.dtype) and leaf_name(path).split(".")[-1] == time_field
    ]


def find_game_clock(
    reset: Callable[[Any], tuple[Any, Any]],
    step: Callable[[Any, Any, Any, Any], Any],
    state: Any,
    *,
    time_field: str | None,
    limit: int,
    draw_actions: Callable[[np.random.Generator, tuple[int, ...]], Any],
    restarts: bool = True,
) -> GameClock:
    """Tries an environment out, for a few thousand steps.

    reset(key) -> (obs, state); step(key, state, action, is_at_limit bool[]) -> (obs, state, reward, terminated,
    truncated): of one environment. state: its shapes. draw_actions(rng, shape) -> random actions with the leading axes
    `shape`. restarts: whether `step` starts a new episode by itself; if not, an environment that ends begins again with
    its first state. time_field: name of the
    numbers to be set; None: there are none. Where the state has none of that name, the clock is not free if any of its
    numbers grows or falls by the same amount in every step.
    """
    treedef = jax.tree.structure(state)
    named = named_clocks(state, time_field)
    num_steps = min(limit - 1, _MOST_STEPS)
    if num_steps < 1:
        return GameClock(tuple(named), True)

    def with_time(state, times):
        leaves = jax.tree.leaves(state)
        for i in named:
            leaves[i] = times.astype(leaves[i].dtype)
        return jax.tree.unflatten(treedef, leaves)

    def numbers(state):  # f32[lanes, all numbers]
        columns = [_bits_or_numbers(x) for x in jax.tree.leaves(state) if not is_key(x.dtype)]
        return jnp.concatenate([jnp.zeros((_LANES, 0), jnp.float32), *columns], axis=1)

    def timeless(outputs):
        obs, state, *others = outputs
        return obs, [x for i, x in enumerate(jax.tree.leaves(state)) if i not in named], *others

    def try_step(start, carry, drawn):
        state, clock, at_reset, slope, is_counter, matters = carry
        words, actions, times = drawn
        keys = jax.vmap(jax.random.wrap_key_data)(jnp.concatenate([words, words]))
        twice = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), state, with_time(state, times))
        actions = jax.tree.map(lambda x: jnp.concatenate([x, x]), actions)
        outputs = jax.vmap(step)(keys, twice, actions, jnp.zeros(2 * _LANES, jnp.bool_))
        here, moved = (jax.tree.map(lambda x, s=s: x[s], outputs) for s in (slice(_LANES), slice(_LANES, None)))
        matters |= _differ(timeless(here), timeless(moved))
        ended = here[3] | here[4]
        state, moved_state = (x[1] if restarts else _where(ended, start, x[1]) for x in (here, moved))
        clock = jnp.where(ended, 0, clock + 1)
        for after, expected in ((state, clock), (moved_state, jnp.where(ended, 0, times + 1))):
            for i in named:  # it must count as the row's clock does
                count = jax.tree.leaves(after)[i]
                matters |= jnp.any(count != expected.astype(count.dtype))
        now = numbers(state)
        slope = jnp.where(jnp.isnan(slope), now[0] - at_reset, slope)
        is_counter &= jnp.all(now == at_reset + slope * clock[:, None].astype(jnp.float32), axis=0)
        return (state, clock, at_reset, slope, is_counter, matters), None

    def trial(words, drawn):
        _, state = jax.vmap(reset)(jax.vmap(jax.random.wrap_key_data)(words))
        first = numbers(state)
        is_counter = jnp.all(first == first[0], axis=0)
        unknown = jnp.full(first.shape[1], jnp.nan, jnp.float32)
        carry = (state, jnp.zeros(_LANES, jnp.int32), first[0], unknown, is_counter, jnp.bool_(False))
        *_, slope, is_counter, matters = jax.lax.scan(partial(try_step, state), carry, drawn)[0]
        return jnp.any(is_counter & (slope != 0)), matters

    # Drawn by NumPy: every draw in the program would have to be compiled.
    rng = np.random.default_rng(0)
    num_words = jax.random.key_data(jax.random.key(0)).size
    words = rng.integers(2**32, size=(num_steps + 1, _LANES, num_words), dtype=np.uint32)
    actions = draw_actions(rng, (num_steps, _LANES))
    times = rng.integers(limit - 1, size=(num_steps, _LANES), dtype=np.int32)
    operands = words[0], (words[1:], actions, times)
    with jax.ensure_compile_time_eval():  # the caller may be traced, the trial is not
        try:
            found = jax.jit(trial, compiler_options=_QUICK)(*operands)
        except jax.errors.JaxRuntimeError:  # a version of XLA that does not know one of the options
            found = jax.jit(trial)(*operands)
    has_counters, matters = map(bool, jax.device_get(found))
    if not named:
        matters = has_counters and num_steps >= _FEWEST_STEPS
    return GameClock(tuple(named), not matters)


def _where(which: jax.Array, these: Any, those: Any) -> Any:
    """Two pytrees of lanes, one or the other as `which`, bool[lanes], says."""

    def one(x, y):
        if is_key(x.dtype):
            return jax.vmap(jax.lax.select)(which, x, y)
        return jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return jax.tree.map(one, these, those)


def _is_number(dtype: Any) -> bool:
    return not is_key(dtype) and (jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating))


def _bits_or_numbers(x: jax.Array) -> jax.Array:
    """f32[lanes, numbers] of a leaf; what is no number does not count anything."""
    if not _is_number(x.dtype):
        return jnp.zeros((x.shape[0], 0), jnp.float32)
    return x.reshape(x.shape[0], int(np.prod(x.shape[1:]))).astype(jnp.float32)


def _differ(first: Any, second: Any) -> jax.Array:
    """bool[]: whether two pytrees differ by more than rounding."""
    found = jnp.bool_(False)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if is_key(a.dtype):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if jnp.issubdtype(a.dtype, jnp.inexact):
            scale = jnp.maximum(jnp.maximum(jnp.abs(a), jnp.abs(b)), 1)
            unequal = ~((a == b) | (jnp.isnan(a) & jnp.isnan(b)) | (jnp.abs(a - b) <= _TOLERANCE * scale))
        else:
            unequal = a != b
        found |= jnp.any(unequal)
    return found
