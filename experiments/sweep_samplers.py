"""Protein against TPE, NSGA-II and random search: hypervolume of the front for the cost that was spent.

    python experiments/sweep_samplers.py                      # synthetic functions, no training: some minutes
    python experiments/sweep_samplers.py --table runs.json    # a table of real runs instead, each to be had once
    python experiments/sweep_samplers.py --make-table sqlite:///s.db NAME runs.json    # that table, of a finished sweep

Every sampler begins with the same mediocre trial and goes on until the same cost is spent: of cheap trials it has more,
but no more than 40.
The hypervolume is the area between the front and a score of 0 over the logarithm of cost, as a share of what the whole
range would give a score of 1; it is read after parts of the budget. Differences are of pairs with the same seed, their
interval by the bootstrap. Writes experiments/results/sweep_samplers.json and .md (with --table those of that name).
"""

import argparse
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from pufferjax.runs.files import write_atomically
from pufferjax.runs.json_text import json_text
from pufferjax.runs.machine import machine
from pufferjax.sweep.protein import ProteinSampler

RESULTS = Path(__file__).parent / "results"
SAMPLERS = ("protein", "protein, ends only", "tpe", "nsga2", "random")
PARTS = (0.1, 0.25, 0.5, 1.0)  # of the budget, after which the hypervolume is read
NOISE = 0.02  # standard deviation of a measured score
MOST_TRIALS = 40

Outcome = tuple[float, float, list[list[float]], dict[str, Any]]  # score, cost, curve, parameters that ran


class Task(NamedTuple):
    space: Mapping[str, BaseDistribution]
    fidelity: str | None
    start: Mapping[str, Any]
    make: Callable[[int], Callable[[Mapping[str, Any]], Outcome]]  # of a seed, a function of the parameters
    costs: tuple[float, float]  # between which the front is looked at
    budget: float  # cost


STEPS = FloatDistribution(1e6, 1e9, log=True)
SPACE = {
    "total_steps": STEPS,
    "learning_rate": FloatDistribution(1e-4, 1.0, log=True),
    "1 - gamma": FloatDistribution(1e-4, 0.2, log=True),
    "log2 hidden_size": IntDistribution(5, 10),
    "replay_ratio": FloatDistribution(0.25, 4.0, log=True),
    "entropy_coef": FloatDistribution(1e-5, 0.1, log=True),
}
START = {
    "total_steps": 1e8, "learning_rate": 0.3, "1 - gamma": 0.05, "log2 hidden_size": 9, "replay_ratio": 1.0,
    "entropy_coef": 0.03,
}  # fmt: skip


def _bump(value: float, best: float, width: float) -> float:
    """1 at the best value, less by factors away from it."""
    return math.exp(-0.5 * (math.log10(value / best) / width) ** 2)


def _trial(parameters: Mapping[str, Any], quality: float, speed: float, per_step: float, seed: int) -> Outcome:
    """A run that rises to `quality`, half-way after 1 / speed steps, of so many seconds a step."""
    generator = np.random.default_rng([seed, zlib.crc32(repr(sorted(parameters.items())).encode())])
    steps = parameters["total_steps"]

    def score(share):
        n = steps * share * speed
        return quality * n / (1 + n)

    curve = [
        [share, steps * share * per_step, score(share) + NOISE * generator.standard_normal()]
        for share in np.arange(1, 17) / 16
    ]
    return score(1.0) + NOISE * generator.standard_normal(), steps * per_step, curve, dict(parameters)


def smooth(parameters, seed: int) -> Outcome:
    """Every setting has a best value inside its bounds; larger networks are better and slower."""
    p, size = parameters, 2.0 ** parameters["log2 hidden_size"]
    quality = _bump(p["learning_rate"], 0.02, 0.8) * _bump(p["1 - gamma"], 0.01, 0.7) * (size / 1024) ** 0.1
    speed = 1e-7 * p["replay_ratio"] ** 0.6 * _bump(p["entropy_coef"], 1e-3, 1.5)
    return _trial(p, quality, speed, 1e-6 * (0.3 + size / 256) * (0.5 + p["replay_ratio"]), seed)


def valley(parameters, seed: int) -> Outcome:
    """Step size and replay ratio must fit each other, narrowly; the rest hardly matters."""
    p, size = parameters, 2.0 ** parameters["log2 hidden_size"]
    fit = _bump(p["learning_rate"] * p["replay_ratio"] ** 2, 0.01, 0.35)
    quality = fit * _bump(p["1 - gamma"], 0.003, 1.5)
    return _trial(p, quality, 3e-8 * p["replay_ratio"], 1e-6 * (0.5 + size / 512) * (0.5 + p["replay_ratio"]), seed)


def border(parameters, seed: int) -> Outcome:
    """The best is in a corner: the smallest network, the least replay, the longest view."""
    p, size = parameters, 2.0 ** parameters["log2 hidden_size"]
    quality = _bump(p["1 - gamma"], 1e-4, 1.0) * _bump(p["learning_rate"], 0.01, 1.0) * (32 / size) ** 0.15
    return _trial(p, quality, 5e-8 * (0.25 / p["replay_ratio"]) ** 0.3, 1e-6 * (0.3 + size / 256), seed)


def cliff(parameters, seed: int) -> Outcome:
    """Most of the space scores nothing, as with a reward that is never met: outside of a region nothing is learned."""
    p, size = parameters, 2.0 ** parameters["log2 hidden_size"]
    inside = abs(math.log10(p["learning_rate"] / 0.02)) < 0.6 and abs(math.log10(p["1 - gamma"] / 0.005)) < 0.7
    quality = 0.0 if not inside else 0.5 + 0.5 * _bump(p["learning_rate"], 0.02, 0.3)
    speed = 5e-8 * p["replay_ratio"] ** 0.5 * _bump(p["entropy_coef"], 1e-3, 1.0)
    return _trial(p, quality, speed, 1e-6 * (0.3 + size / 256) * (0.5 + p["replay_ratio"]), seed)


def _synthetic(function) -> Task:
    def make(seed):
        return lambda parameters: function(parameters, seed)

    return Task(SPACE, "total_steps", START, make, (1.0, 3e3), 1e4)


def _choices(parameters, seed: int) -> Outcome:
    p = dict(parameters)
    shift = {"muon": 0.02, "adam": 0.001, "sgd": 0.3}[p["optimizer"]]
    worth = {"muon": 1.0, "adam": 0.85, "sgd": 0.6}[p["optimizer"]]
    quality = worth * _bump(p["learning_rate"], shift, 0.5) * _bump(p["1 - gamma"], 0.01, 0.7)
    size = 2.0 ** p["log2 hidden_size"]
    return _trial(
        p, quality, 1e-7 * p["replay_ratio"] ** 0.5, 1e-6 * (0.3 + size / 256) * (0.5 + p["replay_ratio"]), seed
    )


def choices() -> Task:
    """The step size that is best depends on a choice."""
    task = _synthetic(_choices)
    space = {**SPACE, "optimizer": CategoricalDistribution(["muon", "adam", "sgd"])}
    return task._replace(space=space, start={**START, "optimizer": "sgd"})


TASKS: dict[str, Callable[[], Task]] = {
    **{f.__name__: (lambda f=f: _synthetic(f)) for f in (smooth, valley, border, cliff)},
    "choices": choices,
}


def make_sampler(name: str, task: Task, seed: int) -> optuna.samplers.BaseSampler:
    if name.startswith("protein"):
        points = 1 if name == "protein, ends only" else 5
        return ProteinSampler(task.space, fidelity=task.fidelity, seed=seed, curve_points=points)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
    return optuna.samplers.RandomSampler(seed=seed)


def hypervolume(points: list[tuple[float, float]], costs: tuple[float, float]) -> float:
    """Of (score, cost): the mean over log cost, between two costs, of the best score that was had for no more."""
    low, high = map(math.log, costs)
    area, best = 0.0, 0.0
    inside = sorted((max(math.log(cost), low), score) for score, cost in points if cost <= costs[1])
    for i, (log_cost, score) in enumerate(inside):
        best = max(best, score)
        end = inside[i + 1][0] if i + 1 < len(inside) else high
        area += best * (end - log_cost)
    return area / (high - low)


def search(task: Task, name: str, seed: int) -> dict[str, Any]:
    """A study until the budget is spent."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name, task, seed))
    study.enqueue_trial(dict(task.start))
    evaluate = task.make(seed)
    points, spent, near = [], [], []
    while (sum(spent) < task.budget) and len(points) < MOST_TRIALS:
        trial = study.ask(dict(task.space))
        score, cost, curve, ran = evaluate(trial.params)
        for attribute, value in (("curve", curve), ("ran", ran), ("cost", cost)):
            trial.set_user_attr(attribute, value)
        study.tell(trial, [score, cost])
        points.append((score, cost))
        spent.append(cost)
        near.append(_at_border(task, trial.params))
    total = np.cumsum(spent)
    return {
        "seed": seed,
        "trials": len(points),
        "hypervolume": [
            hypervolume([p for p, t in zip(points, total, strict=True) if t <= part * task.budget], task.costs)
            for part in PARTS
        ],
        "best": max(score for score, _ in points),
        "at_border": float(np.mean(near[1:])),
    }


def _at_border(task: Task, parameters: Mapping[str, Any]) -> float:
    """Share of the continuous parameters that are within a hundredth of their range of a bound."""
    near = []
    for name, distribution in task.space.items():
        if isinstance(distribution, FloatDistribution):
            low, high, x = distribution.low, distribution.high, parameters[name]
            if distribution.log:
                low, high, x = math.log(low), math.log(high), math.log(x)
            near.append(min(x - low, high - x) < 0.01 * (high - low))
    return float(np.mean(near))


def make_table(storage: str, name: str, path: Path) -> None:
    """Writes what a finished sweep has measured."""
    from pufferjax.sweep.trials import Trials, by_number, open_storage

    trials = Trials(open_storage(storage, 60), name)
    plan = trials.plan()
    rows = [
        {"parameters": trial.user_attrs["ran"], "score": trial.user_attrs["score"], "cost": trial.user_attrs["cost"],
         "curve": trial.user_attrs["curve"]}
        for trial in by_number(trials.all()).values() if trial.state == optuna.trial.TrialState.COMPLETE
    ]  # fmt: skip
    table = {"plan": plan.to_json(), "fidelity": plan.fidelity, "rows": rows}
    write_atomically(path, json_text(table, indent=1) + "\n")


def table_task(path: Path) -> Task:
    """The trial that is drawn is the closest run of the table that has not been drawn before."""
    from pufferjax.sweep.plan import Plan
    from pufferjax.sweep.protein import Codec

    table = json.loads(path.read_text())
    space = Plan.from_json(table["plan"]).distributions()
    codec = Codec(space)
    rows = table["rows"]
    encoded = np.array([codec.encode(row["parameters"]) for row in rows])
    costs = np.array([row["cost"] for row in rows])

    def make(seed):
        is_left = np.ones(len(rows), bool)

        def evaluate(parameters):
            distance = np.where(is_left, np.sum((encoded - codec.encode(parameters)) ** 2, -1), np.inf)
            i = int(np.argmin(distance))
            is_left[i] = False
            return rows[i]["score"], rows[i]["cost"], rows[i]["curve"], rows[i]["parameters"]

        return evaluate

    start = rows[0]["parameters"]
    return Task(space, table["fidelity"], start, make, (float(costs.min()), float(costs.max())), float(costs.sum() / 3))


def compared(runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """For each sampler the hypervolumes' means, and Protein's less its own: mean and 95 % interval."""
    generator = np.random.default_rng(0)
    found = {}
    for name, its in runs.items():
        volumes = np.array([run["hypervolume"] for run in its])
        row = {"hypervolume": volumes.mean(0).tolist(), "stderr": (volumes.std(0, ddof=1) / len(its) ** 0.5).tolist()}
        row |= {key: float(np.mean([run[key] for run in its])) for key in ("trials", "best", "at_border")}
        if name != "protein":
            row["protein_less_this"] = []
            for part in range(len(PARTS)):
                gain = np.array([run["hypervolume"][part] for run in runs["protein"]]) - volumes[:, part]
                means = generator.choice(gain, (10_000, len(gain))).mean(1)
                row["protein_less_this"].append([float(gain.mean()), *np.quantile(means, (0.025, 0.975)).tolist()])
        found[name] = row
    return found


def written(result: Mapping[str, Any]) -> str:
    """The table in words."""
    lines = [
        f"# Samplers of a sweep, {result['seeds']} seeds",
        "",
        "Hypervolume after parts of the budget (mean ± standard error), and Protein's less the sampler's at the whole "
        "budget (95 % interval over seeds). Border: share of continuous parameters within 1 % of a bound.",
        "",
        "| task | sampler | "
        + " | ".join(f"{part:.0%}" for part in PARTS)
        + " | Protein less this | trials | border |",
        "|---|---|" + "---|" * (len(PARTS) + 3),
    ]
    for task, rows in result["tasks"].items():
        for name, row in rows.items():
            cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(row["hypervolume"], row["stderr"], strict=True)]
            gain = "–"
            if "protein_less_this" in row:
                mean, low, high = row["protein_less_this"][-1]
                verdict = "better" if low > 1e-9 else "worse" if high < -1e-9 else "no difference"
                gain = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] {verdict}"
            lines.append(
                f"| {task} | {name} | {' | '.join(cells)} | {gain} | {row['trials']:.0f} | {row['at_border']:.0%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="JSON of --make-table: real runs in place of the functions")
    parser.add_argument("--make-table", nargs=3, metavar=("STORAGE", "NAME", "FILE"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--output", type=Path, help="of the JSON, beside which the table is written")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if args.make_table:
        make_table(args.make_table[0], args.make_table[1], Path(args.make_table[2]))
        return
    tasks = {args.table.stem: table_task(args.table)} if args.table else {name: TASKS[name]() for name in args.tasks}
    output = args.output or RESULTS / (
        f"sweep_samplers_{args.table.stem}.json" if args.table else "sweep_samplers.json"
    )
    result = {"machine": machine(), "seeds": args.seeds, "parts": PARTS, "noise": NOISE, "tasks": {}}
    for name, task in tasks.items():
        runs = {sampler: [search(task, sampler, seed) for seed in range(args.seeds)] for sampler in args.samplers}
        result["tasks"][name] = compared(runs)
        print(written(result), flush=True)
        write_atomically(output, json_text(result, indent=1) + "\n")
        write_atomically(output.with_suffix(".md"), written(result))


if __name__ == "__main__":
    main()
