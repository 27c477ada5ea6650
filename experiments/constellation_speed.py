"""How long Constellation takes to open very many runs: experiments/results/constellation_speed.json.

python experiments/constellation_speed.py --runs 10000 --lines 1000 --folder /tmp/many

Makes the folders of made-up runs, unless they are there, with lines of metrics as long as real ones (13 GB for the
numbers above), and takes the time of reading them, the first time and with the cache, of the answer that a page gets,
and, where a Chromium is, of that page and of turning its scatter. The clock begins when Python has imported pufferjax.
"""

import argparse
import functools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pufferjax.constellation.collection import Collection
from pufferjax.constellation.folders import roots_of
from pufferjax.core.config import TrainConfig
from pufferjax.runs.files import write_atomically
from pufferjax.runs.machine import machine
from pufferjax.runs.run_config import RunConfig, RunOptions, write_config

PATH = Path(__file__).parent / "results" / "constellation_speed.json"
SWEEP = 100  # runs of an experiment


@functools.cache
def rests() -> list[str]:
    """The ends of a hundred lines of metrics, which together with their beginnings are as long as real ones."""
    source = random.Random(0)
    names = (
        "bad_reward_rows", "bad_rows", "clip_fraction", "entropy", "grad_norm", "kl", "loss", "policy_loss",
        "rewards", "skipped_updates", "state_evictions", "state_inserts", "value_clip_fraction", "value_loss",
        "learning_rate", "entropy_coef", "state_set_size", "priority_min", "priority_mean", "priority_max",
        "priority_p10", "priority_p50", "priority_p90", "state_age_p10", "state_age_p50", "state_age_p90",
        "state_time_p10", "state_time_p50", "state_time_p90", "state_repeats", "restarted_share",
    )  # fmt: skip
    others = {"restarted_episodes": 10, "restarted_perf": None, "warmup_steps": 262144, "warmup_rewards": 64}
    lines = []
    for _ in range(100):
        lines.append({"episodes": source.randrange(1, 500), **{x: source.random() for x in names}, **others})
    return [json.dumps(x)[1:] for x in lines]


def line(epoch: int, rate: float) -> str:
    perf = 1 - math.exp(-rate * epoch)
    return (
        f'{{"step": {65536 * epoch}, "wall_seconds": {0.05 * epoch + 3.0}, "epoch": {epoch}, "steps_per_second": '
        f'{1310720.0 + epoch % 97}, "perf": {perf}, "score": {perf}, "episode_return": {perf}, "episode_length": '
        f"{420 - 400 * perf}, {rests()[epoch % 100]}\n"
    )


def make_run(folder: Path, seed: int, lines: int) -> None:
    source = random.Random(seed)
    rate = 10 ** source.uniform(-3.5, -1)
    ppo = {"learning_rate": 10 ** source.uniform(-3, -1), "gamma": 1 - 10 ** source.uniform(-3, -1)}
    ppo |= {"entropy_coef": 10 ** source.uniform(-5, -2), "replay_ratio": source.choice([0.25, 0.5, 1.0, 2.0])}
    table = RunConfig("maze", {"size": source.choice([9, 15, 21])}, TrainConfig(), RunOptions(seed=seed)).to_table()
    table["ppo"] |= ppo
    write_config(folder, RunConfig.from_table(table))
    (folder / "metrics.jsonl").write_text("".join(line(epoch + 1, rate) for epoch in range(lines)))
    perf = 1 - math.exp(-rate * lines)
    summary = {"env": "maze", "evaluation": {"perf": perf, "episodes": 2000}, "stopped_by": "total_steps",
               "train_seconds": 53.0, "total_seconds": 60.0, "jax": "0.10.2"}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))


def make_runs(folder: Path, runs: int, lines: int) -> None:
    """Those that are not there yet, in experiments of `SWEEP` runs."""
    for number in range(runs):
        run = folder / f"sweep-{number // SWEEP:03d}" / f"trial-{number % SWEEP:04d}"
        if not (run / "summary.json").exists():
            make_run(run, number, lines)


def opening(folder: Path) -> dict[str, float]:
    """Seconds of a new collection until the page's answer is made."""
    start, used = time.perf_counter(), time.process_time()
    collection = Collection(roots_of([folder]))
    collection.refresh()
    answer = collection.changes()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "megabytes": len(answer) / 1e6}


def in_browser(folder: Path, port: int = 8499) -> dict[str, float]:
    """Seconds from asking for the page to its drawing, and frames per second while the scatter turns."""
    from browser import Browser

    command = [sys.executable, "-m", "pufferjax", "constellation", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        server.stdout.readline()
        with Browser() as browser:
            start = time.perf_counter()
            browser.open(f"http://127.0.0.1:{port}/")
            browser.wait_for("document.querySelector('.plot[data-points]')?.dataset.points > 0", 120)
            drawn = time.perf_counter() - start
            browser.ask("document.getElementById('tab-cost').click()")
            frames = browser.ask(
                """new Promise((done) => {
                  const canvas = document.querySelector('.plot canvas');
                  const start = performance.now();
                  let count = 0;
                  const step = () => {
                    canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: count % 2 ? 1 : -1, cancelable: true}));
                    count += 1;
                    if (performance.now() - start > 3000) done(1000 * count / (performance.now() - start));
                    else requestAnimationFrame(step);
                  };
                  requestAnimationFrame(step);
                })"""
            )
            return {"seconds_to_scatter": drawn, "plane_frames_per_second": frames}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--folder", type=Path, required=True, help="of the made-up runs; it is kept")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--browser", action="store_true", help="the page in a headless Chromium, too")
    arguments = parser.parse_args()
    make_runs(arguments.folder, arguments.runs, arguments.lines)
    first, later = [], []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            first.append(opening(arguments.folder))
            later.append(opening(arguments.folder))
    result = {
        "runs": arguments.runs,
        "lines": arguments.lines,
        "first_seconds": [round(x["seconds"], 3) for x in first],
        "later_seconds": [round(x["seconds"], 3) for x in later],
        "first_cpu_seconds": [round(x["cpu_seconds"], 3) for x in first],
        "later_cpu_seconds": [round(x["cpu_seconds"], 3) for x in later],
        "load_average": os.getloadavg()[0],
        "answer_megabytes": round(first[0]["megabytes"], 1),
        "machine": machine(),
    }
    if arguments.browser:
        result |= {name: round(x, 2) for name, x in in_browser(arguments.folder).items()}
    print(json.dumps(result, indent=1))
    medians = [statistics.median(result[name]) for name in ("first_seconds", "later_seconds")]
    print(f"medians: {medians[0]} s the first time, {medians[1]} s later")
    write_atomically(PATH, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
