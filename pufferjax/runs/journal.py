"""What a run remembers while it trains: its lines of metrics and its checkpoints, from which it can go on.

A checkpoint holds, besides the train state, the epoch, the seconds used, how many bytes of metrics.jsonl belong to it,
and the epochs of the window whose line is not yet written: a resumed run writes the lines that the run would have.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from pufferjax.core.config import Sizes
from pufferjax.runs.checkpoint import (
    Checkpoint,
    checkpoint_steps,
    clean_up,
    delete_old,
    load_checkpoint,
    save_checkpoint,
    try_to_write,
)
from pufferjax.runs.json_text import spelled
from pufferjax.runs.metrics import MetricsWriter, pool, read_metrics
from pufferjax.runs.run_config import RunOptions
from pufferjax.runs.sinks import Sinks

FRUITLESS_EPOCHS = 10  # in a row without a single update, since none was finite: nothing is learned any more
CLIPPED_EPOCHS = 20  # in a row in which most values were held back by their clip: more than the first epochs need


class Journal:
    """A context manager: `start`, `ready`, `add` for each epoch, `end`, `save_last`. Without a run directory nothing
    but `records` is kept."""

    def __init__(
        self,
        run_dir: Path | None,
        sizes: Sizes,
        options: RunOptions,
        settings: Mapping[str, Any],
        message: Callable[[str], None],
        warn: Callable[[str], None],
        sinks: Sinks | None = None,
    ):
        self.records: list[dict[str, Any]] = []
        self.epoch = 0  # of the last `add`
        self._run_dir, self._sizes, self._options, self._settings = run_dir, sizes, options, settings
        self._message, self._warn = message, warn
        self._window: list[dict[str, float]] = []
        self._window_start = 0.0
        self._constants: dict[str, Any] = {}
        self._writer: MetricsWriter | None = None
        self._sinks = sinks
        self._saved: Path | None = None  # the latest checkpoint, and
        self._saved_epoch: int | None = None  # its epoch
        self._last_attempt = 0.0
        self._has_warned = self._has_named_bad_rows = self._has_named_clipped_values = False
        self._fruitless = 0  # epochs until now in which all updates were skipped
        self._clipped = 0  # epochs until now in which most values were clipped
        self._last_progress: dict[str, Any] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._writer is not None:
            self._writer.close()

    def load(self, like: Any) -> Checkpoint | None:
        """The latest good checkpoint of a run, None if none was ever written. Changes nothing.

        Raises CheckpointError if there are only bad ones.
        """
        if not checkpoint_steps(self._run_dir):
            return None
        return load_checkpoint(self._run_dir, like, settings=self._settings, warn=self._warn)

    def start(self, checkpoint: Checkpoint | None = None) -> None:
        """Opens the files of a run, from its beginning or from `checkpoint`, with everything after that undone, and
        tries whether a checkpoint can be written. Raises OSError."""
        if self._run_dir is not None:
            clean_up(self._run_dir, after=checkpoint.step if checkpoint else -1)
            try_to_write(self._run_dir, self._sizes.num_epochs * self._sizes.batch_size)
        if checkpoint is None:
            self._open_metrics(0)
            return
        progress = checkpoint.progress
        self._open_metrics(progress["metrics_bytes"])
        self.records = read_metrics(self._run_dir / "metrics.jsonl")
        self.epoch = self._saved_epoch = progress["epoch"]
        self._saved = self._run_dir / "checkpoints" / str(checkpoint.step)
        self._last_attempt = progress["seconds"]
        self._window = [{name: float(x) for name, x in epoch.items()} for epoch in progress["window"]]
        self._window_start = -progress["window_seconds"]
        self._fruitless, self._clipped = progress.get("fruitless", 0), progress.get("clipped", 0)
        if progress["jax"] != jax.__version__:
            self._warn(
                f"the checkpoint was written with JAX {progress['jax']}, this is {jax.__version__}: "
                "the run goes on, but may not be the same bit for bit"
            )

    def _open_metrics(self, position: int) -> None:
        if self._run_dir is not None:
            self._writer = MetricsWriter(self._run_dir / "metrics.jsonl", position)

    def ready(self, seconds: float, constants: Mapping[str, Any]) -> None:
        """The first epoch begins now, `seconds` into the run. `constants` go into every line."""
        self._window_start += seconds
        self._constants = dict(constants)

    def add(self, metrics: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """Takes the figures of the next epoch; the line, if that completes one."""
        self.epoch += 1
        self._window.append({name: float(x) for name, x in metrics.items()})
        self._look_for_bad_rows(self._window[-1])
        self._look_for_clipped_values(self._window[-1])
        return self._write_line(seconds) if len(self._window) >= self._options.log_interval else None

    def _look_for_bad_rows(self, figures: Mapping[str, float]) -> None:
        skipped, updates = figures["skipped_updates"], self._sizes.num_minibatches
        self._fruitless = self._fruitless + 1 if updates and skipped == updates else 0
        bad, bad_rewards = int(figures["bad_rows"]), int(figures["bad_reward_rows"])
        if not (bad or skipped) or self._has_named_bad_rows:
            return
        self._has_named_bad_rows = True
        what = "rewards" if bad_rewards else "observations, or what the policy makes of them,"
        what = "rewards and observations" if 0 < bad_rewards < bad else what
        rows = f"{what} in {bad} of {self._sizes.num_rows} rows are" if bad else "an update is"
        self._warn(
            f"epoch {self.epoch}: {rows} NaN or infinite; such rows are not trained on and such updates not made "
            f"({skipped:.0f} of {updates}): see bad_rows and skipped_updates in the metrics; said once"
        )

    def _look_for_clipped_values(self, figures: Mapping[str, float]) -> None:
        """Value clipping is in units of the return: where returns are large it is all that moves the values."""
        # The first update of an epoch sees the values of the rollout, and clips nothing.
        possible = 1 - 1 / max(self._sizes.num_minibatches, 1)
        self._clipped = self._clipped + 1 if figures["value_clip_fraction"] > 0.5 * possible else 0
        if self._clipped < CLIPPED_EPOCHS or self._has_named_clipped_values:
            return
        self._has_named_clipped_values = True
        clip = self._settings["ppo.value_clip_eps"]
        self._warn(
            f"epoch {self.epoch}: in {self._clipped} epochs in a row the value loss of most samples was clipped: "
            f"returns are large beside ppo.value_clip_eps ({clip:g}), and values follow them slowly. "
            "Set ppo.scale_rewards, or raise ppo.value_clip_eps; see "
            "value_clip_fraction in the metrics; said once"
        )

    def is_fruitless(self, more_than: int = FRUITLESS_EPOCHS - 1) -> bool:
        """Whether all updates of more than so many epochs in a row had to be skipped, and that is to end the run."""
        return self._options.stop_on_non_finite and self._fruitless > more_than

    def end(self, seconds: float) -> dict[str, Any] | None:
        """The last epoch has been added: writes the line of the epochs that have none yet, and returns it if there are
        any. The last checkpoint knows nothing of it: a resumed run fills that window as if it had never stopped."""
        self._last_progress = self._progress(seconds)
        return self._write_line(seconds) if self._window else None

    def save_last(self, train_state: Any) -> Path | None:
        """The folder of the checkpoint of the `end`, written unless it is there already. Raises OSError."""
        return self._save(train_state, self._last_progress)

    def _write_line(self, seconds: float) -> dict[str, Any]:
        batch_size = self._sizes.batch_size
        record = {
            "step": self.epoch * batch_size,
            "wall_seconds": seconds,
            "epoch": self.epoch,
            "steps_per_second": len(self._window) * batch_size / (seconds - self._window_start),
            **pool(self._window, self._sizes.num_envs),
            **self._constants,
        }
        self._window, self._window_start = [], seconds
        self.records.append(record)
        if self._writer is not None:
            self._writer.write(record)
        if self._sinks is not None:
            self._sinks.write(record)
        return record

    def _progress(self, seconds: float) -> dict[str, Any]:
        """What a checkpoint of this moment holds besides the train state."""
        return {
            "epoch": self.epoch,
            "seconds": seconds,
            "metrics_bytes": self._writer.position if self._writer is not None else 0,
            "window": spelled(self._window),
            "window_seconds": seconds - self._window_start,
            "fruitless": self._fruitless,
            "clipped": self._clipped,
            "settings": self._settings,
            "jax": jax.__version__,
        }

    def is_due(self, epoch: int, seconds: float) -> bool:
        """Whether the state after `epoch` should be saved."""
        return (
            self._run_dir is not None
            and epoch != self._saved_epoch
            and seconds - self._last_attempt >= self._options.checkpoint_interval_seconds
        )

    def try_to_save(self, train_state: Any, seconds: float) -> None:
        """Writes a checkpoint. That it cannot is no reason to stop: it says so once, and the next may succeed."""
        self._last_attempt = seconds
        try:
            self._save(train_state, self._progress(seconds))
        except OSError as error:
            if not self._has_warned:
                self._warn(f"{error}; training goes on")
            self._has_warned = True

    def _save(self, train_state: Any, progress: Mapping[str, Any]) -> Path | None:
        if self._run_dir is not None and self._saved_epoch != progress["epoch"]:
            self._writer.sync()  # a checkpoint must never know of lines that a loss of power can still undo
            step = progress["epoch"] * self._sizes.batch_size
            self._saved = save_checkpoint(self._run_dir, step, train_state, progress)
            self._saved_epoch = progress["epoch"]
            delete_old(self._run_dir, self._options.keep_checkpoints)
        return self._saved
