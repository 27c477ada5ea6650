"""Some of the lines of a metrics.jsonl, evenly spaced, without reading the others: a long run has megabytes of them.

A line is a record if it is a JSON object; of a record, figures are what is a finite number, those of an object in it
under `name.key`. All else is passed over.
"""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

EPISODE_MEANS = frozenset({"perf", "score", "episode_return", "episode_length"})  # means over `episodes` each
_TAIL = 8 * 1024
_CHUNK = 4 * 1024  # holds two or three lines
_LONGEST_LINE = 256 * 1024
_WHOLE = 256 * 1024  # a file of so many bytes is read as a whole

Record = dict[str, float]


def record_of(line: bytes) -> Record | None:
    """The figures of a line, None if it is no JSON object."""
    table = table_of(line)
    return None if table is None else figures_of(table)


def table_of(line: bytes) -> dict[str, Any] | None:
    """What a line holds, None if it is no JSON object."""
    try:
        table = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def some_of(names: Sequence[str]) -> Callable[[bytes], Record | None]:
    """`record_of` that makes records of these figures alone, many times as quickly where a line is plain."""
    keys = [(name, json.dumps(name).encode() + b": ") for name in names]

    def some(line: bytes) -> Record | None:
        # In one object without an escape nothing but a key looks like one, if all are written as json.dumps does.
        is_object = line[:1] == b"{" and line[-1:] == b"}" and line.count(b"{") == 1
        if not is_object or b"\\" in line or line.count(b'":') != line.count(b'": '):
            record = record_of(line)
            return None if record is None else {name: record[name] for name in names if name in record}
        record = {}
        for name, key in keys:
            start = line.find(key)
            if start >= 0:
                start += len(key)
                end = line.find(b",", start)
                with contextlib.suppress(ValueError):  # null, or no number
                    value = float(line[start:end])
                    if math.isfinite(value):
                        record[name] = value
        return record

    return some


def figures_of(table: Mapping[str, Any]) -> Record:
    figures: Record = {}
    for name, value in table.items():
        kind = type(value)
        if kind is float or kind is int:
            if -1e308 < value < 1e308:  # as no NaN is, nor an integer that no float can hold
                figures[name] = value
        elif kind is dict:
            figures |= {f"{name}.{key}": x for key, x in figures_of(value).items() if "." not in key}
    return figures


def last_lines(descriptor: int, size: int, count: int = 6) -> list[bytes]:
    """The last whole lines, the latest first. What follows the last newline is being written, or was cut off."""
    length = _TAIL
    while True:
        start = max(size - length, 0)
        lines = os.pread(descriptor, size - start, start).split(b"\n")
        whole = lines[:-1] if start == 0 else lines[1:-1]
        if whole or start == 0 or length >= _LONGEST_LINE:
            return whole[: -count - 1 : -1]
        length *= 8


def spread_groups(
    descriptor: int, size: int, count: int, per_group: int, read: Callable[[bytes], Record | None] = record_of
) -> list[list[Record]]:
    """At most `count` groups of neighbouring records, evenly spaced from the first to the last one.

    Of a short file all records, in equal groups; of a long one up to `per_group` records each. read: `record_of`, or
    what `some_of` returns.
    """
    if size <= _WHOLE:
        records = [x for x in map(read, os.pread(descriptor, size, 0).split(b"\n")[:-1]) if x is not None]
        if len(records) <= count:
            return [[x] for x in records]
        bounds = [round(i * len(records) / count) for i in range(count + 1)]
        return [records[a:b] for a, b in itertools.pairwise(bounds)]
    groups, last_start = [], -1
    for index in range(count - 1):
        start, lines = _lines_from(descriptor, size, round(index * (size - _CHUNK) / max(count - 1, 1)))
        if start <= last_start:
            continue
        last_start = start
        records = [x for x in map(read, lines[:per_group]) if x is not None]
        if records:
            groups.append(records)
    records = [x for x in map(read, last_lines(descriptor, size, per_group)[::-1]) if x is not None]
    return [*groups, records] if records else groups


def _lines_from(descriptor: int, size: int, offset: int) -> tuple[int, list[bytes]]:
    """(where the first one begins, the whole lines in the chunk behind `offset`)."""
    chunk = os.pread(descriptor, min(_CHUNK, size - offset), offset)
    lines = chunk.split(b"\n")
    if offset == 0:
        return 0, lines[:-1]
    return offset + len(lines[0]) + 1, lines[1:-1]


def mean(group: Sequence[Record], name: str) -> float | None:
    """Of a figure over the records of a group that have it; a mean over episodes counts by their number."""
    total = weights = 0.0
    for record in group:
        value = record.get(name)
        if value is not None:
            weight = record.get("episodes", 1) if name in EPISODE_MEANS else 1
            total, weights = total + weight * value, weights + weight
    return total / weights if weights > 0 and math.isfinite(total) else None


def curves_of(groups: Sequence[Sequence[Record]]) -> dict[str, list[float | None]]:
    """Every figure of the records as a curve with a point for each group."""
    names = dict.fromkeys(name for group in groups for record in group for name in record)
    return {name: [rounded(mean(group, name)) for group in groups] for name in names}


def rounded(x: float | None) -> float | None:
    """To six digits, which is more than a picture shows; a whole number as it is."""
    return x if x is None or x == int(x) else float(f"{x:.6g}")
