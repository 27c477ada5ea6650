"""Learning curves from metrics.jsonl."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pufferjax.runs.files import write_atomically
from pufferjax.runs.metrics import read_metrics


def solve_rate_curve(records: Sequence[Mapping], min_episodes: int = 200) -> dict[str, np.ndarray]:
    """`episode_curve` of perf."""
    return episode_curve(records, "perf", min_episodes)


def episode_curve(records: Sequence[Mapping], name: str, min_episodes: int = 200) -> dict[str, np.ndarray]:
    """A figure of fresh episodes, neighbouring records pooled until each point stands on `min_episodes`.

    Returns step, seconds and the mean of `name` at the end of each pool; the last one may hold fewer episodes.
    """
    points, episodes, total = [], 0, 0.0
    for index, record in enumerate(records):
        if record[name] is not None:
            episodes += record["episodes"]
            total += record[name] * record["episodes"]
        if episodes >= min_episodes or (index == len(records) - 1 and episodes):
            points.append((record["step"], record["wall_seconds"], total / episodes))
            episodes, total = 0, 0.0
    step, seconds, values = np.asarray(points, float).reshape(-1, 3).T
    return {"step": step, "seconds": seconds, name: values}


def plot_runs(runs: Mapping[str, str | os.PathLike], path: str | os.PathLike, title: str = "") -> None:
    """A PNG of the fresh solve rate of each run (label -> its metrics.jsonl) against steps and against seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    by_step, by_second = figure.subplots(1, 2, sharey=True)
    for label, metrics in runs.items():
        curve = solve_rate_curve(read_metrics(Path(metrics)))
        by_step.plot(curve["step"] / 1e6, curve["perf"], label=label)
        by_second.plot(curve["seconds"], curve["perf"], label=label)
    by_step.set(xlabel="training steps (millions)", ylabel="solve rate, fresh episodes", ylim=(-0.02, 1.02))
    by_second.set(xlabel="seconds since the start, compilation and warm-up included")
    for axes in (by_step, by_second):
        axes.grid(alpha=0.3)
    if runs:
        by_second.legend(loc="best")
    if title:
        figure.suptitle(title)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())
