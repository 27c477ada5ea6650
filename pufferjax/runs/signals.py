"""SIGINT and SIGTERM while a run trains: the first asks it to stop."""

import contextlib
import signal
import sys
import threading
from typing import Any

_AGAIN_SECONDS = 0.2


class StoppedEarly(KeyboardInterrupt):
    """A run was asked to stop while it started: before its first epoch there is nothing to save."""

    def __init__(self, name: str):
        super().__init__(f"stopped by {name} before the first epoch")
        self.name = name  # "SIGINT" or "SIGTERM"


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in `received`, or raises StoppedEarly until `started`; a
    second one acts as before.

    What is raised may be lost: Python ignores it in a callback of the garbage collector (JAX has one), and C++ that
    calls Python can make another error of it. So it is raised again and again until the block has been left, by a timer
    (SIGALRM, given back at the end), and takes the place of any other error. Of those that are lost nothing is printed.

    Only the main thread may handle signals; elsewhere this does nothing.
    """

    def __init__(self):
        self.received: str | None = None
        self._has_started = self._is_stopped = False
        self._previous: dict[int, Any] = {}
        self._hook: Any = None  # sys.unraisablehook as it was before
        self._alarm: tuple[Any, tuple[float, float]] | None = None  # as they were before: SIGALRM's handler, the timer

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._print_others
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self._end_alarm()
        except StoppedEarly:  # in here
            self._end_alarm()
        self._restore()
        if self._hook is not None:
            sys.unraisablehook = self._hook
        if self._is_stopped and not isinstance(error, StoppedEarly):
            raise StoppedEarly(self.received) from error

    def started(self) -> None:
        """From here on there are epochs, each of which is worth its end. Raises StoppedEarly if it comes too late."""
        if self._is_stopped:
            self._raise()
        self._has_started = True

    def _note(self, number, frame):
        self.received = signal.Signals(number).name
        self._restore()
        if not self._has_started:
            self._is_stopped = True
            before = signal.signal(signal.SIGALRM, self._raise)
            self._alarm = before, signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
            self._raise()

    def _print_others(self, unraisable):
        if not isinstance(unraisable.exc_value, StoppedEarly):
            self._hook(unraisable)

    def _raise(self, *_):
        raise StoppedEarly(self.received)

    def _end_alarm(self):
        if self._alarm is None:
            return
        handler, (seconds, interval) = self._alarm
        with contextlib.suppress(StoppedEarly):  # of a signal that has already come
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, interval)
        self._alarm = None

    def _restore(self):
        for number, handler in self._previous.items():
            if handler in (None, signal.SIG_IGN):  # a shell's background job: a second signal must still stop it
                handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, handler)
        self._previous = {}
