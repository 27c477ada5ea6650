"""Entity encoder against a flat linear one on the minimal environment, the same seconds for each, several seeds.

    python experiments/minimal_encoders.py                              # three minutes for each of six runs
    python experiments/minimal_encoders.py --seeds 3 4 --arms entity    # more of it; results of other runs are kept

Every run is a process of its own (`pufferjax train minimal`), so its seconds hold start-up and compilation. Reported:
pick-ups of all eight agents in an episode of 1,024 steps, fresh episodes only, and `perf`, how soon one follows another
(see envs/minimal/minimal.py). Results: minimal_encoders.json and .png in experiments/results or --out.
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
from pufferjax.plots import episode_curve
from pufferjax.run import machine

RESULTS = Path(__file__).parent / "results"
ARMS = {"entity": "tab:green", "linear": "tab:red"}  # the encoder, and its colour
EVAL_EPISODES = 256


def run(arm: str, seed: int, seconds: float, extra: list[str], folder: Path) -> dict:
    run_dir = folder / f"{arm}-{seed}"
    flags = ["--policy.encoder", arm, "--seed", seed, "--max-seconds", seconds, "--run-dir", run_dir]
    flags += ["--eval-episodes", EVAL_EPISODES, *extra]
    subprocess.run([sys.executable, "-m", "pufferjax.cli", "train", "minimal", *map(str, flags)], check=True)
    summary = json.loads((run_dir / "summary.json").read_text())
    curve = episode_curve(read_metrics(run_dir / "metrics.jsonl"), "score", min_episodes=100)
    return {
        "arm": arm,
        "seed": seed,
        "score": summary["evaluation"]["score"],
        "perf": summary["evaluation"]["perf"],
        "seconds": summary["train_seconds"],
        "budget_seconds": seconds,
        "steps": summary["steps"],
        "devices": summary["devices"],
        "flags": extra,
        "curve": {name: np.round(values, 3).tolist() for name, values in curve.items()},
    }


def plot(results: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    by_second, by_step = figure.subplots(1, 2, sharey=True)
    labelled = set()
    for result in results:
        arm, curve = result["arm"], result["curve"]
        style = {"color": ARMS[arm], "alpha": 0.8, "label": None if arm in labelled else f"{arm} encoder"}
        labelled.add(arm)
        by_second.plot(curve["seconds"], curve["score"], **style)
        by_step.plot(np.asarray(curve["step"]) / 1e6, curve["score"], **style)
    by_second.set(xlabel="seconds, start-up included", ylabel="pick-ups per fresh episode, all agents")
    by_step.set(xlabel="training steps of agents (millions)")
    for axes in (by_second, by_step):
        axes.grid(alpha=0.3)
    by_second.legend(loc="best")
    figure.savefig(path, dpi=90)


def table(results: list[dict]) -> str:
    lines = ["| encoder | seconds | million steps | pick-ups (each seed) | mean | perf |", "|---|---|---|---|---|---|"]
    for arm in ARMS:
        own = [result for result in results if result["arm"] == arm]
        if not own:
            continue
        seconds = "/".join(sorted({f"{result['budget_seconds']:g}" for result in own}))
        steps = ", ".join(f"{result['steps'] / 1e6:.1f}" for result in own)
        scores = ", ".join(f"{result['score']:.1f}" for result in own)
        mean, perf = (np.mean([result[name] for result in own]) for name in ("score", "perf"))
        lines.append(f"| {arm} | {seconds} | {steps} | {scores} | {mean:.1f} | {perf:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180, help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("extra", nargs="*", help="further flags of pufferjax train minimal, after --")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "minimal_encoders.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else []
    for seed in args.seeds:
        for arm in args.arms:  # by turns, so that a slower hour of the machine falls on both
            with tempfile.TemporaryDirectory() as folder:
                result = run(arm, seed, args.seconds, args.extra, Path(folder))
            same = ("arm", "seed")
            results = [r for r in results if any(r[name] != result[name] for name in same)] + [result]
            results.sort(key=lambda r: (list(ARMS).index(r["arm"]), r["seed"]))
            document = {"machine": machine(), "eval_episodes": EVAL_EPISODES, "results": results}
            write_atomically(path, json.dumps(document, indent=1) + "\n")
            plot(results, args.out / "minimal_encoders.png")
            print(table(results), flush=True)


if __name__ == "__main__":
    main()
