"""What of another package's parameters config.toml can hold: single numbers, truth values and texts."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

Plain = bool | int | float | str


def plain(value: Any, annotation: Any = None) -> Plain | None:
    """`value` as Python's own number, truth value or text; None if it is something else. A whole number that is
    annotated as a float is one."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float | np.generic) and getattr(value, "ndim", None) != 0:
        return None
    if isinstance(value, np.generic) or hasattr(value, "dtype"):
        value = np.asarray(value).item()
    if isinstance(value, int) and not isinstance(value, bool) and annotation in (float, "float"):
        return float(value)
    return value if isinstance(value, bool | int | float) else None


def plain_fields(params: Any) -> dict[str, Plain]:
    """Those of a dataclass, in its order."""
    found = {}
    for field in dataclasses.fields(params):
        value = plain(getattr(params, field.name), field.type)
        if value is not None:
            found[field.name] = value
    return found


def plain_arguments(function: Callable[..., Any], made: Any = None) -> dict[str, Plain]:
    """Keyword arguments with their defaults. An argument without one that is plain, say None, has the value of the
    attribute of the same name of `made`, which `function` made, if that is plain."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            continue
        value = None if parameter.default is parameter.empty else plain(parameter.default, parameter.annotation)
        if value is None and made is not None and parameter.default is None:
            value = plain(getattr(made, name, None), parameter.annotation)
        if value is not None:
            found[name] = value
    return found
