"""What a worker makes of runs: scores, costs, seeds, limits, early stops, failures, and what is said in the end."""

import json
import shlex
import sys
import time
from pathlib import Path

import optuna
import pytest

from pufferjax import cli, presets
from pufferjax.cli.sweep import parse, split
from pufferjax.cli.train import parse_train
from pufferjax.sweep import worker
from pufferjax.sweep.plan import Plan
from pufferjax.sweep.report import front_of, report
from pufferjax.sweep.run import Metrics, why_it_failed
from pufferjax.sweep.shares import Share, helpers, make_shares
from pufferjax.sweep.space import flattened, parse_dimension
from pufferjax.sweep.trials import Trials, by_number, open_storage

sys.path.insert(0, str(Path(__file__).parent))
from fake_runs import value, write_run

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

TINY = "--env.size 5 --env.num-mazes 16 --num-envs 16 --horizon 16 --ppo.minibatch-size 64"
RATE, GAMMA = "ppo.learning_rate", "ppo.gamma"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A function: a sweep of some trials with fake runs; (plan, its trials by number, what was said)."""

    def run(child, trials=3, lines=None, start=None, **changes):
        monkeypatch.setattr(worker, "run_child", child)
        lines = lines or {RATE: [1e-3, 0.1, "log"]}
        space = {d.parameter: d for d in (parse_dimension("maze", name, words, name) for name, words in lines.items())}
        settings = {"name": "demo", "env": "maze", "flags": tuple(TINY.split()), "metric": "perf", "sampler": "random"}
        plan = Plan(**{**settings, "space": space, **changes})
        storage = open_storage(f"sqlite:///{tmp_path}/s.db", 60)
        found = Trials.create(storage, plan)
        found.enqueue(trials, start or {})
        said = []
        worker.Worker(found, plan, parse, tmp_path / "demo", said.append).work(worker.StopRequest())
        said.append(report(plan, found.all(), "runs/demo"))
        return plan, by_number(found.all()), "\n".join(said)

    return run


def folder_of(arguments):
    return Path(arguments[arguments.index("--run-dir") + 1])


def trained(arguments, log, poll, perf=None, cost=None):
    """A run whose perf is its learning rate, and whose cost grows with it."""
    rate = value(arguments, "--ppo.learning-rate")
    perf, cost = rate if perf is None else perf, 100 * rate if cost is None else cost
    points = [(3_000_000 * i, cost * i / 10, {"perf": perf * i / 10, "score": -perf}) for i in range(1, 11)]
    write_run(folder_of(arguments), points, {"perf": perf, "score": -perf, "episode_return": 0.0})
    return 0, None


def test_a_trial_is_worth_what_its_summary_says_and_the_metric_decides(work):
    plan, trials, said = work(trained, start={RATE: 0.03})
    rates = [trial.params[RATE] for trial in trials.values()]
    assert rates[0] == 0.03
    for trial in trials.values():
        rate = trial.user_attrs["settings"][RATE]
        assert trial.values == pytest.approx([rate, 100 * rate]) and trial.user_attrs["cost"] == 100 * rate
        assert trial.params[RATE] == pytest.approx(rate, rel=1e-3)  # as it can be read
        curve = trial.user_attrs["curve"]
        assert len(curve) == 10 and curve[-1][1:] == pytest.approx([100 * rate, rate])
    # Score and cost rise together: all are on the front, the best is the dearest, and its command is the trial's.
    best = max(trials.values(), key=lambda trial: trial.values[0])
    assert [t.number for t in front_of(plan, list(trials.values()))] == sorted(
        trials, key=lambda n: trials[n].values[1]
    )
    command = said.splitlines()[-1]
    assert command.startswith("pufferjax train maze --env.size 5") and f"trial {best.number}, is trained by" in said
    config = parse_train("maze", shlex.split(command)[3:]).config
    assert config.train.ppo.learning_rate == best.user_attrs["settings"][RATE] and config.train.num_envs == 16
    assert "3 trials of demo: 3 finished" in said


def test_another_metric_and_another_cost_are_other_values(work):
    plan, trials, _ = work(trained, metric="score", cost="steps")
    for trial in trials.values():
        assert trial.values == pytest.approx([-trial.user_attrs["settings"][RATE], 3e7])
    front = front_of(plan, list(trials.values()))
    assert [t.user_attrs["settings"][RATE] for t in front] == [
        min(t.user_attrs["settings"][RATE] for t in trials.values())
    ]


def test_a_limit_of_cost_is_one_objective(work):
    plan, trials, said = work(trained, trials=4, max_cost=3.0, start={RATE: 0.09})
    assert all(len(trial.values) == 1 for trial in trials.values())
    costs = {n: trial.user_attrs["cost"] for n, trial in trials.items()}
    assert {n: trial.constraints["cost"] for n, trial in trials.items()} == pytest.approx(
        {n: c - 3 for n, c in costs.items()}
    )
    within = [n for n, cost in costs.items() if cost <= 3]
    assert costs[0] > 3 and within  # the preset itself is too dear
    best = max(within, key=lambda n: trials[n].values[0])
    assert front_of(plan, list(trials.values()))[-1].number == best and f"The best, trial {best}," in said


@pytest.mark.parametrize(("aggregate", "expected"), [("mean", 0.5), ("lower_bound", 0.5 - 0.2 / 3**0.5)])
def test_seeds_of_a_trial(work, tmp_path, aggregate, expected):
    def by_seed(arguments, log, poll):
        return trained(arguments, log, poll, perf={4: 0.3, 5: 0.5, 6: 0.7}[int(value(arguments, "--seed"))], cost=5.0)

    flags = (*TINY.split(), "--seed", "4")
    _, trials, _ = work(by_seed, trials=1, seeds=3, aggregate=aggregate, flags=flags)
    assert trials[0].values == pytest.approx([expected, 5.0])
    assert trials[0].user_attrs["scores"] == [0.3, 0.5, 0.7] and trials[0].user_attrs["spent"] == 15
    assert sorted(path.name for path in (tmp_path / "demo").glob("trial*")) == [
        f"trial-0000-seed-{i}" for i in (4, 5, 6)
    ]


def test_a_run_that_fails_costs_only_its_trial(work):
    def child(arguments, log, poll):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        number = int(folder_of(arguments).name.split("-")[1])
        if number == 0:
            return -9, None
        if number == 1:
            log.write_text("step 1\npufferjax: error: --devices must be at most 2\n")
            return 2, None
        if number == 2:
            write_run(folder_of(arguments), [(10, 1.0, {"perf": None})], None, stopped_by="non_finite")
            return 1, None
        if number == 3:
            write_run(folder_of(arguments), [(10, 1.0, {"perf": None})], {"perf": None})
            return 0, None
        return trained(arguments, log, poll)

    _, trials, said = work(child, trials=5)
    assert [trial.user_attrs.get("failure") for trial in trials.values()] == [
        "killed by SIGKILL (out of memory?)",
        "--devices must be at most 2",
        "nothing it computed was finite any more",
        "no perf was measured: no episode has ended",
        None,
    ]
    assert "5 trials of demo: 1 finished, 4 failed" in said and "trial 1 of 5: failed: --devices must be" in said


def test_what_is_impossible_is_repaired_or_costs_nothing(work):
    ran = []

    def child(arguments, log, poll):
        ran.append(arguments)
        return trained(arguments, log, poll)

    lines = {"horizon": [17, 31, "integer"], "policy.encoder": ["one_hot", "entity"], RATE: [1e-3, 0.1, "log"]}
    _, trials, said = work(child, trials=6, lines=lines)
    impossible = [trial for trial in trials.values() if trial.params["policy.encoder"] == "entity"]  # a maze has none
    assert 0 < len(impossible) < 6 and len(ran) == 6 - len(impossible)
    for trial in impossible:
        assert trial.state == optuna.trial.TrialState.PRUNED and "encoder" in trial.user_attrs["impossible"]
    for arguments in ran:
        assert value(arguments, "--ppo.minibatch-size") % value(arguments, "--horizon") == 0
    assert f"{len(ran)} finished, {len(impossible)} impossible" in said and "not run: " in said


def test_a_run_under_the_bar_is_stopped_and_pruned(work):
    def child(arguments, log, poll):
        number = int(folder_of(arguments).name.split("-")[1])
        if number < 6:
            return trained(arguments, log, poll, perf=0.8, cost=100.0)
        lines = []
        for i in range(1, 11):  # a run that learns nothing
            lines.append((3_000_000 * i, 10.0 * i, {"perf": 0.01}))
            write_run(folder_of(arguments), lines, None, stopped_by="SIGTERM")
            if reason := poll():
                return 143, reason
        return 0, None

    _, trials, said = work(child, trials=7)
    stopped = trials[6]
    assert stopped.state == optuna.trial.TrialState.PRUNED and stopped.user_attrs["early"]
    # Not before 0.3 * 100 + 10 seconds.
    assert stopped.user_attrs["cost"] == 40 and stopped.user_attrs["score"] == pytest.approx(0.01)
    assert "6 finished, 1 stopped early" in said and "40.0 s, stopped early" in said


def test_a_sweep_that_is_stopped_gives_its_trial_back(work, tmp_path):
    stop = worker.StopRequest()

    def child(arguments, log, poll):
        stop.name = "SIGTERM"
        assert poll() is None  # of another request: this one is not entered
        return trained(arguments, log, poll)

    plan, _, _ = work(child, trials=1)
    storage = open_storage(f"sqlite:///{tmp_path}/s.db", 60)
    found = Trials(storage, "demo")
    found.enqueue(2, {})
    request = worker.StopRequest()

    def stopped(arguments, log, poll):
        request.name = "SIGINT"
        return 143, poll()

    worker.run_child = stopped
    worker.Worker(found, plan, parse, tmp_path / "demo", print).work(request)
    states = {number: trial.state for number, trial in by_number(found.all()).items()}
    assert states == {0: optuna.trial.TrialState.COMPLETE, 1: optuna.trial.TrialState.WAITING}
    # Its parameters, and so its folder's run, are the next worker's.
    waiting = by_number(found.all())[1]
    assert waiting.number == 2 and waiting.user_attrs["settings"]


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("x")
    plan = Plan("demo", "maze", (), {}, "perf", id="1")
    with pytest.raises(FileExistsError, match="exists and is not of this sweep"):
        worker.own_folder(tmp_path / "demo", plan)
    worker.own_folder(tmp_path / "other", plan)
    worker.own_folder(tmp_path / "other", plan)
    assert json.loads((tmp_path / "other" / "sweep.json").read_text())["id"] == "1"
    with pytest.raises(FileExistsError, match="holds runs of another sweep of this name"):
        worker.own_folder(tmp_path / "other", Plan("demo", "maze", (), {}, "perf", id="2"))


def test_flags_are_told_apart():
    words = "--env.size 9 --trials 12 --sweep.ppo.gamma 0.9 0.99 log --max-seconds 15 --sweep-only ppo.gamma horizon"
    options, swept, flags = split("maze", words.split())
    assert options.trials == 12 and options.sweep_only == ("ppo.gamma", "horizon")
    assert swept == {"ppo.gamma": ["0.9", "0.99", "log"]} and flags == ["--env.size", "9", "--max-seconds", "15"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere", "name must be one of maze"),
        ("maze --ppo.gamma 3", "ppo.gamma must be a number in [0, 1], got 3.0"),
        ("maze --sweep.ppo.gama 0.9 0.99 log", "--sweep.ppo.gama: there is no setting ppo.gama"),
        ("maze --sweep.ppo.gamma 0.9 1.5 linear", "sweep of ppo.gamma: ppo.gamma must be a number in [0, 1], got 1.5"),
        ("maze --run-dir x", "--run-dir is of a single run"),
        ("maze --resume", "--resume is of a single run"),
        ("maze --trials 0", "--trials must be an integer in [1, 1000000], got 0"),
        ("maze --metric prf", "--metric must be one of perf, score, episode_return, got 'prf'"),
        ("maze --seeds 0", "--seeds must be an integer in [1, 1000], got 0"),
        ("maze --max-cost -1", "--max-cost must be a number > 0, got -1.0"),
        ("maze --name a/b", "--name must be letters, digits"),
        ("maze --early-stop-quantile 1", "--early-stop-quantile must be a number in [0, 1), got 1.0"),
        ("maze --devices-per-trial 4096", "--devices-per-trial must be an integer in [1, "),
        ("maze --storage foo --sweep-only ppo.gamma", "--storage must be a URL"),
        ("maze --sweep-only ppo.vf", "--sweep-only: ppo.vf is not swept"),
        ("maze --sweep.ppo.gamma 0.9 0.99 --sweep.ppo.gamma 0.9 0.99", "--sweep.ppo.gamma is given twice"),
    ],
)
def test_what_is_refused_is_one_line_before_anything_is_written(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, *words = arguments.split()
    assert cli.main(["sweep", name, *TINY.split(), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pufferjax: error: ") and message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_it_says_what_to_install(monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else find(name, *a))
    for arguments in (["sweep", "maze"], ["sweep-worker", "--storage", "sqlite:///x.db", "--name", "x"]):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.endswith(
            "needs Optuna, which is not installed: pip install 'pufferjax[sweep]'\n"
        )


def test_a_worker_needs_a_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep-worker", "--storage", "sqlite:///x.db", "--name", "x"]) == 2
    assert "sqlite:///x.db has no sweep 'x'" in capsys.readouterr().err


def test_devices_are_shared_out(monkeypatch):
    from pufferjax.sweep import shares

    monkeypatch.setattr(shares, "_cores", lambda: list(range(8)))
    monkeypatch.setattr(shares, "_gpus", list)
    assert [share.cores for share in make_shares(None)] == [tuple(range(8))]
    assert [share.cores for share in make_shares(4)] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    monkeypatch.setattr(shares, "_gpus", lambda: ["0", "1", "2", "3"])
    assert [(share.cores, share.gpus) for share in make_shares(2)] == [
        ((0, 1, 2, 3), ("0", "1")),
        ((4, 5, 6, 7), ("2", "3")),
    ]
    with pytest.raises(ValueError, match="the GPUs of this machine"):
        make_shares(5)


def test_each_share_has_a_process_of_its_own(tmp_path):
    core = make_shares(None)[0].cores[0]
    logs = [tmp_path / "logs" / f"worker-{i}.log" for i in (1, 2)]
    deadline = time.monotonic() + 100
    with helpers([Share((core,), None), Share((core,), ("7",))], ["--help"], tmp_path / "logs"):
        while not all(log.is_file() and "pufferjax sweep ENV" in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.05)


def test_lines_are_read_once_and_from_the_beginning_if_they_were_cut_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    assert metrics.new() == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert metrics.new() == [{"step": 1}, {"step": 2}] and metrics.new() == []
    path.write_text('{"step": 1}\n')
    assert metrics.new() == [{"step": 1}]


def test_the_end_of_a_child_is_explained(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("pufferjax: error: of the attempt before\nstep 2\nKilled by someone\n\n")
    assert why_it_failed(-11, log) == "killed by SIGSEGV"
    log.write_text("step 2\nsomething odd\n\n")
    assert why_it_failed(3, log) == "exit status 3: something odd"


def test_what_the_preset_sweeps_is_no_setting_of_a_run_and_depends_on_the_size():
    assert parse_train("maze", ["--env.size", "9"]).config.train.total_steps == 30_000_000
    small, large = (presets.sweep(presets.load("maze"), size) for size in (9, 35))
    assert small["total_steps"] != large["total_steps"] and small["ppo"]["gamma"] == large["ppo"]["gamma"]
    assert flattened(large).keys() - flattened(small) == {
        "policy.hidden_size",
        "ppo.minibatch_size",
        "ppo.replay_ratio",
    }
