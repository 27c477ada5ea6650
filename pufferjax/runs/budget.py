"""What a run may use, and how much of it is used: epochs, and seconds on its clock."""

import time


class Budget:
    """`num_epochs`, and `max_seconds` from `start` (of `time.perf_counter`) unless that is None; the first to be spent
    ends the run.

    Epochs are dispatched one ahead of the one that runs, so whether the next one fits is a matter of when that will
    have ended.
    """

    def __init__(self, num_epochs: int, max_seconds: float | None, start: float):
        self._num_epochs, self._max_seconds, self._start = num_epochs, max_seconds, start
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

    def share(self, epochs: int, seconds: float) -> float:
        """How much of it so many epochs and seconds are."""
        by_time = 0.0 if self._max_seconds is None else seconds / self._max_seconds
        return max(epochs / self._num_epochs, by_time)

    def progress(self, epochs: int) -> float:
        """The share used when the epoch dispatched now, after so many, will begin; in [0, 1]."""
        return min(1.0, self.share(epochs, self._next_start()))

    def spent(self, epochs: int) -> str | None:
        """Which setting forbids another epoch after so many, "total_steps" or "max_seconds"; None: it may begin.

        The first one always may.
        """
        if epochs >= self._num_epochs:
            return "total_steps"
        is_late = self._max_seconds is not None and self._next_start() + self._epoch_seconds > self._max_seconds
        return "max_seconds" if epochs and is_late else None

    def seconds_left(self, epochs: int) -> float | None:
        """After so many epochs; None while there is no telling."""
        if not self._epoch_seconds:
            return None
        by_steps = (self._num_epochs - epochs) * self._epoch_seconds
        return by_steps if self._max_seconds is None else min(by_steps, max(0.0, self._max_seconds - self.elapsed()))

    def share_that_fits(self, epochs: int) -> float | None:
        """After so many epochs: how much of `num_epochs` will have been trained when the seconds are spent, at most 1;
        None while there is no telling."""
        left = self.seconds_left(epochs)
        return None if left is None else min(1.0, (epochs + left / self._epoch_seconds) / self._num_epochs)

    def _next_start(self) -> float:
        """When the epoch dispatched now will begin: after the one that runs."""
        return self.elapsed() if self._last_end is None else max(self.elapsed(), self._last_end + self._epoch_seconds)
