"""jumanji. Parameters are the numbers among the arguments of the class.

An episode that ends with a discount of 0 is terminated, any other is truncated. Several agents act as one: their
actions are the components of one action, their rewards are summed. Where the mask of an action of several components
says which combinations are valid, the action is one choice among all combinations. The mask is no part of the
observation.

The state's key is randomness alone, by jumanji's own contract: rows do not hold it, and every step gets a new one.
"""

import dataclasses
import functools
import warnings
from typing import Any

import jax.numpy as jnp
import jumanji
import numpy as np
from jumanji import specs

from pufferjax.envs.base import Env
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.suites.plain import plain_arguments
from pufferjax.envs.suites.spaces import Box, Discrete, MultiDiscrete

_LIMIT = 10_000  # steps, of episodes that jumanji does not limit
# Bounds that jumanji leaves out of the specifications of its observations.
_BOUNDS = {("Game2048", "board"): (0, 17)}


def names() -> tuple[str, ...]:
    return tuple(sorted(jumanji.registered_environments()))


def defaults(name: str) -> dict[str, Any]:
    env = _make(name)
    found = plain_arguments(type(env), env)
    return found if "time_limit" in found else {**found, "max_episode_steps": _limit(env)}


def build(name: str, params: dict[str, Any]) -> Env:
    params = dict(params)
    limit = params.pop("max_episode_steps", params.get("time_limit"))
    env = _make(name, **params)
    return from_gymnax(
        (_Masked if hasattr(env.observation_spec, "action_mask") else _Jumanji)(env, type(env).__name__),
        max_episode_steps=limit,
        time_field="step_count",
        keep_keys=False,
        auto_reset=False,
        store_observation=True,  # small
        name=f"jumanji:{name}",
    )


def _make(name: str, **params: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jumanji.make(name, **params)


def _limit(env: Any) -> int:
    found = getattr(env, "time_limit", None)
    return int(found) if isinstance(found, int) else _LIMIT


@dataclasses.dataclass(frozen=True, eq=False)
class _Jumanji:
    env: Any
    kind: str  # of environment: the name of its class

    @property
    def _is_joint(self) -> bool:
        """Whether the mask says which combinations of the components are valid."""
        spec = self.env.action_spec
        return isinstance(spec, specs.MultiDiscreteArray) and self._mask_shape == tuple(np.ravel(spec.num_values))

    @property
    def _mask_shape(self) -> tuple[int, ...] | None:
        spec = getattr(self.env.observation_spec, "action_mask", None)
        return None if spec is None else tuple(spec.shape)

    def action_space(self, params):
        spec = self.env.action_spec
        if isinstance(spec, specs.DiscreteArray):
            return Discrete(int(spec.num_values))
        if isinstance(spec, specs.MultiDiscreteArray):
            counts = np.asarray(spec.num_values)
            return Discrete(int(np.prod(counts))) if self._is_joint else MultiDiscrete(counts.ravel())
        if isinstance(spec, specs.BoundedArray):
            return Box(np.asarray(spec.minimum), np.asarray(spec.maximum), tuple(spec.shape), spec.dtype)
        raise ValueError(f"the actions of {self.kind} are {spec}, which no policy here can give")

    def observation_space(self, params):
        spec = self.env.observation_spec
        parts = {key: self._space(key, part) for key, part in _parts(spec).items()}
        return parts if len(parts) > 1 else next(iter(parts.values()))

    def _space(self, key, spec):
        bounds = _BOUNDS.get((self.kind, key), (getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)))
        return Box(np.min(bounds[0]), np.max(bounds[1]), tuple(spec.shape), spec.dtype)

    def _seen(self, timestep):
        spec = self.env.observation_spec
        seen = timestep.observation
        parts = {key: functools.reduce(getattr, filter(None, key.split(".")), seen) for key in _parts(spec)}
        return parts if len(parts) > 1 else next(iter(parts.values()))

    def _with_mask(self, state, timestep):
        if self._mask_shape is None:
            return state
        return state, timestep.observation.action_mask

    def reset(self, key, params):
        state, timestep = self.env.reset(key)
        return self._seen(timestep), self._with_mask(state, timestep)

    def step(self, key, state, action, params):
        spec = self.env.action_spec
        if self._is_joint:
            action = jnp.stack(jnp.unravel_index(action, tuple(np.ravel(spec.num_values))))
        action = jnp.reshape(action, spec.shape).astype(spec.dtype)
        state = state if self._mask_shape is None else state[0]
        state, timestep = self.env.step(state, action)
        ended = timestep.last()
        terminated = ended & (jnp.max(timestep.discount) == 0)
        obs, state = self._seen(timestep), self._with_mask(state, timestep)
        return obs, state, jnp.sum(timestep.reward), terminated, ended & ~terminated, {}


class _Masked(_Jumanji):
    """One whose observation says which actions are valid: its states come with that mask."""

    def action_mask(self, state):
        return state[1].ravel()


def _parts(spec: Any) -> dict[str, Any]:
    """The parts of an observation by name, but for the mask; "" if it is one array."""
    if isinstance(spec, specs.Array):
        return {"": spec}
    return {key: part for key, part in _flat("", spec) if key.rpartition(".")[2] != "action_mask"}


def _flat(prefix: str, spec: Any) -> list[tuple[str, Any]]:
    found = []
    for key, part in vars(spec)["_specs"].items():
        found += _flat(f"{prefix}{key}.", part) if not isinstance(part, specs.Array) else [(prefix + key, part)]
    return found
