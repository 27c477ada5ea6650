"""What a run does between two epochs: dispatch the next, log the last, save a checkpoint if one is due, stop."""

import jax
import jax.numpy as jnp

from pufferjax.core.config import Hypers
from pufferjax.core.epochs import OneProgram, TwoPrograms
from pufferjax.core.types import TrainState
from pufferjax.core.waiting import wait
from pufferjax.runs.budget import Budget
from pufferjax.runs.checkpoint import Checkpoint
from pufferjax.runs.dashboard import Dashboard
from pufferjax.runs.journal import FRUITLESS_EPOCHS, Journal
from pufferjax.runs.signals import StopSignals

_SECONDS_BETWEEN_REPORTS = 5  # of the warm-up
_EPOCHS_BEFORE_FORECAST = 8  # timed ones, before it is said how far the seconds will reach


class Loop:
    """The epochs of a run: `begin`, then `run`."""

    def __init__(
        self,
        epochs: OneProgram | TwoPrograms,
        budget: Budget,
        journal: Journal,
        dashboard: Dashboard,
        warmup_seconds: float,
    ):
        self._epochs, self._budget, self._journal, self._dashboard = epochs, budget, journal, dashboard
        self._warmup_seconds, self._warmup_times = warmup_seconds, None
        self._timed_epochs = 0

    def begin(self, train_state: TrainState, hypers: Hypers, *, checkpoint: Checkpoint | None, resume: bool) -> None:
        """Gets everything ready for the next epoch: the one after `checkpoint`, or else the first one, after the
        warm-up of the fresh `train_state`; `resume`: a checkpoint was looked for."""
        if checkpoint is None:
            train_state = self._epochs.warmup(train_state, hypers, self._warmup_report)
        else:
            train_state = checkpoint.train_state
            self._budget.go_on_from(checkpoint.progress["seconds"])
        self._epochs.begin(train_state, hypers)  # compiles while the warm-up runs
        wait(train_state.warmup_rewards)
        steps, rewards = int(train_state.warmup_steps), int(train_state.warmup_rewards)
        message, ready = self._dashboard.message, f"ready after {self._budget.elapsed():.1f} s"
        if checkpoint is not None:
            message(f"resumed after {checkpoint.step:,} steps; {ready} in all")
        elif resume:
            message("the run was killed before its first checkpoint: it starts again from the beginning")
        elif steps:
            message(f"warm-up: {rewards} rewards in {steps:,} random steps; {ready}")
        self._journal.ready(self._budget.elapsed(), {"warmup_steps": steps, "warmup_rewards": rewards})

    def _warmup_report(self, steps: float, rewards: int) -> bool:
        """Shows how far the random warm-up is, and whether it may go on."""
        now = self._budget.elapsed()
        begun, shown = self._warmup_times or (now, now)
        if now - shown >= _SECONDS_BETWEEN_REPORTS:
            self._dashboard.message(
                f"warm-up: {rewards} rewards in {steps:,.0f} random steps, {now - begun:.0f} s so far"
            )
            shown = now
        self._warmup_times = begun, shown
        return now - begun < self._warmup_seconds

    def run(self, signals: StopSignals) -> str:
        """Trains until a signal or the budget ends it, or nothing can be learned any more. Returns which: the name of
        the signal, that of the setting, or "non_finite".

        One epoch is always dispatched ahead, so that the devices never wait for the figures of the last one to be
        logged.
        """
        epoch, running, record = self._journal.epoch, None, None
        stopped_by = self._budget.spent(epoch)  # at once, if the run was killed in its final evaluation
        if self._journal.is_fruitless(FRUITLESS_EPOCHS):  # the epoch dispatched ahead included
            stopped_by = stopped_by or "non_finite"
        while stopped_by is None:
            # The next epoch consumes the train state, so one that is to be saved is copied first; it is written while
            # that epoch runs.
            is_due = self._journal.is_due(epoch, self._budget.elapsed())
            copied = _copy(self._epochs.train_state) if is_due else None
            figures = self._epochs.advance(jnp.float32(self._budget.progress(epoch)))
            epoch += 1
            if running is not None:
                self._show(self._log(running))
            if copied is not None:
                self._journal.try_to_save(copied, self._budget.elapsed())
            running = figures
            stopped_by = signals.received or self._budget.spent(epoch)
            if self._journal.is_fruitless():
                stopped_by = stopped_by or "non_finite"
        if running is not None:
            record = self._log(running)
        self._show(self._journal.end(self._budget.elapsed()) or record, last=True)
        return stopped_by

    def _log(self, figures) -> dict | None:
        """Takes the figures of an epoch once it has ended; the line of metrics, if it completes one."""
        metrics = figures()
        self._budget.epoch_ended()
        self._timed_epochs += 1
        if self._timed_epochs == _EPOCHS_BEFORE_FORECAST:
            self._tell_shortfall()
        return self._journal.add(metrics, self._budget.elapsed())

    def _tell_shortfall(self) -> None:
        """A run whose seconds end it early is another run than that of all its steps, not the same one sooner."""
        share = self._budget.share_that_fits(self._journal.epoch)
        if share is not None and share < 0.5:
            self._dashboard.message(
                f"at this speed about {share:.0%} of total_steps fit into max_seconds: step size and entropy reach "
                "their ends with the seconds, and the result is that of a shorter run. More seconds, or none, end "
                "where a faster machine does"
            )

    def _show(self, record: dict | None, last: bool = False) -> None:
        if record is not None:
            epoch, budget = record["epoch"], self._budget
            share = budget.share(epoch, record["wall_seconds"])
            self._dashboard.update(record, share, budget.seconds_left(epoch), last=last)


def _copy(tree):
    """The same arrays in memory of their own, wherever each of them is; nothing is compiled."""
    return jax.device_put(tree, jax.tree.map(lambda x: x.sharding, tree), may_alias=False)
