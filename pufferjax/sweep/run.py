"""The processes of a trial: one run of `pufferjax train` each, watched while it trains."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pufferjax.runs.files import locked
from pufferjax.sweep.child import SECONDS_TO_STOP, start_child

_PAUSE = 0.2  # seconds between two looks at a run


class Metrics:
    """The lines of a metrics.jsonl that is being written, each once."""

    def __init__(self, path: Path):
        self._path, self._position = path, 0

    def new(self) -> list[dict[str, Any]]:
        """Those since the last call. A resumed run cuts its file back first; it is then read again."""
        try:
            with open(self._path, "rb") as file:
                if file.seek(0, 2) < self._position:
                    self._position = 0
                file.seek(self._position)
                text = file.read()
        except FileNotFoundError:
            return []
        whole, _, _ = text.rpartition(b"\n")
        if not whole:
            return []
        self._position += len(whole) + 1
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError:  # cut back and longer again: nothing to judge a run by
            return []


def wait_until_free(run_dir: Path, is_over: Callable[[], bool]) -> bool:
    """Waits for a run of a worker that died to end itself; whether the folder is free."""
    deadline = time.monotonic() + 1.5 * SECONDS_TO_STOP
    while run_dir.is_dir() and not is_over():
        try:
            with locked(run_dir):
                return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
    return not is_over()


def run_child(arguments: Sequence[str], log: Path, poll: Callable[[], str | None]) -> tuple[int, str | None]:
    """Runs `pufferjax ARGUMENTS`, what it prints appended to `log`, until it ends or `poll` gives a reason to stop it.

    Returns its exit status, negative for a signal, and that reason. However this process ends, the run ends too, and
    with a checkpoint unless it was killed itself.
    """
    process, reason = start_child(arguments, log), None
    try:
        while process.poll() is None:
            reason = poll()
            if reason is not None:
                break
            time.sleep(_PAUSE)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
    finally:
        process.stdin.close()
    return process.wait(), reason


def why_it_failed(status: int, log: Path) -> str:
    """One line: the refusal it printed, or the signal that ended it, or the last that it said."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    for line in reversed(lines[-20:]):
        if "error: " in line:
            return line.partition("error: ")[2]
    return f"exit status {status}" + (f": {lines[-1]}" if lines else "")
