"""Phase: every simulator's functions give the bits of the CPU, over a rollout of random actions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import envs
from pufferjax.bench.gpu.handlers import on
from pufferjax.bench.gpu.items import Context, Item, Missing, Wrong
from pufferjax.bench.gpu.machine import ENV_FUNCTIONS
from pufferjax.envs import Env
from pufferjax.envs import actions as env_actions

# Beside the defaults: mazes that are grown on the fly, in the step that needs one.
CASES = {name: (name, {}) for name in envs.names()} | {
    "maze 15, growing": ("maze", {"size": 15, "num_mazes": 0}),
    "maze 35": ("maze", {"size": 35, "num_mazes": 8192}),
}
NUM_ENVS, NUM_STEPS = 1024, 50
WALK = (64, 16, 4)  # steps, interval, snapshots


def items(dry_run: bool) -> list[Item]:
    cases = CASES if not dry_run else {"maze": CASES["maze"]}
    return [
        Item("simulators", case, functools.partial(_check, name=name, params=params))
        for case, (name, params) in cases.items()
    ]


def _check(context: Context, name: str, params: dict[str, Any]) -> dict[str, Any]:
    env = envs.make(name, **params)
    lacking = lacking_functions(context, name)
    if {"reset", "step"} & set(lacking):
        raise Missing(f"no {context.platform} handler for {', '.join(lacking)}")
    num_envs, num_steps = (8, 4) if context.dry_run else (NUM_ENVS, NUM_STEPS)
    run = play(env, num_envs, num_steps, lacking)
    found, expected = (on(device, run, (jax.random.key(0),)) for device in (context.device, context.host))
    equal_bits(found, expected)
    if lacking:
        raise Missing(f"no {context.platform} handler for {', '.join(lacking)}; all else has the bits of the CPU")
    return {"num_envs": num_envs, "num_steps": num_steps, "rewards": int((found["rewards"] != 0).sum())}


def lacking_functions(context: Context, name: str) -> list[str]:
    return [function for function in ENV_FUNCTIONS if not context.has_native(f"pufferjax.{name}.{function}")]


def random_actions(env: Env, key: jax.Array, *shape: int) -> jax.Array:
    """As `env.step` takes them for N simulators, with leading axes; the last of `shape` is N."""
    *leading, num_envs = shape
    return env_actions.random_actions(env.spec, key, (*leading, num_envs * env.spec.num_agents))


def play(env: Env, num_envs: int, num_steps: int, lacking=()):
    """A function of a key: what all functions of `env` but the lacking ones give, by name."""

    def run(key):
        keys = iter(jax.random.split(key, 8))
        results = {}
        results["obs of reset"], state = env.reset(next(keys), num_envs)
        results["state of reset"] = state
        if "stagger" not in lacking:
            state = results["stagger"] = env.stagger(next(keys), state)
        actions = random_actions(env, next(keys), num_steps, num_envs)

        def step(state, xs):
            obs, state, reward, terminated, truncated, info = env.step(xs[0], state, xs[1])
            return state, (obs, reward, terminated, truncated, info)

        state, steps = jax.lax.scan(step, state, (jax.random.split(next(keys), num_steps), actions))
        names = ("observations", "rewards", "terminated", "truncated", "info")
        results |= dict(zip(names, steps, strict=True)) | {"state": state}
        if "observe" not in lacking:
            results["observe"] = env.observe(state)
        if "clock" not in lacking:
            results["clock"] = env.clock(state)
        if "restore" not in lacking:
            env_ids = (jnp.arange(num_envs // 2, dtype=jnp.int32) * 7) % num_envs  # the last of several counts
            results["restore"] = env.restore(state, state[: num_envs // 2], env_ids)
        if "random_walk" not in lacking:
            results["random_walk"] = env.random_walk(next(keys), state, *WALK)
        return results

    return run


def equal_bits(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Wrong, naming the first result that differs, unless all bits are equal."""
    for name, mine in found.items():
        for part, other in zip(jax.tree.leaves(mine), jax.tree.leaves(expected[name]), strict=True):
            bits = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (part, other)]
            if not np.array_equal(*bits):
                share = np.mean(np.not_equal(part, other))
                where = [int(i) for i in np.argwhere(np.not_equal(part, other))[0]] if share else "in bits alone"
                raise Wrong(f"{name} differs from the CPU in {share:.3%} of its numbers; the first: {where}")
