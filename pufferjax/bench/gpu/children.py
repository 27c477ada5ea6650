"""Children with time limits: starts them, passes on what they send, and goes on after one that crashed or hung."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pufferjax.bench.gpu.child import AGAIN, ORDER

_TAIL = 20_000  # characters kept of a child's output
_QUOTED = 2000  # of which a failure quotes the last
_running: set[subprocess.Popen] = set()
_stopped = threading.Event()


@dataclasses.dataclass
class Group:
    """Items that children run one after the other.

    command: what starts a child; before the arguments that run `child`, unless `runs_child` is False. environment:
    beside that of this process. unknown_items: the child says what it runs; `items` is then empty.
    """

    items: list[tuple[str, str]]
    phases: list[str]
    command: Sequence[str] | None = None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    unknown_items: str | None = None  # the phase they belong to
    suffix: str = ""  # of the names of the items in the report
    order: dict[str, Any] = dataclasses.field(default_factory=dict)  # more of what the child is told
    runs_child: bool = True
    start_limit: float = 90.0  # seconds until a child begins its first item
    slowness: float = 1.0  # by which the limits of items are stretched


def run_group(
    group: Group,
    add: Callable[..., None],
    *,
    deadline: float,
    dry_run: bool,
    facts: dict[str, Any],
    restarts: int = 12,
) -> str:
    """Runs the items until `deadline` (of `time.time`); add(phase, item, status, **figures) gets every row, at once.
    The end of the output of the last child."""
    done: list[tuple[str, str]] = []
    left = list(group.items)
    output = ""
    for _ in range(restarts):
        if not (left or group.unknown_items) or time.time() >= deadline - 1 or _stopped.is_set():
            break
        asked = {
            "phases": group.phases,
            "items": left,
            "done": [item for _, item in done],
            "dry_run": dry_run,
            "facts": facts,
            "deadline": deadline,
            **group.order,
        }
        ended = _run_child(group, asked, add, deadline)
        output = ended.output
        done += ended.done
        left = [item for item in left if item not in ended.done]
        if ended.lost is not None:
            phase, item = ended.lost
            done.append(ended.lost)
            left = [other for other in left if other != ended.lost]
            # An item that was stopped because the phase's time is over did nothing wrong.
            status = "skipped" if ended.is_over else "failed"
            add(phase, item + group.suffix, status, error=ended.reason, output=ended.output[-_QUOTED:])
        elif not ended.done:  # it died before it began anything: the next one would too
            phase = group.unknown_items or group.phases[0]
            add(phase, f"start{group.suffix}", "failed", error=ended.reason, output=ended.output[-_QUOTED:])
            break
        elif group.unknown_items and not ended.again:
            break
    why = "no time left" if time.time() >= deadline - 1 else "its child could not be started, or too many had crashed"
    for phase, item in left:
        add(phase, item + group.suffix, "skipped", error=why)
    return output


def stop_all() -> None:
    """Ends all children of this process, for good."""
    _stopped.set()
    for process in list(_running):
        _kill(process)


@dataclasses.dataclass
class _Ended:
    done: list[tuple[str, str]]
    lost: tuple[str, str] | None  # the item it was at
    reason: str
    is_over: bool  # whether the deadline ended it
    again: bool  # whether it left the rest to another one
    output: str


def _run_child(group: Group, asked: dict[str, Any], add: Callable[..., None], deadline: float) -> _Ended:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        # A FIFO, not a pipe: tools that stand between this process and the child need not hand it on.
        events = os.path.join(folder, "events")
        os.mkfifo(events)
        # Open for writing too, or it would be at its end before the child opens it.
        reading = os.open(events, os.O_RDWR | os.O_NONBLOCK)
        environment = {**os.environ, **group.environment, ORDER: json.dumps({**asked, "events": events})}
        command = list(group.command or [])
        if group.runs_child:
            command += [sys.executable, "-P", "-m", "pufferjax.bench.gpu.child"]
            environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # the same package as in this process
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
        _running.add(process)
        try:
            return _follow(process, reading, output, group, add, deadline)
        finally:
            os.close(reading)
            _kill(process)
            _running.discard(process)


def _follow(process, reading: int, output, group: Group, add, deadline: float) -> _Ended:
    done: list[tuple[str, str]] = []
    at, limit, rest = None, time.time() + group.start_limit, b""
    reason, is_over = "", False
    while True:
        has_ended = process.poll() is not None  # before the last look for events
        select.select([reading], [], [], 0.0 if has_ended else 0.1)
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(reading, 65536)
        *lines, rest = (rest + data).split(b"\n")
        for event in map(json.loads, lines):
            if "begin" in event:
                at, limit = tuple(event["begin"]), time.time() + group.slowness * event["limit"]
            elif "row" in event:
                phase, item, status, figures = event["row"]
                add(phase, item + group.suffix, status, **figures)
            else:
                done.append(tuple(event["end"]))
                at, limit = None, time.time() + group.start_limit
        if data:
            continue
        if has_ended:
            reason = _how_it_ended(process.returncode)
            break
        if time.time() >= min(limit, deadline):
            is_over = deadline <= limit
            reason = "stopped: the time of its phase was over" if is_over else "hung: it outran its time limit"
            _kill(process)
            break
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - _TAIL))
    return _Ended(done, at, reason, is_over, process.returncode == AGAIN, output.read().decode(errors="replace"))


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"its process was killed by {signal.Signals(-status).name}"
    return f"its process was killed by signal {-status}"


def _kill(process: subprocess.Popen) -> None:
    """With all it started: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cache_environment(folder: Path) -> dict[str, str]:
    """Children share what they compile, and the memory of the GPU."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
