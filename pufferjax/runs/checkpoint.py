"""Checkpoints: RUN_DIR/checkpoints/<step>/, each with everything a run needs to go on.

train_state/    the whole TrainState, written by Orbax
progress.json   what the host loop has to remember besides, and the settings of the run
SHA256SUMS      of every other file in the folder (`sha256sum -c` reads it): Orbax does not notice every flipped bit

A checkpoint is written under another name and renamed when all of it is on the disk, so a folder named by digits alone
is complete, and a process may be killed at any moment.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.runs.arrays import read_arrays, write_arrays
from pufferjax.runs.files import sync
from pufferjax.runs.run_config import fixed_differences

FOLDER = "checkpoints"
_SUMS, _PROGRESS, _STATE = "SHA256SUMS", "progress.json", "train_state"
_PARTIAL, _DELETED, _DAMAGED = ".partial", ".deleted", ".damaged"  # what a folder that is no checkpoint ends with


class CheckpointError(ValueError):
    """A run directory without a readable checkpoint; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    step: int
    train_state: Any
    progress: dict[str, Any]


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_storable(tree):
    """Typed PRNG keys as the integers behind them, and one zero for an empty array, which Orbax does not save."""

    def convert(x):
        if not x.size:
            return jnp.zeros(1, jnp.uint8)
        return jax.random.key_data(x) if _is_key(x) else x

    return jax.tree.map(convert, tree)


def _from_storable(like, stored):
    """Inverse of `_to_storable`, of one array."""
    if not like.size:
        return jnp.zeros(like.shape, like.dtype, device=like.sharding if isinstance(like, jax.Array) else None)
    return jax.random.wrap_key_data(stored, impl=_key_impl(like)) if _is_key(like) else stored


def _key_impl(key):
    """The generator of a key that may be only a shape and dtype, which `jax.random.key_impl` does not take."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def checkpoint_steps(run_dir: str | os.PathLike) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending."""
    folder = Path(run_dir) / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def save_checkpoint(
    run_dir: str | os.PathLike, step: int, train_state: Any, progress: Mapping[str, Any] | None = None
) -> Path:
    """Writes the checkpoint of `step` and returns its folder once it is complete, was read back and is on the disk.
    Raises OSError."""
    path = (Path(run_dir) / FOLDER / str(step)).absolute()
    partial = path.with_name(path.name + _PARTIAL)
    with _writing(path, partial):
        _write(partial, _to_storable(train_state), progress or {})
        replaced = _set_aside(path) if path.exists() else None  # a step saved again
        partial.rename(path)
        sync(path.parent)
        sync(path.parent.parent)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
    return path


def try_to_write(run_dir: str | os.PathLike, step: int) -> None:
    """Writes a checkpoint of next to nothing under the names that one of `step` would have, reads it back and deletes
    it. Raises OSError if that cannot be done: a run need not begin."""
    path = (Path(run_dir) / FOLDER / str(step)).absolute()
    partial = path.with_name(path.name + _PARTIAL)
    with _writing(path, partial):
        _write(partial, {"x": np.zeros(1, np.uint8)}, {})
        shutil.rmtree(_set_aside(partial))


@contextlib.contextmanager
def _writing(path: Path, partial: Path) -> Iterator[None]:
    """Around the writing of a checkpoint: `partial` is deleted if it fails, with an OSError that names `path`."""
    try:
        yield
    except Exception as error:  # Orbax's storage layer reports a full or read-only disk as its own errors
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"checkpoint {path} could not be written: {_first_line(error)}") from error


def _write(partial: Path, state: Any, progress: Mapping[str, Any]) -> None:
    """All files of a checkpoint, on the disk when this returns."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_arrays(partial / _STATE, state)
    (partial / _PROGRESS).write_text(json.dumps(dict(progress), allow_nan=False) + "\n", encoding="utf-8")
    sums = [f"{digest}  {name}\n" for name, digest in _digests(partial).items()]
    (partial / _SUMS).write_text("".join(sums), encoding="utf-8")
    for file in [*partial.rglob("*"), partial]:
        sync(file)


def load_checkpoint(
    run_dir: str | os.PathLike,
    like: Any,
    step: int | None = None,
    settings: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Checkpoint:
    """The checkpoint of `step`, or the latest good one; `warn` gets a line for each newer one that is passed over.

    Args:
      like: structure, shapes and dtypes: a train state, whose placement on devices is then taken over, or
        `jax.eval_shape(make_init(env, config), key)`.
      settings: of the run (`run_config.settings`), which those in the checkpoint must not contradict.

    Raises CheckpointError if there is no checkpoint, or none that is whole and of this run.
    """
    steps = checkpoint_steps(run_dir)
    if not steps:
        raise CheckpointError(f"{run_dir} has no checkpoint; the run was killed before it saved one")
    if step is not None:
        if step not in steps:
            raise CheckpointError(f"{run_dir} has no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
        return _load(run_dir, like, step, settings)
    errors = []
    for step in reversed(steps):
        try:
            checkpoint = _load(run_dir, like, step, settings)
        except CheckpointError as error:
            errors.append(error)
        else:
            for error in errors if warn is not None else ():
                warn(f"{error}; using that of step {step} instead")
            return checkpoint
    others = f", and the {len(errors) - 1} before it are no better" if len(errors) > 1 else ""
    raise CheckpointError(f"{errors[0]}{others}") from errors[0]


def clean_up(run_dir: str | os.PathLike, after: int) -> None:
    """Before a run goes on from step `after`: removes what a killed process left, and sets newer checkpoints aside.

    Those were found damaged; under their old names they would count as the latest.
    """
    folder = Path(run_dir) / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.endswith((_PARTIAL, _DELETED)):
            shutil.rmtree(path, ignore_errors=True)
    for step in checkpoint_steps(run_dir):
        if step > after:
            aside = folder / f"{step}{_DAMAGED}"
            shutil.rmtree(aside, ignore_errors=True)
            (folder / str(step)).rename(aside)


def delete_old(run_dir: str | os.PathLike, keep: int) -> None:
    """All checkpoints but the latest `keep`."""
    for step in checkpoint_steps(run_dir)[:-keep]:
        with contextlib.suppress(OSError):  # it is in nobody's way
            shutil.rmtree(_set_aside(Path(run_dir) / FOLDER / str(step)), ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """Renames a checkpoint that is to be deleted, since a process killed meanwhile must not leave half of it under its
    name. Returns its path."""
    deleted = path.with_name(path.name + _DELETED)
    shutil.rmtree(deleted, ignore_errors=True)
    path.rename(deleted)
    return deleted


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the list of them, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SUMS)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _load(run_dir, like, step, settings) -> Checkpoint:
    path = (Path(run_dir) / FOLDER / str(step)).absolute()
    try:
        found = [line.split("  ", 1) for line in (path / _SUMS).read_text(encoding="utf-8").splitlines()]
        listed = {name: digest for digest, name in found}
        present = _digests(path)
        wrong = [name for name in sorted({*listed, *present}) if listed.get(name) != present.get(name)]
        if wrong:
            raise ValueError(f"{wrong[0]} is not as it was written")
        progress = json.loads((path / _PROGRESS).read_text(encoding="utf-8"))
        differing = fixed_differences(settings or {}, progress.get("settings", {}))
        if differing:
            name = differing[0]
            raise ValueError(f"{name} was {progress['settings'][name]!r} there and is {settings[name]!r} here")
        stored = read_arrays(path / _STATE, jax.tree.map(_target, like))
    except Exception as error:  # Orbax and its storage layer raise many types, all of them meaning this
        raise CheckpointError(f"checkpoint {path} is damaged or of another run: {_first_line(error)}") from error
    return Checkpoint(step, jax.tree.map(_from_storable, like, stored), progress)


def _target(x) -> jax.ShapeDtypeStruct:
    """What Orbax restores in place of `x`."""
    placed = isinstance(x, jax.Array) and x.size
    sharding = x.sharding if placed else jax.sharding.SingleDeviceSharding(jax.devices()[0])
    x = jax.eval_shape(_to_storable, x)
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    name = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return f"{name}{text.splitlines()[0][:200] if text else ''}"
