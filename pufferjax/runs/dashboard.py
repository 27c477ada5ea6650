"""What a run shows while it trains: a live table on a terminal, plain lines anywhere else."""

import contextlib
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping

_REFRESH_SECONDS = 0.25
_POOLED_EPISODES = 200  # the solve rate shown is over at least this many of the latest fresh episodes


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def number(x: float | None, form: str = ".4g") -> str:
    """A figure as it is shown: "-" for one that there is not, or that is not finite."""
    return "-" if x is None else format(x, form)


def _quantiles(record: Mapping, name: str, form: str = ".0f") -> str:
    """The 10 %, 50 % and 90 % quantiles of a figure of the stored states, short enough for 80 columns."""
    return "/".join(number(record[f"{name}_{quantile}"], form) for quantile in ("p10", "p50", "p90"))


def _bad(record: Mapping) -> dict[str, str]:
    """What was NaN or infinite, per epoch; nothing where nothing was."""
    figures = {name: record.get(name) or 0.0 for name in ("bad_rows", "skipped_updates")}
    if not any(figures.values()):
        return {}
    return {name.replace("_", " "): f"{value:.4g} an epoch" for name, value in figures.items()}


class Dashboard:
    """A context manager; `update` takes the records of metrics.jsonl as they are written.

    A run is worth more than what it shows: where the output is closed, cut off or full it goes on, and shows nothing.
    """

    def __init__(self, title: str, total_steps: int, print_interval_seconds: float, stream=None, show: bool = True):
        self._total_steps, self._interval = total_steps, print_interval_seconds
        self._stream = sys.stdout if stream is None else stream
        self._show = show and self._stream is not None
        self._title = self._printable(title)
        self._live = None
        self._recent = deque()  # (episodes, sum of perf) of the latest records
        self._last_shown = -float("inf")

    def __enter__(self):
        self._write(self._start)
        return self

    def __exit__(self, *exception):
        self._write(self._stop)

    def _start(self):
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn by the training loop itself: a refresh thread would take time from it.
            self._live = Live(console=Console(file=self._stream), auto_refresh=False)
            self._live.start()

    def _stop(self):
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def message(self, text: str) -> None:
        """One line that stays on the screen."""
        text = self._printable(text)
        if self._live is not None:
            self._write(lambda: self._live.console.print(text, markup=False, highlight=False))
        else:
            self._write(lambda: print(text, file=self._stream, flush=True))

    def warn(self, text: str) -> None:
        """A line that begins with "warning: ", or a Python warning if nothing is shown."""
        if self._show:
            self.message(f"warning: {text}")
        else:
            warnings.warn(text, stacklevel=2)

    def _write(self, write: Callable[[], None]) -> None:
        """Calls it; if the output does not take it, that was the last call."""
        if not self._show:
            return
        try:
            write()
        except BlockingIOError:  # the reader is behind: this line is lost
            pass
        except (OSError, ValueError, SystemExit) as error:  # rich leaves the program when a pipe breaks
            if isinstance(error, ValueError) and not self._stream.closed:
                raise
            self._show = False
            with contextlib.suppress(OSError, ValueError, SystemExit):
                self._stop()  # sets sys.stdout right, which a live table redirects

    def _printable(self, text: str) -> str:
        """`text` with what the stream has no code for spelled out: bytes of a path that are no text, say."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def update(self, record: Mapping, progress: float, seconds_left: float | None, *, last: bool = False) -> None:
        """Shows a record, unless the previous one was shown a moment ago and this is not the `last`."""
        if record["perf"] is not None or not record["episodes"]:  # of such as have a perf that is a number
            self._recent.append((record["episodes"], (record["perf"] or 0) * record["episodes"]))
        while self._recent and sum(n for n, _ in self._recent) - self._recent[0][0] >= _POOLED_EPISODES:
            self._recent.popleft()
        now = time.perf_counter()
        if not self._show or (not last and now - self._last_shown < self._min_seconds()):
            return
        self._last_shown = now
        if self._live is not None:
            table = self._table(record, progress, seconds_left)
            self._write(lambda: self._live.update(table, refresh=True))
        else:
            self.message(self._line(record, progress, seconds_left))

    def _min_seconds(self):
        return _REFRESH_SECONDS if self._live is not None else self._interval

    def _solve_rate(self):
        episodes = sum(n for n, _ in self._recent)
        return (sum(perf for _, perf in self._recent) / episodes if episodes else None), episodes

    def _line(self, record, progress, seconds_left):
        perf, episodes = self._solve_rate()
        return "  ".join(
            (
                f"step {record['step']:,} ({progress:.0%})",
                f"{number(record['steps_per_second'], ',.0f')} steps/s",
                f"elapsed {_duration(record['wall_seconds'])}",
                f"left {_duration(seconds_left)}",
                f"perf {number(perf, '.3f')} ({episodes} episodes)"
                if perf is not None or not record["episodes"]
                else f"return {number(record['episode_return'])} ({record['episodes']} episodes)",
                f"loss {number(record['loss'])}",
                f"entropy {number(record['entropy'], '.3f')}",
                f"kl {number(record['kl'], '.2g')}",
                f"states {number(record['state_set_size'], '.0f')}",
                f"priority {number(record['priority_min'], '.2g')}..{number(record['priority_max'], '.2g')}",
                f"age {number(record['state_age_p50'], '.0f')}",
                f"restarted {record['restarted_share']:.0%}",
                f"restarted perf {number(record['restarted_perf'], '.3f')}",
                *(f"{name} {value}" for name, value in _bad(record).items()),
            )
        )

    def _table(self, record, progress, seconds_left):
        from rich.table import Table

        perf, episodes = self._solve_rate()
        table = Table(title=self._title, show_header=False, title_justify="left")
        for style in ("dim", "bold", "dim", "bold"):
            table.add_column(style=style, min_width=14)

        def row(*cells):
            table.add_row(*(str(cell) for cell in cells))

        row("steps", f"{record['step']:,} / {self._total_steps:,}", "steps / s",
            number(record["steps_per_second"], ",.0f"))  # fmt: skip
        row("progress", f"{progress:.1%}", "time left", _duration(seconds_left))
        row("elapsed", _duration(record["wall_seconds"]), "epoch", record["epoch"])
        table.add_section()
        row("solve rate (fresh)", number(perf, ".3f"), "over episodes", episodes)
        row("return (fresh)", number(record["episode_return"]), "length (fresh)",
            number(record["episode_length"], ".0f"))  # fmt: skip
        table.add_section()
        row("policy loss", number(record["policy_loss"]), "value loss", number(record["value_loss"]))
        row("entropy", number(record["entropy"], ".3f"), "kl", number(record["kl"], ".2g"))
        row("clip fraction", number(record["clip_fraction"], ".3f"), "gradient norm", number(record["grad_norm"]))
        row("learning rate", number(record["learning_rate"], ".2g"), "entropy bonus",
            number(record["entropy_coef"], ".2g"))  # fmt: skip
        table.add_section()
        row("state set", f"{record['state_set_size']:.0f} states", "restarted envs", f"{record['restarted_share']:.0%}")
        row("priority", _quantiles(record, "priority", ".2g"),
            "solve rate (restarted)", number(record["restarted_perf"], ".3f"))  # fmt: skip
        row("episode time", _quantiles(record, "state_time"), "age in epochs", _quantiles(record, "state_age"))
        row("in / out per epoch", f"{record['state_inserts']:.0f} / {record['state_evictions']:.0f}",
            "repeated states", f"{record['state_repeats']:.0%}")  # fmt: skip
        row("warm-up steps", f"{record['warmup_steps']:,}", "warm-up rewards", record["warmup_rewards"])
        if bad := _bad(record):
            row(*(f"{cell}" for pair in bad.items() for cell in pair))
        return table
