"""JSON that every reader takes: JSON has no word for NaN and infinity, though Python's writer would write them."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; a number that is not finite is null."""
    return json.dumps(_replaced(value, lambda x: None), indent=indent, allow_nan=False)


def spelled(value: Any) -> Any:
    """`value` as JSON can hold it without a loss: a number that is not finite as the string from which `float` makes
    it again."""
    return _replaced(value, str)


def _replaced(value: Any, by: Callable[[float], Any]) -> Any:
    """`value`, of mappings, sequences and scalars, with `by(x)` for each number x that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return by(float(value))
    if isinstance(value, Mapping):
        return {name: _replaced(x, by) for name, x in value.items()}
    return [_replaced(x, by) for x in value] if isinstance(value, (list, tuple)) else value
