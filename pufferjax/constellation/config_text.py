"""The settings in the text of a config.toml, by their names as flags.

tomllib takes a millisecond or more for a run's; of ten thousand runs most lines have been read before, and most others
are a key and a number. A line that is a whole `key = value` is therefore read once, in the plainest way that does; a
text that has other lines is left to tomllib as a whole.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

_SECTION = re.compile(r"\[([A-Za-z0-9_-]+)\]\s*")
_PAIR = re.compile(r"([A-Za-z0-9_-]+) *= *(.+)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MAX_KNOWN = 200_000

T = TypeVar("T")


class _Entry(NamedTuple):
    name: str  # as a flag; "" of a line that says nothing
    value: Any
    made: Any  # what `make` made of both


_NOTHING = _Entry("", None, None)


class ConfigReader(Generic[T]):
    """Reads many configurations. `make(name, value)` is called once for each distinct line, and its results returned:
    values are str, bool, int or finite float, and the text of any other."""

    def __init__(self, make: Callable[[str, Any], T]):
        self.make = make
        self._known: dict[tuple[str, str], _Entry] = {}

    def read(self, text: str) -> list[T]:
        """Of every setting of a run (`seed`, `env.size`, `ppo.gamma`; the environment's name is `environment`).
        ValueError if the text is no TOML or not a run's."""
        entries = self._by_lines(text)
        if entries is None:
            entries = [self._entry(name, value) for name, value in _flat(tomllib.loads(text))]
        if not any(name == "environment" and isinstance(value, str) for name, value, _ in entries):
            raise ValueError("it is not the configuration of a run: [run] names no env")
        return [entry.made for entry in entries]

    def _by_lines(self, text: str) -> list[_Entry] | None:
        """None: this text takes more than reading lines."""
        entries: list[_Entry] = []
        sections, prefix, num_top = set(), "", 0
        known = self._known
        for line in text.split("\n"):
            if not line:
                continue
            if line[0] == "[":
                section = _SECTION.fullmatch(line)
                if section is None or section[1] in sections:
                    return None
                if not sections:
                    num_top = len(entries)
                sections.add(section[1])
                prefix = section[1] + "."
                continue
            entry = known.get((prefix, line)) or self._learn(prefix, line)
            if entry is None:
                return None
            if entry is not _NOTHING:
                entries.append(entry)
        names = {entry.name for entry in entries}
        is_plain = len(names) == len(entries) and not any(entry.name in sections for entry in entries[:num_top])
        return entries if is_plain else None

    def _learn(self, prefix: str, line: str) -> _Entry | None:
        """None: not TOML by itself. No line within a string of several lines is taken for one: the line where that
        begins is not."""
        if line.isspace() or line[0] == "#":
            entry = _NOTHING
        else:
            pair = _pair(line)
            if pair is None:
                return None
            entry = self._entry(prefix + pair[0], pair[1])
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[prefix, line] = entry
        return entry

    def _entry(self, name: str, value: Any) -> _Entry:
        name = "environment" if name == "run.env" else name.removeprefix("run.")
        return _Entry(name, value, self.make(name, value))


def _pair(line: str) -> tuple[str, Any] | None:
    match = _PAIR.fullmatch(line)
    if match is None:
        return None
    number = _NUMBER.fullmatch(match[2])
    if number is not None and len(match[2]) < 300:
        is_float = number[1] is not None or number[2] is not None
        return match[1], _plain(float(match[2]) if is_float else int(match[2]))
    try:
        ((key, value),) = tomllib.loads(line).items()
    except (ValueError, RecursionError):
        return None
    return None if isinstance(value, Mapping) else (key, _plain(value))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return json.dumps(value, default=str)
