"""What flows between rollout, losses and update.

T horizon, N simulators, B = N * K agents (those of a simulator side by side), L layers, H hidden size, A action heads.
"""

import dataclasses
from typing import Any

import jax

from pufferjax.state_set import StateSet


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """What an agent carries from step to step besides the simulator."""

    recurrent: jax.Array  # f32[L, B, H]
    previous_actions: jax.Array  # u8[B, A]: 0 at the start of an episode, else 1 + the action


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transitions:
    """One rollout, time-major."""

    observations: jax.Array  # [T, B, *obs_shape]
    previous_actions: jax.Array  # u8[T, B, A]
    starts: jax.Array  # bool[T, B]: an episode began with this step, so the memory is cut before it (never at t = 0)
    actions: jax.Array  # i32[T, B, A]
    log_probs: jax.Array  # f32[T, B], summed over heads
    values: jax.Array  # f32[T, B]
    rewards: jax.Array  # f32[T, B], outcome of the action
    terminated: jax.Array  # bool[T, B]
    truncated: jax.Array  # bool[T, B]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EpisodeSums:
    """Sums over the episodes that ended in an epoch; f32[]."""

    episodes: jax.Array
    perf: jax.Array
    score: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a run needs to go on."""

    params: Any
    opt_state: Any
    env_state: jax.Array  # u8[N, S]
    observations: jax.Array  # [B, *obs_shape]
    memory: Memory
    is_fresh: jax.Array  # bool[N]: the running episode began with a reset and a full clock
    recent_episodes: jax.Array  # f32[2]: sums of perf and of 1 over recent fresh episodes, older epochs fading out
    state_set: StateSet
    born: jax.Array  # i32[M]: the epoch from which the state in each slot of the set came; 0 for those of the warm-up
    key: jax.Array
    epoch: jax.Array  # i32[]
    reward_seen: jax.Array  # bool[]
    warmup_steps: jax.Array  # f32[]: simulator steps of the random warm-up
    warmup_rewards: jax.Array  # i32[]: rewards it met
