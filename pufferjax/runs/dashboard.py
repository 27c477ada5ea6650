"""What a run shows while it trains: a live table on a terminal, plain lines anywhere else."""

import sys
import time
from collections import deque
from collections.abc import Mapping

_REFRESH_SECONDS = 0.25
_POOLED_EPISODES = 200  # the solve rate shown is over at least this many of the latest fresh episodes


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def _number(x: float | None, form: str = ".4g") -> str:
    return "-" if x is None else format(x, form)


def _quantiles(record: Mapping, name: str, form: str = ".0f") -> str:
    """The 10 %, 50 % and 90 % quantiles of a figure of the stored states, short enough for 80 columns."""
    return "/".join(_number(record[f"{name}_{quantile}"], form) for quantile in ("p10", "p50", "p90"))


class Dashboard:
    """A context manager; `update` takes the records of metrics.jsonl as they are written."""

    def __init__(self, title: str, total_steps: int, print_interval_seconds: float, stream=None, show: bool = True):
        self._title, self._total_steps, self._interval = title, total_steps, print_interval_seconds
        self._stream = sys.stdout if stream is None else stream
        self._show = show
        self._live = None
        self._recent = deque()  # (episodes, sum of perf) of the latest records
        self._last_shown = -float("inf")

    def __enter__(self):
        if self._show and self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn by the training loop itself: a refresh thread would take time from it.
            self._live = Live(console=Console(file=self._stream), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *exception):
        if self._live is not None:
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        """One line that stays on the screen."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        elif self._show:
            print(text, file=self._stream, flush=True)

    def update(self, record: Mapping, progress: float, seconds_left: float | None, *, last: bool = False) -> None:
        """Shows a record, unless the previous one was shown a moment ago and this is not the `last`."""
        if record["perf"] is not None or not record["episodes"]:
            self._recent.append((record["episodes"], (record["perf"] or 0) * record["episodes"]))
        while self._recent and sum(n for n, _ in self._recent) - self._recent[0][0] >= _POOLED_EPISODES:
            self._recent.popleft()
        now = time.perf_counter()
        if not self._show or (not last and now - self._last_shown < self._min_seconds()):
            return
        self._last_shown = now
        if self._live is not None:
            self._live.update(self._table(record, progress, seconds_left), refresh=True)
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
                f"{_number(record['steps_per_second'], ',.0f')} steps/s",
                f"elapsed {_duration(record['wall_seconds'])}",
                f"left {_duration(seconds_left)}",
                f"perf {_number(perf, '.3f')} ({episodes} episodes)"
                if perf is not None or not record["episodes"]
                else f"return {_number(record['episode_return'])} ({record['episodes']} episodes)",
                f"loss {_number(record['loss'])}",
                f"entropy {_number(record['entropy'], '.3f')}",
                f"kl {_number(record['kl'], '.2g')}",
                f"states {_number(record['state_set_size'], '.0f')}",
                f"priority {_number(record['priority_min'], '.2g')}..{_number(record['priority_max'], '.2g')}",
                f"age {_number(record['state_age_p50'], '.0f')}",
                f"restarted {record['restarted_share']:.0%}",
                f"restarted perf {_number(record['restarted_perf'], '.3f')}",
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
            _number(record["steps_per_second"], ",.0f"))  # fmt: skip
        row("progress", f"{progress:.1%}", "time left", _duration(seconds_left))
        row("elapsed", _duration(record["wall_seconds"]), "epoch", record["epoch"])
        table.add_section()
        row("solve rate (fresh)", _number(perf, ".3f"), "over episodes", episodes)
        row("return (fresh)", _number(record["episode_return"]), "length (fresh)",
            _number(record["episode_length"], ".0f"))  # fmt: skip
        table.add_section()
        row("policy loss", _number(record["policy_loss"]), "value loss", _number(record["value_loss"]))
        row("entropy", _number(record["entropy"], ".3f"), "kl", _number(record["kl"], ".2g"))
        row("clip fraction", _number(record["clip_fraction"], ".3f"), "gradient norm", _number(record["grad_norm"]))
        row("learning rate", _number(record["learning_rate"], ".2g"), "entropy bonus",
            _number(record["entropy_coef"], ".2g"))  # fmt: skip
        table.add_section()
        row("state set", f"{record['state_set_size']:.0f} states", "restarted envs", f"{record['restarted_share']:.0%}")
        row("priority", _quantiles(record, "priority", ".2g"),
            "solve rate (restarted)", _number(record["restarted_perf"], ".3f"))  # fmt: skip
        row("episode time", _quantiles(record, "state_time"), "age in epochs", _quantiles(record, "state_age"))
        row("in / out per epoch", f"{record['state_inserts']:.0f} / {record['state_evictions']:.0f}",
            "repeated states", f"{record['state_repeats']:.0%}")  # fmt: skip
        row("warm-up steps", f"{record['warmup_steps']:,}", "warm-up rewards", record["warmup_rewards"])
        return table
