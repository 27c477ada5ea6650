"""NAVIX: MiniGrid in JAX. Parameters are the numbers among the fields of its `Environment`; `observation` names one of
the functions in `navix.observations`.

The sprites in the state, which are the same in every state, are not part of a row. The state's key is a stream: every
step splits it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import navix

from pufferjax.envs.base import Env
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.suites.plain import plain_fields
from pufferjax.envs.suites.spaces import Box, Discrete

_OBSERVATIONS = (
    "categorical",
    "categorical_first_person",
    "symbolic",
    "symbolic_first_person",
    "rgb",
    "rgb_first_person",
)
_FIXED = ("height", "width", "disable_autoreset")  # the first two belong to the name


def names() -> tuple[str, ...]:
    return tuple(navix.registry())


def defaults(name: str) -> dict[str, Any]:
    env = navix.make(name)
    fields = {key: value for key, value in plain_fields(env).items() if key not in _FIXED}
    return {**fields, "observation": env.observation_fn.__name__}


def build(name: str, params: dict[str, Any]) -> Env:
    params = dict(params)
    observation = params.pop("observation")
    if observation not in _OBSERVATIONS:
        raise ValueError(f"observation of navix:{name} must be one of {', '.join(_OBSERVATIONS)}, got {observation!r}")
    env = navix.make(name, observation_fn=getattr(navix.observations, observation)).replace(**params)
    sprites = jax.device_get(env.reset(jax.random.key(0)).state.cache)
    return from_gymnax(
        _Navix(env, sprites),
        max_episode_steps=env.max_steps,
        perf=lambda episode_return: jnp.clip(episode_return, 0, 1),
        auto_reset=False,
        store_observation=True,  # small
        clock_moves=True,
        name=f"navix:{name}",
    )


class _State(NamedTuple):
    time: Any  # i32[], steps of the episode
    state: Any  # NAVIX's, without the sprites


@dataclasses.dataclass(frozen=True, eq=False)
class _Navix:
    env: Any
    sprites: Any

    def action_space(self, params):
        return Discrete(int(self.env.action_space.maximum) + 1)

    def observation_space(self, params):
        space = self.env.observation_space
        return Box(int(jnp.min(space.minimum)), int(jnp.max(space.maximum)), tuple(space.shape), space.dtype)

    def reset(self, key, params):
        timestep = self.env.reset(key, jax.tree.map(jnp.asarray, self.sprites))
        return timestep.observation, _State(timestep.t, timestep.state.replace(cache=None))

    def step(self, key, state, action, params):
        before = navix.environments.Timestep(
            t=state.time,
            observation=None,
            action=jnp.int32(0),
            reward=jnp.float32(0),
            step_type=jnp.int32(0),
            state=state.state.replace(cache=jax.tree.map(jnp.asarray, self.sprites)),
            info={"return": jnp.float32(0)},
        )
        after = self.env._step(before, action)
        state = _State(after.t, after.state.replace(cache=None))
        return after.observation, state, after.reward, after.is_termination(), after.is_truncation(), {}

    def render(self, state, params):
        return navix.observations.rgb(state.state.replace(cache=jax.tree.map(jnp.asarray, self.sprites)))
