"""pufferjax.run: the host loop and the run directory."""

import dataclasses
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tomli_w

import pufferjax
from pufferjax.runs.budget import Budget
from pufferjax.runs.load import load_run
from pufferjax.runs.metrics import read_metrics
from pufferjax.runs.run_config import RunConfig, RunOptions, read_config
from pufferjax.runs.signals import StoppedEarly, StopSignals

TIMES = ("wall_seconds", "steps_per_second")


def without_times(records):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def test_run_directory_is_complete(tiny_run):
    run_dir = tiny_run.run_dir
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
        "summary.json",
    ]
    assert read_metrics(run_dir / "metrics.jsonl") == tiny_run.metrics
    assert json.loads((run_dir / "summary.json").read_text()) == tiny_run.summary
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["2048"]
    assert tiny_run.stopped_by == "total_steps"


def test_metrics_of_a_run(tiny_run):
    records = tiny_run.metrics
    assert [record["epoch"] for record in records] == list(range(1, 9))
    assert [record["step"] for record in records] == [256 * epoch for epoch in range(1, 9)]
    assert all(b["wall_seconds"] > a["wall_seconds"] for a, b in itertools.pairwise(records))
    assert all((record["perf"] is None) == (record["episodes"] == 0) for record in records)
    last = records[-1]
    assert sum(record["episodes"] for record in records) > 0
    assert last["warmup_rewards"] >= 4 and last["warmup_steps"] > 0
    assert last["restarted_share"] == 6 / 16 and 0 < last["state_set_size"] <= 32
    assert last["priority_min"] <= last["priority_mean"] <= last["priority_max"]


def test_summary(tiny_run):
    summary = tiny_run.summary
    assert summary["evaluation"]["episodes"] == 20 and 0 <= summary["evaluation"]["perf"] <= 1
    assert summary["steps"] == 2048 and summary["epochs"] == 8
    assert summary["total_seconds"] >= summary["train_seconds"] > 0
    assert summary["jax"] == jax.__version__ and "/" not in summary["machine"]


def test_same_seed_same_metrics(tiny_run, tiny_env, tiny_config):
    env, config = tiny_env, tiny_config()
    again = pufferjax.train(env, config, seed=3, eval_episodes=20, devices=1, show=False)
    other = pufferjax.train(env, config, seed=4, eval_episodes=0, devices=1, show=False)
    assert without_times(again.metrics) == without_times(tiny_run.metrics)
    assert again.evaluation["perf"] == tiny_run.evaluation["perf"]
    assert without_times(other.metrics) != without_times(tiny_run.metrics)
    assert other.evaluation is None
    jax.tree.map(
        np.testing.assert_array_equal,
        dataclasses.replace(again.train_state, key=jax.random.key_data(again.train_state.key)),
        dataclasses.replace(tiny_run.train_state, key=jax.random.key_data(tiny_run.train_state.key)),
    )


def test_log_interval_pools_epochs(tiny_run, tiny_env, tiny_config):
    pooled = pufferjax.train(tiny_env, tiny_config(), seed=3, eval_episodes=0, log_interval=3, show=False).metrics
    assert [record["epoch"] for record in pooled] == [3, 6, 8]
    singles = tiny_run.metrics
    for record, epochs in zip(pooled, (singles[:3], singles[3:6], singles[6:]), strict=True):
        episodes = sum(epoch["episodes"] for epoch in epochs)
        assert record["episodes"] == episodes
        if episodes:
            perf = sum((epoch["perf"] or 0) * epoch["episodes"] for epoch in epochs) / episodes
            assert record["perf"] == pytest.approx(perf)
        assert record["loss"] == pytest.approx(np.mean([epoch["loss"] for epoch in epochs]))
        assert record["state_set_size"] == epochs[-1]["state_set_size"]


def test_update_compiles_once(tiny_env, tiny_config):
    env, config = tiny_env, tiny_config()
    hypers = config.hypers()
    train_state = jax.jit(pufferjax.make_init(env, config))(jax.random.key(0))
    train_state = jax.jit(pufferjax.make_warmup(env, config))(train_state, hypers)
    update = jax.jit(pufferjax.make_update(env, config), donate_argnums=0)
    for epoch in range(3):
        train_state, _ = update(train_state, hypers, jnp.float32(epoch / 3))
    assert update._cache_size() == 1


def test_time_budget_ends_the_run(tiny_env, tiny_config):
    config = tiny_config(total_steps=10**9)
    result = pufferjax.train(tiny_env, config, max_seconds=8.0, eval_episodes=0, show=False)
    assert result.stopped_by == "max_seconds"
    assert result.summary["steps"] < 10**9
    # The schedules end with the budget, whatever total_steps is.
    if result.summary["epochs"] > 100:
        floor = config.ppo.learning_rate * config.ppo.min_learning_rate_ratio
        assert result.metrics[-1]["learning_rate"] == pytest.approx(floor, rel=0.05)


def test_the_budget_is_spent_before_the_epoch_that_would_overrun(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    budget = Budget(num_epochs=100, max_seconds=30.0, start=90.0)
    assert budget.elapsed() == 10.0 and budget.progress(1) == pytest.approx(1 / 3)
    assert budget.spent(1) is None
    now[0] = 102.0  # the first epoch ended at 12 s of the run ...
    budget.epoch_ended()
    now[0] = 106.0  # ... and the second at 16 s: an epoch takes 4 s
    budget.epoch_ended()
    # The third runs until 20 s; the fourth would run from 20 s to 24 s.
    assert budget.progress(1) == pytest.approx(20 / 30)
    assert budget.spent(1) is None
    now[0] = 110.0
    budget.epoch_ended()
    assert budget.spent(1) is None  # to 28 s
    now[0] = 114.0
    budget.epoch_ended()
    assert budget.spent(1) == "max_seconds" and budget.spent(0) is None  # to 32 s
    assert budget.seconds_left(0) == pytest.approx(6.0)
    assert budget.seconds_left(99) == pytest.approx(4.0)


def test_a_budget_without_seconds(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 1e6)
    budget = Budget(num_epochs=3, max_seconds=None, start=0.0)
    assert budget.progress(0) == 0.0 and budget.progress(2) == 2 / 3 and budget.seconds_left(0) is None
    assert budget.spent(2) is None and budget.spent(3) == "total_steps"


def test_first_signal_is_noted_and_the_second_acts():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signals.started()
        signal.raise_signal(signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("becomes", ["nothing", "another error", "nothing until the first epoch"])
def test_what_a_signal_raises_is_not_lost(becomes):
    """Python ignores it in a callback of the garbage collector, C++ code makes another error of it: both happened."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    with pytest.raises(StoppedEarly, match="stopped by SIGINT before the first epoch"), StopSignals() as signals:
        try:
            signal.raise_signal(signal.SIGINT)
        except StoppedEarly as error:
            if becomes == "another error":
                raise RuntimeError("INTERNAL: a callback failed") from error
        if becomes == "nothing":
            time.sleep(10)
        signals.started()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_epoch_acts_at_once(tmp_path, monkeypatch, tiny_env, tiny_config, tiny_run, number):
    before = signal.getsignal(number)
    options = {"seed": 3, "run_dir": tmp_path / "run", "devices": 1, "show": False}

    def walk(self, *arguments):
        signal.raise_signal(number)
        pytest.fail("it went on")

    with monkeypatch.context() as patch:
        patch.setattr("pufferjax.core.epochs.OneProgram.warmup", walk)
        with pytest.raises(StoppedEarly, match=f"stopped by {number.name} before the first epoch"):
            pufferjax.train(tiny_env, tiny_config(), **options)
    assert signal.getsignal(number) == before
    resumed = pufferjax.train(tiny_env, tiny_config(), resume=True, **options)
    assert without_times(resumed.metrics) == without_times(tiny_run.metrics)


def test_stopped_run_writes_a_checkpoint_and_no_evaluation(tmp_path, monkeypatch, tiny_env, tiny_config):
    def note_at_once(self):
        self._has_started, self.received = True, "SIGTERM"

    monkeypatch.setattr(StopSignals, "started", note_at_once)
    result = pufferjax.train(tiny_env, tiny_config(), seed=3, run_dir=tmp_path, show=False)
    assert result.stopped_by == "SIGTERM" and result.evaluation is None
    assert result.summary["epochs"] == 1 and result.metrics[-1]["step"] == 256
    assert (tmp_path / "checkpoints" / "256").is_dir()
    assert json.loads((tmp_path / "summary.json").read_text())["evaluation"] is None


def test_config_toml_gives_the_same_run(tiny_run, tiny_env, tiny_config):
    config = read_config(tiny_run.run_dir)
    assert config.env == "maze" and config.env_params == tiny_env.params
    assert config.train == tiny_config()
    assert config.options == RunOptions(seed=3, eval_episodes=20, devices=1, overlap=False)


@pytest.mark.parametrize("max_seconds", [None, 1 / 3, 600])
def test_table_round_trip(max_seconds, tiny_config):
    train = tiny_config(ppo=pufferjax.PPOConfig(learning_rate=0.1 + 0.2, gamma=1, minibatch_size=16, bootstrap=False))
    options = RunOptions(seed=2**32 - 1, max_seconds=max_seconds)
    config = RunConfig("maze", {"size": 7, "num_mazes": 0, "seed": 2**63 - 1, "vision": 11}, train, options)
    assert RunConfig.from_table(tomllib.loads(tomli_w.dumps(config.to_table()))) == config


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"run": {}}, "run.env must be one of maze"),
        ({"run": {"env": "labyrinth"}}, "labyrinth"),
        ({"run": {"env": "maze"}, "sed": 1}, "unknown key sed; valid are total_steps"),
        ({"run": {"env": "maze", "sed": 1}}, "unknown key run.sed; valid are run.seed"),
        ({"run": {"env": "maze"}, "env": {"sise": 5}}, "unknown key env.sise; valid are env.size"),
        ({"run": {"env": "maze"}, "ppo": {"lr": 5}}, "unknown key ppo.lr; valid are ppo.optimizer"),
        ({"run": {"env": "maze"}, "ppo": 5}, r"ppo must be a table \[ppo\], got 5"),
        ({"run": {"env": "maze", "seed": -1}}, "seed must be an integer"),
        ({"run": {"env": "maze", "max_seconds": 0}}, "max_seconds must be a number > 0"),
        ({"run": {"env": "maze", "log_interval": 0}}, "log_interval must be an integer >= 1"),
        ({"run": {"env": "maze", "eval_episodes": 1.5}}, "eval_episodes must be an integer >= 0"),
        ({"run": {"env": "maze"}, "state_set": {"fraction": 1.5}}, "state_set.fraction"),
    ],
)
def test_bad_tables_name_the_key(table, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_table(table)


def test_a_state_set_that_is_too_large_is_made_smaller(tmp_path, capsys, tiny_env, tiny_config):
    size = tiny_env.spec.state_bytes
    # 32 states are asked for, 20 fit, of which 16 are taken.
    state_set = dataclasses.replace(tiny_config().state_set, max_bytes=20 * size + 1, min_states=30)
    config = tiny_config(total_steps=256, state_set=state_set)
    options = {"run_dir": tmp_path / "run", "eval_episodes": 0, "devices": 1}
    result = pufferjax.train(tiny_env, config, **options)
    assert result.train_state.state_set.snapshots.shape == (16, size)
    assert f"the state set keeps 16 states of {size} bytes" in capsys.readouterr().out
    recorded = read_config(tmp_path / "run").train
    assert (recorded.state_set.capacity, recorded.state_set.min_states) == (16, 16)
    _, _, _, loaded = load_run(tmp_path / "run")
    assert loaded.state_set.snapshots.shape == (16, size)
    # The settings it was started with are still those of the run.
    resumed = pufferjax.train(tiny_env, dataclasses.replace(config, total_steps=512), resume=True, **options)
    assert int(resumed.train_state.epoch) == 2
    assert config.fitted(1) is config
    with pytest.raises(
        ValueError, match=f"state_set.max_bytes must be at least the {size} bytes of a state, got {size - 1}"
    ):
        pufferjax.train(
            tiny_env, dataclasses.replace(config, state_set=dataclasses.replace(state_set, max_bytes=size - 1))
        )
    with pytest.raises(ValueError, match=f"state_set.capacity must be at most 16 for states of {size} bytes, got 32"):
        pufferjax.make_train(tiny_env, config)


def test_run_directory_in_use_is_refused(tmp_path, tiny_env, tiny_config):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        pufferjax.train(tiny_env, tiny_config(), run_dir=tmp_path, show=False)
    with pytest.raises(FileExistsError, match="is a file"):
        pufferjax.train(tiny_env, tiny_config(), run_dir=tmp_path / "note.txt", show=False)
    with pytest.raises(OSError, match="cannot be written"):
        pufferjax.train(tiny_env, tiny_config(), run_dir=tmp_path / "note.txt" / "x", show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_not_a_run_directory(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run directory: it has no config\.toml"):
        load_run(tmp_path)
    (tmp_path / "config.toml").write_text("total_steps = ")
    with pytest.raises(ValueError, match=r"config\.toml"):
        load_run(tmp_path)


def test_without_run_dir_nothing_is_written(tmp_path, monkeypatch, tiny_env, tiny_config):
    monkeypatch.chdir(tmp_path)
    result = pufferjax.train(tiny_env, tiny_config(), seed=3, eval_episodes=0, show=False)
    assert result.run_dir is None and list(tmp_path.iterdir()) == []


JOINED = """
import sys
import jax

index, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, index)
import pufferjax

env = pufferjax.envs.make("chain_mdp")
ppo = pufferjax.PPOConfig(optimizer="adam", minibatch_size=64, replay_ratio=1.0)
config = pufferjax.TrainConfig(
    total_steps=256, num_envs=8, horizon=16, ppo=ppo, state_set=pufferjax.StateSetConfig(fraction=0)
)
try:
    pufferjax.train(env, config, run_dir=f"{folder}/{index}", devices=1, show=False)
except ValueError as error:
    assert "run_dir must be None in one of 2 processes that jax.distributed has joined" in str(error), error
else:
    raise AssertionError("it began")
result = pufferjax.train(env, config, seed=index, devices=1, eval_episodes=5, show=False)
print(result.stopped_by, result.evaluation["episodes"])
"""


def test_one_of_several_joined_processes_trains_and_is_refused_a_run_directory(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOINED, str(index), str(port), str(tmp_path)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0 and out == "total_steps 5\n", err
    assert not list(tmp_path.iterdir())
