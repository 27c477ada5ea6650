"""The contract of `pufferjax.envs.base` as executable checks: `check_env(env)` for an environment of your own."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.actions import (
    bounds,
    choose_allowed,
    idle_actions,
    join_actions,
    random_actions,
    split_actions,
    split_masks,
)
from pufferjax.envs.base import Env
from pufferjax.xla_ops.checks import usual_promotion

_INFO = {"episode_return": jnp.float32, "episode_length": jnp.int32, "score": jnp.float32, "perf": jnp.float32}
_REFUSALS = (ValueError, TypeError, jax.errors.JaxRuntimeError)
_FEW_STEPS = 12  # where every output of two runs is compared
_MANY_STEPS = 64  # where they are compared on the device
_TOLERANCE = 1e-3  # of such a comparison, relative
_ROUNDING = 16 * float(jnp.finfo(jnp.float32).eps)  # between two programs for the same observation, relative


class EnvCheckError(AssertionError):
    """An environment breaks the contract; the text names the property and shows how."""


@usual_promotion()
def check_env(env: Env, *, num_envs: int = 8, num_steps: int | None = None, key: jax.Array | None = None) -> None:
    """Runs `env` through every property of the contract; EnvCheckError names the first one that fails.

    Args:
      env: any `Env`, native or not.
      num_envs: simulators in a batch, at least 2.
      num_steps: length of the long random rollout. Default: past the time limit, at most 20,000, or 1,000 where
        episodes never end; the time-out is checked only if the rollout reaches it.
      key: of all randomness here; jax.random.key(0) if None.
    """
    if num_envs < 2:
        raise ValueError(f"check_env: num_envs must be at least 2, got {num_envs}")
    key = jax.random.key(0) if key is None else key
    if num_steps is None:
        num_steps = min(env.spec.max_episode_steps + 16, 20_000) if env.spec.max_episode_steps else 1000
    _check_spec(env)
    _check_action_mask(env, num_envs, key)
    _check_refusals(env, num_envs, key)
    _check_unadapted(env, num_envs, key)
    env = _with_allowed_actions(env)
    _check_shapes(env, num_envs, key)
    _check_determinism(env, num_envs, key)
    _check_jit(env, num_envs, key)
    _check_long_rollout(env, num_envs, num_steps, key)
    _check_restore(env, num_envs, key)
    _check_clock(env, num_envs, key)
    _check_moved_clock(env, num_envs, key)
    _check_batch_size(env, num_envs, key)
    _check_vmap(env, num_envs, key)
    _check_stagger(env, num_envs, num_steps, key)
    _check_random_walk(env, num_envs, num_steps, key)
    _check_render(env, key)


# --- helpers ----------------------------------------------------------------------------------------------------------
def _fail(env: Env, prop: str, how: str) -> None:
    raise EnvCheckError(f"{env.spec.name}: {prop}: {how}")


def _require(condition: Any, env: Env, prop: str, how: str) -> None:
    if not condition:
        _fail(env, prop, how)


def _require_equal(env: Env, prop: str, first: Any, second: Any, what: str) -> None:
    """Bit equality of two pytrees of arrays."""
    first, second = jax.tree_util.tree_flatten_with_path(first), jax.tree_util.tree_flatten_with_path(second)
    _require(first[1] == second[1], env, prop, f"{what}: the structure differs, {first[1]} and {second[1]}")
    for (path, a), (_, b) in zip(first[0], second[0], strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype != b.dtype or a.shape != b.shape:
            _fail(env, prop, f"{what}{_path(path)}: {a.dtype}{a.shape} and {b.dtype}{b.shape}")
        bits_a, bits_b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
        if not np.array_equal(bits_a, bits_b):
            flat = int(np.flatnonzero(bits_a != bits_b)[0]) // a.dtype.itemsize
            index = tuple(int(i) for i in np.unravel_index(flat, a.shape))
            _fail(env, prop, f"{what}{_path(path)} differs first at {index}: {a[index]} and {b[index]}")


def _differs(obs: Any, again: Any) -> jax.Array:
    """Where two observations of the same state differ. By a rounding they may: XLA contracts a product and a sum in one
    program and not in the other, even for numbers that an environment only copies out of its state."""
    if jnp.issubdtype(obs.dtype, jnp.integer) or obs.dtype == jnp.bool_:
        return obs != again
    return ~jnp.isclose(obs, again, rtol=_ROUNDING, atol=float(jnp.finfo(jnp.float32).tiny), equal_nan=True)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").join((" ", "")) if path else ""


def _named(outputs: Any) -> dict[str, Any]:
    """What `step` returned, by name."""
    return dict(zip(("obs", "state", "reward", "terminated", "truncated", "info"), outputs, strict=True))


def _random_actions(env: Env, key: jax.Array, num_envs: int, num_steps: int) -> Any:
    """As `step` takes them, with an axis of num_steps in front; whatever a mask allows."""
    return random_actions(env.spec, key, (num_steps, num_envs * env.spec.num_agents))


def _at(actions: Any, index: Any) -> Any:
    """`actions[index]` of each kind."""
    return jax.tree.map(lambda x: x[index], actions)


def _with_allowed_actions(env: Env) -> Env:
    """`env` that takes, in place of a choice which its mask forbids in that state, one that it allows."""
    spec = env.spec
    if not spec.has_action_mask:
        return env

    def step(key, state, action):
        choices, numbers = split_actions(spec, action)
        choices = choose_allowed(spec, jnp.asarray(choices), env.action_mask(state))
        return env.step(key, state, join_actions(spec, choices, numbers))

    return dataclasses.replace(env, step=step)


def _run(env: Env, key: jax.Array, state: jax.Array, actions: Any) -> list[dict[str, Any]]:
    """One call after the other, without jit; every output of every step."""
    steps = []
    for t in range(jax.tree.leaves(actions)[0].shape[0]):
        steps.append(_named(env.step(jax.random.fold_in(key, t), state, _at(actions, t))))
        state = steps[-1]["state"]
    return steps


# --- the properties ---------------------------------------------------------------------------------------------------
def _check_spec(env: Env) -> None:
    spec = env.spec
    prop = "spec"
    dtype = np.dtype(spec.obs_dtype)
    _require(dtype in (np.uint8, np.float32), env, prop, f"obs_dtype must be uint8 or float32, is {dtype}")
    integer = dtype == np.uint8
    _require((spec.obs_max is not None) == integer, env, prop, f"obs_max is {spec.obs_max!r} for {dtype} observations")
    _require(min(spec.num_actions, default=1) >= 1, env, prop, f"num_actions is {spec.num_actions}")
    _require(spec.num_actions or spec.action_low, env, prop, "num_actions and action_low are both empty")
    low, high = spec.action_low, spec.action_high
    are_bounds = len(low) == len(high) and all(map(_is_range, low, high))
    _require(are_bounds, env, prop, f"action_low is {low}, action_high {high}")
    are_f32 = all(float(np.float32(x)) == x for x in (*low, *high))
    _require(are_f32, env, prop, f"action_low and action_high must be float32 numbers, are {low} and {high}")
    _require(spec.num_actions or not spec.has_action_mask, env, prop, "has_action_mask without a discrete head")
    for field, least in (("num_agents", 1), ("state_bytes", 1), ("max_episode_steps", 0)):
        _require(getattr(spec, field) >= least, env, prop, f"{field} is {getattr(spec, field)}")
    names = tuple(len(head) for head in spec.action_names)
    _require(names == tuple(spec.num_actions), env, prop, f"action_names has {names} names for {spec.num_actions}")
    layout = spec.entities
    if layout is not None:
        size = layout.num_self + layout.num_entities * layout.entity_size
        _require(size == math.prod(spec.obs_shape), env, prop, f"{layout} has {size} numbers, obs {spec.obs_shape}")
    _check_parts(env)


def _check_parts(env: Env) -> None:
    """The parts lie one after the other in the observation, and what they say of their numbers fits what it says."""
    spec, prop, offset = env.spec, "spec.obs_parts", 0
    for part in spec.obs_parts:
        dtype = np.dtype(part.dtype)
        _require(
            dtype in (np.uint8, np.float32), env, prop, f"dtype of {part.name!r} must be uint8 or float32: {dtype}"
        )
        how = f"max of {part.name!r} is {part.max!r} for {dtype}"
        _require((part.max is not None) == (dtype == np.uint8), env, prop, how)
        _require(part.max is None or 1 <= part.max <= 255, env, prop, how)
        how = f"{part.name!r} begins at {part.offset}, the parts before it end at {offset}"
        _require(part.offset == offset, env, prop, how)
        offset += part.size
        if spec.obs_max is not None:
            within = part.max is not None and part.max <= spec.obs_max
            _require(within, env, prop, f"max of {part.name!r} is {part.max}, obs_max {spec.obs_max}")
    if spec.obs_parts:
        names = [part.name for part in spec.obs_parts]
        _require(len(set(names)) == len(names), env, prop, f"names must differ, are {names}")
        is_vector = tuple(spec.obs_shape) == (offset,)
        _require(is_vector, env, prop, f"the parts have {offset} numbers, obs_shape is {spec.obs_shape}")
        _require(spec.entities is None, env, prop, "an observation of parts cannot be a list of entities")


def _is_range(low: float, high: float) -> bool:
    return low <= high and low < math.inf and high > -math.inf


def _check_action_mask(env: Env, num_envs: int, key: jax.Array) -> None:
    spec, prop = env.spec, "action_mask"
    _, state = env.reset(key, num_envs)
    if not spec.has_action_mask:
        _require(env.action_mask(state) is None, env, prop, "it is not None although spec.has_action_mask is False")
        return
    allowed = _with_allowed_actions(env)
    actions = _random_actions(env, key, num_envs, _FEW_STEPS)
    shape = (num_envs * spec.num_agents, sum(spec.num_actions))
    for t in range(_FEW_STEPS):
        masks = env.action_mask(state)
        _require(masks is not None, env, prop, "it is None although spec.has_action_mask is True")
        is_right = tuple(masks.shape) == shape and masks.dtype == np.bool_
        _require(is_right, env, prop, f"must be bool{shape}, is {masks.dtype}{tuple(masks.shape)}")
        for head, mask in enumerate(split_masks(spec, np.asarray(masks))):
            _require(mask.any(axis=-1).all(), env, prop, f"a state allows no action of head {head}")
        _require_equal(env, prop, masks, jax.jit(env.action_mask)(state), "under jit:")
        if t + 1 < _FEW_STEPS:
            _, state, *_ = allowed.step(jax.random.fold_in(key, t), state, _at(actions, t))
    rows = env.snapshot(state)
    _, other = env.reset(jax.random.fold_in(key, 1), num_envs)
    restored = env.action_mask(env.restore(other, rows, jnp.arange(num_envs, dtype=jnp.int32)))
    _require_equal(env, prop, masks, restored, "of a state that was restored:")
    few = max(1, num_envs // 2)
    half = env.action_mask(state[:few])
    _require_equal(env, prop, masks[: few * spec.num_agents], half, f"of the first {few} of {num_envs}:")


def _check_shapes(env: Env, num_envs: int, key: jax.Array) -> None:
    spec, agents = env.spec, num_envs * env.spec.num_agents
    expected = {
        "obs": ((agents, *spec.obs_shape), np.dtype(spec.obs_dtype)),
        "state": ((num_envs, spec.state_bytes), np.dtype(np.uint8)),
        "times": ((num_envs,), np.dtype(np.int32)),
        "reward": ((agents,), np.dtype(np.float32)),
        "terminated": ((agents,), np.dtype(np.bool_)),
        "truncated": ((agents,), np.dtype(np.bool_)),
        **{f"info[{name!r}]": ((num_envs,), np.dtype(dtype)) for name, dtype in _INFO.items()},
    }

    def compare(function: str, arrays: dict[str, Any]) -> None:
        for name, array in arrays.items():
            shape, dtype = expected[name]
            if tuple(array.shape) != shape or array.dtype != dtype:
                how = f"{name} must be {dtype}{shape}, is {array.dtype}{tuple(array.shape)}"
                _fail(env, "shapes and dtypes", f"{function}: {how}")

    obs, state = env.reset(key, num_envs)
    compare("reset", {"obs": obs, "state": state})
    compare("observe", {"obs": env.observe(state)})
    compare("snapshot", {"state": env.snapshot(state)})
    compare("clock", dict(zip(("times", "state"), env.clock(state), strict=True)))
    action = _at(_random_actions(env, key, num_envs, 1), 0)
    outputs = _named(env.step(key, state, action))
    info = outputs.pop("info")
    missing = [name for name in _INFO if name not in info]
    _require(not missing, env, "shapes and dtypes", f"step: info lacks {', '.join(missing)}")
    compare("step", {**outputs, **{f"info[{name!r}]": info[name] for name in _INFO}})


def _check_determinism(env: Env, num_envs: int, key: jax.Array) -> None:
    prop = "determinism (same key, same everything)"
    first, second = env.reset(key, num_envs), env.reset(key, num_envs)
    _require_equal(env, prop, first, second, "two resets with one key:")
    actions = _random_actions(env, key, num_envs, _FEW_STEPS)
    runs = [_run(env, key, first[1], actions) for _ in range(2)]
    for t in range(_FEW_STEPS):
        _require_equal(env, prop, runs[0][t], runs[1][t], f"two runs with the same keys, step {t}:")


def _check_jit(env: Env, num_envs: int, key: jax.Array) -> None:
    prop = "jit = no jit"
    eager = env.reset(key, num_envs)
    _require_equal(env, prop, eager, jax.jit(env.reset, static_argnums=1)(key, num_envs), "reset:")
    actions = _random_actions(env, key, num_envs, _FEW_STEPS)
    step, state = jax.jit(env.step), eager[1]
    for t, expected in enumerate(_run(env, key, state, actions)):
        outputs = _named(step(jax.random.fold_in(key, t), state, _at(actions, t)))
        _require_equal(env, prop, expected, outputs, f"step {t}:")
        state = outputs["state"]
    _require_equal(env, prop, env.observe(state), jax.jit(env.observe)(state), "observe:")


def _check_long_rollout(env: Env, num_envs: int, num_steps: int, key: jax.Array) -> None:
    """Properties of single steps, counted on the device over a rollout in which episodes end."""
    spec = env.spec
    agents = spec.num_agents
    limit = spec.max_episode_steps

    def time_limit(clock, ended, truncated) -> dict[str, jax.Array]:
        if limit == 0:
            return {"an episode ended although max_episode_steps is 0": ended}
        return {
            "an episode lasts longer than max_episode_steps": clock > limit,
            "an episode of max_episode_steps steps did not end": ~ended & (clock >= limit),
            "truncated before max_episode_steps": truncated & (clock != limit),
        }

    def violations(obs, state, reward, terminated, truncated, info, clock) -> dict[str, jax.Array]:
        per_env = [x.reshape(num_envs, agents) for x in (terminated, truncated)]
        terminated_env, truncated_env = (x.any(axis=1) for x in per_env)
        ended = terminated_env | truncated_env
        length = info["episode_length"]
        found = {
            "an agent is both terminated and truncated": terminated & truncated,
            "agents of one env disagree on terminated": (per_env[0] != per_env[0][:, :1]).any(axis=1),
            "agents of one env disagree on truncated": (per_env[1] != per_env[1][:, :1]).any(axis=1),
            "a reward is not finite": ~jnp.isfinite(reward),
            "obs is not observe() of the returned state (after an end: of the new episode)": (
                _differs(obs, env.observe(state)).reshape(num_envs, -1).any(axis=1)
            ),
            "episode_length is not the number of steps since the episode began": ended & (length != clock),
            **time_limit(clock, ended, truncated_env),
            "what clock(state) gives is not the number of steps since the episode began": (
                env.clock(state)[0] != jnp.where(ended, 0, clock)
            ),
            "perf is outside 0..1": ~((info["perf"] >= 0) & (info["perf"] <= 1)),
            "perf is not zero although spec.has_perf is False": (info["perf"] != 0) & (not spec.has_perf),
        }
        for name in _INFO:
            found[f"info[{name!r}] is not zero although no episode ended"] = ~ended & (info[name] != 0)
            found[f"info[{name!r}] is not finite"] = ~jnp.isfinite(info[name].astype(jnp.float32))
        for part in spec.obs_parts:
            if part.max is not None:
                numbers = obs[:, part.offset : part.offset + part.size].astype(jnp.float32)
                is_code = (numbers >= 0) & (numbers <= part.max) & (numbers == jnp.round(numbers))
                found[f"part {part.name!r} of an observation is no integer from 0 to {part.max}"] = (
                    (~is_code).reshape(num_envs, -1).any(axis=1)
                )
        if spec.obs_max is not None:
            found[f"an observation is above obs_max = {spec.obs_max}"] = (
                (obs > spec.obs_max).reshape(num_envs, -1).any(1)
            )
        else:
            found["an observation is not finite"] = ~jnp.isfinite(obs).reshape(num_envs, -1).all(axis=1)
        return found

    @jax.jit
    def rollout(key, state):
        def body(carry, t):
            state, clock, returns, first = carry
            key_t = jax.random.fold_in(key, t)
            # Half of the batch repeats one action, which in many games idles into the time limit.
            action = _at(_random_actions(env, key_t, num_envs, 1), 0)
            is_idle = jnp.arange(num_envs * agents) // agents < num_envs // 2
            idle = idle_actions(spec, (num_envs * agents,))
            action = jax.tree.map(lambda x, y: jnp.where(is_idle.reshape(-1, *[1] * (x.ndim - 1)), x, y), idle, action)
            obs, state, reward, terminated, truncated, info = env.step(key_t, state, action)
            clock += 1
            returns += jnp.where(jnp.isfinite(reward), reward, 0).reshape(num_envs, agents).sum(axis=1)
            found = violations(obs, state, reward, terminated, truncated, info, clock)
            first = {k: jnp.where(v.any() & (first[k] < 0), t, first[k]) for k, v in found.items()}
            ended = (terminated | truncated).reshape(num_envs, agents).any(axis=1)
            return (state, jnp.where(ended, 0, clock), jnp.where(ended, 0.0, returns), first), None

        names = jax.eval_shape(
            lambda s: violations(
                *env.step(key, s, _at(_random_actions(env, key, num_envs, 1), 0)), jnp.zeros(num_envs, jnp.int32)
            ),
            state,
        )
        first = {name: jnp.int32(-1) for name in names}
        carry = (state, jnp.zeros(num_envs, jnp.int32), jnp.zeros(num_envs, jnp.float32), first)
        return jax.lax.scan(body, carry, jnp.arange(num_steps, dtype=jnp.int32))[0][-1]

    obs, state = env.reset(key, num_envs)
    again = env.observe(state)
    if wrong := np.argwhere(_differs(obs, again)).tolist():
        index = tuple(wrong[0])
        _fail(env, "obs = observe(state)", f"reset: differs first at {index}: {obs[index]} and {again[index]}")
    violated = [(int(step), how) for how, step in rollout(key, state).items() if int(step) >= 0]
    if violated:
        step, how = min(violated)
        _fail(env, "every step", f"{how}, first in step {step}")


def _check_restore(env: Env, num_envs: int, key: jax.Array) -> None:
    prop = "snapshot and restore"
    key_reset, key_other, key_actions, key_run = jax.random.split(key, 4)
    _, state = env.reset(key_reset, num_envs)
    actions = _random_actions(env, key_actions, num_envs, 3 * _FEW_STEPS)
    state = _run(env, key_run, state, _at(actions, slice(_FEW_STEPS)))[-1]["state"]
    rows = np.array(env.snapshot(state))  # a copy on the host: what a state set keeps
    obs = np.asarray(env.observe(state))
    ids = jnp.arange(num_envs, dtype=jnp.int32)

    next_actions, other_actions = (_at(actions, slice(n * _FEW_STEPS, (n + 1) * _FEW_STEPS)) for n in (1, 2))
    expected = _run(env, key_run, state, next_actions)
    later = expected[-1]["state"]
    dirty = _run(env, key_other, env.reset(key_other, num_envs)[1], other_actions)[-1]["state"]
    for what, target in {"the state it became": later, "a state of other episodes": dirty}.items():
        restored = env.restore(target, rows, ids)
        _require_equal(env, prop, rows, env.snapshot(restored), f"rows restored into {what} come back changed:")
        _require_equal(env, prop, obs, env.observe(restored), f"the observation after a restore into {what}:")
        repeated = _run(env, key_run, restored, next_actions)
        for t in range(_FEW_STEPS):
            _require_equal(
                env, prop, expected[t], repeated[t], f"the same steps after a restore into {what}, step {t}:"
            )

    # Other env ids, fewer rows, and untouched neighbours.
    reverse = ids[::-1]
    _require_equal(env, prop, rows[::-1], env.snapshot(env.restore(dirty, rows, reverse)), "rows restored in reverse:")
    agents = obs.reshape(num_envs, env.spec.num_agents, *env.spec.obs_shape)[::-1].reshape(obs.shape)
    _require_equal(
        env, prop, agents, env.observe(env.restore(dirty, rows, reverse)), "observations restored in reverse:"
    )
    one = np.asarray(env.snapshot(env.restore(dirty, rows[:1], ids[-1:])))
    _require_equal(env, prop, rows[0], one[-1], f"row 0 restored into env {num_envs - 1}:")
    _require_equal(env, prop, np.asarray(dirty)[:-1], one[:-1], "environments a restore does not name:")
    twice = env.restore(dirty, rows[:2], jnp.zeros(2, jnp.int32))
    _require_equal(env, prop, rows[1], np.asarray(env.snapshot(twice))[0], "of two rows for one env the later wins:")


def _check_clock(env: Env, num_envs: int, key: jax.Array) -> None:
    """What the clock says is checked by the long rollout and `_check_stagger`; here, what it leaves of a row."""
    prop = "clock"
    actions = _random_actions(env, key, num_envs, _FEW_STEPS)
    state = _run(env, key, env.reset(key, num_envs)[1], actions)[-1]["state"]
    timeless = env.clock(state)[1]
    if not env.spec.clock_moves:
        _require_equal(env, prop, state, timeless, "timeless rows, although spec.clock_moves is False:")
        return
    _require_equal(env, prop, jnp.zeros(num_envs, jnp.int32), env.clock(timeless)[0], "times of timeless rows:")
    _require_equal(env, prop, timeless, env.clock(timeless)[1], "timeless rows of timeless rows:")
    _require_equal(env, prop, timeless, env.clock(env.stagger(key, state))[1], "timeless rows after a stagger:")


def _check_moved_clock(env: Env, num_envs: int, key: jax.Array) -> None:
    """A state whose clock was moved must play on as it would have, up to the time limit."""
    prop, limit = "a moved clock changes nothing else", env.spec.max_episode_steps
    if not env.spec.clock_moves or limit == 0:
        return
    key_actions, key_clock, key_run = jax.random.split(key, 3)
    num_steps = min(limit, _MANY_STEPS)
    actions = _random_actions(env, key_actions, num_envs, num_steps)
    names = ("terminated", "truncated", "reward", "obs")

    @jax.jit
    def compare(key):
        _, start = env.reset(key, num_envs)
        states = jnp.stack([start, env.stagger(key_clock, start)])
        # Where the observation shows the time it may differ, and has to be made anew; else it must be the same.
        shows_time = _unequal(*jax.vmap(env.observe)(states)).any()

        def body(carry, xs):
            states, is_same, first = carry
            t, action = xs
            is_same &= ~(jax.vmap(env.clock)(states)[0] + 1 >= limit).any(axis=0)
            key_t = jax.random.fold_in(key_run, t)
            obs, states, reward, terminated, truncated, _ = jax.vmap(lambda s: env.step(key_t, s, action))(states)
            found = {}
            for name, x in zip(names, (terminated, truncated, reward, obs), strict=True):
                unequal = _unequal(*x).reshape(num_envs, -1).any(axis=1) & is_same
                found[name] = unequal.any() & ~(shows_time & (name == "obs"))
            first = {name: jnp.where(x & (first[name] < 0), t, first[name]) for name, x in found.items()}
            ended = (terminated | truncated).reshape(2, num_envs, -1).any(axis=(0, 2))
            return (states, is_same & ~ended, first), None

        carry = (states, jnp.ones(num_envs, bool), {name: jnp.int32(-1) for name in names})
        return jax.lax.scan(body, carry, (jnp.arange(num_steps, dtype=jnp.int32), actions))[0][-1]

    found = {name: int(step) for name, step in compare(key).items() if step >= 0}
    if found:
        name = min(names, key=lambda name: found.get(name, num_steps))
        how = f"{name} differs from that of the state as it was, first in step {found[name]}"
        _fail(env, prop, f"{how}: spec.clock_moves must be False")


def _unequal(a: jax.Array, b: jax.Array) -> jax.Array:
    """bool: where two arrays differ by more than two programs, or two lanes of one, may round; NaN equals NaN."""
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return a != b
    scale = jnp.maximum(jnp.maximum(jnp.abs(a), jnp.abs(b)), 1)
    return ~((a == b) | (jnp.isnan(a) & jnp.isnan(b)) | (jnp.abs(a - b) <= _TOLERANCE * scale))


def _check_unadapted(env: Env, num_envs: int, key: jax.Array) -> None:
    """An untouched state, stepped with the same key and action, gives what the environment itself gives."""
    prop = "the adapter plays as the environment itself"
    if env.unadapted is None:
        return
    key_reset, key_actions, key_run = jax.random.split(key, 3)
    actions = _random_actions(env, key_actions, num_envs, _FEW_STEPS)
    keys = jax.random.split(key_run, _FEW_STEPS)
    first, expected = env.unadapted(key_reset, keys, actions)

    @jax.jit
    def run(state):
        def body(state, xs):
            obs, state, reward, terminated, truncated, _ = env.step(xs[0], state, xs[1])
            return state, (obs, reward, terminated, truncated)

        return jax.lax.scan(body, state, (keys, actions))[1]

    obs, state = env.reset(key_reset, num_envs)
    for name, a, b in zip(
        ("obs after a reset", "obs", "reward", "terminated", "truncated"),
        (first, *expected),
        (obs, *run(state)),
        strict=True,
    ):
        unequal = np.asarray(_unequal(a, b))
        if unequal.any():
            index = tuple(int(i) for i in np.argwhere(unequal)[0])
            _fail(env, prop, f"{name} differs first at {index}: {a[index]} by itself, {b[index]} adapted")


def _check_batch_size(env: Env, num_envs: int, key: jax.Array) -> None:
    prop = "batch-size independence"
    few = max(1, num_envs // 2)

    def head(outputs):  # the first `few` environments of every output
        return jax.tree.map(lambda x: x[: x.shape[0] * few // num_envs], outputs)

    full = env.reset(key, num_envs)
    _require_equal(env, prop, head(full), env.reset(key, few), f"reset of the first {few} of {num_envs}:")
    actions = _random_actions(env, key, num_envs, _FEW_STEPS)
    first_actions = _at(actions, (slice(None), slice(few * env.spec.num_agents)))
    half = _run(env, key, full[1][:few], first_actions)
    for t, outputs in enumerate(_run(env, key, full[1], actions)):
        _require_equal(env, prop, head(outputs), half[t], f"the first {few} of {num_envs}, step {t}:")


def _check_vmap(env: Env, num_envs: int, key: jax.Array) -> None:
    prop = "vmap of single-env calls"
    keys = jax.random.split(key, num_envs)
    reset: Callable[..., Any] = lambda k: env.reset(k, 1)  # noqa: E731
    together = jax.vmap(reset)(keys)
    apart = [reset(k) for k in keys]
    for i, expected in enumerate(apart):
        _require_equal(env, prop, expected, jax.tree.map(lambda x, i=i: x[i], together), f"reset, lane {i}:")
    actions = _at(_random_actions(env, key, num_envs, 1), 0)
    actions = jax.tree.map(lambda x: x.reshape(num_envs, env.spec.num_agents, *x.shape[1:]), actions)
    outputs = jax.vmap(env.step)(keys, together[1], actions)
    for i, (_, state) in enumerate(apart):
        expected = env.step(keys[i], state, _at(actions, i))
        _require_equal(env, prop, expected, jax.tree.map(lambda x, i=i: x[i], outputs), f"step, lane {i}:")
    for name, function, arguments in (("reset", reset, (keys,)), ("step", env.step, (keys, together[1], actions))):
        single = _native_calls(jax.make_jaxpr(function)(*jax.tree.map(lambda x: x[0], arguments)).jaxpr)
        vmapped = _native_calls(jax.make_jaxpr(jax.vmap(function))(*arguments).jaxpr)
        how = f"{name} makes {vmapped} (native calls, of them in loops), one lane makes {single}"
        _require(single == vmapped, env, prop, how)


def _native_calls(jaxpr: Any, in_loop: bool = False) -> tuple[int, int]:
    """Native calls in a program, and how many of them are inside loops."""
    total = looped = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "ffi_call":
            total, looped = total + 1, looped + in_loop
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            more = _native_calls(inner, in_loop or eqn.primitive.name in ("scan", "while"))
            total, looped = total + more[0], looped + more[1]
    return total, looped


def _check_refusals(env: Env, num_envs: int, key: jax.Array) -> None:
    spec = env.spec
    _, state = env.reset(key, num_envs)
    rows = np.asarray(env.snapshot(state))
    ids = np.arange(num_envs, dtype=np.int32)
    action = jax.tree.map(np.asarray, _at(_random_actions(env, key, num_envs, 1), 0))

    def refused(prop: str, what: str, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            jax.block_until_ready(function(*arguments))
        except _REFUSALS:
            return
        _fail(env, prop, f"{what} was accepted")

    prop = "restore refuses what is not a snapshot"
    refused(prop, f"rows of {spec.state_bytes + 1} bytes", env.restore, state, np.pad(rows, ((0, 0), (0, 1))), ids)
    refused(prop, f"rows of {spec.state_bytes - 1} bytes", env.restore, state, rows[:, :-1], ids)
    refused(prop, "float32 rows", env.restore, state, rows.astype(np.float32), ids)
    refused(prop, "env_id -1", env.restore, state, rows[:1], np.array([-1], np.int32))
    refused(prop, f"env_id {num_envs} of {num_envs}", env.restore, state, rows[:1], np.array([num_envs], np.int32))
    refused(prop, "fewer env_ids than rows", env.restore, state, rows, ids[:-1])

    prop = "step refuses bad actions and states"
    choices, numbers = split_actions(spec, action)
    for head, count in enumerate(spec.num_actions):
        for bad in (-1, count):
            wrong = np.array(choices)
            wrong[-1, head] = bad
            refused(prop, f"action {bad} of {count} in head {head}", env.step, key, state,
                    join_actions(spec, wrong, numbers))  # fmt: skip
    for component, (low, high) in enumerate(zip(*bounds(spec), strict=True)):
        beyond = [np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))]
        for bad in (np.nan, -np.inf, np.inf, *(x for x in beyond if np.isfinite(x))):
            wrong = np.array(numbers)
            wrong[-1, component] = bad
            refused(prop, f"action {bad} in component {component}, from {low} to {high}", env.step, key, state,
                    join_actions(spec, choices, wrong))  # fmt: skip
    if spec.num_actions and spec.action_low:
        refused(prop, "choices without numbers", env.step, key, state, choices)
        refused(prop, "float32 choices", env.step, key, state, (choices.astype(np.float32), numbers))
        refused(prop, "an action too few", env.step, key, state, (choices, numbers[:-1]))
    else:
        other = np.int32 if spec.action_low else np.float32
        refused(prop, f"{np.dtype(other)} actions", env.step, key, state, action.astype(other))
        refused(prop, "an action too few", env.step, key, state, action[:-1])
    refused(prop, f"a state of {spec.state_bytes + 1} bytes", env.step, key, np.pad(rows, ((0, 0), (0, 1))), action)
    refused("reset refuses bad counts", "num_envs = 0", env.reset, key, 0)


def _check_stagger(env: Env, num_envs: int, num_steps: int, key: jax.Array) -> None:
    prop = "stagger"
    spec = env.spec
    _, fresh = env.reset(key, num_envs)
    state = env.stagger(key, fresh)
    _require_equal(env, prop, state, env.stagger(key, fresh), "two calls with one key:")
    _require_restorable(env, prop, state, "the staggered state")
    if not spec.clock_moves:
        _require_equal(env, prop, fresh, state, "the states before and after, although spec.clock_moves is False:")
        return
    if spec.max_episode_steps == 0:
        return  # no time-outs that could coincide

    @jax.jit
    def first_ends(state):
        def body(carry, t):
            state, first, timed_out = carry
            action = idle_actions(spec, (num_envs * spec.num_agents,))
            _, state, _, terminated, truncated, _ = env.step(jax.random.fold_in(key, t), state, action)
            terminated, truncated = (x.reshape(num_envs, -1).any(axis=1) for x in (terminated, truncated))
            is_first = (first < 0) & (terminated | truncated)
            return (state, jnp.where(is_first, t, first), jnp.where(is_first, truncated, timed_out)), None

        carry = (state, jnp.full(num_envs, -1, jnp.int32), jnp.zeros(num_envs, bool))
        return jax.lax.scan(body, carry, jnp.arange(min(num_steps, spec.max_episode_steps), dtype=jnp.int32))[0][1:]

    ends, timed_out = (np.asarray(x) for x in first_ends(state))
    lengths = np.asarray(env.clock(state)[0]) + ends + 1
    how = f"clock(state) and the steps up to the time-out must give max_episode_steps, give {lengths[timed_out]}"
    _require((lengths[timed_out] == spec.max_episode_steps).all(), env, prop, how)
    if num_steps >= spec.max_episode_steps:
        _require((ends >= 0).all(), env, prop, "an episode outlasts max_episode_steps")
    if timed_out.all() and num_envs >= 4 and spec.max_episode_steps >= 4:
        _require(
            len(set(ends.tolist())) > 1, env, prop, f"all {num_envs} episodes time out together, in step {ends[0]}"
        )


def _check_random_walk(env: Env, num_envs: int, num_steps: int, key: jax.Array) -> None:
    prop = "random_walk"
    capacity, interval = 3, 4
    _, fresh = env.reset(key, num_envs)

    def walk():
        return env.random_walk(key, fresh, max(num_steps, 64), interval, capacity)

    state, snapshots, counts, rewarded = first = walk()
    _require_equal(env, prop, first, walk(), "two calls with one key:")
    for name, array, shape, dtype in (
        ("state", state, (num_envs, env.spec.state_bytes), np.uint8),
        ("snapshots", snapshots, (num_envs, capacity, env.spec.state_bytes), np.uint8),
        ("counts", counts, (num_envs,), np.int32),
        ("rewarded", rewarded, (num_envs,), np.int32),
    ):
        is_right = array.shape == shape and array.dtype == dtype
        _require(is_right, env, prop, f"{name} must be {np.dtype(dtype)}{shape}, is {array.dtype}{array.shape}")
    counts, rewarded, snapshots = np.asarray(counts), np.asarray(rewarded), np.asarray(snapshots)
    in_range = ((counts >= 0) & (counts <= capacity)).all()
    _require(in_range, env, prop, f"counts are {counts.tolist()}, valid are 0 to {capacity}")
    consistent = (rewarded >= 0).all() and ((counts > 0) == (rewarded > 0)).all()
    _require(consistent, env, prop, f"counts {counts.tolist()} and rewarded {rewarded.tolist()} contradict each other")
    _require_restorable(env, prop, state, "the state after the walk")
    for i in range(num_envs):
        if counts[i]:
            _require_restorable(env, prop, snapshots[i, : counts[i]], f"the snapshots of env {i}")


def _require_restorable(env: Env, prop: str, rows: Any, what: str) -> None:
    rows = np.asarray(rows)
    _, state = env.reset(jax.random.key(1), len(rows))
    try:
        restored = np.asarray(env.snapshot(env.restore(state, rows, np.arange(len(rows), dtype=np.int32))))
    except _REFUSALS as error:
        raise EnvCheckError(f"{env.spec.name}: {prop}: restore refuses {what}: {error}") from error
    _require_equal(env, prop, rows, restored, f"{what} restored:")


def _check_render(env: Env, key: jax.Array) -> None:
    image = np.asarray(env.render(np.asarray(env.reset(key, 1)[1])[0]))
    is_image = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    _require(is_image, env, "render", f"must give u8[H, W, 3], gives {image.dtype}{image.shape}")
