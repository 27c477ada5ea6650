"""What a worker does: claim a trial, run it, tell what it came to, until none is left."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from pufferjax.runs.files import write_atomically
from pufferjax.runs.json_text import json_text
from pufferjax.sweep.early_stop import Bar, fit_bar
from pufferjax.sweep.plan import Plan, merged_flags
from pufferjax.sweep.prepare import Parse, Prepared, Preparer
from pufferjax.sweep.protein import ProteinSampler
from pufferjax.sweep.report import trial_line
from pufferjax.sweep.results import COSTS, RunResult, aggregate, mean_curve, read_result, share_of
from pufferjax.sweep.run import Metrics, run_child, wait_until_free, why_it_failed
from pufferjax.sweep.trials import Trials, by_number, is_lost, is_open, patiently, trial_number

_IDLE = 1.0  # seconds between two looks at the storage, while others work


def make_sampler(plan: Plan, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial: of its number and the trials before, so that two workers never draw the same."""
    seed = (plan.seed * 1_000_003 + number) % 2**32
    if plan.sampler == "protein":
        return ProteinSampler(
            plan.distributions(),
            fidelity=plan.fidelity,
            max_cost=plan.max_cost,
            seed=plan.seed,
            num_startup=plan.num_startup,
        )
    if plan.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if plan.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


class StopRequest:
    """While entered, SIGINT and SIGTERM are noted in `name`; a second one acts as ever."""

    def __init__(self):
        self.name: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.name = signal.Signals(number).name
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def own_folder(folder: Path, plan: Plan, *, write: bool = True) -> None:
    """Makes the folder of a sweep, or checks that it is this sweep's; without `write` it only looks. FileExistsError if
    it is something else's."""
    marker = folder / "sweep.json"
    if marker.exists():
        theirs = json.loads(marker.read_text(encoding="utf-8")).get("id")
        if theirs != plan.id:
            raise FileExistsError(
                f"{folder} holds runs of another sweep of this name: choose another --name or --runs-dir, or delete it"
            )
        return
    others = [path for path in folder.iterdir() if not path.name.startswith("sweep.db")] if folder.exists() else []
    if others:
        raise FileExistsError(
            f"{folder} exists and is not of this sweep: choose another --name or --runs-dir, or delete it"
        )
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(marker, json_text(plan.to_json(), indent=2) + "\n")


class Worker:
    def __init__(self, trials: Trials, plan: Plan, parse: Parse, folder: Path, say: Callable[[str], None]):
        """folder: of the sweep's runs."""
        self._trials, self._plan, self._folder, self._say = trials, plan, folder, say
        self._prepare = Preparer(plan, parse)
        self._said = {number for number, trial in by_number(trials.all()).items() if not is_open(trial)}

    def work(self, stop: StopRequest) -> None:
        """Until every trial of the sweep is done, also those that others have now, or `stop` is asked for."""
        while stop.name is None:
            self._tell_what_is_new()
            self._trials.recover()
            trial = self._trials.claim(lambda number: make_sampler(self._plan, number))
            if trial is not None:
                self._run(trial, stop)
            elif any(is_open(other) for other in self._trials.all()):
                time.sleep(_IDLE)
            else:
                self._tell_what_is_new()
                return

    def _run(self, trial: Trial, stop: StopRequest) -> None:
        with self._trials.heartbeat(trial) as lost:
            told = self._run_alive(trial, stop, lost)
        if told is None and stop.name is not None and not lost.is_set():
            self._trials.give_back(trial)
        if told is False or lost.is_set():
            self._say("a trial was taken from this worker, which had been silent for too long")

    def _tell_what_is_new(self) -> None:
        """A line for each trial that is done, whoever did it."""
        trials = by_number(self._trials.all())
        for number, trial in trials.items():
            if number not in self._said and not is_open(trial) and not is_lost(trial):
                self._said.add(number)
                self._say(trial_line(self._plan, trial, len(trials)))

    def _run_alive(self, trial: Trial, stop: StopRequest, lost: threading.Event) -> bool | None:
        """Whether what it came to could be told; None if it came to nothing here."""
        plan, trials = self._plan, self._trials
        values = patiently(_draw, trial, plan)
        drawn = {plan.space[name].name: plan.space[name].setting(value) for name, value in values.items()}
        try:
            prepared = self._prepare(drawn)
        except (ValueError, TypeError) as error:
            return trials.note(trial, settings=drawn, impossible=str(error)) and trials.prune(trial)
        ran = {name: x.parameter_of(prepared.settings[x.name]) for name, x in plan.space.items()}
        trials.note(trial, settings=prepared.settings, ran=ran, repaired=prepared.repaired, flags=prepared.flags)
        others = trials.all()
        number = trial_number(next(other for other in others if other.number == trial.number))
        bar = _bar(plan, others)
        results: list[RunResult] = []
        for seed in range(prepared.config.options.seed, prepared.config.options.seed + plan.seeds):
            name = f"trial-{number:04d}" + (f"-seed-{seed}" if plan.seeds > 1 else "")
            run_dir = self._folder / name
            log = self._folder / "logs" / f"{name}.log"
            flags = merged_flags(plan.env, prepared.flags, {"seed": seed}) if plan.seeds > 1 else prepared.flags
            status, reason = self._train(flags, run_dir, log, prepared, bar, stop, lost)
            if reason in ("stopped", "lost"):
                return None
            if status != 0 and reason != "early":
                failure = "in use by another process" if status == _IN_USE else why_it_failed(status, log)
                stopped_by = _stopped_by(run_dir)
                failure = "nothing it computed was finite any more" if stopped_by == "non_finite" else failure
                return trials.note(trial, log=str(log)) and trials.fail(trial, failure)
            results.append(read_result(run_dir, prepared.config, plan.metric, plan.cost))
            if reason == "early":
                break
        return self._tell(trial, results, is_early=reason == "early")

    def _train(self, flags, run_dir: Path, log: Path, prepared: Prepared, bar, stop, lost) -> tuple[int, str | None]:
        judge = _Judge(run_dir, prepared, self._plan, bar)

        def poll() -> str | None:
            if lost.is_set():
                return "lost"
            if stop.name is not None:
                return "stopped"
            return "early" if judge.is_under() else None

        if not wait_until_free(run_dir, lambda: lost.is_set() or stop.name is not None):
            return _IN_USE, poll()
        arguments = ["train", self._plan.env, *flags, "--run-dir", str(run_dir)]
        if (run_dir / "config.toml").exists():
            arguments.append("--resume")
        return run_child(arguments, log, poll)

    def _tell(self, trial: Trial, results: list[RunResult], *, is_early: bool) -> bool:
        plan, trials = self._plan, self._trials
        scores = [result.score for result in results if result.score is not None]
        cost = sum(result.cost for result in results) / len(results)
        figures = {
            "curve": mean_curve([result.curve for result in results]),
            "cost": cost,
            "spent": sum(result.cost for result in results),
            "scores": scores,
        }
        if len(scores) == len(results):
            figures["score"] = aggregate(scores, plan.aggregate)
        if not trials.note(trial, **figures):
            return False
        if is_early:
            return trials.note(trial, early=True) and trials.prune(trial)
        if "score" not in figures:
            return trials.fail(trial, f"no {plan.metric} was measured: no episode has ended")
        if plan.max_cost is None:
            return trials.complete(trial, [figures["score"], cost])
        patiently(trial.set_constraint, "cost", cost - plan.max_cost)
        return trials.complete(trial, [figures["score"]])


_IN_USE = 1000  # no exit status


def _stopped_by(run_dir: Path) -> str | None:
    try:
        return json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["stopped_by"]
    except (OSError, ValueError, KeyError):
        return None


def _draw(trial: Trial, plan: Plan) -> dict[str, object]:
    """The values of its parameters, drawn unless an attempt before had them."""
    found = {}
    for name, distribution in plan.distributions().items():
        if isinstance(distribution, CategoricalDistribution):
            found[name] = trial.suggest_categorical(name, distribution.choices)
        elif isinstance(distribution, IntDistribution):
            found[name] = trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        else:
            found[name] = trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    return found


def _bar(plan: Plan, trials: list[FrozenTrial]) -> Bar | None:
    points = [
        (cost, score)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        for _, cost, score in trial.user_attrs.get("curve", [])
    ]
    return fit_bar(points, plan.early_stop_quantile, plan.cost == "seconds")


class _Judge:
    """Watches a run's metrics for falling under the bar."""

    def __init__(self, run_dir: Path, prepared: Prepared, plan: Plan, bar: Bar | None):
        self._metrics, self._config, self._bar = Metrics(run_dir / "metrics.jsonl"), prepared.config, bar
        self._metric, self._column = plan.metric, COSTS[plan.cost]
        self._recent: list[float] = []

    def is_under(self) -> bool:
        if self._bar is None:
            return False
        for record in self._metrics.new():
            score = record.get(self._metric)
            if not isinstance(score, (int, float)):
                continue
            self._recent = [*self._recent[-29:], score]
            best = max(score, sum(self._recent) / len(self._recent))
            share = share_of(record, self._config)
            if share < 1 and self._bar.is_under(best, record[self._column], share, record["step"]):
                return True
        return False
