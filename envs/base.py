"""The environment contract: pure functions over arrays, and the static sizes a caller needs.

An environment's state is `u8[N, S]`: one row of S bytes per simulator, holding everything `step` needs (the clock
included) except randomness, which comes from the `key` of each call. So a snapshot is a row, restoring is a row write,
and one snapshot restored twice gives two futures. One key serves the whole batch: environment i draws from the stream
(key, i), whatever the batch size. Under `jax.vmap` every lane brings its own key and the call stays one native call.

Episodes restart by themselves inside `step`: the returned observation already belongs to the new episode, while the
flags and `info` belong to the ended one.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.xla_ops.checks import check_array


@dataclasses.dataclass(frozen=True)
class EntityLayout:
    """How an observation lists entities: first the features of the agent itself, then those of one entity after the
    other. Encoders may take the entities for a set."""

    num_self: int  # features of the agent; 0: none
    num_entities: int
    entity_size: int  # features of each entity


@dataclasses.dataclass(frozen=True)
class ObservationPart:
    """One of several arrays that an observation was made of, and where in the flat observation it lies."""

    name: str  # say "map" or "player.health": its path in the dictionary or tuple
    offset: int  # of its first number
    shape: tuple[int, ...]
    dtype: np.dtype  # uint8 for integers from 0 to `max`, though the whole may be float32; or float32
    max: int | None  # largest value of integers; None for floats
    channels_first: bool = False  # three axes are [C, H, W]; False: [H, W, C]

    def __str__(self) -> str:
        """The name and what it is, say "map u8[9, 9] of 0 to 4"."""
        kind = "f32" if self.max is None else "u8"
        integers = "" if self.max is None else f" of 0 to {self.max}"
        return f"{self.name} {kind}[{', '.join(map(str, self.shape))}]{integers}"

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """Static facts of an environment. N simulators of K agents each give N * K rows of observations and actions."""

    name: str
    obs_shape: tuple[int, ...]  # of one agent
    obs_dtype: np.dtype  # uint8 or float32
    obs_max: int | None  # largest value of an integer observation; None for float observations
    num_actions: tuple[int, ...]  # choices of each discrete action head; (): there is none
    num_agents: int  # K
    state_bytes: int  # S
    max_episode_steps: int  # an episode is truncated after this many steps; 0: episodes never end, in no way
    action_names: tuple[tuple[str, ...], ...]  # names of the choices, per head
    entities: EntityLayout | None = None  # of the observation, flattened; None: not a list of entities
    # False: the game shows or reads the time, so a state with another time would be one that cannot be. `stagger` then
    # changes nothing, and the timeless rows of `clock` are the rows themselves.
    clock_moves: bool = True
    has_perf: bool = True  # False: nobody said how good a return is; `info["perf"]` is 0 and there is no solve rate
    # Bounds of each continuous component of an action, float32 numbers, -inf and inf where there are none; (): there is
    # no component. Whoever steps the environment keeps to them.
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    has_action_mask: bool = False  # of the discrete choices; `Env.action_mask` says which are allowed in a state
    channels_first: bool = False  # an observation of three axes is [C, H, W]; False: [H, W, C]
    # Of an observation that was a dictionary, tuple or the like, flattened: its arrays, one after the other, as many
    # numbers as `obs_shape` says. (): it was one array.
    obs_parts: tuple[ObservationPart, ...] = ()

    @property
    def all_parts(self) -> tuple[ObservationPart, ...]:
        """`obs_parts`, or the whole observation as the only part, named "observation"."""
        whole = (self.obs_shape, np.dtype(self.obs_dtype), self.obs_max, self.channels_first)
        return self.obs_parts or (ObservationPart("observation", 0, *whole),)

    def split(self, observations: jax.Array) -> dict[str, jax.Array]:
        """The parts of observations [..., *obs_shape] by name, each [..., *shape] of its own dtype.

        An observation of one array is {"observation": observations}. Raises ValueError for another shape.
        """
        rank = len(self.obs_shape)
        leading, shape = observations.shape[: observations.ndim - rank], observations.shape[observations.ndim - rank :]
        if observations.ndim < rank or tuple(shape) != tuple(self.obs_shape):
            expected = ", ".join(map(str, self.obs_shape))
            raise ValueError(
                f"{self.name}: split: observations must have shape [..., {expected}], got {list(observations.shape)}"
            )
        if not self.obs_parts:
            return {"observation": observations}
        return {
            part.name: observations[..., part.offset : part.offset + part.size]
            .reshape((*leading, *part.shape))
            .astype(part.dtype)
            for part in self.obs_parts
        }


def _made_again(name: str, params: dict[str, Any]) -> "Env":
    from pufferjax import envs

    return envs.make(name, **params)


def _no_clock(state: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.full(state.shape[:1], -1, jnp.int32), jnp.asarray(state)


def _no_mask(state: jax.Array) -> None:
    return None


@dataclasses.dataclass(frozen=True, eq=False)  # hashed as the object it is: a static argument of jit
class Env:
    """An environment: pure functions, jit- and vmap-able, over `u8[N, S]` states.

    - `reset(key, num_envs) -> (obs[N*K, *obs_shape], state u8[N, S])`
    - `step(key, state, action) -> (obs, state, reward f32[N*K], terminated bool[N*K], truncated bool[N*K], info)`;
      action: i32[N*K] of one discrete head, i32[N*K, heads] of several, f32[N*K, C] of continuous components alone, of
      both a tuple (i32[N*K, heads], f32[N*K, C]). One that is none of these (a choice there is not, NaN, a number out
      of bounds) is refused, or, where nothing can be raised, gives a reward of NaN.
      info: episode_return f32[N], episode_length i32[N], score f32[N], perf f32[N] in 0..1; zero unless the episode
      ended in this step. The state operand is updated in place where XLA allows.
    - `observe(state) -> obs`
    - `snapshot(state) -> rows u8[N, S]`
    - `restore(state, rows u8[R, S], env_ids i32[R]) -> state` refuses rows that this simulator cannot have produced;
      later duplicates of an env_id win.
    - `stagger(key, state) -> state` with episode clocks spread uniformly, so that equal time limits do not coincide
    - `random_walk(key, state, num_steps, interval, num_snapshots)
      -> (state, snapshots u8[N, num_snapshots, S], counts i32[N], rewarded i32[N])`:
      uniformly random actions at simulator speed; the snapshots, taken every `interval` steps, are the last ones
      before each environment's most recent reward, oldest first; rewarded counts its rewards. A reward is one above
      zero, or of the others a rare one (at most one in 16 steps) that differs from the usual one, from what most of
      them in this call were so far.
    - `render(row u8[S]) -> u8[H, W, 3]`
    - `clock(state) -> (times i32[N], timeless u8[N, S])`: the steps since each episode began, and the rows with that
      set to zero: equal for two states that differ in nothing else, and states that play on alike but for the time
      limit. Of an environment that does not say, times are -1 and rows stay as they are.
    - `action_mask(state) -> bool[N*K, sum(num_actions)]`: the choices that make sense in each state, those of all heads
      side by side, some of each head; None if `spec.has_action_mask` is False. `step` takes the others too, whatever
      comes of it.
    - `unadapted(key, keys, actions [T, N]) -> (obs [N, ...], (obs [T, N, ...], reward f32[T, N], terminated
      bool[T, N], truncated bool[T, N]))`, of an environment behind an adapter: what it gives by itself after a reset
      with `key` and steps with the T `keys`; `reset` and `step` must give the same. None: there is no adapter.
    - `params`: the arguments `make` was called with, defaults filled in.
    """

    spec: EnvSpec
    params: Mapping[str, Any]
    reset: Callable[..., tuple[jax.Array, jax.Array]]
    step: Callable[..., tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, dict[str, jax.Array]]]
    observe: Callable[[jax.Array], jax.Array]
    restore: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    stagger: Callable[[jax.Array, jax.Array], jax.Array]
    random_walk: Callable[..., tuple[jax.Array, jax.Array, jax.Array, jax.Array]]
    render: Callable[[Any], np.ndarray]
    clock: Callable[[jax.Array], tuple[jax.Array, jax.Array]] = _no_clock
    action_mask: Callable[[jax.Array], jax.Array | None] = _no_mask
    unadapted: Callable[..., Any] | None = None

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        """An environment is pickled as the call of `envs.make` that makes it again, with its parameters."""
        from pufferjax import envs

        name = self.spec.name
        made = envs.make(name, **self.params) if envs.is_known(name) else None
        if made is None or made.spec != self.spec:
            raise TypeError(
                f"{name} cannot be pickled: it is not what envs.make({name!r}) makes; let envs.register know it by a "
                "name, or make it anew in the other process"
            )
        return _made_again, (name, dict(self.params))

    def snapshot(self, state: jax.Array) -> jax.Array:
        """rows u8[N, S]: everything `step` needs of each simulator but randomness."""
        spec = self.spec
        return check_array(f"{spec.name}.snapshot", "state", state, ("N", spec.state_bytes), jnp.uint8)
