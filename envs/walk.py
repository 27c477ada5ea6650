"""The random walk of the contract for environments without a native one: a scan over their own step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.envs.actions import random_actions
from pufferjax.envs.base import EnvSpec
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_count, random_words, usual_promotion

_RARE = 16  # as in envs/common/reward_vote.h


def make_random_walk(
    spec: EnvSpec, step: Callable[..., Any], action_mask: Callable[[jax.Array], jax.Array] | None = None
) -> Callable[..., Any]:
    """`random_walk` as `pufferjax.envs.base.Env` describes it, over a `step` and an `action_mask` of that contract,
    with one agent."""
    name = spec.name

    def random_walk(key, state, num_steps, interval, num_snapshots):
        state = check_array(f"{name}.random_walk", "state", state, ("N", spec.state_bytes), jnp.uint8)
        num_steps = check_count(f"{name}.random_walk", "num_steps", num_steps, 1)
        interval = check_count(f"{name}.random_walk", "interval", interval, 1)
        num_snapshots = check_count(f"{name}.random_walk", "num_snapshots", num_snapshots, 1)
        words = random_words(f"{name}.random_walk", key, (2,))
        return walk(words, state, num_steps, interval, num_snapshots)

    @functools.partial(jax.jit, static_argnums=(2, 3, 4))
    @usual_promotion()
    def walk(words, state, num_steps, interval, num_snapshots):
        num_envs = state.shape[0]
        envs = jnp.arange(num_envs, dtype=jnp.int32)
        key_action, key_step = jax.random.split(jax.random.wrap_key_data(words, impl="threefry2x32"))
        action_keys = jax.vmap(jax.random.fold_in, (None, 0))(key_action, envs)

        def body(carry, t):
            state, ring, slot, remembered, next_snapshot, snapshots, counts, rewarded, usual, since, unlike = carry
            # The ring holds the latest snapshots of the episode; an index past its end writes nothing.
            is_due = next_snapshot == t
            ring = ring.at[envs, jnp.where(is_due, slot, num_snapshots)].set(state, mode="drop")
            slot = jnp.where(is_due, (slot + 1) % num_snapshots, slot)
            remembered = jnp.where(is_due, jnp.minimum(remembered + 1, num_snapshots), remembered)
            next_snapshot = jnp.where(is_due, next_snapshot + interval, next_snapshot)

            draw = lambda k, mask=None: random_actions(spec, jax.random.fold_in(k, t), (), mask)  # noqa: E731
            masks = () if action_mask is None else (action_mask(state),)
            action = jax.vmap(draw)(action_keys, *masks)
            _, state, reward, terminated, truncated, _ = step(jax.random.fold_in(key_step, t), state, action)
            ended = terminated | truncated
            # The usual reward: by majority vote (Boyer and Moore) among those that are not above zero. Another one
            # counts if it is rare: those since the vote, itself included, are at most one in _RARE of the steps.
            is_other = (reward < usual) | ((reward > usual) & (reward <= 0))
            unlike += is_other & (t > 0)
            is_reward = (reward > 0) | (is_other & (t > 0) & (_RARE * unlike <= t - since))
            is_new = is_other & ((t == 0) | (2 * unlike > t - since))
            usual = jnp.where(is_new, reward, usual)
            since, unlike = jnp.where(is_new, t, since), jnp.where(is_new, 0, unlike)

            def keep(snapshots):
                order = jnp.arange(num_snapshots, dtype=jnp.int32)
                kept = jnp.take_along_axis(
                    ring, ((slot - remembered)[:, None] + order)[:, :, None] % num_snapshots, axis=1
                )
                kept = jnp.where((order < remembered[:, None])[:, :, None], kept, 0)
                return jnp.where(is_reward[:, None, None], kept, snapshots)

            # Rewards are rare where walks are long: most steps leave the result alone.
            snapshots = jax.lax.cond(jnp.any(is_reward), keep, lambda snapshots: snapshots, snapshots)
            counts = jnp.where(is_reward, remembered, counts)
            rewarded += is_reward.astype(jnp.int32)
            slot, remembered = jnp.where(ended, 0, slot), jnp.where(ended, 0, remembered)
            next_snapshot = jnp.where(ended, t + 1, next_snapshot)
            carry = (state, ring, slot, remembered, next_snapshot, snapshots, counts, rewarded, usual, since, unlike)
            return carry, None

        zeros, rows = jnp.zeros(num_envs, jnp.int32), jnp.zeros((num_envs, num_snapshots, spec.state_bytes), jnp.uint8)
        carry = (state, rows, zeros, zeros, zeros, rows, zeros, zeros, zeros.astype(jnp.float32), zeros, zeros)
        carry, _ = ffi.vary_together((carry, words))  # inside shard_map a carry keeps its type
        carry, _ = jax.lax.scan(body, carry, jnp.arange(num_steps, dtype=jnp.int32))
        state, _, _, _, _, snapshots, counts, rewarded, *_ = carry
        return state, snapshots, counts, rewarded

    random_walk.steps_per_call = 512  # a walk in JAX is slow: more in one call would take seconds
    return random_walk
