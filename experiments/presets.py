"""What presets learn: `pufferjax train ENV` with nothing but the seed said.

    python experiments/presets.py                               # every environment but the maze, one seed
    python experiments/presets.py breakout --seeds 0 1 2        # more of one
    python experiments/presets.py --seeds -- --devices 1        # only table and plot, of runs with these flags
    python experiments/presets.py gymnax:Pendulum-v1 --output experiments/results/presets_suites.json  # of a suite

Every run is a process of its own; what is there already is not run again. The figures are means over whole fresh
episodes after the last step; seconds include start-up, compilation and warm-up. Results: results/presets.json, .md and
.png (or --output): the curves are those of fresh episodes in training, the return where there is no perf.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runs import RESULTS, Results, curve_of, split_flags, train_run

from pufferjax import envs
from pufferjax.runs.files import write_atomically

NAMES = tuple(sorted(set(envs.names()) - {"maze"}))  # the maze has experiments of its own
CURVE_EPISODES = 200  # behind each point of a learning curve


def run(env: str, seed: int, flags: Sequence[str]) -> dict:
    summary, records = train_run(env, ["--seed", seed, *flags])
    figures = ("perf", "score", "episode_return", "episode_length", "episodes")
    shown = "episode_return" if summary["evaluation"]["perf"] is None else "perf"
    return {
        **{name: summary["evaluation"][name] for name in figures},
        **{
            name: summary[name]
            for name in ("steps", "train_seconds", "stopped_by", "warmup_steps", "devices", "machine")
        },
        "curve": curve_of(records, shown, CURVE_EPISODES),
    }


def table(results: Sequence[dict]) -> str:
    titles = ("environment", "seed", "M steps", "seconds", "devices", "perf", "score", "return")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for r in results:
        lines.append(
            f"| {r['env']} | {r['seed']} | {r['steps'] / 1e6:.1f} | {r['train_seconds']:.0f} | {r['devices']} | "
            f"{'-' if r['perf'] is None else format(r['perf'], '.3f')} | {r['score']:.4g} | {r['episode_return']:.4g} |"
        )
    return "\n".join(lines)


def plot(results: Sequence[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    names = sorted({r["env"] for r in results})
    for axes, name in zip(figure.subplots(2, -(-len(names) // 2), squeeze=False).flat, names, strict=False):
        for r in (r for r in results if r["env"] == name):
            shown = "episode_return" if r["perf"] is None else "perf"
            axes.plot([step / 1e6 for step in r["curve"]["step"]], r["curve"][shown], alpha=0.8)
        axes.set(title=name, xlabel="training steps (millions)", ylabel="return" if r["perf"] is None else "perf")
        if r["perf"] is not None:
            axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.3)
    figure.suptitle("fresh episodes of training")
    figure.savefig(path, dpi=90)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", help=f"of {', '.join(NAMES)} (default: all), or SUITE:NAME")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--output", type=Path, default=RESULTS / "presets.json")
    parser.epilog = "After --: flags of `pufferjax train`."
    own, flags = split_flags(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(own)
    if unknown := {name for name in args.envs if not envs.is_known(name)}:
        parser.error(f"envs must be among {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    results = Results(args.output, order=lambda r: (r["env"], r["seed"]))
    for seed in args.seeds:
        for env in args.envs or NAMES:
            key = {"env": env, "seed": seed, "flags": flags}
            results.add_missing(key, run, env, seed, flags)
    shown = results.matching({"flags": flags})
    if shown:
        text = table(shown)
        print(text)
        machines = " / ".join(sorted({r["machine"] for r in shown}))
        command = " ".join(["pufferjax train ENV", *flags])
        write_atomically(results.path.with_suffix(".md"), f"`{command}`; {machines}\n\n{text}\n")
        plot(shown, results.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
