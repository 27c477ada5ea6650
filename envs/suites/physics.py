"""Environments whose state is a physics state with its observation, reward and end in one: what brax and MuJoCo
Playground share."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.envs.base import Env
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.rows import is_key
from pufferjax.envs.suites.spaces import Box


def from_physics(env: Any, name: str, episode_length: int) -> Env:
    """The environment behind `reset(key) -> state`, `step(state, action) -> state`.

    A row holds the whole of that state. Every restart is a new draw of the first one; an episode that reaches
    episode_length is cut there.
    """
    return from_gymnax(
        _Physics(env, jax.eval_shape(env.reset, jax.random.key(0))),
        max_episode_steps=episode_length,
        time_field=None,
        auto_reset=False,
        get_obs=lambda state: _seen(state.obs),
        clock_moves=True,
        name=name,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Physics:
    env: Any
    shapes: Any  # of a state

    def action_space(self, params):
        return Box(-1.0, 1.0, (self.env.action_size,), jnp.float32)

    def reset(self, key, params):
        state = self.env.reset(key)
        return _seen(state.obs), state

    def step(self, key, state, action, params):
        after = self.env.step(state, action)
        # What wrappers of the package add to `info` or a step computes in another type than the reset is none of ours.
        after = after.replace(info={key: after.info[key] for key in self.shapes.info})
        after = jax.tree.map(
            lambda x, like: x if is_key(like.dtype) else jnp.asarray(x, like.dtype), after, self.shapes
        )
        return _seen(after.obs), after, after.reward, after.done > 0, jnp.bool_(False), {}


def _seen(obs: Any) -> Any:
    """What the policy sees: beside it some environments give a critic what it may know more."""
    return obs["state"] if isinstance(obs, dict) and "state" in obs else obs
