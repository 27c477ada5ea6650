"""`as_gymnax`: an `Env` with gymnax 1.0's interface. gymnax itself is never imported."""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.actions import bounds, join_actions
from pufferjax.envs.base import Env
from pufferjax.xla_ops.checks import check_array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EnvParams:
    """What gymnax calls the parameters of an environment. Those of an `Env` were fixed when it was made."""

    max_steps_in_episode: int = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers 0 to n - 1."""

    n: int
    shape: tuple[int, ...] = ()
    dtype: Any = jnp.int32

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (), 0, self.n, self.dtype)

    def contains(self, x: Any) -> jax.Array:
        return (jnp.asarray(x) >= 0) & (jnp.asarray(x) < self.n)


@dataclasses.dataclass(frozen=True)
class Tuple:
    """Tuples of elements of other spaces."""

    spaces: tuple[Any, ...]

    def sample(self, key: jax.Array) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(self.spaces))
        return tuple(space.sample(k) for space, k in zip(self.spaces, keys, strict=True))

    def contains(self, x: Any) -> jax.Array:
        return jnp.all(jnp.stack([space.contains(y) for space, y in zip(self.spaces, x, strict=True)]))


@dataclasses.dataclass(frozen=True)
class Box:
    """Arrays of one shape with values from low to high, each one number or an array of that shape."""

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any

    def sample(self, key: jax.Array) -> jax.Array:
        if jnp.issubdtype(self.dtype, jnp.integer):
            return jax.random.randint(key, self.shape, int(self.low), int(self.high) + 1, jnp.int32).astype(self.dtype)
        low, high = (np.clip(x, -1e6, 1e6) for x in (self.low, self.high))  # no uniform number in an infinity
        return jax.random.uniform(key, self.shape, self.dtype, low, high)

    def contains(self, x: Any) -> jax.Array:
        return jnp.all((jnp.asarray(x) >= self.low) & (jnp.asarray(x) <= self.high))


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: a static argument of jit
class GymnaxView:
    """One simulator of `env` behind gymnax 1.0's methods; see `as_gymnax`."""

    env: Env

    @property
    def name(self) -> str:
        return self.env.spec.name

    @property
    def num_actions(self) -> int:
        """Choices, or, where actions are numbers alone, how many of them; as in gymnax. AttributeError for an action of
        several parts."""
        spec = self.env.spec
        if spec.num_actions and (spec.action_low or len(spec.num_actions) > 1):
            raise AttributeError(f"{self.name}: num_actions is of one choice, its actions have several parts")
        return spec.num_actions[0] if spec.num_actions else len(spec.action_low)

    @property
    def default_params(self) -> EnvParams:
        return EnvParams(self.env.spec.max_episode_steps)

    def action_space(self, params: EnvParams | None = None) -> Any:
        """Discrete for one head of choices, Box for numbers, a Tuple of one after the other for several heads, or
        both."""
        self._check(params)
        spec = self.env.spec
        spaces = [_space_class(Discrete)(n) for n in spec.num_actions]
        if spec.action_low:
            low, high = bounds(spec)
            spaces.append(_space_class(Box)(low, high, low.shape, jnp.dtype(jnp.float32)))
        return spaces[0] if len(spaces) == 1 else _space_class(Tuple)(tuple(spaces))

    def action_mask(self, state: jax.Array, params: EnvParams | None = None) -> jax.Array | None:
        """bool[choices]: those that are allowed, of all heads side by side; None if the environment has no masks."""
        self._check(params)
        masks = self.env.action_mask(state[None])
        return None if masks is None else masks[0]

    def observation_space(self, params: EnvParams | None = None) -> Any:
        """Box: 0 to obs_max for integer observations, unbounded for others. An observation of several parts is the one
        vector that it is for an `Env`; `env.spec.split` takes it apart."""
        self._check(params)
        spec = self.env.spec
        low, high = (-np.inf, np.inf) if spec.obs_max is None else (0, spec.obs_max)
        return _space_class(Box)(low, high, tuple(spec.obs_shape), jnp.dtype(spec.obs_dtype))

    def reset(self, key: jax.Array, params: EnvParams | None = None) -> tuple[jax.Array, jax.Array]:
        """(obs, state): the first observation, of `env.spec.obs_shape`, and the row u8[S] of one simulator."""
        self._check(params)
        obs, state = self.env.reset(key, 1)
        return obs[0], state[0]

    def step(
        self, key: jax.Array, state: jax.Array, action: Any, params: EnvParams | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, dict[str, jax.Array]]:
        """(obs, state, reward f32[], terminated bool[], truncated bool[], info).

        A new episode begins by itself. info: that of `env.step`, and as in gymnax terminated, truncated, discount (0
        where terminated, else 1) and final_observation: obs, or zeros where the episode ended, since a native simulator
        has restarted before its last observation could be seen.
        """
        self._check(params)
        spec = self.env.spec
        state = check_array(f"{self.name}.step", "state", state, (spec.state_bytes,), jnp.uint8)
        outputs = self.env.step(key, state[None], jax.tree.map(lambda x: x[None], self._joined(action)))
        obs, state, reward, terminated, truncated, info = jax.tree.map(lambda x: x[0], outputs)
        info = {
            **info,
            "terminated": terminated,
            "truncated": truncated,
            "discount": 1.0 - terminated.astype(jnp.float32),
            "final_observation": jnp.where(terminated | truncated, jnp.zeros_like(obs), obs),
        }
        return obs, state, reward, terminated, truncated, info

    def _joined(self, action: Any) -> Any:
        """An element of the action space as one action of `Env.step`."""
        spec, name = self.env.spec, f"{self.name}.step"
        num_parts = len(spec.num_actions) + bool(spec.action_low)
        if num_parts > 1 and (not isinstance(action, (tuple, list)) or len(action) != num_parts):
            raise TypeError(f"{name}: action must be a tuple of {num_parts}, got {type(action).__name__}")
        parts = list(action) if num_parts > 1 else [action]
        numbers = None
        if spec.action_low:
            numbers = check_array(name, "action", parts.pop(), (len(spec.action_low),), jnp.float32)
        choices = [check_array(name, "action", x, (), getattr(x, "dtype", jnp.int32)) for x in parts]
        for x in choices:
            if not jnp.issubdtype(x.dtype, jnp.integer):
                raise TypeError(f"{name}: action must be an integer, got {x.dtype}")
        choices = jnp.stack([x.astype(jnp.int32) for x in choices]) if choices else None
        return join_actions(spec, choices, numbers)

    def _check(self, params: Any) -> None:
        if params is not None and params != self.default_params:
            raise ValueError(
                f"{self.name}: its parameters were fixed when it was made; params must be None or "
                f"{self.default_params}, got {params!r}"
            )


def as_gymnax(env: Env) -> GymnaxView:
    """`env` as an environment of gymnax 1.0, for scripts written for that: one simulator, its row the state.

    `jax.vmap(env.step)` over keys, states and actions is one native call. If the caller has imported gymnax, the spaces
    are of gymnax's classes, which its wrappers ask for.

    Raises ValueError for an environment of several agents: the interface has one.
    """
    spec = env.spec
    if spec.num_agents != 1:
        raise ValueError(f"as_gymnax: {spec.name} has {spec.num_agents} agents, gymnax's interface has one")
    return GymnaxView(env)


def _space_class(own: type) -> type:
    spaces = sys.modules.get("gymnax.environments.spaces")
    return own if spaces is None else getattr(spaces, own.__name__)
