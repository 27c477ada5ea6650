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
    print(f"pufferjax: error: {message}", file=sys.stderr)
    return Exit(2)


def warn(message: str) -> None:
    print(f"pufferjax: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Around everything that checks what the user gave: a ValueError, TypeError or OSError becomes the line."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise fail(error) from None
