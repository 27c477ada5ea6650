"""Checkpoints: the whole TrainState in RUN_DIR/checkpoints/<step>/, written by Orbax.

Orbax writes into a temporary folder and renames it, so a folder named by digits alone is complete.
"""

import os
from pathlib import Path
from typing import Any

import jax

FOLDER = "checkpoints"


class CheckpointError(ValueError):
    """A run directory without a readable checkpoint; the message says which and why."""


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_storable(tree):
    """Typed PRNG keys as the integers behind them."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


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


def save_checkpoint(run_dir: str | os.PathLike, step: int, train_state: Any) -> Path:
    """Writes the checkpoint of `step` and returns its folder once it is complete. Raises OSError."""
    import orbax.checkpoint as ocp

    path = (Path(run_dir) / FOLDER / str(step)).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, _to_storable(train_state))
            checkpointer.wait_until_finished()
    except OSError:
        raise
    except Exception as error:  # Orbax's storage layer reports a full or read-only disk as its own errors
        raise OSError(f"checkpoint {path} could not be written: {_first_line(error)}") from error
    return path


def load_checkpoint(run_dir: str | os.PathLike, like: Any, step: int | None = None) -> Any:
    """The train state of `step`, or of the latest checkpoint.

    `like` gives structure, shapes and dtypes: a train state, or `jax.eval_shape(make_init(env, config), key)`.
    Raises CheckpointError if there is no checkpoint, it is damaged, or it does not fit.
    """
    import orbax.checkpoint as ocp

    steps = checkpoint_steps(run_dir)
    if not steps:
        raise CheckpointError(
            f"{run_dir} has no checkpoint; the run has not finished, or was killed before it saved one"
        )
    if step is None:
        step = steps[-1]
    elif step not in steps:
        raise CheckpointError(f"{run_dir} has no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    path = (Path(run_dir) / FOLDER / str(step)).absolute()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), jax.eval_shape(_to_storable, like)
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.restore(path, target)
    except Exception as error:  # Orbax and its storage layer raise many types, all of them meaning this
        raise CheckpointError(f"checkpoint {path} is damaged or of another run: {_first_line(error)}") from error
    return jax.tree.map(
        lambda x, stored: jax.random.wrap_key_data(stored, impl=_key_impl(x)) if _is_key(x) else stored,
        like,
        stored,
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200] if text else ''}"
