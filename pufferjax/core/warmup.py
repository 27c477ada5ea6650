"""The random warm-up: fills the state set from the first rewards of a random policy.

Until a reward has been met a policy has nothing to learn, and a random one needs no network: it runs inside the
simulator, orders of magnitude faster than training. The last snapshots before each reward enter the set with the score
a zero value function would give them.

The walk can be cut into parts anywhere between two chunks, and is the same walk then: a run bounds it by seconds and
shows how far it is.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pufferjax.core.config import Hypers, TrainConfig, check_hypers
from pufferjax.core.types import TrainState
from pufferjax.core.varying import vary_as
from pufferjax.core.waiting import wait
from pufferjax.envs import Env
from pufferjax.xla_ops.checks import usual_promotion

WARMUP_CHUNK = 8192  # steps of each warm-up environment between looks at the count of rewards
_PART_SECONDS = 0.25  # of a part of the walk, about


class Walk(NamedTuple):
    """A walk under way, on one device; on several the arrays lie side by side."""

    env_state: jax.Array  # u8[warmup_envs, S]
    key: jax.Array  # key[1]
    chunk: jax.Array  # i32[1]: chunks walked
    rewards: jax.Array  # i32[1]: met so far


def num_chunks(env: Env, config: TrainConfig) -> tuple[int, int]:
    """(most chunks of the walk, 0: there is no warm-up; steps of a chunk)."""
    settings = config.state_set
    # A walk in JAX is so much slower that a chunk of it has fewer steps.
    steps = settings.warmup_envs * getattr(env.random_walk, "steps_per_call", WARMUP_CHUNK)
    is_there = settings.fraction > 0 and settings.warmup_rewards > 0
    return (settings.warmup_max_steps // steps if is_there else 0), steps


def make_walk(env: Env, config: TrainConfig, axis_name: str | None = None):
    """(begin, go_on), pure; as `warmup` of `make_warmup`, in parts.

    begin(train_state) -> (train_state, Walk)
    go_on(train_state, walk, hypers, chunks i32[]) -> (train_state, Walk): after at most so many chunks more
    """
    settings = config.state_set
    max_chunks, steps_per_chunk = num_chunks(env, config)

    @usual_promotion()
    def begin(train_state: TrainState) -> tuple[TrainState, Walk]:
        key, key_own = jax.random.split(train_state.key)
        key_own = key_own if axis_name is None else jax.random.fold_in(key_own, jax.lax.axis_index(axis_name))
        key_reset, key_stagger, key_walk = jax.random.split(key_own, 3)
        _, env_state = env.reset(key_reset, settings.warmup_envs)
        env_state = env.stagger(key_stagger, env_state)
        # Made of the states, so that they vary over the axes of a mesh as what the walk makes of them will.
        zero = env_state[:1, 0].astype(jnp.int32) * 0
        return dataclasses.replace(train_state, key=key), Walk(env_state, key_walk[None], zero, zero)

    @usual_promotion()
    def go_on(train_state: TrainState, walk: Walk, hypers: Hypers, chunks) -> tuple[TrainState, Walk]:
        hypers = check_hypers(hypers)
        order = jnp.arange(settings.warmup_snapshots, dtype=jnp.int32)
        last_chunk = jnp.minimum(walk.chunk[0] + chunks, max_chunks)

        def body(carry):
            env_state, state_set, chunk, rewards = carry
            env_state, rows, counts, rewarded = env.random_walk(
                jax.random.fold_in(walk.key[0], chunk), env_state, steps_per_chunk // settings.warmup_envs,
                settings.interval, settings.warmup_snapshots,
            )  # fmt: skip
            # With V = 0 the advantage k steps before the reward is (gamma lambda)^k, and the newest snapshot is about
            # half an interval away from it; the common factor does not matter.
            age = counts[:, None] - 1 - order[None, :]
            scores = (hypers.gamma * hypers.gae_lambda) ** (settings.interval * age.astype(jnp.float32))
            state_set = state_set.insert(
                rows.reshape(-1, env.spec.state_bytes), scores.reshape(-1), (age >= 0).reshape(-1)
            )
            return env_state, state_set, chunk + 1, rewards + jnp.sum(rewarded, dtype=jnp.int32)

        def unfinished(carry):
            _, _, chunk, rewards = carry
            return (rewards < settings.warmup_rewards) & (chunk < last_chunk)

        carry = (walk.env_state, train_state.state_set, walk.chunk[0], walk.rewards[0])
        carry = vary_as(carry, (carry, hypers))
        env_state, state_set, chunk, rewards = jax.lax.while_loop(unfinished, body, carry)
        walk = Walk(env_state, walk.key, chunk[None], rewards[None])
        if axis_name is not None:
            rewards, chunk = jax.lax.psum((rewards, chunk), axis_name)
        train_state = dataclasses.replace(
            train_state,
            state_set=state_set,
            reward_seen=rewards > 0,
            warmup_steps=chunk.astype(jnp.float32) * steps_per_chunk,
            warmup_rewards=rewards,
        )
        return train_state, walk

    return begin, go_on


def make_warmup(env: Env, config: TrainConfig, axis_name: str | None = None):
    """`warmup(train_state, hypers) -> train_state`: the whole walk, to `warmup_rewards` or `warmup_max_steps`.

    It knows no clock: `warmup_max_seconds` bounds the walk of a run (`pufferjax.train`), not this one.
    """
    max_chunks, _ = num_chunks(env, config)
    if max_chunks == 0:
        return lambda train_state, hypers: train_state
    begin, go_on = make_walk(env, config, axis_name)

    def warmup(train_state: TrainState, hypers: Hypers) -> TrainState:
        train_state, walk = begin(train_state)
        return go_on(train_state, walk, hypers, jnp.int32(min(max_chunks, 2**30)))[0]

    return warmup


def walk_in_parts(
    go_on: Callable[[Any, Any, int], tuple[Any, Any]],
    train_state: Any,
    walk: Any,
    report: Callable[[float, int], bool],
) -> Any:
    """The train state after the whole walk, or after the part at whose end `report` said False.

    go_on(train_state, walk, chunks) -> (train_state, walk). report(steps, rewards): so far, several times a second.
    """
    chunks, before = 1, -1.0
    while True:
        start = time.perf_counter()
        train_state, walk = go_on(train_state, walk, chunks)
        wait(train_state.warmup_rewards)
        steps, rewards = float(train_state.warmup_steps), int(train_state.warmup_rewards)
        if steps == before or not report(steps, rewards):  # nothing is left to be walked
            return train_state
        before, seconds = steps, time.perf_counter() - start
        chunks = max(1, min(2 * chunks if seconds < _PART_SECONDS else chunks * _PART_SECONDS // seconds, 2**20))
