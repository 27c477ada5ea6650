"""Craftax and Craftax-Classic. An episode ends at death, in lava or, in Craftax, at the victory over the boss; one that
reaches `max_timesteps` before is truncated. Parameters are the numbers of Craftax's `EnvParams` and `StaticEnvParams`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name

from pufferjax.envs.base import Env
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.suites.plain import plain_fields

_NAMES = ("Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1", "Craftax-Symbolic-v1", "Craftax-Pixels-v1")


def names() -> tuple[str, ...]:
    return _NAMES


def defaults(name: str) -> dict[str, Any]:
    env = make_craftax_env_from_name(name, auto_reset=False)
    return {**plain_fields(env.static_env_params), **plain_fields(env.default_params)}


def build(name: str, params: dict[str, Any]) -> Env:
    env = make_craftax_env_from_name(name, auto_reset=False)
    static, default_params = env.static_env_params, env.default_params
    env = type(env)(static.replace(**{key: params[key] for key in plain_fields(static)}))
    craftax_params = default_params.replace(**{key: params[key] for key in plain_fields(default_params)})
    return from_gymnax(
        _Craftax(env),
        craftax_params,
        max_episode_steps=params["max_timesteps"],
        time_field="timestep",
        auto_reset=False,
        get_obs=env.get_obs,
        clock_moves=False,  # daylight
        name=f"craftax:{name}",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Craftax:
    """A Craftax environment that says why an episode ended."""

    env: Any

    def action_space(self, params):
        return self.env.action_space(params)

    def observation_space(self, params):
        return self.env.observation_space(params)

    def reset(self, key, params):
        return self.env.reset_env(key, params)

    def step(self, key, state, action, params):
        obs, state, reward, done, info = self.env.step_env(key, state, action, params)
        endless = params.replace(max_timesteps=jnp.iinfo(jnp.int32).max)
        terminated = self.env.is_terminal(state, endless)
        return obs, state, reward, terminated, done & ~terminated, info
