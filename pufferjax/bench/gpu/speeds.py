"""Phase: random steps per second of every simulator, with observations, in a scan on the GPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax import envs
from pufferjax.bench import timing
from pufferjax.bench.gpu.items import Context, Item, Missing
from pufferjax.bench.gpu.simulators import lacking_functions, random_actions

CASES = {"maze 35": ("maze", {"size": 35, "num_mazes": 8192})} | {name: (name, {}) for name in envs.names()}
NUM_ENVS = (65_536, 4096, 1024)
NUM_STEPS = 128
WALK = (1024, 16, 4)  # steps, interval, snapshots: those of training


def items(dry_run: bool) -> list[Item]:
    cases, sizes = (CASES, NUM_ENVS) if not dry_run else ({"maze": ("maze", {"size": 9})}, (8,))
    steps = [
        Item("speeds", f"{case}, {count} envs", functools.partial(_steps, name=name, params=params, num_envs=count))
        for count in sizes
        for case, (name, params) in cases.items()
    ]
    walks = [
        Item("speeds", f"{case}, random_walk", functools.partial(_walk, name=name, params=params, num_envs=sizes[-1]))
        for case, (name, params) in list(cases.items())[:1]
    ]
    return steps + walks


def _steps(context: Context, name: str, params: dict[str, Any], num_envs: int) -> dict[str, Any]:
    lacking = lacking_functions(context, name)
    if {"reset", "step"} & set(lacking):
        raise Missing(f"no {context.platform} handler for {', '.join(lacking)}")
    env = envs.make(name, **params)
    num_steps = 4 if context.dry_run else NUM_STEPS
    actions = random_actions(env, jax.random.key(1), num_steps, num_envs)
    keys = jax.random.split(jax.random.key(2), num_steps)
    obs, state = env.reset(jax.random.key(0), num_envs)
    if "stagger" not in lacking:
        state = env.stagger(jax.random.key(3), state)

    def run(state, obs):
        def one(carry, xs):
            state, _, total = carry
            # Actions are drawn beforehand. Observations are carried, so that they are written.
            obs, state, reward, *_ = env.step(xs[0], state, xs[1])
            return (state, obs, total + jnp.sum(reward)), None

        return jax.lax.scan(one, (state, obs, jnp.float32(0)), (keys, actions))[0]

    compiled = jax.jit(run, donate_argnums=(0, 1))
    carried = [state, obs]

    def again():
        *carried[:], total = compiled(*carried)
        return total

    times = timing.in_a_row(again, 2, 2 if context.dry_run else 7)
    figures = {"steps_per_second": timing.per_second(num_envs * num_steps, times)["median"]}
    step_bytes = num_envs * (2 * env.spec.state_bytes + env.spec.num_agents * obs.nbytes // obs.shape[0])
    seconds = num_envs / figures["steps_per_second"]
    figures |= {"us_per_step": 1e6 * seconds, "gb_per_second": step_bytes / seconds / 1e9}
    if "gb_per_second" in context.facts:
        figures["share_of_copying"] = figures["gb_per_second"] / context.facts["gb_per_second"]
    return figures


def _walk(context: Context, name: str, params: dict[str, Any], num_envs: int) -> dict[str, Any]:
    lacking = lacking_functions(context, name)
    if {"reset", "random_walk"} & set(lacking):
        raise Missing(f"no {context.platform} handler for {', '.join(lacking)}")
    env = envs.make(name, **params)
    steps, *rest = (16, 8, 2) if context.dry_run else WALK
    _, state = env.reset(jax.random.key(0), num_envs)
    compiled = jax.jit(lambda state: env.random_walk(jax.random.key(1), state, steps, *rest))
    times = timing.in_a_row(lambda: compiled(state), 2, 3)
    return {"steps_per_second": timing.per_second(num_envs * steps, times)["median"]}
