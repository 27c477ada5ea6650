"""Simulators with settable state, under one contract (`pufferjax.envs.base`)."""

import dataclasses as _dataclasses
import functools as _functools
import inspect as _inspect
from collections.abc import Callable as _Callable
from typing import Any

from pufferjax.envs import suites
from pufferjax.envs.base import EntityLayout, Env, EnvSpec, ObservationPart
from pufferjax.envs.boxoban.boxoban import make_boxoban
from pufferjax.envs.breakout.breakout import make_breakout
from pufferjax.envs.chain_mdp.chain_mdp import make_chain_mdp
from pufferjax.envs.check import EnvCheckError, check_env
from pufferjax.envs.four_rooms.four_rooms import make_four_rooms
from pufferjax.envs.g2048.g2048 import make_g2048
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.gymnax_view import as_gymnax
from pufferjax.envs.maze.maze import make_maze
from pufferjax.envs.minigrid.minigrid import make_minigrid
from pufferjax.envs.minimal.minimal import make_minimal
from pufferjax.envs.password.password import make_password

_FACTORIES = {
    "maze": make_maze,
    "boxoban": make_boxoban,
    "breakout": make_breakout,
    "chain_mdp": make_chain_mdp,
    "four_rooms": make_four_rooms,
    "g2048": make_g2048,
    "minigrid": make_minigrid,
    "minimal": make_minimal,
    "password": make_password,
}


def names() -> tuple[str, ...]:
    """Names `make` accepts, but for those of suites: `pufferjax.envs.suites.environment_names` lists them."""
    return tuple(_FACTORIES)


def is_known(name: Any) -> bool:
    """Whether `make` knows the name: one of `names`, or SUITE:NAME of a suite there is, installed or not."""
    return isinstance(name, str) and (name in _FACTORIES or suites.is_suite_name(name))


def parameters(name: str) -> dict[str, _inspect.Parameter]:
    """The keyword arguments of `make(name, ...)` with their types and defaults. ValueError for an unknown name, or of a
    suite that is not installed."""
    if not is_known(name):
        valid = f"{', '.join(_FACTORIES)}, or SUITE:NAME with a SUITE of {', '.join(suites.SUITES)}"
        raise ValueError(f"envs.make: name must be one of {valid}, got {name!r}")
    if name not in _FACTORIES:
        return suites.parameters(name)
    return dict(_inspect.signature(_FACTORIES[name]).parameters)


def meanings(name: str) -> dict[str, str]:
    """What each keyword argument of `make(name, ...)` means, as the docstring of its factory says under "Args:"; an
    argument it does not mention is missing. ValueError for an unknown name."""
    known = parameters(name)
    if name not in _FACTORIES:
        return {argument: f"Parameter of {name}, as its package has it." for argument in known}
    _, _, section = (_inspect.getdoc(_FACTORIES[name]) or "").partition("Args:\n")
    found: dict[str, list[str]] = {}
    for line in section.split("\n\n")[0].splitlines():
        if line[:2] == "  " and line[2:3] != " ":
            argument, _, text = line.strip().partition(": ")
            found[argument] = [text]
        elif found:
            found[argument].append(line.strip())
    return {argument: " ".join(lines) for argument, lines in found.items()}


def make(name: str, **params: Any) -> Env:
    """The environment `name`, say `make("maze", size=35, num_mazes=8192, seed=42)` or, of a suite that is installed,
    `make("gymnax:CartPole-v1", gravity=5.0)`.

    Raises ValueError naming the bad argument and what is valid; TypeError for a value of the wrong type.
    """
    known = parameters(name)
    if name not in _FACTORIES:
        return suites.make(name, **params)
    for argument in params:
        if argument not in known:
            raise ValueError(f"envs.make: {name} has no argument {argument!r}; valid are {', '.join(known)}")
    return _FACTORIES[name](**params)


def register(name: str, factory: _Callable[..., Env]) -> None:
    """Lets `make` know an environment of your own, and with it all that reads run directories, in this process.

    factory: makes it from keyword arguments that all have defaults and that TOML can hold; `spec.name` and `params` of
    what it returns become `name` and these arguments.

    Raises ValueError for a name that is taken or a parameter without a default.
    """
    if not isinstance(name, str) or not name or name in _FACTORIES or suites.is_suite_name(name):
        taken = f"{', '.join(_FACTORIES)} and SUITE:NAME of a suite"
        raise ValueError(f"envs.register: name must be a text other than {taken}, got {name!r}")
    known = _inspect.signature(factory).parameters
    for parameter in known.values():
        is_keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if not is_keyword or parameter.default is parameter.empty:
            raise ValueError(f"envs.register: the parameter {parameter} of {name} must have a name and a default")
    defaults = {argument: parameter.default for argument, parameter in known.items()}

    @_functools.wraps(factory)
    def make_registered(**params: Any) -> Env:
        env = factory(**params)
        spec = _dataclasses.replace(env.spec, name=name)
        return _dataclasses.replace(env, spec=spec, params={**defaults, **params})

    _FACTORIES[name] = make_registered


__all__ = [
    "EntityLayout",
    "Env",
    "EnvCheckError",
    "EnvSpec",
    "ObservationPart",
    "as_gymnax",
    "check_env",
    "from_gymnax",
    "is_known",
    "make",
    "meanings",
    "names",
    "parameters",
    "register",
    "suites",
]
