"""The report: one JSON line for each item, on the disk as soon as it is known, and a table at the end."""

import os
import threading
from pathlib import Path
from typing import Any

from pufferjax.runs.json_text import json_text

STATUSES = ("ok", "failed", "missing", "skipped")


class Report:
    """Rows, appended to `path` (None: kept only here) one by one; several threads may add."""

    def __init__(self, path: Path | None):
        self.rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._file = None if path is None else open(path, "a", encoding="utf-8")  # noqa: SIM115

    def add(self, phase: str, item: str, status: str, **figures: Any) -> None:
        row = {"phase": phase, "item": item, "status": status, **figures}
        with self._lock:
            self.rows.append(row)
            if self._file is not None:
                self._file.write(json_text(row) + "\n")
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def count(self, status: str) -> int:
        return sum(row["status"] == status for row in self.rows)


def describe(rows: list[dict[str, Any]]) -> str:
    """The table: a line for each row, those of a phase together, and how many there are of each status."""
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    rows = sorted(rows, key=lambda row: phases.index(row["phase"]))
    wide = max((len(row["item"]) for row in rows), default=4)
    lines = [
        f"{row['phase']:<10} {row['status']:<7} {row['item']:<{wide}}  {_figures(row)}".rstrip() for row in rows
    ]  # fmt: skip
    counts = ", ".join(f"{sum(row['status'] == status for row in rows)} {status}" for status in STATUSES)
    return "\n".join([*lines, counts])


def _figures(row: dict[str, Any], width: int = 150) -> str:
    if "error" in row:
        return str(row["error"]).strip().replace("\n", " | ")[-width:]
    texts = (f"{name}={_short(x)}" for name, x in row.items() if name not in ("phase", "item", "status", "seconds"))
    return " ".join(texts)[:width]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return str(value)
