"""`make demo`: learns 15x15 mazes whose only reward is at the goal, then plays mazes it has never seen.

Two minutes or less on two cores. Leaves runs/demo-<time>/ with curve.png, solve.gif, summary.json and the checkpoint.
"""

import sys
import time
from pathlib import Path

from pufferjax.cli import main
from pufferjax.watch.plots import plot_runs

SIZE, MAX_SECONDS = 15, 90


def demo() -> int:
    run_dir = Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    print(f"Mazes of {SIZE}x{SIZE} with one reward, at the goal: a random agent meets it once in 37,000 steps.")
    train = ["train", "maze", "--env.size", str(SIZE), "--max-seconds", str(MAX_SECONDS), "--eval-episodes", "0"]
    status = main([*train, "--run-dir", str(run_dir)])
    if status != 0:
        return status
    print("\nMazes it has never seen:")
    status = main(["eval", str(run_dir), "--gif", str(run_dir / "solve.gif")])
    plot_runs({f"{SIZE}x{SIZE}, state set": run_dir / "metrics.jsonl"}, run_dir / "curve.png", "Fresh solve rate")
    print(f"\nplot  {run_dir / 'curve.png'}\ngif   {run_dir / 'solve.gif'}")
    return status


if __name__ == "__main__":
    sys.exit(demo())
