"""A training run on a machine, from its settings to its summary.

`train` is the one way to run; the command line calls it too. Not pure: it prints, writes RUN_DIR and handles SIGINT and
SIGTERM while it runs.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from pufferjax.core.config import TrainConfig
from pufferjax.core.epochs import draws_ahead, make_epochs
from pufferjax.core.evaluate import evaluate, unseen
from pufferjax.core.optimizers import acting_params
from pufferjax.core.parallel import choose_devices
from pufferjax.core.policy import ActorCritic, as_policy, class_name
from pufferjax.core.train import check_trainable
from pufferjax.core.types import TrainState
from pufferjax.envs import Env
from pufferjax.runs.budget import Budget
from pufferjax.runs.dashboard import Dashboard, number
from pufferjax.runs.files import write_atomically
from pufferjax.runs.journal import FRUITLESS_EPOCHS, Journal
from pufferjax.runs.json_text import json_text
from pufferjax.runs.load import load_train_state
from pufferjax.runs.loop import Loop
from pufferjax.runs.machine import machine, version
from pufferjax.runs.metrics import read_metrics
from pufferjax.runs.paths import local_path
from pufferjax.runs.run_config import RunConfig, RunOptions, read_table, settings
from pufferjax.runs.run_dir import opened, reopen, summary_if_finished
from pufferjax.runs.signals import StopSignals
from pufferjax.runs.sinks import Sinks, check_sinks


@dataclasses.dataclass(frozen=True)
class TrainResult:
    train_state: TrainState
    metrics: list[dict[str, Any]]  # the lines of metrics.jsonl
    # On unseen levels; None if it was not asked for, the run was stopped, or episodes never end.
    evaluation: dict[str, Any] | None
    stopped_by: str  # "total_steps", "max_seconds", "SIGINT", "SIGTERM" or "non_finite" (`RunOptions`)
    summary: dict[str, Any]  # as in summary.json
    run_dir: Path | None


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
    stop_on_non_finite: bool = True,
    log: Sequence[str] = (),
    policy: ActorCritic | None = None,
    show: bool = True,
) -> TrainResult:
    """Trains on `env` until `total_steps`, `max_seconds`, Ctrl-C or SIGTERM, whichever comes first.

    Args:
      env: any environment.
      config: the training settings. A state set that takes over `state_set.max_bytes` is made smaller, which is said
        and recorded.
      seed: of everything random; without max_seconds, the same seed gives the same metrics but for the times in them.
      run_dir: folder of this machine for config.toml, metrics.jsonl, summary.json and checkpoints/; must be absent or
        empty, unless resumed. `~` is expanded. A small checkpoint is written there and deleted before the training
        begins, so that a run that could not be saved is refused; as it is in a process of several that are joined by
        `jax.distributed`. None: no files.
      resume: go on with the run in run_dir, however it ended, from its latest good checkpoint, or from the beginning if
        it was killed before it wrote one. Without max_seconds it becomes the run that it would have been, bit for bit,
        but for the times. Env, config and options must be those it was started with, except total_steps, max_seconds
        and what does not touch the training (`run_config.RESUMABLE`). A finished run is returned as it is.
      max_seconds, eval_episodes, log_interval, print_interval_seconds: see `RunOptions`.
      devices: see `RunOptions`. Called before anything else has used JAX in this process, it makes every CPU core a
        device; a resumed run takes as many devices as it had.
      overlap, checkpoint_interval_seconds, keep_checkpoints, stop_on_non_finite, log: see `RunOptions`.
      policy: instead of `make_policy(env.spec, config.policy)`: that with an encoder of the user's
        (`pufferjax.core.policy.make_policy`), a Flax linen module with the methods of `ActorCritic`, or
        `flax.nnx.bridge.to_linen` of a class with them. config.toml holds only the name of its class: resume and load
        the run with it.
      show: progress on stdout.

    A first Ctrl-C or SIGTERM ends the run after the epochs under way, writes the checkpoint, skips the evaluation and
    is reported in `stopped_by`; a second one acts at once. While the run still compiles or walks at random before its
    first epoch, the first one acts at once too: it raises `pufferjax.runs.signals.StoppedEarly`, a KeyboardInterrupt.
    What was begun in the background is left to end there.

    Raises ValueError for impossible settings, FileExistsError for a run_dir in use, CheckpointError if all checkpoints
    to resume from are bad, OSError if run_dir cannot be written (a checkpoint before the last one: only a warning).
    """
    start = time.perf_counter()
    given = config
    if isinstance(env, Env) and isinstance(config, TrainConfig):
        config = config.fitted(env.spec.state_bytes)
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
        stop_on_non_finite=stop_on_non_finite,
        log=log,
    )
    if resume and run_dir is None:
        raise ValueError("resume needs a run_dir")
    check_sinks(options.log)
    if options.log and run_dir is None:
        raise ValueError(f"log needs a run_dir, got log={options.log!r} without")
    run_dir = None if run_dir is None else local_path("run_dir", run_dir)
    mesh_devices, options = _placed(config, options, read_table(run_dir)["run"] if resume else {})
    if run_dir is not None and jax.process_count() > 1:
        raise ValueError(
            f"run_dir must be None in one of {jax.process_count()} processes that jax.distributed has joined, got "
            f"{str(run_dir)!r}: checkpoints are written by processes on their own; start each run without "
            "jax.distributed, or keep what train returns"
        )
    policy = as_policy(env.spec, policy, config.policy)
    epochs = make_epochs(env, config, mesh_devices, policy, options.overlap)
    sizes = config.sizes(env.spec.num_agents)
    run_config = RunConfig(env.spec.name, dict(env.params), config, options, class_name(policy))
    budget = Budget(sizes.num_epochs, options.max_seconds, start)
    title = f"pufferjax train {env.spec.name}" + (f"  {run_dir}" if run_dir else "")
    dashboard = Dashboard(title, config.total_steps, print_interval_seconds, show=show)
    with opened(run_dir, run_config, resume):
        if resume and (finished := summary_if_finished(run_dir, run_config, sizes.num_epochs)):
            return _as_it_is(run_dir, run_config, env, policy, finished, dashboard)
        with dashboard, Sinks(options.log, dashboard.warn) as sinks:
            if config is not given and not resume:
                dashboard.message(_fewer_states(env, config))
            flat = settings(run_config.to_table())
            journal = Journal(run_dir, sizes, options, flat, dashboard.message, dashboard.warn, sinks)
            with StopSignals() as signals, journal:
                train_state = epochs.init(jax.random.key(options.seed))
                checkpoint = None
                if resume:
                    checkpoint = journal.load(train_state)  # before anything is changed: it may be refused
                    reopen(run_dir, run_config)
                journal.start(checkpoint)
                sinks.open(run_dir, flat, checkpoint.step if checkpoint else 0)
                loop = Loop(epochs, budget, journal, dashboard, config.state_set.warmup_max_seconds)
                loop.begin(train_state, config.hypers(), checkpoint=checkpoint, resume=resume)
                signals.started()
                stopped_by = loop.run(signals)
                train_seconds, train_state = budget.elapsed(), epochs.train_state
                saved = journal.save_last(train_state)
            params = acting_params(config, train_state)
            evaluation, stopped_by = _final_evaluation(env, policy, params, options.eval_episodes, stopped_by)
            seconds = {"train_seconds": train_seconds, "total_seconds": budget.elapsed()}
            summary = _summary(run_config, journal.records[-1], evaluation, stopped_by, seconds)
            sinks.write(
                {"step": summary["steps"], **{f"evaluation/{name}": x for name, x in (evaluation or {}).items()}}
            )
            _report(summary, saved and f"{saved}; {_hint(run_dir, run_config, env)}", dashboard)
            if run_dir is not None:
                write_atomically(run_dir / "summary.json", json_text(summary, indent=2) + "\n")
    return TrainResult(train_state, journal.records, evaluation, stopped_by, summary, run_dir)


def _placed(
    config: TrainConfig, options: RunOptions, before: dict[str, Any]
) -> tuple[Sequence[jax.Device], RunOptions]:
    """The devices to train on, and the options that say so; `before`: those of the run that is resumed."""
    devices = choose_devices(config, options.devices or before.get("devices"))
    overlap = before.get("overlap") if options.overlap is None else options.overlap
    overlap = draws_ahead(config, devices, overlap)
    return devices, dataclasses.replace(options, devices=len(devices), overlap=overlap)


def _fewer_states(env: Env, config: TrainConfig) -> str:
    state_set = config.state_set
    return (
        f"the state set keeps {state_set.capacity} states of {env.spec.state_bytes:,} bytes: more would take over "
        f"{state_set.max_bytes:,} (state_set.max_bytes)"
    )


def _as_it_is(run_dir, config, env, policy, summary, dashboard) -> TrainResult:
    """The result of a finished run."""
    dashboard.message(
        f"{run_dir} has finished ({summary['stopped_by']} reached after {summary['steps']:,} steps): nothing is left "
        f"to do; to train it longer, resume it with a larger {summary['stopped_by']}"
    )
    train_state = load_train_state(run_dir, config, env, policy, warn=dashboard.warn)
    records = read_metrics(run_dir / "metrics.jsonl")
    return TrainResult(train_state, records, summary["evaluation"], summary["stopped_by"], summary, run_dir)


def _final_evaluation(env, policy, params, num_episodes, stopped_by) -> tuple[dict[str, Any] | None, str]:
    """(figures on unseen levels, what stopped the run). None if it was stopped, before or just now, or if there are no
    episodes to be counted."""
    if not num_episodes or env.spec.max_episode_steps == 0 or stopped_by.startswith("SIG"):
        return None, stopped_by
    try:
        return evaluate(unseen(env), policy, jax.device_get(params), jax.random.key(0), num_episodes), stopped_by
    except KeyboardInterrupt:
        return None, "SIGINT"


def _summary(config: RunConfig, last_record, evaluation, stopped_by, seconds) -> dict[str, Any]:
    return {
        "env": config.env,
        "evaluation": evaluation,
        "stopped_by": stopped_by,
        "steps": last_record["step"],
        "epochs": last_record["epoch"],
        "seed": config.options.seed,
        "devices": config.options.devices,
        **seconds,
        "warmup_steps": last_record["warmup_steps"],
        "warmup_rewards": last_record["warmup_rewards"],
        "pufferjax": version("pufferjax"),
        "jax": jax.__version__,
        "machine": machine(),
    }


def _hint(run_dir, config, env) -> str:
    """What to do with the checkpoint."""
    if not config.is_self_contained:
        return "load it with: pufferjax.load_run(run_dir, env=..., policy=...)"
    return f"evaluate it with: pufferjax eval {run_dir}" if env.spec.max_episode_steps else "its episodes never end"


def _report(summary, checkpoint, dashboard) -> None:
    """How the run ended, where its last `checkpoint` is, and what it achieved."""
    if summary["stopped_by"].startswith("SIG"):
        dashboard.message(f"stopped by {summary['stopped_by']} after {summary['steps']:,} steps")
    if summary["stopped_by"] == "non_finite":
        dashboard.warn(
            f"stopped after {summary['steps']:,} steps: in {FRUITLESS_EPOCHS} epochs in a row every update was NaN or "
            "infinite, so nothing is learned any more (stop_on_non_finite=False goes on)"
        )
    if checkpoint is not None:
        dashboard.message(f"checkpoint: {checkpoint}")
    if (evaluation := summary["evaluation"]) is not None:
        perf, reward = evaluation["perf"], evaluation["episode_return"]
        figure = f"return {number(reward, '.4g')}" if perf is None else f"perf {number(perf, '.4f')}"
        dashboard.message(
            f"unseen levels: {figure} over {evaluation['episodes']} fresh episodes, {evaluation['seconds']:.1f} s"
        )
