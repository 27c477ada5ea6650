"""SIGINT and SIGTERM while a run trains: the first asks it to stop."""

import signal
import threading
from typing import Any


class StoppedEarly(KeyboardInterrupt):
    """A run was asked to stop while it started: before its first epoch there is nothing to save."""

    def __init__(self, name: str):
        super().__init__(f"stopped by {name} before the first epoch")
        self.name = name  # "SIGINT" or "SIGTERM"


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in `received`, or raises StoppedEarly until `started`; a
    second one acts as before.

    Only the main thread may handle signals; elsewhere this does nothing.
    """

    def __init__(self):
        self.received: str | None = None
        self._has_started = False
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        self._restore()

    def started(self) -> None:
        """From here on there are epochs, each of which is worth its end."""
        self._has_started = True

    def _note(self, number, frame):
        self.received = signal.Signals(number).name
        self._restore()
        if not self._has_started:
            raise StoppedEarly(self.received)

    def _restore(self):
        for number, handler in self._previous.items():
            if handler in (None, signal.SIG_IGN):  # a shell's background job: a second signal must still stop it
                handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, handler)
        self._previous = {}
