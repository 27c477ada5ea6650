"""One run directory, whatever state it is in: its settings, its figures, and what is wrong with it."""

import dataclasses
import json
import os
from typing import Any

from pufferjax.constellation import samples
from pufferjax.constellation.config_text import ConfigReader
from pufferjax.constellation.folders import Found, opened, opened_file, read_small
from pufferjax.runs.files import is_locked

_TAIL_LINES = 3  # in which the latest value of a figure is looked for
_MAX_BYTES = 1 << 20  # of config.toml and summary.json
_SUMMARY_TEXTS = ("stopped_by", "pufferjax", "jax", "machine")
_SUMMARY_FIGURES = ("evaluation", "train_seconds", "total_seconds")
FINISHED, LIVE, INTERRUPTED, BROKEN = "finished", "live", "interrupted", "broken"


@dataclasses.dataclass(frozen=True)
class OneRun:
    """What a run directory holds."""

    settings: list  # what the reader makes of each, and of what the summary says in words
    figures: dict[str, float]  # the last value of every figure, and those of the final evaluation
    has_summary: bool
    problem: str | None  # what cannot be read, and why


def read_run(found: Found, folder: int, reader: ConfigReader) -> OneRun:
    """Reads the ends of the files in an open folder. Raises nothing: what cannot be read is its `problem`."""
    if found.error is not None:
        return OneRun([], {}, False, found.error)
    problems: list[str] = []
    settings: list = []
    figures: dict[str, float] = {}
    has_summary = False
    _read("config.toml", problems, lambda: settings.extend(reader.read(_text(folder, "config.toml"))))
    if found.stamp[1] is not None:
        _read("metrics.jsonl", problems, lambda: figures.update(_last_figures(folder)))
    if found.stamp[2] is not None:
        summary: dict[str, Any] = {}
        has_summary = _read("summary.json", problems, lambda: summary.update(_summary(folder)))
        settings += [reader.make(x, summary[x]) for x in _SUMMARY_TEXTS if isinstance(summary.get(x), str)]
        figures |= samples.figures_of({x: summary[x] for x in _SUMMARY_FIGURES if x in summary})
    return OneRun(settings, figures, has_summary, "; ".join(problems) or None)


def status_of(folder: int, has_summary: bool, problem: str | None) -> str:
    """Whether the run in an open folder is finished, live (a process holds its lock), interrupted, or broken: something
    of it cannot be read."""
    if problem is not None:
        return BROKEN
    return FINISHED if has_summary else LIVE if is_locked(folder) else INTERRUPTED


def _read(name: str, problems: list[str], reading) -> bool:
    try:
        reading()
        return True
    except FileNotFoundError:
        problems.append(f"it has no {name}")
    except OSError as error:
        problems.append(f"{name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        problems.append(f"{name}: {' '.join(str(error).split())[:300]}")
    return False


def _text(folder: int, name: str) -> str:
    return read_small(folder, name, _MAX_BYTES).decode()


def _last_figures(folder: int) -> dict[str, float]:
    """The latest value of each figure, found in the last lines."""
    with opened_file(folder, "metrics.jsonl") as (descriptor, size):
        lines = samples.last_lines(descriptor, size, _TAIL_LINES)
    figures: dict[str, float] = {}
    unknown: list[bytes] | None = None  # how those that are null are written
    for line in lines:
        if unknown is not None and all(x in line for x in unknown):  # null there, too
            continue
        table = samples.table_of(line)
        if table is not None:
            figures = samples.figures_of(table) | figures
            unknown = [f'"{name}": null'.encode() for name, value in table.items() if value is None]
    if lines and unknown is None:
        raise ValueError("its last lines are no JSON objects")
    return figures


def _summary(folder: int) -> dict[str, Any]:
    summary = json.loads(_text(folder, "summary.json"))
    if not isinstance(summary, dict):
        raise ValueError("it is no JSON object")
    return summary


def curves(found: Found, count: int, per_group: int = 3) -> dict[str, list[float | None]]:
    """Its learning curves with at most `count` points each, by figure. OSError."""
    with opened(found) as folder, opened_file(folder, "metrics.jsonl") as (descriptor, size):
        return samples.curves_of(samples.spread_groups(descriptor, size, count, per_group))


def curve(found: Found, name: str, count: int) -> dict[str, list[float | None]]:
    """The curve of one figure, with `step` and `seconds` of its points; those without the figure left out. OSError."""
    with opened(found) as folder, opened_file(folder, "metrics.jsonl") as (descriptor, size):
        read = samples.some_of(("step", "wall_seconds", "episodes", name))
        groups = samples.spread_groups(descriptor, size, count, 3, read)
    points = [
        (samples.mean(x[-1:], "step"), samples.mean(x[-1:], "wall_seconds"), samples.rounded(samples.mean(x, name)))
        for x in groups
    ]
    points = [x for x in points if None not in x]
    return {"step": [x[0] for x in points], "seconds": [x[1] for x in points], "values": [x[2] for x in points]}


def last_record(found: Found) -> dict[str, float]:
    """Figures of its latest line alone. OSError."""
    with opened(found) as folder, opened_file(folder, "metrics.jsonl") as (descriptor, size):
        records = map(samples.record_of, samples.last_lines(descriptor, size))
        return next((x for x in records if x is not None), {})


def file_of(found: Found, name: str, limit: int) -> bytes:
    """A file in its folder. OSError, also if it has more than `limit` bytes."""
    with opened(found) as folder:
        return read_small(folder, os.path.basename(name), limit)
