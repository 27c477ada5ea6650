"""Simulator speed: random actions with observations, and the random walk without them, on all cores.

A step is that of a simulator, with all its agents.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pufferjax.bench import timing
from pufferjax.envs import Env
from pufferjax.parallel import AXIS, limit_op_threads

WALK_INTERVAL, WALK_SNAPSHOTS = 16, 4  # as in training


def bench_envs(env: Env, num_envs: list[int], num_steps: int, walk_steps: int, repeats: int, devices) -> dict[str, Any]:
    """Steps per second of `env` for each batch size.

    Two layouts use all cores: "devices", one host device per core, as in training; and "threads", one device whose
    handlers split their work over XLA's pool.
    """
    layouts = {"devices": list(devices), "threads": list(devices[:1])}
    if len(devices) == 1:
        del layouts["devices"]
    results = []
    for count in num_envs:
        for layout, used in layouts.items():
            if count % len(used):
                raise ValueError(f"--num-envs must be a multiple of {len(used)} devices, got {count}")
            limit_op_threads(len(used))
            for what, run, steps in (
                ("step", _steps(env, count, num_steps, used), num_steps),
                ("random_walk", _walk(env, count, walk_steps, used), walk_steps),
            ):
                times = timing.repeated(run, repeats)
                results.append(
                    {
                        "what": what,
                        "layout": layout,
                        "num_envs": count,
                        "num_steps": steps,
                        "steps_per_second": timing.per_second(count * steps, times),
                    }
                )
    return {**timing.header("envs"), "env": env.spec.name, "params": dict(env.params), "results": results}


def _steps(env, num_envs, num_steps, devices):
    """A jitted scan of `num_steps` steps; the actions are drawn beforehand, outside what is timed."""
    heads = env.spec.num_actions
    shape = (len(devices), num_steps, num_envs // len(devices) * env.spec.num_agents, len(heads))
    actions = jax.random.randint(jax.random.key(3), shape, 0, jnp.asarray(heads, jnp.int32), jnp.int32)
    actions = actions[..., 0] if len(heads) == 1 else actions

    def run(key, state, actions):
        def step(state, xs):
            # The observation is written by the same call, whether or not somebody reads it.
            _, state, reward, *_ = env.step(xs[0], state, xs[1])
            return state, jnp.sum(reward)

        state, rewards = jax.lax.scan(step, state, (jax.random.split(key[0], num_steps), actions[0]))
        return state, jnp.sum(rewards)[None]

    return _over(devices, run, env, num_envs, actions)


def _walk(env, num_envs, num_steps, devices):
    def run(key, state):
        state, _, _, rewarded = env.random_walk(key[0], state, num_steps, WALK_INTERVAL, WALK_SNAPSHOTS)
        return state, jnp.sum(rewarded)[None]

    return _over(devices, run, env, num_envs)


def _over(devices, run, env, num_envs, *operands):
    """A function of no arguments: `run` on every device with its share of the environments, from where it left off, and
    of the operands [devices, ...]."""
    _, state = env.reset(jax.random.key(0), num_envs)
    state = env.stagger(jax.random.key(1), state)
    mesh, split = Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS)
    sharding = NamedSharding(mesh, split)
    compiled = jax.jit(
        jax.shard_map(run, mesh=mesh, in_specs=split, out_specs=split, check_vma=False),
        in_shardings=sharding,
        out_shardings=sharding,
        donate_argnums=1,
    )
    states = [jax.device_put(state, sharding)]
    keys = jax.device_put(jax.random.split(jax.random.key(2), len(devices)), sharding)
    operands = jax.device_put(operands, sharding)

    def once():
        states[0], rewards = compiled(keys, states[0], *operands)
        return states[0], rewards

    return once


def describe(result: dict[str, Any]) -> str:
    lines = [result["machine"], f"{'what':<12} {'layout':<8} {'envs':>6}  steps per second [95 % interval]"]
    for row in result["results"]:
        speed = timing.with_interval(row["steps_per_second"])
        lines.append(f"{row['what']:<12} {row['layout']:<8} {row['num_envs']:>6}  {speed}")
    return "\n".join(lines)
