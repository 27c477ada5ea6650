"""The `pufferjax` command: one file per subcommand, found and called here.

A command is a module `pufferjax/cli/<name>.py`, `-` in its name being `_` there, with USAGE, what `pufferjax --help`
says of it, and `main(argv)`, which returns the exit status. It imports what it needs inside, so that `--help` and a
typing error cost no start of JAX.
"""

import importlib
import sys
from collections.abc import Sequence

from pufferjax.cli import streams
from pufferjax.cli.refusals import Exit, fail

COMMANDS = (
    "train", "eval", "play", "states", "export", "sweep", "sweep-worker", "constellation", "envs", "bench", "doctor",
)  # fmt: skip


def _command(name: str):
    return importlib.import_module(f"pufferjax.cli.{name.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 1 if its output cannot be written or a run cannot learn any more,
    2 for a refusal, 130 for Ctrl-C, 143 for SIGTERM."""
    argv = list(sys.argv[1:] if argv is None else argv)
    streams.prepare()
    status, lost = 0, None
    try:
        status = _run(argv)
    except Exit as exit:
        status = exit.status
    except OSError as error:
        if error.errno is None or error.filename is not None:  # of a file, not of a stream
            raise
        lost = error
    lost = streams.flush() or lost
    if lost is None or argv[:1] == ["train"]:  # a run is more than what it shows
        return status
    if not isinstance(lost, BrokenPipeError):  # to stop reading is no fault
        fail(f"the output cannot be written: {lost.strerror}")
    return status or 1


def _run(argv: list[str]) -> int:
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print("usage: pufferjax COMMAND ...\n\n" + "".join(_command(name).USAGE for name in COMMANDS), end="")
            return 0 if argv else 2
        if argv[0] not in COMMANDS:
            raise fail(f"unknown command {argv[0]!r}; valid are {', '.join(COMMANDS)}")
        return _command(argv[0]).main(argv[1:])
    except SystemExit as exit:  # tyro's, after --help or a bad flag
        return exit.code if isinstance(exit.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except (AssertionError, RuntimeError) as error:  # what JAX raises where it has no device, wherever it is first used
        raise _no_device() or error from None


def _no_device() -> Exit | None:
    """The refusal, its line printed, if JAX cannot start what JAX_PLATFORMS asks for."""
    from pufferjax.core.parallel import start_devices

    try:
        start_devices()
    except RuntimeError as error:
        return fail(error)
    return None
