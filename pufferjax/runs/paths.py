"""Paths that a user gives: `~` is expanded, and what is no path of this machine is refused before anything is done."""

import os
import re
import sys
from pathlib import Path

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/", re.ASCII)  # pathlib has made `//` one by now


def local_path(name: str, path: str | os.PathLike) -> Path:
    """`path` with `~` and `~user` expanded. TypeError or ValueError that begins with `name` if it is none, or a URL."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} must be a path, got {path!r}")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ValueError(f"{name} must be a path, got {text!r}")
    if _SCHEME.match(text):
        raise ValueError(
            f"{name} must be a path of this machine, got the URL {text!r} "
            f"(a folder of that name can be given as {str(Path.cwd() / text)!r})"
        )
    try:
        os.fsencode(text)
        return Path(text).expanduser()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise ValueError(f"{name} is {text!a}, which file names in this locale ({encoding}) cannot hold") from None
    except RuntimeError as error:
        raise ValueError(f"{name} is {text!r}, and there is no such home: {error}") from None


def output_path(name: str, path: str | os.PathLike) -> Path:
    """`local_path` of a file that is to be written once it has been computed. OSError that begins with `name` if its
    folder is none that can be written."""
    path = local_path(name, path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{name}: {path} is a folder")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{name}: the folder {path.parent} cannot be written")
    return path
