"""A pytree of arrays in a folder, written and read by Orbax, whatever the folders above it are called.

Orbax and its storage layer take a path for a pattern, or for a URL: where a folder above has `[` in its name they lose
what they write, a backslash sends it elsewhere, and bytes that are not UTF-8 stop them. They are shown such a folder
through a link in the folder of temporary files, under a name that means nothing but itself.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

_PLAIN = re.compile(r"[A-Za-z0-9._/+=@,-]*")
_PARTS = "ocdbt.process_0"  # what a process wrote, which Orbax then lists in the folder above


def write_arrays(folder: Path, tree: Any) -> None:
    """Writes the arrays of `tree` into `folder`, which must not exist, and reads them back. Raises what Orbax does."""
    import orbax.checkpoint as ocp

    with _plain(folder.parent) as parent, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(parent / folder.name, tree)
        checkpointer.wait_until_finished()
        # Into the host's memory, since there may be no room on the devices for all of it a second time.
        checkpointer.restore(parent / folder.name, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree))


def read_arrays(folder: Path, like: Any) -> Any:
    """The arrays that `write_arrays` put there, as and where `like`, of jax.ShapeDtypeStruct, says. Raises what Orbax
    does, and ValueError if there are others.

    A part of `like` that is None may be one that did not exist yet when the folder was written.
    """
    import orbax.checkpoint as ocp

    with _plain(folder) as folder, _listed(folder) as folder:
        with ocp.StandardCheckpointer() as checkpointer:
            stored, wanted = _arrays(checkpointer.metadata(folder).item_metadata), _arrays(like)
        for name in sorted({*stored, *wanted}):
            there, here = stored.get(name, "missing"), wanted.get(name, "missing")
            if there != here:
                raise ValueError(f"{name} is {there} there and {here} here")
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            options = ocp.checkpoint_utils.construct_restore_args(like)
            return checkpointer.restore(
                folder, args=ocp.args.PyTreeRestore(item=like, restore_args=options, partial_restore=True)
            )


def _arrays(tree: Any) -> dict[str, str]:
    """Shape and dtype of every array of `tree`, by the names on the way to it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        ".".join(jax.tree_util.keystr((key,), simple=True) for key in path): f"{np.dtype(x.dtype)}{list(x.shape)}"
        for path, x in leaves
    }


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """`folder` under a path that is no pattern. Raises OSError if no such path can be made."""
    folder = folder.absolute()
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with _temporary_folder() as temporary:
        link = temporary / "link"
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextlib.contextmanager
def _listed(folder: Path) -> Iterator[Path]:
    """`folder` as it should be: earlier versions let Orbax write below a pattern, where it did not find its own parts
    and left them unlisted."""
    parts = folder / _PARTS
    if (folder / "manifest.ocdbt").exists() or not (parts / "manifest.ocdbt").exists():
        yield folder
        return
    with _temporary_folder() as temporary:
        for entry in [*folder.iterdir(), *parts.iterdir()]:
            if entry != parts:
                (temporary / entry.name).symlink_to(entry)
        yield temporary


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A new folder under a plain path, removed in the end. Raises OSError if there can be none."""
    places = [place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if _PLAIN.fullmatch(place)]
    for place in places:
        if os.access(place, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(prefix="pufferjax-", dir=place) as temporary:
                yield Path(temporary)
            return
    raise OSError(f"no folder for temporary files can be written ({', '.join(places)}); name one in $TMPDIR")
