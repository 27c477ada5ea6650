"""What the experiments share: training runs as processes of their own, a file of results, intervals, learning curves.

Imported by the scripts beside it; not a script.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pufferjax.runs.files import locked, write_atomically
from pufferjax.runs.metrics import read_metrics
from pufferjax.watch.plots import episode_curve

RESULTS = Path(__file__).parent / "results"
STATE_SET, NO_STATE_SET = "state set", "no state set"  # the two arms of several experiments
NO_STATE_SET_FLAGS = ("--state-set.fraction", "0")
COLOURS = {STATE_SET: "tab:green", NO_STATE_SET: "tab:red"}
RESAMPLES = 10_000
_LIST = re.compile(r"\[[^][{}\"]*\]")  # of numbers: a curve is one line of JSON, not hundreds


def train_run(env: str, flags: Sequence[Any], gif: Path | None = None) -> tuple[dict, list[dict]]:
    """`pufferjax train ENV` in a process of its own: (its summary.json, the records of its metrics.jsonl).

    gif: where to put one of its episodes. Raises CalledProcessError if the process fails.
    """
    cli = [sys.executable, "-m", "pufferjax"]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        subprocess.run([*cli, "train", env, *map(str, flags), "--run-dir", str(run_dir)], check=True)
        if gif is not None:
            subprocess.run([*cli, "eval", str(run_dir), "--episodes", "1", "--gif", str(gif)], check=True)
        return json.loads((run_dir / "summary.json").read_text()), read_metrics(run_dir / "metrics.jsonl")


def curve_of(records: Sequence[Mapping], name: str, min_episodes: int) -> dict[str, list[float]]:
    """`episode_curve` as JSON holds it."""
    curve = episode_curve(records, name, min_episodes)
    return {axis: np.round(values, 4).tolist() for axis, values in curve.items()}


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the arguments of a script, the flags after its "--"), which argparse cannot do beside a positional argument."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


class Results:
    """The runs of an experiment in one JSON file, {..., "results": [...]}, at most one for each key.

    A key is the part of a result that says which run it is. Several processes may add to one file.
    """

    def __init__(self, path: Path, *, order: Callable[[dict], Any] | None = None, **heading: Any):
        """order: sort key of the results, which otherwise stay in the order they came; heading: what else the file
        says."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._order, self._heading = path, order, heading

    def all(self) -> list[dict]:
        """As the file has them now."""
        return json.loads(self.path.read_text())["results"] if self.path.is_file() else []

    def matching(self, key: Mapping) -> list[dict]:
        return [result for result in self.all() if _has(result, key)]

    def add_missing(self, key: Mapping, run: Callable[..., Mapping], *arguments: Any) -> None:
        """Adds the run whose figures are `run(*arguments)`, unless one with its key is there already."""
        if not self.matching(key):
            self.add(key, run(*arguments))

    def add(self, key: Mapping, figures: Mapping) -> None:
        """Adds a run, in place of one with the same key."""
        with locked(self.path.parent, wait=True):
            results = [result for result in self.all() if not _has(result, key)] + [{**key, **figures}]
            if self._order is not None:
                results.sort(key=self._order)
            text = json.dumps({**self._heading, "results": results}, indent=1)
            write_atomically(self.path, _LIST.sub(lambda match: " ".join(match[0].split()), text) + "\n")


def _has(result: Mapping, key: Mapping) -> bool:
    return all(name in result and result[name] == value for name, value in key.items())


def bootstrap(values: Sequence[float], statistic: Callable = np.mean) -> tuple[float, float, float]:
    """(statistic, low, high): percentile bootstrap over seeds, 95 %; the same numbers every time.

    statistic: of the last axis of an array, called as statistic(values, axis=-1).
    """
    values = np.asarray(values, float)
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(statistic(values[draws], axis=-1), (2.5, 97.5))
    return float(statistic(values, axis=-1)), float(low), float(high)


def interquartile_mean(values, axis: int = -1):
    """Mean without the lowest and the highest quarter, each rounded down to whole values (Agarwal et al. 2021, "Deep
    reinforcement learning at the edge of the statistical precipice"): one seed that never or always learns does not
    carry it."""
    values = np.sort(np.asarray(values, float), axis=axis)
    count = values.shape[axis]
    return np.take(values, range(count // 4, count - count // 4), axis=axis).mean(axis=axis)


def wilson(successes: int, count: int) -> tuple[float, float, float]:
    """(share, low, high), 95 %: the bootstrap has no width when all seeds agree."""
    z = 1.96
    share = successes / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return share, max(0.0, middle - half), min(1.0, middle + half)


def draw_curves(axes, results: Sequence[Mapping], x: str, y: str, colours: Mapping[str, str]) -> None:
    """A line per run in the colour of its arm, and one label per arm. x: "step", drawn in millions, or "seconds"."""
    for arm, colour in colours.items():
        of_arm = [result["curve"] for result in results if result["arm"] == arm]
        for index, curve in enumerate(of_arm):
            at = np.asarray(curve[x]) / (1e6 if x == "step" else 1)
            axes.plot(at, curve[y], color=colour, alpha=0.8, label=None if index else arm)
    axes.grid(alpha=0.3)
