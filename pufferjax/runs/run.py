"""A training run on a machine: the loop around the pure update, its clock, its files, its signals.

`train` is the one host loop; the command line calls it too. Not pure: it prints, writes RUN_DIR and handles SIGINT and
SIGTERM while it runs.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.runs.checkpoint import load_checkpoint
from pufferjax.core.config import Sizes, TrainConfig
from pufferjax.runs.dashboard import Dashboard
from pufferjax.envs import Env
from pufferjax.core.epochs import draws_ahead, make_epochs
from pufferjax.core.evaluate import evaluate, unseen, wait
from pufferjax.runs.files import is_leftover, locked, remove_leftovers, write_atomically
from pufferjax.runs.journal import Journal
from pufferjax.runs.metrics import read_metrics
from pufferjax.core.parallel import choose_devices, global_shapes
from pufferjax.core.policy import ActorCritic, make_policy
from pufferjax.runs.run_config import (
    RESUMABLE,
    RunConfig,
    RunOptions,
    fixed_differences,
    read_config,
    read_table,
    settings,
)
from pufferjax.core.train import check_trainable
from pufferjax.core.types import TrainState


def load_run(
    run_dir: str | os.PathLike,
    step: int | None = None,
    warn: Callable[[str], None] = warnings.warn,
    *,
    env: Env | None = None,
    policy: ActorCritic | None = None,
) -> tuple[RunConfig, Env, ActorCritic, TrainState]:
    """A run, finished or not: its configuration, training environment, policy, and the train state of `step`, or of its
    latest good checkpoint; `warn` gets a line for each newer one.

    env, policy: those it was trained with, if `envs.make` does not know the one or the other was passed to `train`.

    Raises ValueError, such as CheckpointError, also if another environment or another class of policy was trained.
    """
    config = read_config(run_dir, env)
    if policy is None and config.policy_class != RunConfig.policy_class:
        raise ValueError(
            f"{run_dir} was trained with a policy of its own, {config.policy_class}: load it with "
            "pufferjax.load_run(run_dir, policy=...)"
        )
    if policy is not None:
        config = dataclasses.replace(config, policy_class=type(policy).__name__)
    env = env or config.make_env()
    policy = policy or make_policy(env.spec, config.train.policy)
    like = global_shapes(env, config.train, config.options.devices or 1, policy, bool(config.options.overlap))
    checkpoint = load_checkpoint(run_dir, like, step, settings=settings(config.to_table()), warn=warn)
    return config, env, policy, checkpoint.train_state


def check_run_dir(run_dir: str | os.PathLike) -> None:
    """FileExistsError if something is in the way of a new run."""
    path = Path(run_dir)
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


def _write_config(run_dir: Path, config: RunConfig) -> None:
    import tomli_w

    try:
        content = tomli_w.dumps(config.to_table())
    except TypeError as error:
        raise ValueError(f"config.toml cannot hold the parameters of {config.env}: {error}") from None
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run_dir)
        write_atomically(run_dir / "config.toml", content)
    except OSError as error:
        raise OSError(f"run directory {run_dir} cannot be written: {error.strerror}") from None


def _summary_if_finished(run_dir: Path, config: RunConfig, sizes: Sizes) -> dict[str, Any] | None:
    """summary.json, if nothing is left to do with the total_steps and max_seconds of `config`."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        summary = json.loads((run_dir / "summary.json").read_text())
        had, has = read_table(run_dir)["run"].get("max_seconds"), config.options.max_seconds
        is_out_of_time = summary["stopped_by"] == "max_seconds" and None not in (had, has) and has <= had
        is_interrupted = summary["stopped_by"].startswith("SIG")  # perhaps only in its final evaluation
        if is_out_of_time or (summary["epochs"] >= sizes.num_epochs and not is_interrupted):
            return summary
    return None


@dataclasses.dataclass(frozen=True)
class TrainResult:
    train_state: TrainState
    metrics: list[dict[str, Any]]  # the lines of metrics.jsonl
    # On unseen levels; None if it was not asked for, the run was stopped, or episodes never end.
    evaluation: dict[str, Any] | None
    stopped_by: str  # "total_steps", "max_seconds", "SIGINT" or "SIGTERM"
    summary: dict[str, Any]  # as in summary.json
    run_dir: Path | None


class _StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in `received`; a second one acts as before.

    Only the main thread may handle signals; elsewhere this does nothing.
    """

    def __init__(self):
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        self._restore()

    def _note(self, number, frame):
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self):
        for number, handler in self._previous.items():
            if handler in (None, signal.SIG_IGN):  # a shell's background job: a second signal must still stop it
                handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, handler)
        self._previous = {}


class _Clock:
    """Wall-clock budget of a run whose epochs are dispatched one ahead of the one that runs."""

    def __init__(self, start: float, max_seconds: float | None):
        self._start, self._max_seconds = start, max_seconds
        self._last_end: float | None = None
        self._epoch_seconds = 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def go_on_from(self, seconds: float) -> None:
        """Counts the seconds that a resumed run had used before; those of its new start-up count as well."""
        self._start -= seconds

    def epoch_ended(self) -> None:
        now = self.elapsed()
        if self._last_end is not None:
            latest = now - self._last_end
            self._epoch_seconds = latest if not self._epoch_seconds else 0.8 * self._epoch_seconds + 0.2 * latest
        self._last_end = now

    def _next_start(self) -> float:
        """When the epoch dispatched now will begin: after the one that runs."""
        return self.elapsed() if self._last_end is None else max(self.elapsed(), self._last_end + self._epoch_seconds)

    def progress(self) -> float:
        return 0.0 if self._max_seconds is None else min(1.0, self._next_start() / self._max_seconds)

    def would_overrun(self) -> bool:
        return self._max_seconds is not None and self._next_start() + self._epoch_seconds > self._max_seconds

    def seconds_left(self, epochs_left: int) -> float | None:
        if not self._epoch_seconds:
            return None
        by_steps = epochs_left * self._epoch_seconds
        return by_steps if self._max_seconds is None else min(by_steps, max(0.0, self._max_seconds - self.elapsed()))


def train(
    env: Env,
    config: TrainConfig,
    *,
    seed: int = 0,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    max_seconds: float | None = None,
    eval_episodes: int = 2000,
    log_interval: int = 1,
    print_interval_seconds: float = 5.0,
    devices: int | None = None,
    overlap: bool | None = None,
    checkpoint_interval_seconds: float = 60.0,
    keep_checkpoints: int = 3,
    policy: ActorCritic | None = None,
    show: bool = True,
) -> TrainResult:
    """Trains on `env` until `total_steps`, `max_seconds`, Ctrl-C or SIGTERM, whichever comes first.

    Args:
      env: any environment.
      config: the training settings.
      seed: of everything random; without max_seconds, the same seed gives the same metrics but for the times in them.
      run_dir: folder for config.toml, metrics.jsonl, summary.json and checkpoints/; must be absent or empty, unless
        resumed. None: no files.
      resume: go on with the run in run_dir, however it ended, from its latest good checkpoint, or from the beginning if
        it was killed before it wrote one. Without max_seconds it becomes the run that it would have been, bit for bit,
        but for the times. Env, config and options must be those it was started with, except total_steps, max_seconds
        and what does not touch the training (`run_config.RESUMABLE`). A finished run is returned as it is.
      max_seconds, eval_episodes, log_interval, print_interval_seconds, devices, overlap, checkpoint_interval_seconds,
        keep_checkpoints: see `RunOptions`. Called before anything else has used JAX in this process, it makes every
        CPU core a device; a resumed run takes as many devices as it had.
      policy: instead of `make_policy(env.spec, config.policy)`. config.toml holds only the name of its class: resume
        and load the run with it.
      show: progress on stdout.

    A first Ctrl-C or SIGTERM ends the run after the epochs under way, writes the checkpoint, skips the evaluation and
    is reported in `stopped_by`; a second one acts at once.

    Raises ValueError for impossible settings, FileExistsError for a run_dir in use, CheckpointError if all checkpoints
    to resume from are bad, OSError if run_dir cannot be written (a checkpoint before the last one: only a warning).
    """
    start = time.perf_counter()
    check_trainable(env, config)
    options = RunOptions(
        seed=seed,
        max_seconds=max_seconds,
        log_interval=log_interval,
        print_interval_seconds=print_interval_seconds,
        eval_episodes=eval_episodes,
        devices=devices,
        overlap=overlap,
        checkpoint_interval_seconds=checkpoint_interval_seconds,
        keep_checkpoints=keep_checkpoints,
    )
    if resume:
        if run_dir is None:
            raise ValueError("resume needs a run_dir")
        table = read_table(run_dir)["run"]
        devices = devices or table.get("devices")
        overlap = table.get("overlap") if overlap is None else overlap
    mesh_devices = choose_devices(config, devices)
    overlap = draws_ahead(config, mesh_devices, overlap)
    options = dataclasses.replace(options, devices=len(mesh_devices), overlap=overlap)
    policy = policy or make_policy(env.spec, config.policy)
    sizes = config.sizes(env.spec.num_agents)
    epochs = make_epochs(env, config, mesh_devices, policy, overlap)
    run_config = RunConfig(env.spec.name, dict(env.params), config, options, type(policy).__name__)
    title = f"pufferjax train {env.spec.name}" + (f"  {run_dir}" if run_dir else "")
    dashboard = Dashboard(title, config.total_steps, print_interval_seconds, show=show)
    with contextlib.ExitStack() as stack:
        if run_dir is not None:
            run_dir = Path(run_dir)
            if resume:
                check_resumable(run_dir, run_config)
            else:
                check_run_dir(run_dir)
                _write_config(run_dir, run_config)
            stack.enter_context(locked(run_dir))
        if resume:
            summary = _summary_if_finished(run_dir, run_config, sizes)
            if summary is not None:
                return _as_it_is(run_dir, env, run_config, policy, summary, dashboard)
        stack.enter_context(dashboard)
        with contextlib.ExitStack() as training:
            signals = training.enter_context(_StopSignals())
            journal = training.enter_context(
                Journal(run_dir, sizes, options, settings(run_config.to_table()), dashboard.message)
            )
            clock = _Clock(start, options.max_seconds)
            train_state = epochs.init(jax.random.key(options.seed))
            checkpoint = None
            if resume:
                checkpoint = journal.load(train_state)  # before anything is changed: it may be refused
                _write_config(run_dir, run_config)
                (run_dir / "summary.json").unlink(missing_ok=True)
            journal.start(checkpoint)
            train_state, progress, stopped_by = _loop(
                sizes.num_epochs,
                config.hypers(),
                options,
                epochs,
                clock,
                dashboard,
                signals,
                journal,
                train_state,
                checkpoint,
                resume,
            )
            train_seconds = clock.elapsed()
            records = journal.records
            step = records[-1]["step"]
            checkpoint = journal.save(train_state, progress)
        evaluation = None
        has_episodes = env.spec.max_episode_steps > 0
        if options.eval_episodes and has_episodes and not stopped_by.startswith("SIG"):
            try:
                evaluation = evaluate(
                    unseen(env),
                    policy,
                    jax.device_get(train_state.params),
                    jax.random.key(0),
                    num_episodes=options.eval_episodes,
                )
            except KeyboardInterrupt:
                stopped_by = "SIGINT"
        if stopped_by.startswith("SIG"):
            dashboard.message(f"stopped by {stopped_by} after {step:,} steps")
        if checkpoint is not None:
            hint = f"evaluate it with: pufferjax eval {run_dir}" if has_episodes else "its episodes never end"
            if not run_config.is_self_contained:
                hint = "load it with: pufferjax.load_run(run_dir, env=..., policy=...)"
            dashboard.message(f"checkpoint: {checkpoint}; {hint}")
        if evaluation is not None:
            dashboard.message(
                f"unseen levels: perf {evaluation['perf']:.4f} over {evaluation['episodes']} fresh episodes, "
                f"{evaluation['seconds']:.1f} s"
            )
        summary = {
            "env": env.spec.name,
            "evaluation": evaluation,
            "stopped_by": stopped_by,
            "steps": step,
            "epochs": records[-1]["epoch"],
            "seed": seed,
            "devices": len(mesh_devices),
            "train_seconds": train_seconds,
            "total_seconds": clock.elapsed(),
            "warmup_steps": records[-1]["warmup_steps"],
            "warmup_rewards": records[-1]["warmup_rewards"],
            "pufferjax": _version("pufferjax"),
            "jax": jax.__version__,
            "machine": machine(),
        }
        if run_dir is not None:
            write_atomically(run_dir / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return TrainResult(train_state, records, evaluation, stopped_by, summary, run_dir)


def _as_it_is(run_dir, env, config, policy, summary, dashboard) -> TrainResult:
    """The result of a finished run."""
    dashboard.message(
        f"{run_dir} has finished ({summary['stopped_by']} reached after {summary['steps']:,} steps): nothing is left "
        f"to do; to train it longer, resume it with a larger {summary['stopped_by']}"
    )
    like = global_shapes(env, config.train, config.options.devices, policy, config.options.overlap)
    train_state = load_checkpoint(
        run_dir, like, settings=settings(config.to_table()), warn=lambda line: dashboard.message(f"warning: {line}")
    ).train_state
    records = read_metrics(run_dir / "metrics.jsonl")
    return TrainResult(train_state, records, summary["evaluation"], summary["stopped_by"], summary, run_dir)


def _loop(num_epochs, hypers, options, epochs, clock, dashboard, signals, journal, train_state, checkpoint, resume):
    """Epochs from `checkpoint`, or without one from the fresh `train_state`, until something ends the run. Returns
    (train_state, progress, stopped_by), the first two for the last checkpoint."""
    if checkpoint is None:
        train_state = epochs.warmup(train_state, hypers)
    else:
        train_state = checkpoint.train_state
        clock.go_on_from(checkpoint.progress["seconds"])
    epochs.begin(train_state, hypers)  # compiles while the warm-up runs
    wait(train_state.warmup_rewards)
    warmup_steps, warmup_rewards = int(train_state.warmup_steps), int(train_state.warmup_rewards)
    if checkpoint is not None:
        dashboard.message(f"resumed after {checkpoint.step:,} steps; ready after {clock.elapsed():.1f} s in all")
    elif resume:
        dashboard.message("the run was killed before its first checkpoint: it starts again from the beginning")
    elif warmup_steps:
        dashboard.message(
            f"warm-up: {warmup_rewards} rewards in {warmup_steps:,} random steps; ready after {clock.elapsed():.1f} s"
        )
    journal.ready(clock.elapsed(), {"warmup_steps": warmup_steps, "warmup_rewards": warmup_rewards})

    def finish(figures):
        """Takes the figures of an epoch once it has ended; the line of metrics, if it completes one."""
        metrics = figures()
        clock.epoch_ended()
        return journal.add(metrics, clock.elapsed())

    def show(record, last=False):
        if record is not None:
            seconds_left = clock.seconds_left(num_epochs - record["epoch"])
            share = record["wall_seconds"] / options.max_seconds if options.max_seconds else 0.0
            dashboard.update(record, max(record["epoch"] / num_epochs, share), seconds_left, last=last)

    epoch, stopped_by, running, record = journal.epoch, None, None, None
    if epoch >= num_epochs:  # killed in its final evaluation
        stopped_by = "total_steps"
    elif epoch and clock.would_overrun():
        stopped_by = "max_seconds"
    # One epoch is always dispatched ahead, so that the devices never wait for the figures of the last one to be logged.
    while stopped_by is None:
        # The next epoch consumes the train state, so one that is to be saved is copied first; it is written while that
        # epoch runs.
        copied = _copy(epochs.train_state) if journal.is_due(epoch, clock.elapsed()) else None
        progress = max(epoch / num_epochs, clock.progress())
        figures = epochs.advance(jnp.float32(progress))
        epoch += 1
        if running is not None:
            show(finish(running))
        if copied is not None:
            journal.try_to_save(copied, clock.elapsed())
        running = figures
        if signals.received is not None:
            stopped_by = signals.received
        elif epoch == num_epochs:
            stopped_by = "total_steps"
        elif clock.would_overrun():
            stopped_by = "max_seconds"
    if running is not None:
        record = finish(running)
    # Taken before the last line, which may be of a window cut short: a resumed run fills it as if it had never stopped.
    last_progress = journal.progress(clock.elapsed())
    show(journal.flush(clock.elapsed()) or record, last=True)
    return epochs.train_state, last_progress, stopped_by


def _copy(tree):
    """The same arrays in memory of their own, wherever each of them is; nothing is compiled."""
    return jax.device_put(tree, jax.tree.map(lambda x: x.sharding, tree), may_alias=False)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    devices = jax.devices()
    kind = "" if devices[0].platform == "cpu" else f", {len(devices)} x {devices[0].device_kind}"
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {os.cpu_count()} x {model}{kind}, Python {platform.python_version()}"
