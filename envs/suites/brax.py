"""brax. Parameters are the numbers and texts among the arguments of the class, and the `episode_length` of
`brax.envs.create`. brax's own autoreset, which repeats the first state of every environment, is not used."""

import warnings
from typing import Any

from brax import envs as brax_envs

from pufferjax.envs.base import Env
from pufferjax.envs.suites.physics import from_physics
from pufferjax.envs.suites.plain import plain_arguments

_NO_TASK = ("fast",)  # does nothing: a test of speed


def names() -> tuple[str, ...]:
    return tuple(sorted(name for name in brax_envs._envs if name not in _NO_TASK))


def defaults(name: str) -> dict[str, Any]:
    return {"episode_length": 1000, **plain_arguments(brax_envs._envs[name])}


def build(name: str, params: dict[str, Any]) -> Env:
    params = dict(params)
    episode_length = params.pop("episode_length")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that brax is no longer developed
        env = brax_envs.get_environment(name, **params)
    return from_physics(env, f"brax:{name}", episode_length)
