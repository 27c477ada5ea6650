"""Resuming a run: bit for bit the run that was not interrupted, whatever interrupted it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import pufferjax
from pufferjax.runs import run, signals
from pufferjax.runs.checkpoint import CheckpointError, checkpoint_steps
from pufferjax.runs.files import locked
from pufferjax.runs.journal import Journal
from pufferjax.runs.load import load_run
from pufferjax.runs.metrics import read_metrics
from pufferjax.runs.run_config import read_config

TIMES = ("wall_seconds", "steps_per_second")
SCRIPT = Path(__file__).parents[3] / "experiments" / "kill_resume.py"


def without_times(records):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def assert_same_state(a, b):
    a, b = (dataclasses.replace(x, key=jax.random.key_data(x.key)) for x in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def train(tiny_env, tiny_config):
    """`pufferjax.train` with the settings of `tiny_run`, and changes."""

    def train(run_dir, config=None, **changes):
        settings = {"seed": 3, "eval_episodes": 20, "devices": 1, "show": False}
        return pufferjax.train(tiny_env, config or tiny_config(), run_dir=run_dir, **{**settings, **changes})

    return train


@pytest.fixture
def stop_after(monkeypatch):
    """A function: makes the next run find, after so many epochs, that Ctrl-C was pressed; 0: no more."""

    def arrange(epochs):
        class Signals(signals.StopSignals):
            looks = 0

            @property
            def received(self):
                self.looks += 1
                return "SIGINT" if 0 < epochs <= self.looks else None

            @received.setter
            def received(self, value):
                pass

        monkeypatch.setattr(run, "StopSignals", Signals)

    return arrange


def test_a_stopped_and_damaged_run_becomes_the_run_that_it_would_have_been(
    tmp_path, tiny_run, train, stop_after, capsys, monkeypatch, tiny_config
):
    # Interrupted after its sixth epoch, with a checkpoint for each.
    stop_after(6)
    stopped = train(tmp_path, checkpoint_interval_seconds=0, keep_checkpoints=2)
    assert stopped.stopped_by == "SIGINT" and stopped.summary["epochs"] == 6
    assert without_times(stopped.metrics) == without_times(tiny_run.metrics[:6])
    assert checkpoint_steps(tmp_path) == [5 * 256, 6 * 256]

    # Then the latest checkpoint loses a bit, and the metrics get a torn line.
    largest = max((tmp_path / "checkpoints" / "1536").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 17')
    warnings = []
    assert int(load_run(tmp_path, warn=warnings.append)[-1].epoch) == 5 and len(warnings) == 1

    stop_after(0)
    capsys.readouterr()
    resumed = train(tmp_path, resume=True, show=True)
    out = capsys.readouterr().out
    assert out.count("warning:") == 1 and "1536 is damaged" in out and "using that of step 1280 instead" in out
    assert "resumed after 1,280 steps" in out
    assert without_times(resumed.metrics) == without_times(tiny_run.metrics)
    assert read_metrics(tmp_path / "metrics.jsonl") == resumed.metrics
    assert [r["wall_seconds"] for r in resumed.metrics] == sorted(r["wall_seconds"] for r in resumed.metrics)
    assert_same_state(resumed.train_state, tiny_run.train_state)
    assert resumed.evaluation["perf"] == tiny_run.evaluation["perf"]
    assert json.loads((tmp_path / "summary.json").read_text())["stopped_by"] == "total_steps"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1280", "1536.damaged", "2048"]

    # Now it has finished: nothing is done, and it says so.
    with monkeypatch.context() as patch:
        patch.setattr(run, "Loop", None)
        again = train(tmp_path, resume=True, show=True)
    assert f"{tmp_path} has finished (total_steps reached after 2,048 steps)" in capsys.readouterr().out
    assert again.metrics == resumed.metrics and again.summary == resumed.summary
    assert_same_state(again.train_state, tiny_run.train_state)

    # But it can be made longer.
    longer = train(tmp_path, tiny_config(total_steps=2560), resume=True)
    assert longer.metrics[:8] == resumed.metrics and [r["epoch"] for r in longer.metrics[8:]] == [9, 10]
    assert read_config(tmp_path).train.total_steps == 2560


def test_a_window_cut_short_by_ctrl_c_is_filled_after_all(tmp_path, tiny_run, train, stop_after):
    stop_after(4)
    assert [record["epoch"] for record in train(tmp_path, log_interval=3).metrics] == [3, 4]
    stop_after(0)
    resumed = train(tmp_path, log_interval=3, resume=True)
    assert [record["epoch"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [3, 6, 8]
    losses = [record["loss"] for record in tiny_run.metrics]
    for record, epochs in zip(resumed.metrics, (losses[:3], losses[3:6], losses[6:]), strict=True):
        assert record["loss"] == pytest.approx(np.mean(epochs))


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, tiny_run, train, capsys):
    shutil.copy(tiny_run.run_dir / "config.toml", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 256}\n{"st')
    (tmp_path / "checkpoints" / "256.partial").mkdir(parents=True)
    result = train(tmp_path, resume=True, eval_episodes=0, show=True)
    assert "it starts again from the beginning" in capsys.readouterr().out
    assert without_times(read_metrics(tmp_path / "metrics.jsonl")) == without_times(tiny_run.metrics)
    assert_same_state(result.train_state, tiny_run.train_state)
    assert checkpoint_steps(tmp_path) == [2048] and not (tmp_path / "checkpoints" / "256.partial").exists()


def test_checkpoints_that_cannot_be_written(tmp_path, train, monkeypatch, capsys):
    start = Journal.start

    def start_and_be_in_the_way(self, checkpoint):
        start(self, checkpoint)
        (tmp_path / "checkpoints").rmdir()
        (tmp_path / "checkpoints").write_text("a file where the folder should be")

    monkeypatch.setattr(Journal, "start", start_and_be_in_the_way)
    with pytest.raises(OSError, match="checkpoints/2048 could not be written"):  # the last one is not optional
        train(tmp_path, checkpoint_interval_seconds=0, show=True)
    out = capsys.readouterr().out
    assert out.count("warning:") == 1 and "could not be written" in out and "training goes on" in out
    assert [record["epoch"] for record in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 9))


def copy_of(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run.run_dir, tmp_path / "run"))


def test_what_resume_refuses(tmp_path, tiny_run, train, tiny_config):
    run_dir = copy_of(tiny_run, tmp_path)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="resume needs a run_dir"):
        train(None, resume=True)
    with pytest.raises(ValueError, match="is not a run directory"):
        train(tmp_path / "absent", resume=True)
    with pytest.raises(ValueError, match=r"was started with seed 3; resumed it cannot have 4 \(only total_steps, "):
        train(run_dir, resume=True, seed=4)
    with pytest.raises(ValueError, match="was started with horizon 16; resumed it cannot have 32"):
        train(run_dir, tiny_config(horizon=32), resume=True)
    with pytest.raises(ValueError, match=r"was started with env\.size 5"):
        pufferjax.train(pufferjax.envs.make("maze", size=7, num_mazes=64), tiny_config(), run_dir=run_dir, resume=True)
    with locked(run_dir), pytest.raises(BlockingIOError, match="is in use by another process"):
        train(run_dir, resume=True)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_a_resume_that_finds_no_good_checkpoint_changes_nothing(tmp_path, tiny_run, train, tiny_config):
    run_dir = copy_of(tiny_run, tmp_path)
    for path in (run_dir / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError):
        train(run_dir, tiny_config(total_steps=4096), resume=True)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_devices_that_are_not_there_any_more(tmp_path, tiny_run, train):
    run_dir = copy_of(tiny_run, tmp_path)
    config = run_dir / "config.toml"
    config.write_text(config.read_text().replace("devices = 1", "devices = 64"))
    with pytest.raises(ValueError, match="devices must be 1 to"):
        train(run_dir, resume=True, devices=None)


def test_a_run_with_only_foreign_or_damaged_checkpoints(tmp_path, tiny_run, train):
    run_dir = copy_of(tiny_run, tmp_path)
    config = run_dir / "config.toml"
    (run_dir / "summary.json").unlink()
    config.write_text(config.read_text().replace("seed = 3", "seed = 4"))
    with pytest.raises(CheckpointError, match="of another run: seed was 3 there and is 4 here"):
        train(run_dir, resume=True, seed=4)
    with pytest.raises(CheckpointError, match="of another run: seed was 3 there and is 4 here"):
        load_run(run_dir)


@pytest.mark.parametrize(
    ("devices", "kills", "epochs"), [(1, 5, 80), pytest.param(2, 2, 60, marks=pytest.mark.nightly)]
)
def test_killed_at_random_moments(tmp_path, devices, kills, epochs):
    out = tmp_path / "result.json"
    command = [sys.executable, SCRIPT, "--kills", kills, "--epochs", epochs, "--within", 0.25]
    command += ["--devices", devices, "--out", out]
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=dict(os.environ))
    assert process.returncode == 0, process.stdout + process.stderr[-2000:]
    result = json.loads(out.read_text())
    assert result["kills"] == kills and result["same_metrics"] and result["same_train_state"]
    assert result["lost_checkpoints"] == result["warnings"] == 0
    assert kills < 20 or result["inside a write"] > 0
