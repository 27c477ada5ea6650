"""`make demo`: the same learner with and without the state set, side by side, on mazes with one reward, at the goal.

Two runs at once, one core each, for the same number of training steps: plain recurrent PPO on 17x17 mazes (minibatches
drawn uniformly), and the same with 0.4 of its environments restarted from the state set. How long that takes depends on
the machine, where it ends does not. Leaves runs/demo-<time>/ with curves.png, solve.gif and both runs.

    python experiments/demo.py [--seed 0] [--record]      # --record: adds the figures to results/demo.json
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from runs import NO_STATE_SET, NO_STATE_SET_FLAGS, RESULTS, STATE_SET, Results

import pufferjax
from pufferjax.runs.metrics import read_metrics
from pufferjax.watch.plots import plot_runs

SIZE, STEPS, EVAL_EPISODES = 17, 14_000_000, 2000
# 512 environments meet a reward about once in three epochs at first: too seldom for PPO, which forgets one before the
# next. Uniform minibatches (priority exponent 0), because prioritised ones make up for part of that up to 27x27.
LEARNER = (
    *("--env.size", SIZE, "--total-steps", STEPS, "--num-envs", 512, "--horizon", 64),
    *("--policy.encoder-layers", 1, "--ppo.minibatch-size", 2048, "--ppo.priority-exponent", 0),
    *("--ppo.gamma", 0.99, "--ppo.gae-lambda", 0.95),
    *("--ppo.anneal-start", 0.4, "--ppo.min-learning-rate-ratio", 0.1),
    *("--eval-episodes", EVAL_EPISODES, "--devices", 1),
)
_ARMS = {STATE_SET: ("with", ()), NO_STATE_SET: ("without", NO_STATE_SET_FLAGS)}
_POOLED_EPISODES = 200  # behind each solve rate shown
_SECONDS_BETWEEN_LINES = 10.0  # where stdout is no terminal


class Run:
    """One of the two training processes, watched through its metrics.jsonl."""

    def __init__(self, folder: Path, name: str, flags: tuple, seed: int):
        self.run_dir, self._log_path = folder / name, folder / f"{name}.log"
        self.step, self._seen = 0, 0
        self._recent: deque[tuple[int, float]] = deque()
        command = [sys.executable, "-m", "pufferjax", "train", "maze", *map(str, (*LEARNER, *flags, "--seed", seed))]
        with self._log_path.open("w") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops both.
            self._process = subprocess.Popen(
                [*command, "--run-dir", str(self.run_dir)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> bool:
        """Takes in what is new; whether it is still running. Raises SystemExit with its last words if it has failed."""
        status = self._process.poll()
        path = self.run_dir / "metrics.jsonl"
        records = read_metrics(path) if path.exists() else []
        for record in records[self._seen :]:
            self.step = record["step"]
            self._recent.append((record["episodes"], (record["perf"] or 0.0) * record["episodes"]))
            while sum(n for n, _ in self._recent) - self._recent[0][0] >= _POOLED_EPISODES:
                self._recent.popleft()
        self._seen = len(records)
        if status not in (None, 0):
            raise SystemExit(f"a training run failed ({status}); its last words, of {self._log_path}:\n"
                             + "".join(self._log_path.read_text().splitlines(keepends=True)[-15:]))  # fmt: skip
        return status is None

    def solve_rate(self) -> float:
        """Of the latest fresh training episodes."""
        episodes = sum(n for n, _ in self._recent)
        return sum(perf for _, perf in self._recent) / episodes if episodes else 0.0

    def stop(self) -> None:
        """Ends it, if it still runs; returns when its checkpoint is written."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def summary(self) -> dict:
        return json.loads((self.run_dir / "summary.json").read_text())


def watch(runs: dict[str, Run], console: Console) -> None:
    """Until all have ended: a bar for each on a terminal, a line now and then elsewhere."""
    columns = (
        TextColumn("{task.description:<14}"), BarColumn(bar_width=30), TaskProgressColumn(),
        TextColumn("solved {task.fields[rate]:>4.0%}"), TextColumn("[dim]time left"), TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[doing]}"),
    )  # fmt: skip
    start, last_line = time.perf_counter(), 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {arm: progress.add_task(arm, total=STEPS, rate=0.0, doing="compiling") for arm in runs}
        while True:
            # A list: every run is to be looked at, whatever the others say.
            is_running = any([run.poll() for run in runs.values()])
            for arm, run in runs.items():
                doing = "compiling" if not run.step else "" if run.step < 0.999 * STEPS else "playing unseen mazes"
                progress.update(tasks[arm], completed=run.step, rate=run.solve_rate(), doing=doing)
            elapsed = time.perf_counter() - start
            if not console.is_terminal and elapsed - last_line >= _SECONDS_BETWEEN_LINES:
                last_line = elapsed
                slowest = min(run.step for run in runs.values())
                left = f"about {elapsed * (STEPS / slowest - 1):.0f} s left" if slowest else "compiling"
                rates = ", ".join(f"{arm}: {run.solve_rate():.0%} solved" for arm, run in runs.items())
                print(f"{slowest / STEPS:4.0%}  {rates}, {left}", flush=True)
            if not is_running:
                return
            time.sleep(0.3)


def demo(seed: int, record: bool) -> int:
    folder = Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    console = Console()
    print(
        f"Mazes of {SIZE}x{SIZE} with one reward, at the goal, seen through a window of 11x11 cells. The same learner "
        f"twice,\n{STEPS / 1e6:.0f} M steps each: with the state set, which restarts part of its environments where "
        "there is most to learn,\nand without. About three minutes on two cores; Ctrl-C stops both.\n"
    )
    start = time.perf_counter()
    runs = {arm: Run(folder, name, flags, seed) for arm, (name, flags) in _ARMS.items()}
    try:
        watch(runs, console)
    except KeyboardInterrupt:
        print(f"\nstopped; the runs are in {folder}")
        return 130
    finally:
        for run in runs.values():
            run.stop()
    seconds = time.perf_counter() - start

    curves, gif = folder / "curves.png", folder / "solve.gif"
    plot_runs({arm: run.run_dir / "metrics.jsonl" for arm, run in runs.items()}, curves,
              f"{SIZE}x{SIZE} mazes, the same PPO")  # fmt: skip
    solver = runs[STATE_SET].run_dir
    with (folder / "gif.log").open("w") as log:
        command = [sys.executable, "-m", "pufferjax", "eval", str(solver), "--episodes", "1", "--gif", str(gif)]
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)

    print(f"\nSolved of {EVAL_EPISODES:,} mazes they have never seen, after {STEPS / 1e6:.0f} M steps:")
    for arm, run in runs.items():
        evaluation = run.summary()["evaluation"]
        print(f"  {arm:<14}{evaluation['perf']:6.1%}   ({evaluation['episode_length']:.0f} steps per maze)")
    print(
        f"\ncurves  {curves}\nsolve   {gif}\n{seconds:.0f} s in all. What now:\n"
        f"  {_command()} play {solver}      watch it in the terminal\n"
        f"  {_command()} states {solver}    what the state set holds\n"
        f"  {_command()} train maze --env.size 35     the size that only the state set learns\n"
        "  docs/getting_started.md, docs/state_set.md, and docs/own_loop.md for a training loop of your own"
    )
    if record:
        _record(runs, seed, seconds, curves)
    return 0


def _command() -> str:
    """The `pufferjax` beside this Python, as one would type it here."""
    return os.path.relpath(Path(sys.executable).parent / "pufferjax")


def _record(runs: dict[str, Run], seed: int, seconds: float, curves: Path) -> None:
    results = Results(RESULTS / "demo.json", order=lambda x: (x["arm"], x["seed"]), size=SIZE, steps=STEPS)
    for arm, run in runs.items():
        summary = run.summary()
        figures = {name: summary[name] for name in ("evaluation", "train_seconds", "warmup_steps", "machine")}
        level = pufferjax.xla_ops.ffi.instruction_set()
        results.add({"arm": arm, "seed": seed}, {**figures, "demo_seconds": seconds, "instruction_set": level})
    if seed == 0:
        (RESULTS / "demo.png").write_bytes(curves.read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of both runs")
    parser.add_argument("--record", action="store_true", help="add the figures to experiments/results/demo.json")
    arguments = parser.parse_args()
    sys.exit(demo(arguments.seed, arguments.record))
