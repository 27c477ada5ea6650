"""Environments of other packages, by name: `envs.make("gymnax:CartPole-v1")`. No package is imported before it is asked
for by the name of its suite.

A suite is one module here with three functions:

- `names() -> tuple[str, ...]`: its environments
- `defaults(name) -> dict[str, bool | int | float | str]`: what can be said about one of them, as it is by default
- `build(name, params) -> Env`: that environment, with a value for each of these
"""

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pufferjax.envs.base import Env


@dataclasses.dataclass(frozen=True)
class Suite:
    """A package with environments; the extra that installs it has the name of the suite."""

    package: str  # what is imported
    about: str
    python: tuple[int, int] = (3, 11)  # the oldest that the versions we need run on


SUITES = {
    "gymnax": Suite("gymnax", "classic control, bsuite, MinAtar"),
    "craftax": Suite("craftax", "Craftax and Craftax-Classic"),
    "brax": Suite("brax", "continuous control, physics in JAX"),
    "playground": Suite("mujoco_playground", "MuJoCo Playground: DeepMind Control, locomotion, manipulation"),
    "navix": Suite("navix", "MiniGrid in JAX", python=(3, 12)),
    "xland": Suite("xminigrid", "XLand-MiniGrid and MiniGrid"),
    "jumanji": Suite("jumanji", "combinatorial problems and games"),
}


def is_suite_name(name: Any) -> bool:
    """Whether `name` is SUITE:NAME with a suite there is; not whether the suite has such an environment."""
    return isinstance(name, str) and name.partition(":")[0] in SUITES and ":" in name


def is_installed(suite: str) -> bool:
    """Whether the package of a suite is there, without importing it."""
    return SUITES[suite].package in sys.modules or importlib.util.find_spec(SUITES[suite].package) is not None


def environment_names(suite: str) -> tuple[str, ...]:
    """The names after the colon. ValueError, saying what to install, if the package is missing."""
    return _adapter(suite).names()


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """The keyword arguments of `make(name, ...)` with their types and defaults. ValueError for an unknown name or a
    package that is not installed."""
    suite, environment = _split(name)
    with _quiet():
        defaults = _adapter(suite).defaults(environment)
    kind = inspect.Parameter.KEYWORD_ONLY
    return {key: inspect.Parameter(key, kind, default=value, annotation=type(value)) for key, value in defaults.items()}


def make(name: str, **params: Any) -> Env:
    """The environment `name`, SUITE:NAME, with `params` in place of its own defaults.

    Raises ValueError for an unknown name or parameter, or a package that is not installed, TypeError for a value of the
    wrong type.
    """
    suite, environment = _split(name)
    values = {key: parameter.default for key, parameter in parameters(name).items()}
    for key, value in params.items():
        if key not in values:
            valid = ", ".join(values) or "none"
            raise ValueError(f"envs.make: {name} has no argument {key!r}; valid are {valid}")
        values[key] = _of_type(name, key, value, type(values[key]))
    with _quiet():
        env = _adapter(suite).build(environment, values)
    return dataclasses.replace(env, spec=dataclasses.replace(env.spec, name=name), params=values)


def _split(name: str) -> tuple[str, str]:
    """(suite, environment), both there."""
    suite, _, environment = name.partition(":")
    valid = environment_names(suite)
    if environment not in valid:
        close = difflib.get_close_matches(environment, valid, n=5, cutoff=0.5)
        shown = f"close to it are {', '.join(close)}" if close and len(valid) > 12 else f"valid are {', '.join(valid)}"
        raise ValueError(f"{suite} has no environment {environment!r}; {shown} (pufferjax envs {suite}: lists them)")
    return suite, environment


def _adapter(suite: str) -> ModuleType:
    found = SUITES[suite]
    if sys.version_info < found.python:
        needed = ".".join(map(str, found.python))
        here = ".".join(map(str, sys.version_info[:2]))
        raise ValueError(f"the environments of {suite} need Python {needed} or newer, this is {here}")
    try:
        with _quiet():
            return importlib.import_module(f"pufferjax.envs.suites.{suite}")
    except ModuleNotFoundError as error:
        because = "" if error.name == found.package else f" ({error})"
        raise ValueError(
            f"the environments of {suite} need its package{because}: pip install 'pufferjax[{suite}]'"
        ) from None
    except Exception as error:  # whatever a package raises that does not go with the others here
        raise ValueError(f"the package of {suite} cannot be imported: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a package prints of itself goes to stderr: stdout is for what a command was asked for."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _of_type(name: str, key: str, value: Any, kind: type) -> Any:
    """`value` as the type of the default; an integer is a float too."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        kinds = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}
        raise TypeError(f"envs.make: {key} of {name} must be {kinds[kind]}, got {value!r}")
    return value
