"""What is said of a sweep: a line for each trial, and in the end the front, what became of all, and the best one's
command."""

import shlex
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from pufferjax.sweep.plan import Plan
from pufferjax.sweep.trials import FAILURE, by_number, is_open, trial_number


def _cost(plan: Plan, cost: float) -> str:
    return f"{cost:.1f} s" if plan.cost == "seconds" else f"{cost:,.0f} steps"


def _settings(trial: FrozenTrial) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in trial.user_attrs.get("settings", {}).items())


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def trial_line(plan: Plan, trial: FrozenTrial, total: int) -> str:
    """What a trial came to."""
    figures, head = trial.user_attrs, f"trial {trial_number(trial)} of {total}"
    if FAILURE in figures:
        return f"{head}: failed: {figures[FAILURE]}"
    if "impossible" in figures:
        return f"{head}: not run: {figures['impossible']}"
    score = f"{plan.metric} {figures['score']:.4g}" if "score" in figures else f"no {plan.metric}"
    early = ", stopped early" if figures.get("early") else ""
    return f"{head}: {score}, {_cost(plan, figures['cost'])}{early}  ({_settings(trial)})"


def front_of(plan: Plan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished trials that no other beats on score and cost together, within the limit of cost, the cheapest
    first."""
    done = [
        trial
        for trial in by_number(trials).values()
        if trial.state == TrialState.COMPLETE and (plan.max_cost is None or trial.user_attrs["cost"] <= plan.max_cost)
    ]
    done.sort(key=lambda trial: (trial.user_attrs["cost"], -trial.user_attrs["score"]))
    front: list[FrozenTrial] = []
    for trial in done:
        if not front or trial.user_attrs["score"] > front[-1].user_attrs["score"]:
            front.append(trial)
    return front


def command_of(plan: Plan, trial: FrozenTrial) -> str:
    """The command that trains what a trial trained."""
    return shlex.join(["pufferjax", "train", plan.env, *trial.user_attrs["flags"]])


def counts(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    """What became of the trials, by the words of the report."""
    found = dict.fromkeys(("finished", "stopped early", "impossible", "failed", "not finished"), 0)
    for trial in by_number(trials).values():
        if is_open(trial):
            found["not finished"] += 1
        elif trial.state == TrialState.COMPLETE:
            found["finished"] += 1
        elif trial.state == TrialState.PRUNED:
            found["impossible" if "impossible" in trial.user_attrs else "stopped early"] += 1
        else:
            found["failed"] += 1
    return found


def report(plan: Plan, trials: Sequence[FrozenTrial], folder: str) -> str:
    """The last words of a sweep."""
    total = len(by_number(trials))
    became = ", ".join(f"{number} {what}" for what, number in counts(trials).items() if number)
    lines = [f"{total} trials of {plan.name}: {became}; runs in {folder}"]
    failed = [trial for trial in by_number(trials).values() if trial.state == TrialState.FAIL]
    lines += [f"  trial {trial_number(trial)}: {trial.user_attrs.get(FAILURE, 'its workers died')}" for trial in failed]
    front = front_of(plan, trials)
    if not front:
        limit = "" if plan.max_cost is None else f" within --max-cost {plan.max_cost:g}"
        return "\n".join([*lines, f"no trial has finished{limit}: there is no front"])
    names = list(dict.fromkeys(name for trial in front for name in trial.user_attrs["settings"]))
    header = ["trial", plan.metric, plan.cost, *names]
    rows = [
        [
            str(trial_number(trial)),
            f"{trial.user_attrs['score']:.4f}",
            f"{trial.user_attrs['cost']:,.1f}" if plan.cost == "seconds" else f"{trial.user_attrs['cost']:,.0f}",
            *(_short(trial.user_attrs["settings"].get(name)) for name in names),
        ]
        for trial in front
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines += ["", f"Pareto front of {plan.metric} and {plan.cost}, the cheapest first:"]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    best = front[-1]
    lines += ["", f"The best, trial {trial_number(best)}, is trained by", command_of(plan, best)]
    return "\n".join(lines)
