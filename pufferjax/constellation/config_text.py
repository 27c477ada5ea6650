"""The settings in the text of a config.toml, by their names as flags.

tomllib takes about a millisecond for a run's; of ten thousand runs most lines have been read before. A line that is a
whole `key = value` is therefore read once; a text that has other lines is left to tomllib as a whole.
"""

import functools
import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

_SECTION = re.compile(r"\[([A-Za-z0-9_-]+)\]")
_PAIR = re.compile(r"([A-Za-z0-9_-]+) *= *(.+)")


def settings_in(text: str) -> dict[str, Any]:
    """Each setting's name as a flag (`seed`, `env.size`, `ppo.gamma`; the environment's name is `environment`) and its
    value: str, bool, int or finite float; of any other the text. ValueError if it is no TOML or not that of a run."""
    flat = _by_lines(text)
    if flat is None:
        flat = _flat(tomllib.loads(text))
    name = flat.get("run.env")
    if not isinstance(name, str):
        raise ValueError("it is not the configuration of a run: [run] names no env")
    return {("environment" if x == "run.env" else x.removeprefix("run.")): value for x, value in flat.items()}


def _by_lines(text: str) -> dict[str, Any] | None:
    """None: this text takes more than reading lines."""
    flat: dict[str, Any] = {}
    sections, prefix = set(), ""
    for line in text.split("\n"):
        if not line or line.isspace() or line[0] == "#":
            continue
        if line[0] == "[":
            section = _SECTION.fullmatch(line.rstrip())
            if section is None or section[1] in sections:
                return None
            sections.add(section[1])
            prefix = section[1] + "."
            continue
        pair = _pair(line)
        if pair is None or prefix + pair[0] in flat or (not prefix and pair[0] in sections):
            return None
        flat[prefix + pair[0]] = pair[1]
    return None if sections & flat.keys() else flat


@functools.lru_cache(maxsize=100_000)
def _pair(line: str) -> tuple[str, Any] | None:
    """(key, value) of a line that is TOML by itself. No line within a string of several lines is taken for one: the
    line where that begins is not."""
    match = _PAIR.match(line)
    if match is None:
        return None
    try:
        ((key, value),) = tomllib.loads(line).items()
    except (ValueError, RecursionError):
        return None
    return None if isinstance(value, Mapping) else (key, _plain(value))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, default=str)
