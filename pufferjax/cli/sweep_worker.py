"""`pufferjax sweep-worker`: another process, perhaps on another machine, for the trials of a sweep."""

import dataclasses
from pathlib import Path

from pufferjax.cli.compile_cache import Flag, use_compile_cache
from pufferjax.cli.refusals import fail, refusals

USAGE = """\
  pufferjax sweep-worker --storage URL --name NAME [--runs-dir runs]
      takes trials of a sweep that pufferjax sweep has begun, also those that a dead worker had, until all are done
"""


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """Takes trials of a sweep until all of them are done. Where the runs' folder is shared, it goes on with what a dead
    worker has left of a trial; elsewhere it starts that again."""

    storage: str  # that of the sweep
    name: str  # of the sweep
    runs_dir: Path = Path("runs")  # the runs go into a folder of the sweep's name in it
    grace_seconds: int = 60  # a worker that has been silent for so long counts as dead: the same for all workers; >= 2
    # So many GPUs, or cores where there are none, for each trial, and as many trials at once as there are devices for.
    # Default: all of them, one trial at a time.
    devices_per_trial: int | None = None
    compile_cache: Flag = None


def main(argv: list[str]) -> int:
    import tyro

    from pufferjax.cli import sweep

    options = tyro.cli(WorkerOptions, args=argv, prog="pufferjax sweep-worker")
    sweep.check_optuna("sweep-worker")
    with refusals():
        if options.grace_seconds < 2:
            raise ValueError(f"--grace-seconds must be an integer >= 2, got {options.grace_seconds}")
        from pufferjax.sweep.shares import make_shares

        shares = make_shares(options.devices_per_trial)
        sweep.on_host()
        use_compile_cache(options.compile_cache)
        from pufferjax.runs.paths import local_path
        from pufferjax.sweep.trials import Trials, open_storage, shown
        from pufferjax.sweep.worker import own_folder

        folder = local_path("--runs-dir", options.runs_dir) / options.name
        storage = open_storage(options.storage, options.grace_seconds)
        try:
            trials = Trials(storage, options.name)
            plan = trials.plan()
        except KeyError:
            plan = None
        if plan is None:
            raise fail(
                f"{shown(options.storage)} has no sweep {options.name!r}: pufferjax sweep ENV --storage ... --name "
                f"{options.name} begins it"
            )
        own_folder(folder, plan)
    place = sweep.Place(folder, options.storage, options.grace_seconds, shares)
    return sweep.work(plan, trials, place, start=None, again="another worker")
