"""A training run on a machine: the loop around the pure update, its clock, its files, its signals.

`train` is the one host loop; the command line calls it too. Not pure: it prints, writes RUN_DIR and handles SIGINT and
SIGTERM while it runs.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import signal
import threading
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax import envs
from pufferjax.checkpoint import load_checkpoint, save_checkpoint
from pufferjax.config import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig
from pufferjax.dashboard import Dashboard
from pufferjax.envs import Env
from pufferjax.evaluate import evaluate, unseen, wait
from pufferjax.files import write_atomically
from pufferjax.metrics import MetricsWriter, pool
from pufferjax.parallel import choose_devices, global_shapes, make_parallel
from pufferjax.policy import ActorCritic, make_policy
from pufferjax.types import TrainState

_SECTIONS = {"policy": PolicyConfig, "ppo": PPOConfig, "state_set": StateSetConfig}


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run needs besides the environment and the training settings; [run] in config.toml."""

    seed: int = 0
    # Wall-clock budget in seconds from the start, compilation and warm-up included, final evaluation not; the schedules
    # end with it. None: only total_steps ends the run, and the same seed gives the same metrics.
    max_seconds: float | None = None
    log_interval: int = 1  # epochs pooled in each line of metrics.jsonl
    print_interval_seconds: float = 5.0  # between progress lines where the output is not a terminal
    eval_episodes: int = 2000  # of the final evaluation on unseen levels; 0: none
    devices: int | None = None  # that share the run; None: all there are (on a CPU: one per core)

    def __post_init__(self):
        def check(name, valid, is_valid):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_valid(value):
                raise ValueError(f"{name} must be {valid}, got {value!r}")

        def is_int(low, high):
            return lambda x: isinstance(x, int) and low <= x <= high

        check("seed", "an integer in [0, 4294967295]", is_int(0, 2**32 - 1))
        check("log_interval", "an integer >= 1", is_int(1, 2**31 - 1))
        check("print_interval_seconds", "a number >= 0", lambda x: 0 <= x < math.inf)
        check("eval_episodes", "an integer >= 0", is_int(0, 2**31 - 1))
        if self.devices is not None:
            check("devices", "an integer >= 1, or None", is_int(1, 2**31 - 1))
        if self.max_seconds is not None:
            check("max_seconds", "a number > 0, or None", lambda x: 0 < x < math.inf)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run; config.toml holds exactly this."""

    env: str
    env_params: Mapping[str, Any]  # arguments of envs.make
    train: TrainConfig
    options: RunOptions

    def make_env(self) -> Env:
        return envs.make(self.env, **self.env_params)

    def to_table(self) -> dict[str, Any]:
        """As nested dicts, the layout of config.toml and of the presets. None is left out: TOML has no word for it."""
        table = dataclasses.asdict(self.train)
        sections = {name: table.pop(name) for name in _SECTIONS}
        options = {name: x for name, x in dataclasses.asdict(self.options).items() if x is not None}
        return {**table, "env": dict(self.env_params), **sections, "run": {"env": self.env, **options}}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "RunConfig":
        """Inverse of `to_table`; missing keys take their defaults. ValueError names an unknown key or bad value."""
        top = {name: value for name, value in table.items() if name not in ("env", "run", *_SECTIONS)}
        run = _section(table, "run")
        env = run.pop("env", None)
        if not isinstance(env, str):
            raise ValueError(f"run.env must be one of {', '.join(envs.names())}, got {env!r}")
        parameters = envs.parameters(env)
        env_params = {name: parameter.default for name, parameter in parameters.items()}
        given = _section(table, "env")
        _check_keys("env.", given, parameters)
        train_fields = [field.name for field in dataclasses.fields(TrainConfig)]
        _check_keys("", top, [*(name for name in train_fields if name not in _SECTIONS), "env", "run", *_SECTIONS])
        sections = {}
        for name, section in _SECTIONS.items():
            values = _section(table, name)
            _check_keys(f"{name}.", values, [field.name for field in dataclasses.fields(section)])
            sections[name] = section(**values)
        _check_keys("run.", run, [field.name for field in dataclasses.fields(RunOptions)])
        return cls(env, {**env_params, **given}, TrainConfig(**top, **sections), RunOptions(**run))


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, Mapping):
        raise ValueError(f"{name} must be a table [{name}], got {section!r}")
    return dict(section)


def _check_keys(prefix: str, given, valid) -> None:
    for name in given:
        if name not in valid:
            raise ValueError(f"unknown key {prefix}{name}; valid are {', '.join(prefix + v for v in valid)}")


def read_config(run_dir: str | os.PathLike) -> RunConfig:
    """The configuration of a run directory. ValueError if it is none."""
    path = Path(run_dir) / "config.toml"
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no config.toml")
    try:
        return RunConfig.from_table(tomllib.loads(path.read_text()))
    except ValueError as error:  # TOMLDecodeError is one
        raise ValueError(f"{path}: {error}") from None


def load_run(run_dir: str | os.PathLike, step: int | None = None) -> tuple[RunConfig, Env, ActorCritic, TrainState]:
    """A finished or stopped run: its configuration, training environment, policy, and the train state of `step`, or
    the latest one."""
    config = read_config(run_dir)
    env = config.make_env()
    like = global_shapes(env, config.train, config.options.devices or 1)
    return config, env, make_policy(env.spec, config.train.policy), load_checkpoint(run_dir, like, step)


def check_run_dir(run_dir: str | os.PathLike) -> None:
    """FileExistsError if something is in the way of a new run."""
    path = Path(run_dir)
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"run directory {path} exists and is not empty: choose another one, or delete it")
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"run directory {path} is a file: choose another one, or delete it")


def _create_run_dir(run_dir: str | os.PathLike, config: RunConfig) -> Path:
    import tomli_w

    path = Path(run_dir)
    check_run_dir(path)
    try:
        content = tomli_w.dumps(config.to_table())
    except TypeError as error:
        raise ValueError(f"config.toml cannot hold the parameters of {config.env}: {error}") from None
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "config.toml", content)
    except OSError as error:
        raise OSError(f"run directory {path} cannot be written: {error.strerror}") from None
    return path


@dataclasses.dataclass(frozen=True)
class TrainResult:
    train_state: TrainState
    metrics: list[dict[str, Any]]  # the lines of metrics.jsonl
    evaluation: dict[str, Any] | None  # on unseen levels; None if it was not asked for or the run was stopped
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
    max_seconds: float | None = None,
    eval_episodes: int = 2000,
    log_interval: int = 1,
    print_interval_seconds: float = 5.0,
    devices: int | None = None,
    policy: ActorCritic | None = None,
    show: bool = True,
) -> TrainResult:
    """Trains on `env` until `total_steps`, `max_seconds`, Ctrl-C or SIGTERM, whichever comes first.

    Args:
      env: an environment with one agent.
      config: the training settings.
      seed: of everything random; without max_seconds, the same seed gives the same metrics but for the times in them.
      run_dir: folder for config.toml, metrics.jsonl, summary.json and checkpoints/; must be absent or empty. None: no
        files.
      max_seconds, eval_episodes, log_interval, print_interval_seconds, devices: see `RunOptions`. Called before
        anything else has used JAX in this process, it makes every CPU core a device.
      policy: instead of `make_policy(env.spec, config.policy)`. config.toml cannot hold it: load the run with it.
      show: progress on stdout.

    A first Ctrl-C or SIGTERM ends the run after the epochs under way, writes the checkpoint, skips the evaluation and
    is reported in `stopped_by`; a second one acts at once.

    Raises ValueError for impossible settings, FileExistsError for a run_dir in use, OSError if it cannot be written.
    """
    start = time.perf_counter()
    options = RunOptions(
        seed=seed,
        max_seconds=max_seconds,
        log_interval=log_interval,
        print_interval_seconds=print_interval_seconds,
        eval_episodes=eval_episodes,
        devices=devices,
    )
    mesh_devices = choose_devices(config, devices)
    options = dataclasses.replace(options, devices=len(mesh_devices))
    policy = policy or make_policy(env.spec, config.policy)
    init, warmup, update = make_parallel(env, config, mesh_devices, policy)
    if run_dir is not None:
        run_dir = _create_run_dir(run_dir, RunConfig(env.spec.name, dict(env.params), config, options))

    title = f"pufferjax train {env.spec.name}" + (f"  {run_dir}" if run_dir else "")
    with Dashboard(title, config.total_steps, print_interval_seconds, show=show) as dashboard:
        with contextlib.ExitStack() as stack:
            signals = stack.enter_context(_StopSignals())
            writer = None
            if run_dir is not None:
                writer = MetricsWriter(run_dir / "metrics.jsonl")
                stack.callback(writer.close)
            train_state, records, stopped_by = _loop(
                config, options, jax.jit(init), jax.jit(warmup), jax.jit(update, donate_argnums=0),
                start, dashboard, signals, writer,
            )  # fmt: skip
            train_seconds = time.perf_counter() - start
            step = records[-1]["step"]
            checkpoint = save_checkpoint(run_dir, step, train_state) if run_dir is not None else None
        evaluation = None
        if options.eval_episodes and not stopped_by.startswith("SIG"):
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
            dashboard.message(f"checkpoint: {checkpoint}; evaluate it with: pufferjax eval {run_dir}")
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
            "total_seconds": time.perf_counter() - start,
            "warmup_steps": records[-1]["warmup_steps"],
            "warmup_rewards": records[-1]["warmup_rewards"],
            "pufferjax": _version("pufferjax"),
            "jax": jax.__version__,
            "machine": machine(),
        }
        if run_dir is not None:
            write_atomically(run_dir / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return TrainResult(train_state, records, evaluation, stopped_by, summary, run_dir)


def _loop(config, options, init, warmup, update, start, dashboard, signals, writer):
    """Epochs until something ends the run. Returns (train_state, records, stopped_by)."""
    clock = _Clock(start, options.max_seconds)
    hypers = config.hypers()
    train_state = warmup(init(jax.random.key(options.seed)), hypers)
    # Compiled ahead, while the warm-up runs; and a compiled function refuses a state of another layout, where jit would
    # silently compile a second time.
    update = update.lower(train_state, hypers, jnp.float32(0)).compile()
    wait(train_state.warmup_rewards)
    warmup_steps, warmup_rewards = int(train_state.warmup_steps), int(train_state.warmup_rewards)
    if warmup_steps:
        dashboard.message(
            f"warm-up: {warmup_rewards} rewards in {warmup_steps:,} random steps; ready after {clock.elapsed():.1f} s"
        )

    records: list[dict[str, Any]] = []
    window: list[dict[str, Any]] = []
    window_start = clock.elapsed()

    def finish(metrics, epoch, last):
        """Takes the figures of an epoch once it has ended; writes a line when its window is complete."""
        nonlocal window_start
        wait(metrics["loss"])
        clock.epoch_ended()
        window.append(jax.device_get(metrics))
        if len(window) < options.log_interval and not last:
            return
        wall_seconds = clock.elapsed()
        record = {
            "step": epoch * config.batch_size,
            "wall_seconds": wall_seconds,
            "epoch": epoch,
            "steps_per_second": len(window) * config.batch_size / (wall_seconds - window_start),
            **pool(window, config.num_envs),
            "warmup_steps": warmup_steps,
            "warmup_rewards": warmup_rewards,
        }
        window.clear()
        window_start = wall_seconds
        records.append(record)
        if writer is not None:
            writer.write(record)
        progress = max(epoch / config.num_epochs, wall_seconds / (options.max_seconds or math.inf))
        dashboard.update(record, progress, clock.seconds_left(config.num_epochs - epoch), last=last)

    # One epoch is always dispatched ahead, so that the devices never wait for the figures of the last one to be logged.
    epoch, stopped_by, running = 0, None, None
    while stopped_by is None:
        progress = max(epoch / config.num_epochs, clock.progress())
        train_state, metrics = update(train_state, hypers, jnp.float32(progress))
        epoch += 1
        if running is not None:
            finish(running, epoch - 1, last=False)
        running = metrics
        if signals.received is not None:
            stopped_by = signals.received
        elif epoch == config.num_epochs:
            stopped_by = "total_steps"
        elif clock.would_overrun():
            stopped_by = "max_seconds"
    finish(running, epoch, last=True)
    return train_state, records, stopped_by


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
