"""Native simulators as `Env`: argument checks in Python, then one custom call per function.

The handlers are in envs/common/handlers.h; a simulator is one header, envs/<env>/<env>.h.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.actions import action_form
from pufferjax.envs.base import EntityLayout, Env, EnvSpec
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_count, random_words


def make_native(
    name: str,
    params: Mapping[str, Any],
    native_params: Sequence[int],
    *,
    obs_max: int | None,
    action_names: tuple[tuple[str, ...], ...],
    render: Callable[[Any], np.ndarray],
    entities: EntityLayout | None = None,
    channels_first: bool = False,
    simulator: str | None = None,
) -> Env:
    """An `Env` over the native simulator `simulator` (`name` if None); `native_params` are the integers its header
    parses.

    Raises ValueError if the simulator refuses the parameters, RuntimeError if the native module is not built.
    """
    simulator = simulator or name
    facts = ffi.describe_env(simulator, native_params)
    spec = EnvSpec(
        name=name,
        obs_shape=facts["obs_shape"],
        obs_dtype=np.dtype(facts["obs_dtype"]),
        obs_max=obs_max,
        num_actions=facts["num_actions"],
        num_agents=facts["num_agents"],
        state_bytes=facts["state_bytes"],
        max_episode_steps=facts["max_episode_steps"],
        action_names=action_names,
        entities=entities,
        channels_first=channels_first,
        action_low=facts["action_low"],
        action_high=facts["action_high"],
    )
    attribute = np.asarray(native_params, np.int64)
    num_agents, state_bytes = spec.num_agents, spec.state_bytes

    def call(function, results, *operands, **kwargs):
        return ffi.native_call(f"pufferjax.{simulator}.{function}", results, *operands, params=attribute, **kwargs)

    def state_struct(num_envs):
        return jax.ShapeDtypeStruct((num_envs, state_bytes), jnp.uint8)

    def obs_struct(num_envs):
        return jax.ShapeDtypeStruct((num_envs * num_agents, *spec.obs_shape), spec.obs_dtype)

    def check_state(function, state):
        return check_array(f"{name}.{function}", "state", state, ("N", state_bytes), jnp.uint8)

    def reset(key, num_envs):
        num_envs = check_count(f"{name}.reset", "num_envs", num_envs, 1)
        words = random_words(f"{name}.reset", key, (2,))
        state, obs = call("reset", [state_struct(num_envs), obs_struct(num_envs)], words)
        return obs, state

    def step(key, state, action):
        state = check_state("step", state)
        num_envs = state.shape[0]
        # Values are checked where they are used, by the simulator.
        shape, dtype = action_form(spec, num_envs * num_agents)
        action = check_array(f"{name}.step", "action", action, shape, dtype)
        words = random_words(f"{name}.step", key, (2,))
        per_agent, per_env = (num_envs * num_agents,), (num_envs,)
        results = [
            state_struct(num_envs),
            obs_struct(num_envs),
            jax.ShapeDtypeStruct(per_agent, jnp.float32),
            jax.ShapeDtypeStruct(per_agent, jnp.bool_),
            jax.ShapeDtypeStruct(per_agent, jnp.bool_),
            jax.ShapeDtypeStruct(per_env, jnp.float32),
            jax.ShapeDtypeStruct(per_env, jnp.int32),
            jax.ShapeDtypeStruct(per_env, jnp.float32),
            jax.ShapeDtypeStruct(per_env, jnp.float32),
        ]
        state, obs, reward, terminated, truncated, episode_return, episode_length, score, perf = call(
            "step", results, words, state, action, aliases={1: 0}
        )
        info = {"episode_return": episode_return, "episode_length": episode_length, "score": score, "perf": perf}
        return obs, state, reward, terminated, truncated, info

    def observe(state):
        state = check_state("observe", state)
        return call("observe", [obs_struct(state.shape[0])], state)[0]

    def restore(state, rows, env_ids):
        state = check_state("restore", state)
        rows = check_array(f"{name}.restore", "rows", rows, ("R", state_bytes), jnp.uint8)
        env_ids = check_array(f"{name}.restore", "env_ids", env_ids, (rows.shape[0],), jnp.int32)
        # Not in place: `rows` may be a slice of `state`, which XLA on a GPU passes as a view into the same memory: rows
        # would be overwritten before they are read. Restores are rare, and the copy is of states alone.
        return call("restore", [state_struct(state.shape[0])], state, rows, env_ids)[0]

    def stagger(key, state):
        state = check_state("stagger", state)
        words = random_words(f"{name}.stagger", key, (2,))
        return call("stagger", [state_struct(state.shape[0])], words, state, aliases={1: 0})[0]

    def clock(state):
        state = check_state("clock", state)
        num_envs = state.shape[0]
        return tuple(call("clock", [jax.ShapeDtypeStruct((num_envs,), jnp.int32), state_struct(num_envs)], state))

    def random_walk(key, state, num_steps, interval, num_snapshots):
        state = check_state("random_walk", state)
        num_envs = state.shape[0]
        num_steps = check_count(f"{name}.random_walk", "num_steps", num_steps, 1)
        interval = check_count(f"{name}.random_walk", "interval", interval, 1)
        num_snapshots = check_count(f"{name}.random_walk", "num_snapshots", num_snapshots, 1)
        words = random_words(f"{name}.random_walk", key, (2,))
        results = [
            state_struct(num_envs),
            jax.ShapeDtypeStruct((num_envs, num_snapshots, state_bytes), jnp.uint8),
            jax.ShapeDtypeStruct((num_envs,), jnp.int32),
            jax.ShapeDtypeStruct((num_envs,), jnp.int32),
        ]
        results.append(results[1])  # memory for a GPU to remember the latest states in
        *results, _ = call(
            "random_walk",
            results,
            words,
            state,
            aliases={1: 0},
            num_steps=np.int64(num_steps),
            interval=np.int64(interval),
        )
        return tuple(results)

    for function in (reset, step, observe, restore, stagger, clock, random_walk):
        # Two of these that are equal compute the same: a program compiled for one serves the other.
        function.same_as = (function.__name__, spec, tuple(map(int, native_params)), simulator)
    return Env(
        spec=spec,
        params=dict(params),
        reset=reset,
        step=step,
        observe=observe,
        restore=restore,
        stagger=stagger,
        clock=clock,
        random_walk=random_walk,
        render=render,
    )


def upscale(cells: np.ndarray, palette: np.ndarray, min_side: int = 256) -> np.ndarray:
    """u8[H, W, 3] picture of `cells` u8[h, w] through `palette` u8[codes, 3], each cell a square of equal size."""
    scale = max(1, math.ceil(min_side / max(cells.shape)))
    return np.repeat(np.repeat(palette[cells], scale, axis=0), scale, axis=1)
