"""What each part of the curriculum is worth: the maze over many seeds and several arms, with intervals.

    python experiments/maze_statistics.py --size 21 --steps 40000000 --seeds 0 1 2 3 4
    python experiments/maze_statistics.py --size 21 --steps 40000000 --arms full neither   # part of it
    python experiments/maze_statistics.py --size 21 --steps 40000000 --seeds               # only table and plot

Every run is a process of its own (`pufferjax train maze`) and ends after the same steps of training: what else the
machine does meanwhile does not matter. Results are kept after each run and what is there already is not run again, so
an interrupted experiment goes on with the same command. Writes results/maze_statistics.json (--output), and table and
plot beside it, for 21x21 and 40 M steps as maze_statistics_21_40M.md and .png.

The arms, each the preset but for what is named. {full, state-set-only, priorities-only, neither} is the 2 x 2 of the
state set (restarts from snapshots, with their warm-up) and the trajectory priorities (rows of the minibatches drawn by
their advantages instead of uniformly).

The figures of a run:
  first reward  steps of training to the first non-zero reward; 0 if the warm-up met one
  latch         steps from the first reward until the last 200 or more fresh episodes were solved at a rate of 0.1
  final rate    on mazes never trained on, after the last step
A run that does not latch counts with the steps it had, so the mean is then a lower bound, marked with >=; a first
reward that never came likewise. Intervals are 95 %: percentile bootstrap of the mean over seeds; Wilson for the share.
With fewer than about ten seeds the bootstrap is too narrow.
"""

import argparse
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from runs import NO_STATE_SET_FLAGS, RESULTS, Results, bootstrap, curve_of, draw_curves, train_run, wilson

from pufferjax.runs.files import write_atomically
from pufferjax.runs.machine import machine

UNIFORM_ROWS = ["--ppo.priority-exponent", "0"]
ARMS = {
    "full": [],
    "state-set-only": UNIFORM_ROWS,
    "priorities-only": [*NO_STATE_SET_FLAGS],  # no state set, and so no warm-up
    "neither": [*NO_STATE_SET_FLAGS, *UNIFORM_ROWS],
    "no-warmup": ["--state-set.warmup-rewards", "0"],
    # The gate holds training back until the first reward. After a warm-up that met one it is open: no-gate is then the
    # same run as full, and only without the warm-up does it change anything.
    "no-gate": ["--ppo.no-wait-for-reward"],
    "no-warmup-no-gate": ["--state-set.warmup-rewards", "0", "--ppo.no-wait-for-reward"],
}
LATCH_RATE, LATCH_EPISODES = 0.1, 200
EVAL_EPISODES = 4000


def measure(records: Sequence[dict]) -> dict[str, float | bool | None]:
    """Of the records of a metrics.jsonl with log_interval 1.

    Returns first_reward_steps and latch_steps, both since the start of training and None if that never came, and
    run_seconds.
    """
    rewarded = [0] if records[0]["warmup_rewards"] else [r["step"] for r in records if r["rewards"]]
    latch, window, episodes, solved = None, deque(), 0, 0.0
    for record in records:
        window.append((record["episodes"], (record["perf"] or 0.0) * record["episodes"]))
        episodes, solved = episodes + window[-1][0], solved + window[-1][1]
        while episodes - window[0][0] >= LATCH_EPISODES:
            episodes, solved = episodes - window[0][0], solved - window[0][1]
            window.popleft()
        if episodes >= LATCH_EPISODES and solved >= LATCH_RATE * episodes - 1e-6:
            latch = record["step"]
            break
    return {
        "first_reward_steps": rewarded[0] if rewarded else None,
        "latch_steps": latch,
        "run_seconds": records[-1]["wall_seconds"],
    }


def run(size: int, steps: int, arm: str, seed: int, extra: Sequence[str]) -> dict:
    flags = ["--env.size", size, "--seed", seed, "--total-steps", steps, "--log-interval", 1]
    summary, records = train_run("maze", [*flags, "--eval-episodes", EVAL_EPISODES, *flags_of(arm, extra)])
    return {
        **measure(records),
        "final_rate": summary["evaluation"]["perf"],
        **{name: summary[name] for name in ("warmup_steps", "warmup_rewards", "devices")},
        "machine": summary["machine"],
        "curve": curve_of(records, "perf", min_episodes=1000),
    }


def flags_of(arm: str, extra: Sequence[str]) -> list[str]:
    """The arm comes last: of a flag given twice the last one counts."""
    return [*extra, *ARMS[arm]]


def settings_of(size: int, steps: int, arm: str, extra: Sequence[str]) -> dict:
    """What makes a run, but for its seed, the same run: a result of other flags is not taken for it."""
    return {"size": size, "steps": steps, "arm": arm, "flags": flags_of(arm, extra)}


def summarize(results: Sequence[dict]) -> dict[str, dict]:
    """Of the runs of one arm. Figure -> {mean, low, high, values, is_bound: some are only lower bounds}; a figure that
    no run has is left out."""
    first, latch = [], []  # (steps, whether they are only a lower bound)
    for r in results:
        reward, latched = r["first_reward_steps"], r["latch_steps"]
        first.append((r["steps"], True) if reward is None else (reward, False))
        if reward is not None:
            end = r["steps"] if latched is None else latched
            latch.append((max(0.0, end - reward), latched is None))
    latched = [r["latch_steps"] is not None for r in results]
    figures = {"latched": (wilson(sum(latched), len(latched)), [float(x) for x in latched], False)}
    for name, pairs in {"first_reward": first, "latch": latch}.items():
        if pairs:
            values = [steps / 1e6 for steps, _ in pairs]
            figures[name] = bootstrap(values), values, any(is_bound for _, is_bound in pairs)
    rates = [r["final_rate"] for r in results]
    figures["final_rate"] = bootstrap(rates), rates, False
    return {
        name: {"mean": mean, "low": low, "high": high, "values": values, "is_bound": is_bound}
        for name, ((mean, low, high), values, is_bound) in figures.items()
    }


def table(by_arm: dict[str, dict[str, dict]]) -> str:
    """Markdown, a row per arm: mean [95 % interval]."""
    columns = {
        "latched": ("share that latches", "{:.2f}"),
        "first_reward": ("first reward, M steps", "{:.1f}"),
        "latch": ("first reward to latch, M steps", "{:.1f}"),
        "final_rate": ("final rate, unseen mazes", "{:.3f}"),
    }
    lines = [f"| arm | seeds | {' | '.join(title for title, _ in columns.values())} |", "|---" * 6 + "|"]
    for arm, figures in by_arm.items():
        cells = []
        for name, (_, form) in columns.items():
            if name not in figures:
                cells.append("-")
                continue
            figure = figures[name]
            mean, low, high = (form.format(figure[x]) for x in ("mean", "low", "high"))
            cells.append(f"{'>= ' if figure['is_bound'] else ''}{mean} [{low}, {high}]")
        lines.append(f"| {arm} | {len(figures['latched']['values'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(by_arm: dict[str, dict[str, dict]], runs: Sequence[dict], title: str, path: Path) -> None:
    """Learning curves, a line per seed; below them a panel per figure: every seed as a dot, the mean with its interval
    as a bar."""
    from matplotlib.figure import Figure

    titles = {
        "latched": "latched (share)",
        "first_reward": "first reward (M steps)",
        "latch": "first reward to latch (M steps)",
        "final_rate": "final rate, unseen mazes",
    }
    figure = Figure(figsize=(14, 4.7 + 0.5 * len(by_arm)), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subfigures(2, 1, height_ratios=(3.5, 1.2 + 0.5 * len(by_arm)))
    curves = above.subplots()
    draw_curves(curves, runs, "step", "perf", {arm: f"C{index}" for index, arm in enumerate(by_arm)})
    curves.set(xlabel="training steps (millions)", ylabel="solve rate, fresh episodes", ylim=(-0.02, 1.02))
    curves.legend(loc="best")
    for axes, (name, label) in zip(below.subplots(1, len(titles), sharey=True), titles.items(), strict=True):
        for row, figures in enumerate(by_arm.values()):
            if name in figures:
                x, colour = figures[name], f"C{row}"
                axes.plot(x["values"], [row - 0.15] * len(x["values"]), "o", color="tab:gray", markersize=4, alpha=0.6)
                axes.plot((x["low"], x["high"]), (row + 0.1,) * 2, color=colour, linewidth=2)
                axes.plot(x["mean"], row + 0.1, ">" if x["is_bound"] else "D", color=colour, markersize=6)
        axes.set(title=label, yticks=range(len(by_arm)), yticklabels=list(by_arm))
        axes.set_xlim(left=0, right=1.02 if name in ("latched", "final_rate") else None)
        axes.grid(axis="x", alpha=0.3)
    axes.set_ylim(len(by_arm) - 0.5, -0.5)
    figure.savefig(path, dpi=70)


def report(results: Results, size: int, steps: int, extra: Sequence[str]) -> None:
    """Prints and writes table and plot of the runs with these settings: beside their file, under its name, the size and
    the steps."""
    by_arm, runs = {}, []
    for arm in ARMS:
        if of_arm := results.matching(settings_of(size, steps, arm, extra)):
            by_arm[arm] = summarize(of_arm)
            runs += of_arm
    if by_arm:
        title = f"{size}x{size}, {steps / 1e6:g} M steps" + (f", {' '.join(extra)}" if extra else "")
        text = table(by_arm)
        print(f"{title}\n{text}", flush=True)
        path = results.path.with_name(f"{results.path.stem}_{size}_{steps / 1e6:g}M")
        write_atomically(path.with_suffix(".md"), f"{title}; {machine()}\n\n{text}\n")
        plot(by_arm, runs, f"{size}x{size}, {steps / 1e6:g} M steps", path.with_suffix(".png"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of training")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--output", type=Path, default=RESULTS / "maze_statistics.json")
    parser.add_argument("extra", nargs="*", help="after --: more flags of `pufferjax train`, for every arm")
    args = parser.parse_args(argv)
    results = Results(args.output)
    for seed in args.seeds:  # all arms of a seed before the next one: what an interruption leaves compares fairly
        for arm in args.arms:
            key = settings_of(args.size, args.steps, arm, args.extra) | {"seed": seed}
            results.add_missing(key, run, args.size, args.steps, arm, seed, args.extra)
    report(results, args.size, args.steps, args.extra)


if __name__ == "__main__":
    main()
