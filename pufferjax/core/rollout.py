"""Collecting experience: one jitted scan, policy and simulator together, no Python inside.

N simulators of K agents: what belongs to agents has N * K rows, those of one simulator side by side; what belongs to
simulators (states, snapshots, episodes) has N.
"""

import dataclasses

import jax
import jax.numpy as jnp

from pufferjax.core import actions as acting
from pufferjax.core import distributions
from pufferjax.core.policy import ActorCritic, check_heads
from pufferjax.core.types import EpisodeSums, Memory, Transitions
from pufferjax.core.varying import vary_as
from pufferjax.envs import Env


def initial_memory(policy: ActorCritic, num_agents: int) -> Memory:
    """The memory of agents whose episode is about to begin."""
    return Memory(policy.initial_state(num_agents), acting.no_previous_actions(policy.spec, (num_agents,)))


def look(policy: ActorCritic, params, observations, memory: Memory, starts=None, masks=None):
    """One forward pass of B agents: (heads as in `distributions`, values f32[B], recurrent as in `memory`).

    starts bool[B]: where the memory is cut first; None: nowhere. masks bool[B, choices]: the choices that are allowed;
    None: all.
    """
    if starts is None:
        starts = jnp.zeros(observations.shape[0], bool)
    previous = jax.tree.map(lambda x: x[None], memory.previous_actions)
    heads, values, recurrent = policy.apply(
        {"params": params}, observations[None], previous, memory.recurrent, starts[None]
    )
    check_heads(policy.spec, heads)
    heads = jax.tree.map(lambda x: x[0], tuple(heads))
    return distributions.masked(heads, masks), values[0], recurrent


def act(policy: ActorCritic, params, observations, memory: Memory, noise, starts=None, masks=None):
    """One step of B agents: (actions, log_probs f32[B], values f32[B], recurrent as in `memory`).

    noise decides the actions, see `actions.draw_noise`; starts and masks as in `look`. Actions are those of the policy,
    see `actions.env_actions`.
    """
    heads, values, recurrent = look(policy, params, observations, memory, starts, masks)
    actions = distributions.sample(heads, noise)
    return actions, distributions.log_prob(heads, actions), values, recurrent


def remember(env: Env, recurrent, actions, ended) -> Memory:
    """The memory after a step. Agents whose episode `ended` (bool[B]) forget the action; see `forget` for the rest."""
    return Memory(recurrent, acting.previous_actions(env.spec, actions, ended))


def forget(recurrent, ended):
    """recurrent f32[L, B, H], zero as before the first step for agents whose episode `ended` (bool[B])."""
    return jnp.where(ended[None, :, None], 0.0, recurrent)


def masks_of(env: Env, env_state):
    """bool[N * K, choices]: the choices that are allowed in each state; None: all are."""
    return env.action_mask(env_state) if env.spec.has_action_mask else None


def per_agent(x, env: Env):
    """[N * K, ...]: what [N, ...] says of each simulator, for each of its agents."""
    return jnp.repeat(x, env.spec.num_agents, axis=0)


def per_env(flags, env: Env):
    """bool[N]: whether the episode of a simulator has ended, from the flags bool[N * K] of its agents."""
    return jnp.any(flags.reshape(-1, env.spec.num_agents), axis=1)


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """Static sizes of a rollout."""

    horizon: int
    interval: int  # steps between snapshots
    num_fresh: int  # the first environments, which are snapshot and whose episodes are counted
    reset_memory: bool


def rollout(
    config: RolloutConfig,
    env: Env,
    policy: ActorCritic,
    params,
    key,
    env_state,
    observations,
    memory,
    is_fresh,
    is_restarted,
):
    """`horizon` steps of every environment; is_restarted bool[N] marks those that begin at a state-set snapshot.

    env_state u8[N, S] and is_fresh bool[N] are of simulators, observations [N * K, ...] and memory of agents.

    Returns (env_state, observations, memory, is_fresh, transitions, snapshots u8[T / interval, num_fresh, S],
    fresh: EpisodeSums over episodes of the first num_fresh environments that began with a reset,
    restarted: EpisodeSums over the first episode end of each restarted environment).
    """
    num_envs, num_rows = env_state.shape[0], observations.shape[0]
    key_env, key_action = jax.random.split(key)
    chunks = (config.horizon // config.interval, config.interval)
    env_keys = jax.random.split(key_env, chunks)
    noise = acting.draw_noise(env.spec, key_action, (*chunks, num_rows))
    in_fresh_group = jnp.arange(num_envs) < config.num_fresh
    zeros = EpisodeSums(*(jnp.float32(0) for _ in dataclasses.fields(EpisodeSums)))

    def add(sums, counted, info):
        def total(x):
            return jnp.sum(jnp.where(counted, x, 0).astype(jnp.float32))

        return EpisodeSums(
            episodes=sums.episodes + total(jnp.ones(num_envs)),
            perf=sums.perf + total(info["perf"]),
            score=sums.score + total(info["score"]),
            episode_return=sums.episode_return + total(info["episode_return"]),
            episode_length=sums.episode_length + total(info["episode_length"]),
        )

    def step(carry, xs):
        env_state, observations, memory, starts, is_fresh, is_restarted, fresh, restarted = carry
        env_key, noise = xs
        cut = starts if config.reset_memory else jnp.zeros_like(starts)
        masks = masks_of(env, env_state)
        actions, log_probs, values, recurrent = act(policy, params, observations, memory, noise, cut, masks)
        next_observations, env_state, rewards, terminated, truncated, info = env.step(
            env_key, env_state, acting.env_actions(env.spec, actions)
        )
        agents_ended = terminated | truncated
        ended = per_env(agents_ended, env)
        transition = Transitions(
            observations, memory.previous_actions, starts, actions, log_probs, values, rewards, terminated, truncated,
            masks,
        )  # fmt: skip
        fresh = add(fresh, ended & is_fresh & in_fresh_group, info)
        restarted = add(restarted, ended & is_restarted, info)
        memory = remember(env, recurrent, actions, agents_ended)  # cut in the next step
        is_fresh, is_restarted = is_fresh | ended, is_restarted & ~ended
        carry = (env_state, next_observations, memory, agents_ended, is_fresh, is_restarted, fresh, restarted)
        return carry, transition

    def write(carry, xs):
        t, *xs = xs
        carry, transitions = carry
        carry, transition = step(carry, xs)
        update = jax.lax.dynamic_update_index_in_dim
        return (carry, jax.tree.map(lambda x, new: update(x, new, t, 0), transitions, transition)), None

    def chunk(carry, xs):
        snapshots = env.snapshot(carry[0][0])[: config.num_fresh]
        carry, _ = jax.lax.scan(write, carry, xs)
        return carry, snapshots

    # The layers apart, and no reset but the policy's: a step then updates the states in place, and copies none.
    memory = dataclasses.replace(memory, recurrent=tuple(memory.recurrent))
    starts = jnp.zeros(num_rows, bool)
    carry = (env_state, observations, memory, starts, is_fresh, is_restarted, zeros, zeros)
    carry = vary_as(carry, (env_state, observations, env_keys))  # inside shard_map a carry keeps its type
    # Written by the inner loop into arrays of all steps: results of its own would be copied once more, chunk by chunk.
    first = jax.eval_shape(lambda xs: jax.tree.map(lambda x: x[0, 0], xs), (env_keys, noise))
    shapes = jax.eval_shape(step, carry, first)[1]
    transitions = jax.tree.map(lambda x: jnp.zeros((config.horizon, *x.shape), x.dtype), shapes)
    transitions = vary_as(transitions, (env_state, env_keys))
    steps = jnp.arange(config.horizon).reshape(chunks)
    (carry, transitions), snapshots = jax.lax.scan(chunk, (carry, transitions), (steps, env_keys, noise))
    env_state, observations, memory, ended, is_fresh, _, fresh, restarted = carry
    recurrent = jnp.stack(memory.recurrent) if memory.recurrent else policy.initial_state(num_rows)
    if config.reset_memory:
        recurrent = forget(recurrent, ended)
    memory = dataclasses.replace(memory, recurrent=recurrent)
    return env_state, observations, memory, is_fresh, transitions, snapshots, fresh, restarted
