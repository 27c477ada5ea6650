"""Simulator speed: random actions with observations, and the random walk without them, on all cores.

A step is that of a simulator, with all its agents. `bench_peer` compares with the same game in another suite.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pufferjax.bench import timing
from pufferjax.bench.peers import Peer
from pufferjax.core.parallel import AXIS, limit_op_threads
from pufferjax.envs import Env
from pufferjax.envs.actions import random_actions
from pufferjax.xla_ops import ffi

WALK_INTERVAL, WALK_SNAPSHOTS = 16, 4  # as in training
PEER_STEPS = 4


def bench_envs(
    env: Env,
    num_envs: list[int],
    num_steps: int,
    walk_steps: int,
    repeats: int,
    devices,
    save: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Steps per second of `env` for each batch size.

    Two layouts use all cores: "devices", one host device per core, as in training; and "threads", one device whose
    handlers split their work over XLA's pool. What the devices have no native handler for is skipped, its row says
    why. save(result) gets what is known so far after each row.
    """
    layouts = {"devices": list(devices), "threads": list(devices[:1])}
    if len(devices) == 1:
        del layouts["devices"]
    results: list[dict[str, Any]] = []
    result = {**timing.header("envs"), "env": env.spec.name, "params": dict(env.params), "results": results}
    for count in num_envs:
        for layout, used in layouts.items():
            _share_cores(count, used)
            for what, make, steps in (("step", _steps, num_steps), ("random_walk", _walk, walk_steps)):
                row = {"what": what, "layout": layout, "num_envs": count, "num_steps": steps}
                results.append(row)
                if reason := _lacking(env, ("reset", "stagger", what), used[0]):
                    row["skipped"] = reason
                    continue
                times = timing.repeated(make(env, count, steps, used), repeats)
                row["steps_per_second"] = timing.per_second(count * steps, times)
                save(result)
    return result


def _lacking(env: Env, functions: Sequence[str], device) -> str | None:
    """Which native handlers `functions` lack on the platform of `device`; None: none."""
    platform = {"gpu": "cuda"}.get(device.platform, device.platform)
    native = [getattr(env, name).same_as for name in functions if hasattr(getattr(env, name), "same_as")]
    targets = [f"pufferjax.{simulator}.{function}" for function, _, _, simulator in native]
    lacking = [target for target in targets if not ffi.has_native(target, platform)]
    return f"no handler on this {device.platform.upper()} for {', '.join(lacking)}" if lacking else None


def _share_cores(num_envs: int, devices) -> None:
    if num_envs % len(devices):
        raise ValueError(f"--num-envs must be a multiple of {len(devices)} devices, got {num_envs}")
    limit_op_threads(len(devices))


def bench_peer(env: Env, peer: Peer, num_envs: int, num_steps: int, pairs: int, devices) -> dict[str, Any]:
    """Random steps with observations of `env` and of its peer by turns, each on all devices, and the ratio of speeds.

    The peer, which may be thousands of times slower, takes as many steps as fit into about the time of `num_steps` of
    ours, at least PEER_STEPS.
    """
    _share_cores(num_envs, devices)
    ours = _steps(env, num_envs, num_steps, devices)
    few = _peer_steps(peer, num_envs, PEER_STEPS, devices)
    rate = PEER_STEPS / min(timing.repeated(few, 2))
    peer_steps = max(PEER_STEPS, int(rate * min(timing.repeated(ours, 2))))
    theirs = few if peer_steps == PEER_STEPS else _peer_steps(peer, num_envs, peer_steps, devices)
    our_times, their_times, _ = timing.paired(lambda: timing.seconds(ours), lambda: timing.seconds(theirs), pairs)
    ratios = [
        (num_steps / mine) / (peer_steps / other) for mine, other in zip(our_times, their_times, strict=True)
    ]  # fmt: skip
    return {
        "peer": peer.name,
        "num_envs": num_envs,
        "num_steps": [num_steps, peer_steps],
        "steps_per_second": timing.per_second(num_envs * num_steps, our_times),
        "peer_steps_per_second": timing.per_second(num_envs * peer_steps, their_times),
        "ratio": timing.summarize(ratios),
    }


def _steps(env, num_envs, num_steps, devices):
    """A jitted scan of `num_steps` steps; the actions are drawn beforehand, outside what is timed."""
    shape = (len(devices), num_steps, num_envs // len(devices) * env.spec.num_agents)
    actions = random_actions(env.spec, jax.random.key(3), shape)

    def step(key, state, action):
        # The observation is written by the same call, whether or not somebody reads it.
        _, state, reward, *_ = env.step(key, state, action)
        return state, reward

    return _over(devices, _scan(step, num_steps), _reset(env, num_envs), actions)


def _peer_steps(peer: Peer, num_envs, num_steps, devices):
    shape = (len(devices), num_steps, num_envs // len(devices))
    actions = jax.random.randint(jax.random.key(3), shape, 0, peer.num_actions, jnp.int32)
    state = jax.jit(peer.reset)(jax.random.split(jax.random.PRNGKey(0), num_envs))
    return _over(devices, _scan(peer.step, num_steps), state, actions)


def _scan(step, num_steps):
    """run(key[1], state, actions[1, num_steps, ...]) of step(key, state, action) -> (state, rewards)."""

    def run(key, state, actions):
        def one(state, xs):
            state, rewards = step(xs[0], state, xs[1])
            return state, jnp.sum(rewards)

        state, rewards = jax.lax.scan(one, state, (jax.random.split(key[0], num_steps), actions[0]))
        return state, jnp.sum(rewards)[None]

    return run


def _walk(env, num_envs, num_steps, devices):
    def run(key, state):
        state, _, _, rewarded = env.random_walk(key[0], state, num_steps, WALK_INTERVAL, WALK_SNAPSHOTS)
        return state, jnp.sum(rewarded)[None]

    return _over(devices, run, _reset(env, num_envs))


def _reset(env, num_envs):
    _, state = env.reset(jax.random.key(0), num_envs)
    return env.stagger(jax.random.key(1), state)


def _over(devices, run, state, *operands):
    """A function of no arguments: `run` on every device with its share of the environments in `state`, from where it
    left off, and of the operands [devices, ...]."""
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
        if "skipped" in row:
            lines.append(f"{row['what']:<12} {row['layout']:<8} {row['num_envs']:>6}  skipped: {row['skipped']}")
            continue
        speed = timing.with_interval(row["steps_per_second"])
        lines.append(f"{row['what']:<12} {row['layout']:<8} {row['num_envs']:>6}  {speed}")
    if "peer" in result:
        peer = result["peer"]
        theirs, ratio = timing.with_interval(peer["peer_steps_per_second"]), timing.with_interval(peer["ratio"], ".1f")
        lines.append(f"{peer['peer']}: {theirs} at {peer['num_envs']} environments; ours takes {ratio} times as many")
    return "\n".join(lines)
