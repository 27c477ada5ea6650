"""The run directories under the folders that were given, and nothing outside these: no symbolic link is followed."""

import contextlib
import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

FILES = ("config.toml", "metrics.jsonl", "summary.json")  # any of them makes a folder a run's
IMAGES = {".png": "image/png", ".gif": "image/gif"}  # and no SVG, which may hold a script
_LEFT_OUT = frozenset({"checkpoints", "tensorboard", "wandb", "__pycache__"})  # many files, no runs
_MAX_DEPTH = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe of the name of a file must not be waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Stamp = tuple[tuple[int, int] | None, ...]  # of each of FILES: (size, modification time in ns), None: there is none


@dataclasses.dataclass(frozen=True)
class Found:
    """A folder that holds a run, or could not be looked into."""

    root: str  # absolute, without symbolic links
    parts: tuple[str, ...]  # below it
    stamp: Stamp
    error: str | None = None  # why it could not be looked into

    @property
    def path(self) -> str:
        return os.path.join(self.root, *self.parts)

    @property
    def id(self) -> str:
        """Under which a page asks for it, so that a page never names a path."""
        return run_id(self.path)


def run_id(path: str) -> str:
    return hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()


def roots_of(folders: Sequence[str | os.PathLike]) -> list[str]:
    """The folders to look in, absolute, each once and none within another. ValueError if one is no folder."""
    real = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"DIR must be folders, and {os.fspath(folder)!r} is none")
        real.append(os.path.realpath(folder))
    real = list(dict.fromkeys(real))
    return [x for x in real if not any(x != y and os.path.commonpath([x, y]) == y for y in real)]


def find_runs(root: str) -> Iterator[tuple[Found, int]]:
    """Every run under `root` (of `roots_of`), itself included, in the order of names; its folder is open until the next
    one is asked for, and -1 if it cannot be opened."""
    try:
        descriptor = os.open(root, _FOLDER)
    except OSError as error:
        yield Found(root, (), (None,) * len(FILES), f"the folder cannot be read: {error.strerror}"), -1
        return
    yield from _below(root, (), descriptor)


def _below(root: str, parts: tuple[str, ...], descriptor: int) -> Iterator[tuple[Found, int]]:
    """Those in an open folder, which is closed."""
    folders, has_file = [], False
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if name in FILES:
                    has_file = True
                elif name not in _LEFT_OUT and name[0] != "." and entry.is_dir(follow_symlinks=False):
                    folders.append(name)
        if has_file:
            yield Found(root, parts, stamp_of(descriptor)), descriptor
        folders.sort()
        for name in folders if len(parts) < _MAX_DEPTH else ():
            try:
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
            except FileNotFoundError:  # meanwhile
                continue
            except OSError as error:
                reason = f"the folder cannot be read: {error.strerror}"
                yield Found(root, (*parts, name), (None,) * len(FILES), reason), -1
                continue
            yield from _below(root, (*parts, name), inner)
    finally:
        os.close(descriptor)


def stamp_of(folder: int) -> Stamp:
    """Of an open folder."""
    stamps = []
    for name in FILES:
        try:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            stamps.append((facts.st_size, facts.st_mtime_ns))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


@contextlib.contextmanager
def opened(found: Found) -> Iterator[int]:
    """The folder of a run, every step of the way to it being a folder and no link. OSError."""
    descriptor = os.open(found.root, _FOLDER)
    try:
        for name in found.parts:
            inner = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened_file(folder: int, name: str) -> Iterator[tuple[int, int]]:
    """(descriptor, size) of a plain file in an open folder. OSError, also if it is a link, a pipe or a folder."""
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(0, "it is no plain file")
        yield descriptor, facts.st_size
    finally:
        os.close(descriptor)


def read_small(folder: int, name: str, limit: int) -> bytes:
    """All of a file that has at most `limit` bytes. OSError, also if it has more."""
    with opened_file(folder, name) as (descriptor, size):
        if size > limit:
            raise OSError(0, f"it has {size:,} bytes")
        return os.pread(descriptor, limit, 0)


def images_of(folder: int) -> list[str]:
    """Names of the pictures that lie in an open folder, in order."""
    with os.scandir(folder) as entries:
        names = [
            x.name
            for x in entries
            if os.path.splitext(x.name)[1].lower() in IMAGES and x.is_file(follow_symlinks=False)
        ]
    return sorted(names)
