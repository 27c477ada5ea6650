"""What was read of the runs, kept from one start to the next in a file of the user's cache folder.

A file for each choice of folders, of lines, the first with a sum of the others: one that is torn, from another version
or anything else is made anew. It holds what `read_run` found, under the path of the run, and the sizes and times of the
files it was read from; it is not asked about a run whose files have others.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pufferjax.runs.files import write_atomically

_FORMAT = "pufferjax constellation 1"


class Kept(NamedTuple):
    """A line of the cache."""

    id: str
    stamp: str
    body: str  # JSON without a tab or a newline in it
    has_summary: bool
    problem: str | None


def cache_path(roots: Sequence[str]) -> Path:
    """Where the cache of these folders is: below $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.blake2b(b"\0".join(map(os.fsencode, roots)), digest_size=12).hexdigest()
    return Path(home) / "pufferjax" / "constellation" / name


def load(path: Path) -> tuple[Mapping[str, Sequence], dict[str, Kept]]:
    """(tables, what is kept of each run by its id); empty if there is no cache that can be read."""
    try:
        header, _, rest = path.read_bytes().partition(b"\n")
        if header.decode() != _header(rest):
            return {}, {}
        lines = rest.decode().split("\n")
        tables = json.loads(lines[0])
        kept = {}
        for line in lines[1:-1]:
            name, stamp, has_summary, problem, body = line.split("\t")
            kept[name] = Kept(name, stamp, body, has_summary == "1", json.loads(problem) if problem else None)
        return tables, kept
    except (OSError, ValueError, RecursionError):
        return {}, {}


def save(path: Path, tables: Mapping[str, Sequence], kept: Iterable[Kept]) -> None:
    """Writes it; where that cannot be done there will be none."""
    lines = [json.dumps(tables)]
    for x in kept:
        problem = "" if x.problem is None else json.dumps(x.problem)
        lines.append("\t".join((x.id, x.stamp, "1" if x.has_summary else "0", problem, x.body)))
    rest = ("\n".join(lines) + "\n").encode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, _header(rest).encode() + b"\n" + rest)


def _header(rest: bytes) -> str:
    return f"{_FORMAT} {len(rest)} {zlib.crc32(rest):08x}"
