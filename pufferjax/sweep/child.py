"""`python -m pufferjax.sweep.child COMMAND ...`: a command of pufferjax that ends with the process that started it.

Its standard input is a pipe, the other end of which only that process holds: when it ends, however it does, kill -9
included, the pipe ends too, and the command is asked to stop as by SIGTERM: a run writes its checkpoint. If it has not
ended after a while it is killed. A trial that another worker goes on with is nobody else's by then.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS_TO_STOP = 60.0


def start_child(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
    """`pufferjax ARGUMENTS` as a process that ends with this one, or when its `stdin` is closed; what it prints is
    appended to `log`. In a session of its own: Ctrl-C is for this process, which decides what becomes of the other."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pufferjax.sweep.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _stop_with_parent() -> None:
    while True:
        try:
            if not os.read(0, 1024):
                break
        except OSError:
            break
    killer = threading.Timer(SECONDS_TO_STOP, os._exit, (137,))
    killer.daemon = True
    killer.start()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # Handled from the start: what comes before JAX is loaded shall not leave half a start behind.
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    sys.argv[0] = "pufferjax"
    runpy.run_module("pufferjax", run_name="__main__", alter_sys=True)
