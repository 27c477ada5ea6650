"""Files that are never seen half-written."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the entries of a folder, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes `content` to `path`: readers find the old file or the whole new one. Raises OSError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def is_leftover(path: Path) -> bool:
    """Whether `write_atomically` was killed before it could rename this file."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if is_leftover(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Around the work of the one process that may write to `folder`; the system frees it when that process dies.

    If another one is at it, raises BlockingIOError, after a tenth of a second, or, with `wait`, waits. Where there are
    no such locks it does nothing.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            try:
                _lock(descriptor, wait)
            except BlockingIOError:
                raise BlockingIOError(f"{folder} is in use by another process") from None
            except OSError:  # some network file systems
                pass
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> None:
    if not wait:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:  # perhaps by `is_locked`, which has done so for some microseconds
            time.sleep(0.1)
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def is_locked(folder: int) -> bool:
    """Whether a process is inside `locked` of this open folder. False where there are no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # some network file systems
        return False
    fcntl.flock(folder, fcntl.LOCK_UN)
    return False
