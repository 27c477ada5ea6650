"""MuJoCo Playground. Parameters are the numbers and texts in the default configuration of an environment; physics runs
in JAX (`impl`), not in Warp, which needs an Nvidia GPU. Robots of locomotion and manipulation are downloaded by the
package when one of them is first made."""

from typing import Any

from mujoco_playground import registry

from pufferjax.envs.base import Env
from pufferjax.envs.suites.physics import from_physics
from pufferjax.envs.suites.plain import plain

_NOT_OF_THE_TASK = ("action_repeat", "vision")  # of its training wrappers, and of a renderer on GPUs


def names() -> tuple[str, ...]:
    return tuple(registry.ALL_ENVS)


def defaults(name: str) -> dict[str, Any]:
    found = {key: plain(value) for key, value in registry.get_default_config(name).items()}
    found = {key: value for key, value in found.items() if value is not None and key not in _NOT_OF_THE_TASK}
    return {**found, "impl": "jax"}


def build(name: str, params: dict[str, Any]) -> Env:
    config = registry.get_default_config(name)
    known = {key: value for key, value in params.items() if key in config}
    env = registry.load(name, config_overrides=known)
    return from_physics(env, f"playground:{name}", params["episode_length"])
