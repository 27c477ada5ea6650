"""A run's folder: whether a run may begin or go on in it, and whether the one in it has finished."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pufferjax.runs.files import is_leftover, locked
from pufferjax.runs.paths import local_path
from pufferjax.runs.run_config import RESUMABLE, RunConfig, fixed_differences, read_table, settings, write_config


def check_run_dir(run_dir: str | os.PathLike) -> None:
    """FileExistsError if something is in the way of a new run, ValueError if it is no path of this machine."""
    path = local_path("run_dir", run_dir)
    if path.is_dir() and not all(is_leftover(entry) for entry in path.iterdir()):
        raise FileExistsError(f"run directory {path} exists and is not empty: choose another one, or delete it")
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"run directory {path} is a file: choose another one, or delete it")


def check_resumable(run_dir: str | os.PathLike, config: RunConfig, shown: Callable[[str], str] = str) -> None:
    """ValueError if `run_dir` holds no run, or another one than `config`; `shown` turns a setting into its name."""
    theirs, ours = settings(read_table(run_dir)), settings(config.to_table())
    for name in fixed_differences(ours, theirs):
        raise ValueError(
            f"{run_dir} was started with {shown(name)} {theirs[name]}; resumed it cannot have {ours[name]} "
            f"(only {', '.join(map(shown, RESUMABLE))} may change)"
        )


@contextlib.contextmanager
def opened(run_dir: Path | None, config: RunConfig, resume: bool) -> Iterator[None]:
    """Around all that a run does in its folder, which is locked meanwhile; a new one begins with its config.toml. None:
    nothing. Raises what the checks above and `write_config` do, BlockingIOError if another process is at it."""
    if run_dir is None:
        yield
        return
    if resume:
        check_resumable(run_dir, config)
    else:
        check_run_dir(run_dir)
        write_config(run_dir, config)
    with locked(run_dir):
        yield


def reopen(run_dir: Path, config: RunConfig) -> None:
    """The run in it goes on, with what is new in `config`: it has not finished any more."""
    write_config(run_dir, config)
    (run_dir / "summary.json").unlink(missing_ok=True)


def summary_if_finished(run_dir: Path, config: RunConfig, num_epochs: int) -> dict[str, Any] | None:
    """summary.json, if nothing is left to do with the total_steps (`num_epochs`) and max_seconds of `config`."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        had, has = read_table(run_dir)["run"].get("max_seconds"), config.options.max_seconds
        is_out_of_time = summary["stopped_by"] == "max_seconds" and None not in (had, has) and has <= had
        is_interrupted = summary["stopped_by"].startswith("SIG")  # perhaps only in its final evaluation
        if is_out_of_time or (summary["epochs"] >= num_epochs and not is_interrupted):
            return summary
    return None
