"""All runs under some folders, as a page gets them: the rows of a table, whole or what has changed since it last asked.

Ten thousand runs have a million values, so a row is JSON from the moment its run was read: settings are numbers of
distinct values, which `values` lists, and both settings and figures are in the order of a list of their names, which
only ever grows.
"""

import dataclasses
import itertools
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pufferjax.constellation import cache
from pufferjax.constellation.config_text import ConfigReader
from pufferjax.constellation.folders import Found, find_runs
from pufferjax.constellation.one_run import BROKEN, LIVE, OneRun, read_run, status_of

_json = json.JSONEncoder(separators=(",", ":")).encode
_SECONDS_BETWEEN = 1.0  # looking through the folders, at least, and
_PAUSES = 8  # times as long as looking through them takes


@dataclasses.dataclass
class _Entry:
    found: Found
    kept: cache.Kept
    status: str
    version: int


class _Numbers:
    """Numbers for distinct things, in the order in which they are met."""

    def __init__(self, items: Sequence = ()):
        self.items = list(items)
        self._numbers = {self._key(x): i for i, x in enumerate(self.items)}

    @staticmethod
    def _key(item: Any):
        return item if type(item) is str else (type(item), item)  # True == 1 == 1.0

    def of(self, item: Any) -> int:
        number = self._numbers.setdefault(self._key(item), len(self.items))
        if number == len(self.items):
            self.items.append(item)
        return number


class Collection:
    """The runs under `roots` (of `folders.roots_of`). Its methods may be called by several threads.

    use_cache: begin with what an earlier one has read, and leave that to a later one.
    """

    def __init__(self, roots: Sequence[str], *, use_cache: bool = True):
        self._roots = list(roots)
        self._labels = _labels(self._roots)
        self._cache_path = cache.cache_path(self._roots) if use_cache else None
        tables, self._cached = cache.load(self._cache_path) if use_cache else ({}, {})
        self._setting_names = _Numbers(tables.get("setting_names", ()))
        self._values = _Numbers(tables.get("values", ()))
        self._figure_names = _Numbers(tables.get("figure_names", ()))
        self._reader = ConfigReader(lambda name, value: (self._setting_names.of(name), self._values.of(value)))
        self._places: dict[tuple[str, ...], list[int]] = {}  # numbers of names, of all the figures of a run
        self._entries: dict[str, _Entry] = {}
        self._removed: dict[str, int] = {}
        self._boot, self._version = secrets.token_hex(4), 0
        self._lock = threading.Lock()
        self._next_look = 0.0

    def refresh(self) -> None:
        """Looks through the folders, if it has not just done so."""
        with self._lock:
            started = time.monotonic()
            if started < self._next_look:
                return
            num_read = self._look()
            seconds = time.monotonic() - started
            self._next_look = time.monotonic() + max(_SECONDS_BETWEEN, _PAUSES * seconds)
            if self._cache_path is not None and (num_read > len(self._entries) // 20 or self._version == 1):
                self._save()

    def close(self) -> None:
        """Keeps what was read for the next start."""
        with self._lock:
            if self._cache_path is not None and self._entries:
                self._save()

    def _save(self) -> None:
        tables = {
            "setting_names": self._setting_names.items,
            "values": self._values.items,
            "figure_names": self._figure_names.items,
        }
        cache.save(self._cache_path, tables, (entry.kept for entry in self._entries.values()))

    def _look(self) -> int:
        """How many runs had to be read."""
        version, num_read = self._version + 1, 0
        seen: dict[str, _Entry] = {}
        is_changed = False
        for found, folder in itertools.chain.from_iterable(map(find_runs, self._roots)):
            name, stamp = found.id, _stamp_text(found)
            before = self._entries.get(name)
            kept = before.kept if before else self._cached.get(name)
            if kept is None or kept.stamp != stamp or found.error is not None:
                run, num_read = read_run(found, folder, self._reader), num_read + 1
                kept = cache.Kept(name, stamp, self._body(run), run.has_summary, run.problem)
            elif before and before.status != LIVE:
                seen[name] = before  # nothing about it can have changed
                continue
            status = status_of(folder, kept.has_summary, kept.problem)
            if before and before.kept == kept and before.status == status:
                seen[name] = before
                continue
            seen[name], is_changed = _Entry(found, kept, status, version), True
            self._removed.pop(name, None)
        for name in self._entries.keys() - seen.keys():
            self._removed[name], is_changed = version, True
        self._entries, self._cached = seen, {}
        if is_changed or not self._version:
            self._version = version
        return num_read

    def _body(self, run: OneRun) -> str:
        """`[numbers of the values], [figures]`, each in the order of the list of names."""
        names = tuple(run.figures)
        places = self._places.get(names)
        if places is None:
            places = self._places[names] = [self._figure_names.of(name) for name in names]
        settings = _arranged(run.settings, -1)
        figures = _arranged(zip(places, run.figures.values(), strict=True), None)
        return f"{_json(settings)},{_json(figures)}"

    def changes(self, since: str = "") -> str:
        """JSON: the rows that have changed since the `version` that it gave before, or all, and which runs are gone.

        {version, is_all, setting_names, values, figure_names, folders, removed: [id], rows: [[id, number of its folder
        in folders, name, status, problem or null, [settings], [figures]]]}
        """
        with self._lock:
            boot, _, number = since.partition(".")
            is_all = boot != self._boot or not number.isdecimal()
            after = -1 if is_all else int(number)
            folders = _Numbers()
            rows = []
            for entry in self._entries.values():
                if entry.version > after:
                    folder, name = self._place(entry.found)
                    head = json.dumps([entry.kept.id, folders.of(folder), name, entry.status, entry.kept.problem])
                    rows.append(f"{head[:-1]},{entry.kept.body}]")
            has_rows = bool(rows) or is_all
            facts = {
                "version": f"{self._boot}.{self._version}",
                "is_all": is_all,
                "setting_names": self._setting_names.items if has_rows else [],
                "values": self._values.items if has_rows else [],
                "figure_names": self._figure_names.items if has_rows else [],
                "folders": folders.items,
                "removed": [] if is_all else [x for x, version in self._removed.items() if version > after],
            }
            return f'{json.dumps(facts)[:-1]}, "rows": [{",".join(rows)}]}}'

    def find(self, name: str) -> Found | None:
        """The run of an id."""
        with self._lock:
            entry = self._entries.get(name)
            return entry and entry.found

    def status(self, name: str) -> tuple[str, str | None]:
        """(status, problem) of a run of `find`, as it was last seen."""
        with self._lock:
            entry = self._entries.get(name)
            return (entry.status, entry.kept.problem) if entry else (BROKEN, "it is gone")

    def ids(self) -> list[str]:
        with self._lock:
            return list(self._entries)

    def place(self, found: Found) -> tuple[str, str]:
        """(the folder above a run, from the given one on; its name)."""
        return self._place(found)

    def _place(self, found: Found) -> tuple[str, str]:
        label = self._labels[found.root]
        if not found.parts:
            return os.path.basename(os.path.dirname(found.root)) or "/", label
        return "/".join((label, *found.parts[:-1])), found.parts[-1]


def _arranged(pairs: Iterable[tuple[int, Any]], missing: Any) -> list:
    """Values at their numbers."""
    items: list = []
    for number, value in pairs:
        if number == len(items):
            items.append(value)
        else:
            if number > len(items):
                items.extend([missing] * (number + 1 - len(items)))
            items[number] = value
    return items


def _stamp_text(found: Found) -> str:
    return ",".join("-" if x is None else f"{x[0]}:{x[1]}" for x in found.stamp)


def _labels(roots: Sequence[str]) -> dict[str, str]:
    """What to call each folder: its name, or as much of its path as tells it from another of that name."""
    labels = {}
    for root in roots:
        parts = root.strip("/").split("/")
        length = 1
        while length < len(parts) and any(
            x != root and x.strip("/").split("/")[-length:] == parts[-length:] for x in roots
        ):
            length += 1
        labels[root] = "/".join(parts[-length:]) or "/"
    return labels
