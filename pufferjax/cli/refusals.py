"""How a command says no: one line on stderr and an exit status, not a traceback."""

import contextlib
import sys
from collections.abc import Iterator


class Exit(Exception):
    """Ends the command with an exit status."""

    def __init__(self, status: int):
        self.status = status


def fail(message: object) -> Exit:
    """Prints the line; raise what it returns."""
    _say(f"pufferjax: error: {message}")
    return Exit(2)


def warn(message: str) -> None:
    _say(f"pufferjax: warning: {message}")


def _say(line: str) -> None:
    """Prints to stderr; where that is closed or full, nobody listens."""
    with contextlib.suppress(OSError, ValueError):
        print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Around everything that checks what the user gave: a ValueError, TypeError or OSError becomes the line."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise fail(error) from None
