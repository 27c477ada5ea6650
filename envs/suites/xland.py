"""XLand-MiniGrid and its MiniGrid tasks. Parameters are the numbers of the package's `EnvParams`. A task of
XLand-MiniGrid has the rule set that its `default_params` come with.

The state's own key is used for nothing but the package's autoreset, which is not used here: rows do not hold it.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import xminigrid
from xminigrid.core.constants import NUM_COLORS, NUM_TILES
from xminigrid.types import StepType, TimeStep

from pufferjax.envs.base import Env
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.suites.plain import plain_fields
from pufferjax.envs.suites.spaces import Box, Discrete

_NOT_OF_THE_TASK = ("render_mode",)


def names() -> tuple[str, ...]:
    return tuple(xminigrid.registered_environments())


def defaults(name: str) -> dict[str, Any]:
    _, params = xminigrid.make(name)
    return {key: value for key, value in plain_fields(params).items() if key not in _NOT_OF_THE_TASK}


def build(name: str, params: dict[str, Any]) -> Env:
    env, xland_params = xminigrid.make(name, **params)
    return from_gymnax(
        _XLand(env),
        xland_params,
        max_episode_steps=params["max_steps"],
        # A reward is what is left of 1 for reaching the goal: an episode with one is solved.
        perf=lambda episode_return: episode_return > 0,
        time_field="step_num",
        keep_keys=False,
        auto_reset=False,
        store_observation=True,  # small
        clock_moves=True,
        name=f"xland:{name}",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _XLand:
    env: Any

    def action_space(self, params):
        return Discrete(self.env.num_actions(params))

    def observation_space(self, params):
        shape = self.env.observation_shape(params)
        return Box(0, max(NUM_TILES, NUM_COLORS) - 1, tuple(shape), jnp.uint8)

    def reset(self, key, params):
        timestep = self.env.reset(params, key)
        return timestep.observation, timestep.state

    def step(self, key, state, action, params):
        timestep = self.env.step(params, self._at(state), action)
        ended = timestep.last()
        terminated = ended & (timestep.discount == 0)
        return timestep.observation, timestep.state, timestep.reward, terminated, ended & ~terminated, {}

    def render(self, state, params):
        return self.env.render(params, self._at(state))

    def _at(self, state):
        """A time step with this state: of the rest nothing is read."""
        return TimeStep(
            state=state, step_type=StepType.MID, reward=jnp.float32(0), discount=jnp.float32(1), observation=None
        )
