"""What runs are worth: the score, the cost and the learning curve of a run directory, and of several seeds together."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pufferjax.runs.metrics import read_metrics
from pufferjax.runs.run_config import RunConfig

COSTS = {"seconds": "wall_seconds", "steps": "step"}  # and the column of metrics.jsonl it is in
AGGREGATES = ("mean", "lower_bound")
_BINS = 16  # points of a curve that are kept
_LAST = 30  # lines whose mean is the score of a run without an evaluation


class RunResult(NamedTuple):
    score: float | None  # None: nothing was measured
    cost: float
    curve: list[list[float]]  # [share of the run, cost, score], in order
    stopped_by: str | None  # as in summary.json; None: the run did not get so far


def share_of(record: dict[str, Any], config: RunConfig) -> float:
    """How much of its run a line of metrics.jsonl has behind it, in [0, 1]."""
    by_steps = record["step"] / config.train.total_steps
    seconds = config.options.max_seconds
    return min(1.0, max(by_steps, 0.0 if seconds is None else record["wall_seconds"] / seconds))


def read_result(run_dir: Path, config: RunConfig, metric: str, cost: str) -> RunResult:
    """What a run of `config` has come to, finished or not. OSError or ValueError if its files cannot be read."""
    summary = {}
    if (run_dir / "summary.json").exists():
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    records = read_metrics(run_dir / "metrics.jsonl") if (run_dir / "metrics.jsonl").exists() else []
    measured = [record for record in records if isinstance(record.get(metric), (int, float))]
    score = (summary.get("evaluation") or {}).get(metric)
    if score is None and measured:
        score = float(np.mean([record[metric] for record in measured[-_LAST:]]))
    if summary:
        spent = summary["train_seconds"] if cost == "seconds" else summary["steps"]
    else:
        spent = records[-1][COSTS[cost]] if records else 0.0
    return RunResult(score, float(spent), _curve(measured, config, metric, COSTS[cost]), summary.get("stopped_by"))


def _curve(records, config: RunConfig, metric: str, column: str) -> list[list[float]]:
    """Means over equal parts of the run."""
    points = [(share_of(record, config), float(record[column]), float(record[metric])) for record in records]
    parts: dict[int, list[tuple[float, float, float]]] = {}
    for point in points:
        parts.setdefault(min(int(point[0] * _BINS), _BINS - 1), []).append(point)
    return [[float(x) for x in np.mean(parts[part], axis=0)] for part in sorted(parts)]


def mean_curve(curves: Sequence[list[list[float]]]) -> list[list[float]]:
    """Of several seeds: point by point, as far as all of them go."""
    length = min(map(len, curves), default=0)
    return [[float(x) for x in np.mean([curve[i] for curve in curves], axis=0)] for i in range(length)]


def aggregate(scores: Sequence[float], how: str) -> float:
    """Of several seeds: "mean", or "lower_bound", the mean less its standard error."""
    mean = float(np.mean(scores))
    if how == "mean" or len(scores) < 2:
        return mean
    return mean - float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
