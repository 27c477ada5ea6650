"""How deep the password is known, with and without the state set: the same number of training steps, several seeds.

    python experiments/password.py                             # both arms, five seeds, the steps of the preset
    python experiments/password.py --steps 2000000 --seeds 0   # part of it, or another budget
    python experiments/password.py --seeds                     # only table and plot

Random play knows k of the 128 symbols with probability 9^-k, and a policy that knows k of them meets the next choice
only at the end of a long faultless episode. Every run is a process of its own (`pufferjax train password`). Results are
kept after each run and what is there already is not run again, so an interrupted experiment goes on with the same
command. Writes results/password.json, .md and .png (or --output).

Depth is the number of symbols known at the end of a fresh episode, its mean over 2,000 of them after the last step;
intervals are 95 %, percentile bootstrap of the mean over seeds (too narrow with fewer than about ten).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from maze_statistics import RESULTS, bootstrap

from pufferjax.files import write_atomically
from pufferjax.metrics import read_metrics
from pufferjax.plots import solve_rate_curve
from pufferjax.run import machine

LENGTH = 128
ARMS = {"state set": [], "no state set": ["--state-set.fraction", "0"]}
EVAL_EPISODES = 2000


def run(steps: int | None, arm: str, seed: int, extra: Sequence[str], folder: Path) -> dict:
    run_dir = folder / "run"
    budget = [] if steps is None else ["--total-steps", steps]
    flags = ["--seed", seed, "--run-dir", run_dir, "--env.length", LENGTH, "--eval-episodes", EVAL_EPISODES, *budget]
    flags += [*extra, *ARMS[arm]]
    subprocess.run([sys.executable, "-m", "pufferjax.cli", "train", "password", *map(str, flags)], check=True)
    summary = json.loads((run_dir / "summary.json").read_text())
    curve = solve_rate_curve(read_metrics(run_dir / "metrics.jsonl"), min_episodes=2000)
    return {
        **key_of(steps, arm, seed, extra),
        "depth": summary["evaluation"]["score"],
        "perf": summary["evaluation"]["perf"],
        "train_steps": summary["steps"],
        "train_seconds": summary["train_seconds"],
        "devices": summary["devices"],
        "machine": summary["machine"],
        "curve": {name: np.round(values, 4).tolist() for name, values in curve.items()},
    }


def key_of(steps: int | None, arm: str, seed: int, extra: Sequence[str]) -> dict:
    """What makes a run the same run: a result of another budget or other flags is not taken for it."""
    return {"steps": steps, "arm": arm, "seed": seed, "extra": list(extra)}


def summarize(results: Sequence[dict]) -> dict[str, dict]:
    """Arm -> {seeds, and mean, low, high and values of the depth}, of the arms that have runs."""
    by_arm = {}
    for arm in ARMS:
        depths = [r["depth"] for r in sorted(results, key=lambda r: r["seed"]) if r["arm"] == arm]
        if depths:
            mean, low, high = bootstrap(depths)
            by_arm[arm] = {"seeds": len(depths), "mean": mean, "low": low, "high": high, "values": depths}
    return by_arm


def table(by_arm: dict[str, dict]) -> str:
    """Markdown, a row per arm."""
    lines = [f"| arm | seeds | depth of {LENGTH}, mean [95 % interval] | each seed |", "|---" * 4 + "|"]
    for arm, figures in by_arm.items():
        mean, low, high = (f"{figures[x]:.1f}" for x in ("mean", "low", "high"))
        each = ", ".join(f"{x:.1f}" for x in figures["values"])
        lines.append(f"| {arm} | {figures['seeds']} | {mean} [{low}, {high}] | {each} |")
    return "\n".join(lines)


def plot(results: Sequence[dict], by_arm: dict[str, dict], path: Path) -> None:
    """Depth of fresh episodes against steps, a line per seed; beside it the final depths with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    curves, finals = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for column, (arm, color) in enumerate(zip(ARMS, ("tab:green", "tab:red"), strict=True)):
        if arm not in by_arm:
            continue
        for result in (r for r in results if r["arm"] == arm):
            depth = LENGTH * np.asarray(result["curve"]["perf"])
            curves.plot(np.asarray(result["curve"]["step"]) / 1e6, depth, color=color, alpha=0.7)
        curves.plot([], [], color=color, label=arm)
        final = by_arm[arm]
        finals.plot([column] * final["seeds"], final["values"], ".", color=color, alpha=0.6)
        finals.plot([column, column], [final["low"], final["high"]], color=color, linewidth=3)
        finals.plot(column, final["mean"], "D", color=color)
    curves.set(xlabel="training steps (millions)", ylabel="symbols known, fresh episodes", ylim=(0, LENGTH * 1.02))
    curves.legend(loc="best")
    finals.set(
        xticks=range(len(ARMS)), xticklabels=list(ARMS), xlim=(-0.5, len(ARMS) - 0.5), title="after the last step"
    )
    for axes in (curves, finals):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of training; default: those of the preset")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--output", type=Path, default=RESULTS / "password.json")
    parser.add_argument("extra", nargs="*", help="after --: more flags of `pufferjax train`, for every arm")
    args = parser.parse_args(argv)
    args.output.parent.mkdir(exist_ok=True)
    results = json.loads(args.output.read_text())["results"] if args.output.is_file() else []
    for seed in args.seeds:  # both arms of a seed before the next one: what an interruption leaves compares fairly
        for arm in args.arms:
            key = key_of(args.steps, arm, seed, args.extra)
            if any(r == {**r, **key} for r in results):
                continue
            with tempfile.TemporaryDirectory() as folder:
                results.append(run(args.steps, arm, seed, args.extra, Path(folder)))
            write_atomically(args.output, json.dumps({"results": results}, indent=1) + "\n")
    shown = [r for r in results if r == {**r, **key_of(args.steps, r["arm"], r["seed"], args.extra)}]
    by_arm = summarize(shown)
    if by_arm:
        print(table(by_arm), flush=True)
        write_atomically(args.output.with_suffix(".md"), f"{machine()}\n\n{table(by_arm)}\n")
        plot(shown, by_arm, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
