"""Trials in the storage: queued, claimed once, taken from the dead, never twice; two processes, one of them killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from pufferjax.sweep.plan import Plan
from pufferjax.sweep.space import Dimension
from pufferjax.sweep.trials import SUPERSEDED, Trials, by_number, is_lost, open_storage, shown, trial_number

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SPACE = {"ppo.gamma": Dimension("ppo.gamma", "linear", (0.9, 0.99))}


def plan(**changes):
    return Plan(**{"name": "demo", "env": "maze", "flags": (), "space": SPACE, "metric": "perf", "id": "1", **changes})


@pytest.fixture
def storage(tmp_path):
    return open_storage(f"sqlite:///{tmp_path}/s.db", 2)


@pytest.fixture
def trials(storage):
    found = Trials.create(storage, plan())
    found.enqueue(3, {"ppo.gamma": 0.95})
    return found


def sampler(number):
    return optuna.samplers.RandomSampler(seed=number)


def draw(trial):
    return trial.suggest_float("ppo.gamma", 0.9, 0.99)


def test_as_many_as_there_are_and_no_more(trials, storage):
    assert Trials(storage, "demo").plan() == plan()
    trials.enqueue(3, {})  # the same command again
    claimed = [trials.claim(sampler) for _ in range(4)]
    assert [trial and trial.number for trial in claimed] == [0, 1, 2, None]
    assert draw(claimed[0]) == 0.95 and draw(claimed[1]) != draw(claimed[2])
    assert trials.complete(claimed[0], [0.5, 10.0]) and trials.prune(claimed[1]) and trials.fail(claimed[2], "crash")
    trials.recover()
    assert trials.claim(sampler) is None  # what failed by itself is not tried again
    assert [trial.state for trial in trials.all()] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    trials.enqueue(5, {})
    assert trials.claim(sampler).number == 3


def test_a_dead_workers_trial_goes_to_the_next_with_its_number_and_parameters(trials):
    trial = trials.claim(sampler)
    drawn = draw(trial)
    assert trials.note(trial, flags=["--x"])
    deadline = time.monotonic() + 10
    while not any(trial_number(t) == 0 and t.number != 0 for t in trials.all()):  # no heartbeat
        trials.recover()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert is_lost(trials.all()[0])
    again = trials.claim(sampler)
    assert again.number == 3 and draw(again) == drawn and again.user_attrs == {"flags": ["--x"]}
    # The first worker was only slow: its word does not count any more.
    assert not trials.complete(trial, [1.0, 1.0]) and not trials.note(trial, flags=[]) and not trials.fail(trial, "x")
    assert trials.complete(again, [0.5, 1.0])
    assert by_number(trials.all())[0].values == [0.5, 1.0] and len(by_number(trials.all())) == 3


def test_a_worker_learns_that_its_trial_was_taken_and_heartbeats_keep_it(trials, storage):
    trial = trials.claim(sampler)
    with trials.heartbeat(trial) as lost:
        time.sleep(3.2)
        trials.recover()
        assert not lost.is_set() and trials.all()[0].state == TrialState.RUNNING
        storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)  # as another worker would
        assert lost.wait(3)


def test_a_trial_that_was_given_back_or_half_recovered_is_there_once(trials, storage):
    first = trials.claim(sampler)
    trials.give_back(first)
    assert [t.state for t in trials.all()] == [TrialState.FAIL, *[TrialState.WAITING] * 3]
    # Killed after Optuna had failed it and before it was queued again; then two find it.
    second = trials.claim(sampler)
    assert second.number == 3
    storage.set_trial_state_values(second._trial_id, state=TrialState.FAIL)
    lost = by_number(trials.all())[0]
    for _ in range(2):
        optuna.storages.RetryHeartbeatStaleTrialCallback()(trials._study(), lost)
    claimed = [trials.claim(sampler) for _ in range(4)]
    assert [trial and trial.number for trial in claimed] == [4, 1, 2, None]
    assert trials.all()[5].user_attrs == {"failure": SUPERSEDED}
    assert trials.complete(claimed[0], [1.0, 2.0]) and by_number(trials.all())[0].number == 4


def test_another_sweep_of_the_same_name_is_told_apart():
    for changes, message in (
        ({"metric": "score"}, "--metric perf there, score here"),
        ({"flags": ("--seed", "1")}, "flags of train none there, --seed 1 here"),
        ({"space": {"ppo.gamma": Dimension("ppo.gamma", "linear", (0.8, 0.99))}}, "--sweep.ppo.gamma 0.9 0.99 linear"),
        (
            {"space": {**SPACE, "horizon": Dimension("horizon", "integer", (8, 9), is_integer=True)}},
            "--sweep.horizon no",
        ),
        ({"max_cost": 3.0}, "--max-cost none there, 3.0 here"),
    ):
        with pytest.raises(ValueError, match="has a sweep 'demo' already, and another one") as caught:
            plan(**changes).check_same(plan(), "sqlite:///s.db")
        assert message in str(caught.value)
    plan(id="2").check_same(plan(), "")
    assert Plan.from_json(plan(max_cost=2.0, flags=("--a",)).to_json()) == plan(max_cost=2.0, flags=("--a",))


def test_a_storage_that_cannot_be_opened_is_one_line_without_the_password(tmp_path):
    for url in ("foo", f"sqlite:///{tmp_path}/no/s.db", "nosuch://x/y"):
        with pytest.raises(ValueError, match=r"^--storage") as caught:
            open_storage(url, 60)
        assert "\n" not in str(caught.value)
    assert shown("postgresql://me:secret@host/x") == "postgresql://me:***@host/x"


FAKE = Path(__file__).parent / "fake_runs.py"
FLAGS = (
    "--ppo.minibatch-size 256 --num-envs 16 --horizon 16 --env.num-mazes 16 --env.size 5 --sampler random "
    "--sweep.ppo.learning-rate 1e-3 0.1 log --sweep-only ppo.learning-rate --early-stop-quantile 0"
)


def start(folder, seconds, *arguments):
    command = [sys.executable, FAKE, str(seconds), *arguments, "--name", "demo"]
    command += [] if "--grace-seconds" in arguments else ["--grace-seconds", "2"]
    return subprocess.Popen(
        list(map(str, command)), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def lines(path):
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_one_of_two(folder, url, trials=6):
    """A sweep that never gets on with its first trial, and a worker; once both have one, the sweep is killed. Returns
    what the worker has printed in the end, and the sweep's process."""
    runs = folder / "runs" / "demo"

    def has_begun(process):
        assert process.poll() is None, process.stdout.read()
        return any(int(pid) == process.pid for _, pid, _ in lines(runs / "began.txt"))

    sweep = start(folder, 3600, "sweep", "maze", *FLAGS.split(), "--storage", url, "--trials", trials)
    wait_for(lambda: has_begun(sweep))
    worker = start(folder, 0.3, "sweep-worker", "--storage", url)
    wait_for(lambda: has_begun(worker))
    os.kill(sweep.pid, signal.SIGKILL)
    output = worker.communicate(timeout=120)[0]
    assert worker.returncode == 0, output
    return output, sweep


def check_that_all_were_run_once(folder, trials, sweep):
    runs = folder / "runs" / "demo"
    ended = lines(runs / "ended.txt")
    assert Counter(name for name, *_ in ended) == {f"trial-{i:04d}": 1 for i in range(trials)}
    began = lines(runs / "began.txt")
    twice = [name for name, count in Counter(name for name, *_ in began).items() if count > 1]
    assert len(began) == trials + 1 and len(twice) == 1  # what the dead one had, and nothing else
    before, after = [line for line in began if line[0] == twice[0]]
    assert int(before[1]) == sweep.pid != int(after[1])


def test_two_workers_one_of_which_is_killed(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    output, sweep = kill_one_of_two(tmp_path, url)
    check_that_all_were_run_once(tmp_path, 6, sweep)
    assert "6 trials of demo: 6 finished" in output and "Pareto front of perf and seconds" in output
