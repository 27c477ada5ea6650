"""The sparse maze with and without the state set: fresh solve rate against steps and seconds, several seeds.

    python experiments/maze_sparse.py                        # 15, 21 and 27, three seeds, both arms
    python experiments/maze_sparse.py --sizes 35             # about twenty minutes for each seed and arm
    python experiments/maze_sparse.py --sizes 15 --seeds 0   # part of it; results of other runs are kept

Every run is a process of its own (`pufferjax train maze`), so its seconds hold start-up, compilation and warm-up. Both
arms get the same budget: seconds up to 27x27; on 35x35 steps, so that a run may share the machine with other work.
Results: experiments/results/maze_sparse.json, .png and .gif.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pufferjax.files import write_atomically
from pufferjax.metrics import read_metrics
from pufferjax.plots import solve_rate_curve
from pufferjax.run import machine

RESULTS = Path(__file__).parent / "results"
BUDGETS = {15: ("seconds", 120), 21: ("seconds", 140), 27: ("seconds", 180), 35: ("steps", 500_000_000)}
LIMITS = {"seconds": "--max-seconds", "steps": "--total-steps"}
ARMS = {"state set": [], "no state set": ["--state-set.fraction", "0"]}
EVAL_EPISODES = 4000


def run(size: int, arm: str, seed: int, devices: int | None, folder: Path, gif: Path | None) -> dict:
    run_dir = folder / f"{size}-{arm.replace(' ', '-')}-{seed}"
    unit, budget = BUDGETS[size]
    flags = ["--env.size", size, "--seed", seed, LIMITS[unit], budget, "--run-dir", run_dir]
    flags += ["--eval-episodes", EVAL_EPISODES, *ARMS[arm]]
    if devices is not None:
        flags += ["--devices", devices]
    cli = [sys.executable, "-m", "pufferjax.cli"]
    subprocess.run([*cli, "train", "maze", *map(str, flags)], check=True)
    if gif is not None:
        subprocess.run([*cli, "eval", str(run_dir), "--episodes", "1", "--gif", str(gif)], check=True)
    summary = json.loads((run_dir / "summary.json").read_text())
    curve = solve_rate_curve(read_metrics(run_dir / "metrics.jsonl"), min_episodes=1000)
    return {
        "size": size,
        "arm": arm,
        "seed": seed,
        "perf": summary["evaluation"]["perf"],
        "perf_stderr": summary["evaluation"]["perf_stderr"],
        "episode_length": summary["evaluation"]["episode_length"],
        "seconds": summary["train_seconds"],
        f"budget_{unit}": budget,
        "steps": summary["steps"],
        "warmup_steps": summary["warmup_steps"],
        "devices": summary["devices"],
        "curve": {name: np.round(values, 4).tolist() for name, values in curve.items()},
    }


def plot(results: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    sizes = sorted({result["size"] for result in results})
    figure = Figure(figsize=(4 * len(sizes), 6.5), layout="constrained")
    axes = figure.subplots(2, len(sizes), sharey=True, squeeze=False)
    colors = dict(zip(ARMS, ("tab:green", "tab:red"), strict=True))
    for column, size in enumerate(sizes):
        for result in (r for r in results if r["size"] == size):
            label = result["arm"] if result["seed"] == min(r["seed"] for r in results if r["size"] == size) else None
            style = {"color": colors[result["arm"]], "label": label, "alpha": 0.8}
            curve = result["curve"]
            axes[0, column].plot(np.asarray(curve["step"]) / 1e6, curve["perf"], **style)
            axes[1, column].plot(curve["seconds"], curve["perf"], **style)
        axes[0, column].set(title=f"{size}x{size}", xlabel="training steps (millions)", ylim=(-0.02, 1.02))
        axes[1, column].set(xlabel="seconds, start-up and warm-up included")
    for row in axes:
        row[0].set_ylabel("solve rate, fresh episodes")
        for axis in row:
            axis.grid(alpha=0.3)
    axes[0, 0].legend(loc="best")
    figure.savefig(path, dpi=90)


def table(results: list[dict]) -> str:
    lines = ["| maze | budget | state set (each seed) | without |", "|---|---|---|---|"]
    for size in sorted({result["size"] for result in results}):
        cells = []
        for arm in ARMS:
            perfs = [
                r["perf"] for r in sorted(results, key=lambda r: r["seed"]) if r["size"] == size and r["arm"] == arm
            ]
            cells.append(", ".join(f"{x:.3f}" for x in perfs) or "-")
        unit, budget = BUDGETS[size]
        shown = f"{budget} s" if unit == "seconds" else f"{budget / 1e6:.0f} M steps"
        lines.append(f"| {size}x{size} | {shown} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 21, 27], choices=list(BUDGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--devices", type=int, help="default: one per core")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "maze_sparse.json"
    for arm in args.arms:
        for size in args.sizes:
            for seed in args.seeds:
                gif = RESULTS / f"maze_{size}.gif" if arm == "state set" and seed == args.seeds[0] else None
                with tempfile.TemporaryDirectory() as folder:
                    result = run(size, arm, seed, args.devices, Path(folder), gif)
                same = ("size", "arm", "seed")
                # Read anew: another process may have added other seeds meanwhile.
                results = json.loads(path.read_text())["results"] if path.is_file() else []
                results = [r for r in results if any(r[name] != result[name] for name in same)] + [result]
                results.sort(key=lambda r: (r["arm"] != "state set", r["size"], r["seed"]))
                document = {"machine": machine(), "eval_episodes": EVAL_EPISODES, "results": results}
                write_atomically(path, json.dumps(document, indent=1) + "\n")
                plot(results, RESULTS / "maze_sparse.png")
                print(table(results), flush=True)


if __name__ == "__main__":
    main()
