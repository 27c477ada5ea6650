"""Entity encoder against a flat linear one on the minimal environment, the same seconds for each, several seeds.

    python experiments/minimal_encoders.py                              # three minutes for each of six runs
    python experiments/minimal_encoders.py --seeds 3 4 --arms entity    # more of it; results of other runs are kept

Every run is a process of its own (`pufferjax train minimal`), so its seconds hold start-up and compilation. Reported:
pick-ups of all eight agents in an episode of 1,024 steps, fresh episodes only, and `perf`, how soon one follows another
(see envs/minimal/minimal.py). Results: minimal_encoders.json and .png in experiments/results or --out.
"""

import argparse
from pathlib import Path

import numpy as np
from runs import RESULTS, Results, curve_of, draw_curves, train_run

from pufferjax.runs.machine import machine

ARMS = {"entity": "tab:green", "linear": "tab:red"}  # the encoder, and its colour
EVAL_EPISODES = 256
MORE_STEPS_THAN_SECONDS = 10**9  # so that the seconds end every run


def run(arm: str, seed: int, seconds: float, extra: list[str]) -> dict:
    flags = [
        "--policy.encoder",
        arm,
        "--seed",
        seed,
        "--max-seconds",
        seconds,
        "--total-steps",
        MORE_STEPS_THAN_SECONDS,
    ]
    summary, records = train_run("minimal", [*flags, "--eval-episodes", EVAL_EPISODES, *extra])
    return {
        "score": summary["evaluation"]["score"],
        "perf": summary["evaluation"]["perf"],
        "seconds": summary["train_seconds"],
        "budget_seconds": seconds,
        "steps": summary["steps"],
        "devices": summary["devices"],
        "flags": extra,
        "curve": curve_of(records, "score", min_episodes=100),
    }


def plot(results: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    by_second, by_step = figure.subplots(1, 2, sharey=True)
    draw_curves(by_second, results, "seconds", "score", ARMS)
    draw_curves(by_step, results, "step", "score", ARMS)
    by_second.set(xlabel="seconds, start-up included", ylabel="pick-ups per fresh episode, all agents")
    by_step.set(xlabel="training steps of agents (millions)")
    by_second.legend(title="encoder", loc="best")
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
    results = Results(
        args.out / "minimal_encoders.json",
        order=lambda r: (list(ARMS).index(r["arm"]), r["seed"]),
        machine=machine(),
        eval_episodes=EVAL_EPISODES,
    )
    for seed in args.seeds:
        for arm in args.arms:  # by turns, so that a slower hour of the machine falls on both
            results.add({"arm": arm, "seed": seed}, run(arm, seed, args.seconds, args.extra))
            plot(results.all(), args.out / "minimal_encoders.png")
            print(table(results.all()), flush=True)


if __name__ == "__main__":
    main()
