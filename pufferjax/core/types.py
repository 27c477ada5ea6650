"""What flows between state set, rollout, losses and update.

T horizon, N simulators, B = N * K agents (those of a simulator side by side), L layers, H hidden size, A action heads
(of choices; for continuous components, and for both, actions and previous actions are as in `pufferjax.core.actions`),
S bytes of a simulator's state, M slots of the state set, C simulators that may restart from it (the last of N).
"""

import dataclasses
from typing import Any

import jax

from pufferjax.core.state_set import StateSet


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """What an agent carries from step to step besides the simulator."""

    recurrent: jax.Array  # f32[L, B, H]
    previous_actions: Any  # u8[B, A]: 0 at the start of an episode, else 1 + the action


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transitions:
    """One rollout, time-major."""

    observations: jax.Array  # [T, B, *obs_shape]
    previous_actions: Any  # u8[T, B, A]
    starts: jax.Array  # bool[T, B]: an episode began with this step, so the memory is cut before it (never at t = 0)
    actions: Any  # i32[T, B, A]
    log_probs: jax.Array  # f32[T, B], summed over heads
    values: jax.Array  # f32[T, B]
    rewards: jax.Array  # f32[T, B], outcome of the action
    terminated: jax.Array  # bool[T, B]
    truncated: jax.Array  # bool[T, B]
    action_masks: jax.Array | None = None  # bool[T, B, choices], what was allowed; None: the environment has no masks


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
class Restarts:
    """From where the simulators that may restart would begin: drawn from the state set."""

    slots: jax.Array  # i32[C]
    importance: jax.Array  # f32[C]
    rows: jax.Array  # u8[C, S]: the states; of walkers (the last ones) where their walk has ended
    is_held: jax.Array  # bool[C], all alike: the set held enough states to restart from


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Offer:
    """What an epoch says of the state set's states, and the new ones it offers."""

    candidate_scores: jax.Array  # f32[T / interval * F], in the order of `snapshots`
    replayed_scores: jax.Array  # f32[C]
    is_restarted: jax.Array  # bool[C]: it did restart
    snapshots: jax.Array  # u8[T / interval, F, S], of the F = N - C simulators that may not restart


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RewardScale:
    """The running statistics by which rewards are scaled."""

    returns: jax.Array  # f32[B]: the discounted return of each agent's running episode, up to now
    mean: jax.Array  # f32[], of the returns after every step so far
    variance: jax.Array  # f32[]
    count: jax.Array  # f32[]: steps of all agents that these are over


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
    reward_scale: RewardScale | None  # None: rewards are not scaled
    recent_episodes: jax.Array  # f32[2]: sums of perf and of 1 over recent fresh episodes, older epochs fading out
    state_set: StateSet
    born: jax.Array  # i32[M]: the epoch from which the state in each slot of the set came; 0 for those of the warm-up
    key: jax.Array
    epoch: jax.Array  # i32[]
    reward_seen: jax.Array  # bool[]
    warmup_steps: jax.Array  # f32[]: simulator steps of the random warm-up
    warmup_rewards: jax.Array  # i32[]: rewards it met


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AheadTrainState(TrainState):
    """Of a run that draws the restarts of an epoch before the one before it has ended."""

    restarts: Restarts  # of the next epoch
    entered: jax.Array  # bool[M]: slots filled anew since those were drawn
