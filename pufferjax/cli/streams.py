"""The standard streams of a command, which may be closed, cut off or full: `>&-`, `| head`, `>/dev/full`."""

import contextlib
import io
import os
import sys


def prepare() -> None:
    """Gives stdin, stdout and stderr a place to go where they were closed, and lets them take any text.

    Otherwise the next files that are opened take their numbers, and what JAX writes to stderr ends up in metrics.jsonl.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper):
            # A path may hold what the terminal has no code for.
            stream.reconfigure(errors="backslashreplace")
        if stream is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def flush() -> OSError | None:
    """Writes out what is left of the output, and returns why that cannot be done if it cannot. What is then left is
    dropped: else the interpreter would try again when it ends, and complain."""
    found = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout and isinstance(error, OSError):
                found = error
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return found
