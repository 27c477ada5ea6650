"""The sparse maze with and without the state set: fresh solve rate against steps and seconds, several seeds.

    python experiments/maze_sparse.py                        # 15, 21 and 27, three seeds, both arms
    python experiments/maze_sparse.py --sizes 35             # seven minutes for each seed and arm
    python experiments/maze_sparse.py --sizes 15 --seeds 0   # part of it; results of other runs are kept

Every run is a process of its own (`pufferjax train maze`), so its seconds hold start-up, compilation and warm-up. Both
arms get the same budget of seconds, on the whole machine; 35x35 those that the original took. Results of another budget
stay in the file and are not shown.
Results: experiments/results/maze_sparse.json, .png and .gif.
"""

import argparse
from pathlib import Path

from runs import (
    COLOURS,
    NO_STATE_SET,
    NO_STATE_SET_FLAGS,
    RESULTS,
    STATE_SET,
    Results,
    curve_of,
    draw_curves,
    train_run,
)

from pufferjax.runs.machine import machine

BUDGETS = {15: 120, 21: 140, 27: 180, 35: 420}  # seconds
ARMS = {STATE_SET: (), NO_STATE_SET: NO_STATE_SET_FLAGS}
EVAL_EPISODES = 4000


def run(size: int, arm: str, seed: int, devices: int | None, gif: Path | None) -> dict:
    flags = ["--env.size", size, "--seed", seed, "--max-seconds", BUDGETS[size], "--eval-episodes", EVAL_EPISODES]
    flags += ARMS[arm]
    if devices is not None:
        flags += ["--devices", devices]
    summary, records = train_run("maze", flags, gif)
    return {
        "perf": summary["evaluation"]["perf"],
        "perf_stderr": summary["evaluation"]["perf_stderr"],
        "episode_length": summary["evaluation"]["episode_length"],
        "seconds": summary["train_seconds"],
        "steps": summary["steps"],
        "warmup_steps": summary["warmup_steps"],
        "devices": summary["devices"],
        "curve": curve_of(records, "perf", min_episodes=1000),
    }


def plot(results: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    sizes = sorted({result["size"] for result in results})
    figure = Figure(figsize=(4 * len(sizes), 6.5), layout="constrained")
    axes = figure.subplots(2, len(sizes), sharey=True, squeeze=False)
    for column, size in enumerate(sizes):
        of_size = [result for result in results if result["size"] == size]
        draw_curves(axes[0, column], of_size, "step", "perf", COLOURS)
        draw_curves(axes[1, column], of_size, "seconds", "perf", COLOURS)
        axes[0, column].set(title=f"{size}x{size}", xlabel="training steps (millions)", ylim=(-0.02, 1.02))
        axes[1, column].set(xlabel="seconds, start-up and warm-up included")
    for row in axes:
        row[0].set_ylabel("solve rate, fresh episodes")
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
        lines.append(f"| {size}x{size} | {BUDGETS[size]} s | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 21, 27], choices=list(BUDGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--devices", type=int, help="default: one per core")
    args = parser.parse_args()
    results = Results(
        RESULTS / "maze_sparse.json",
        order=lambda r: (r["arm"] != STATE_SET, r["size"], r["seed"]),
        machine=machine(),
        eval_episodes=EVAL_EPISODES,
    )
    for arm in args.arms:
        for size in args.sizes:
            for seed in args.seeds:
                gif = RESULTS / f"maze_{size}.gif" if arm == STATE_SET and seed == args.seeds[0] else None
                key = {"size": size, "arm": arm, "seed": seed, "budget_seconds": BUDGETS[size]}
                results.add(key, run(size, arm, seed, args.devices, gif))
                shown = [r for r in results.all() if r.get("budget_seconds") == BUDGETS[r["size"]]]
                plot(shown, RESULTS / "maze_sparse.png")
                print(table(shown), flush=True)


if __name__ == "__main__":
    main()
