"""Runs that are not trained: what a child process would leave in its folder, at once, for tests of the bookkeeping.

python fake_runs.py SECONDS sweep ENV ...        # as a process: each run takes so long
"""

import json
import os
import sys
import time
from pathlib import Path

from pufferjax.sweep import worker


def value(arguments, flag, default=0.0):
    return float(arguments[arguments.index(flag) + 1]) if flag in arguments else default


def write_run(run_dir: Path, points, evaluation, **summary):
    """points: [(step, seconds, figures)]."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lines = [{"step": step, "wall_seconds": seconds, **figures} for step, seconds, figures in points]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"stopped_by": "total_steps", "steps": points[-1][0], "train_seconds": points[-1][1], **summary}
    (run_dir / "summary.json").write_text(json.dumps({"evaluation": evaluation, **summary}))


def slow_child(seconds: float):
    """In place of `run_child`: takes so long, and writes down who ran what and when."""

    def run(arguments, log, poll):
        run_dir = Path(arguments[arguments.index("--run-dir") + 1])
        run_dir.mkdir(parents=True, exist_ok=True)
        began = time.time()
        with open(run_dir.parent / "began.txt", "a") as file:
            file.write(f"{run_dir.name} {os.getpid()} {began}\n")
        while time.time() < began + seconds:
            reason = poll()
            if reason is not None:
                return 143, reason
            time.sleep(0.02)
        rate = value(arguments, "--ppo.learning-rate")
        write_run(run_dir, [(1000, 2.0, {"perf": rate})], {"perf": rate, "score": -rate, "episode_return": 0.5})
        with open(run_dir.parent / "ended.txt", "a") as file:
            file.write(f"{run_dir.name} {os.getpid()} {began} {time.time()}\n")
        return 0, None

    return run


if __name__ == "__main__":
    from pufferjax import cli

    worker.run_child = slow_child(float(sys.argv[1]))
    sys.exit(cli.main(sys.argv[2:]))
