"""Any environment with and without the state set: the same number of training steps, several seeds.

    python experiments/state_set.py password                           # both arms, five seeds
    python experiments/state_set.py g2048 --steps 2000000 --seeds 0    # part of it, or another budget
    python experiments/state_set.py chain_mdp --seeds                  # only table and plot
    python experiments/state_set.py breakout --metric perf -- --devices 1 --env.frame-skip 2
    python experiments/state_set.py gymnax:MountainCarContinuous-v0   # of a suite (pip install 'pufferjax[gymnax]')

Every run is a process of its own (`pufferjax train ENV`) with the preset of the environment, but for what SETTINGS says
and what follows after --. Results are kept after each run and what is there already is not run again, so an interrupted
experiment goes on with the same command. Writes results/state_set_ENV.json, .md and .png (or --output).

Of each seed the figure is the mean over whole fresh episodes after the last step, on levels never trained on where
there are levels. Over seeds it is the interquartile mean with a 95 % bootstrap interval (too narrow with fewer than
about ten). The random warm-up of the state set comes before the steps of training; its simulator steps are in the
table.
"""

import argparse
import dataclasses
import functools
import math
import operator
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from runs import (
    COLOURS,
    NO_STATE_SET,
    NO_STATE_SET_FLAGS,
    RESULTS,
    STATE_SET,
    Results,
    bootstrap,
    curve_of,
    draw_curves,
    interquartile_mean,
    split_flags,
    train_run,
)

from pufferjax.runs.files import write_atomically

ARMS = (STATE_SET, NO_STATE_SET)
METRICS = ("perf", "score", "episode_return")
CURVE_EPISODES = 200  # behind each point of a learning curve


@dataclasses.dataclass(frozen=True)
class Setting:
    steps: int  # of training, by default
    metric: str = "perf"  # reported by default
    label: str = "perf"  # what that metric is
    flags: tuple[str, ...] = ()  # of both arms
    # Of the arm with the state set, where the preset does without one.
    state_set: tuple[str, ...] = ()
    eval_episodes: int = 2000


# Where rewards are dense, states are worth a restart until the task is solved, and a random walk only spoils them.
DENSE = ("--state-set.fraction", "0.4", "--state-set.walk-fraction", "0",
         "--state-set.release-from", "0.9", "--state-set.release-until", "1")  # fmt: skip
SETTINGS = {
    "boxoban": Setting(
        steps=10_000_000,
        label="levels solved, reward only at the end, four pulls",
        flags=("--env.int-r-coeff", "0", "--env.num-pulls", "4"),
        state_set=("--state-set.fraction", "0.4"),
    ),
    "breakout": Setting(10_000_000, "score", "points of 864", state_set=DENSE, eval_episodes=500),
    "chain_mdp": Setting(4_000_000, label="episodes that end at the large reward"),
    "four_rooms": Setting(
        steps=20_000_000,
        label="episodes that reach the goal",
        state_set=("--state-set.fraction", "0.4", "--state-set.walk-steps", "64"),  # an episode has 76 steps
    ),
    "g2048": Setting(4_000_000, "score", "highest tile", state_set=DENSE, eval_episodes=1000),
    "gymnax:MountainCarContinuous-v0": Setting(
        400_000, "episode_return", "return, 100 at the top less the force", eval_episodes=256
    ),
    "maze": Setting(40_000_000, label="mazes solved, 21x21", flags=("--env.size", "21")),
    "minigrid": Setting(10_000_000, label="levels of DoorKey-8x8 solved"),
    "minimal": Setting(2_000_000, "score", "pick-ups of all agents", state_set=DENSE, eval_episodes=256),
    "password": Setting(80_000_000, "score", "symbols known of 128"),
}


def flags_of(env: str, arm: str, extra: Sequence[str]) -> list[str]:
    """The arm comes last: of a flag given twice the last one counts."""
    setting = SETTINGS[env]
    return [*setting.flags, *extra, *(setting.state_set if arm == STATE_SET else NO_STATE_SET_FLAGS)]


def settings_of(env: str, steps: int, arm: str, extra: Sequence[str]) -> dict:
    """What makes a run, but for its seed, the same run: a result of other flags is not taken for it."""
    return {"env": env, "steps": steps, "arm": arm, "flags": flags_of(env, arm, extra)}


def run(env: str, steps: int, arm: str, seed: int, extra: Sequence[str]) -> dict:
    flags = ["--seed", seed, "--total-steps", steps, "--eval-episodes", SETTINGS[env].eval_episodes]
    summary, records = train_run(env, [*flags, *flags_of(env, arm, extra)])
    has_perf = summary["evaluation"]["perf"] is not None
    curves = [curve_of(records, metric, CURVE_EPISODES) for metric in METRICS if has_perf or metric != "perf"]
    return {
        **{name: summary["evaluation"][name] for name in (*METRICS, "episode_length", "episodes")},
        "train_steps": summary["steps"],
        **{name: summary[name] for name in ("train_seconds", "warmup_steps", "warmup_rewards", "devices", "machine")},
        "curve": functools.reduce(operator.or_, curves),
    }


def summarize(results: Sequence[dict], metric: str) -> dict[str, dict]:
    """Arm -> {mean (interquartile), low, high and values of the metric; means of the return and the warm-up's M steps;
    halfway}.

    halfway: the median over seeds of the M steps of training until fresh episodes first reach half of what the better
    arm ends with; infinite where half of the seeds do not. Only of the arms that have runs.
    """
    runs = {arm: sorted((r for r in results if r["arm"] == arm), key=lambda r: r["seed"]) for arm in ARMS}
    runs = {arm: of_arm for arm, of_arm in runs.items() if of_arm}
    intervals = {arm: bootstrap([r[metric] for r in of_arm], interquartile_mean) for arm, of_arm in runs.items()}
    half = max((mean for mean, _, _ in intervals.values()), default=0) / 2
    return {
        arm: {
            **dict(zip(("mean", "low", "high"), intervals[arm], strict=True)),
            "values": [r[metric] for r in of_arm],
            "return": statistics.fmean(r["episode_return"] for r in of_arm),
            "warmup": statistics.fmean(r["warmup_steps"] / 1e6 for r in of_arm),
            "halfway": statistics.median(_steps_to(half, r["curve"], metric) for r in of_arm),
        }
        for arm, of_arm in runs.items()
    }


def _steps_to(level: float, curve: dict, metric: str) -> float:
    """M steps."""
    return min((x / 1e6 for x, y in zip(curve["step"], curve[metric], strict=True) if y >= level), default=math.inf)


def table(by_arm: dict[str, dict], label: str) -> str:
    """Markdown, a row per arm; four digits."""
    titles = ("arm", "seeds", f"{label}: interquartile mean [95 % interval]", "each seed",
              "half of the best after, M steps", "mean return", "warm-up, M steps")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for arm, figures in by_arm.items():
        mean, low, high = (f"{figures[x]:.4g}" for x in ("mean", "low", "high"))
        each = ", ".join(f"{x:.4g}" for x in figures["values"])
        halfway = f"{figures['halfway']:.1f}" if math.isfinite(figures["halfway"]) else "never"
        row = [arm, str(len(figures["values"])), f"{mean} [{low}, {high}]", each, halfway, f"{figures['return']:.4g}"]
        lines.append(f"| {' | '.join(row)} | {figures['warmup']:.1f} |")
    return "\n".join(lines)


def plot(results: Sequence[dict], by_arm: dict[str, dict], metric: str, label: str, title: str, path: Path) -> None:
    """Fresh episodes of training against steps, a line per seed; beside it the final figures with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    curves, finals = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    draw_curves(curves, results, "step", metric, COLOURS)
    curves.set(xlabel="training steps (millions)", ylabel=label, title="fresh episodes of training")
    curves.legend(loc="best")
    for column, arm in enumerate(ARMS):
        if arm in by_arm:
            final, colour = by_arm[arm], COLOURS[arm]
            finals.plot([column] * len(final["values"]), final["values"], ".", color=colour, alpha=0.6)
            finals.plot([column, column], [final["low"], final["high"]], color=colour, linewidth=3)
            finals.plot(column, final["mean"], "D", color=colour)
    finals.set(xticks=range(len(ARMS)), xticklabels=ARMS, xlim=(-0.5, len(ARMS) - 0.5), title="after the last step")
    finals.grid(alpha=0.3)
    if finals.get_ylim()[0] > -0.1 * finals.get_ylim()[1]:  # nothing below zero but the margin
        finals.set_ylim(bottom=-0.02 * finals.get_ylim()[1])
    figure.savefig(path, dpi=90)


def report(results: Results, env: str, steps: int, extra: Sequence[str], metric: str) -> None:
    """Prints and writes table and plot of the runs with these settings, beside their file."""
    shown = [r for arm in ARMS for r in results.matching(settings_of(env, steps, arm, extra))]
    by_arm = summarize(shown, metric)
    if by_arm:
        label = SETTINGS[env].label if metric == SETTINGS[env].metric else metric
        title = f"{env}, {steps / 1e6:g} M steps of training" + (f", {' '.join(extra)}" if extra else "")
        text = table(by_arm, label)
        where = "; ".join(sorted({r["machine"] for r in shown}))
        print(f"{title}\n{text}", flush=True)
        write_atomically(results.path.with_suffix(".md"), f"{title}; {where}\n\n{text}\n")
        plot(shown, by_arm, metric, label, title, results.path.with_suffix(".png"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", choices=list(SETTINGS))
    parser.add_argument("--steps", type=int, help="of training; default: SETTINGS")
    parser.add_argument("--metric", choices=METRICS, help="of the table and the plot; default: SETTINGS")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--output", type=Path, help="default: results/state_set_ENV.json")
    parser.epilog = "After --: more flags of `pufferjax train`, for both arms."
    own, extra = split_flags(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(own)
    env, steps = args.env, args.steps or SETTINGS[args.env].steps
    results = Results(args.output or RESULTS / f"state_set_{env.replace(':', '_')}.json")
    for seed in args.seeds:  # both arms of a seed before the next one: what an interruption leaves compares fairly
        for arm in args.arms:
            key = settings_of(env, steps, arm, extra) | {"seed": seed}
            results.add_missing(key, run, env, steps, arm, seed, extra)
    report(results, env, steps, extra, args.metric or SETTINGS[env].metric)


if __name__ == "__main__":
    main()
