"""The password experiment: the arms differ in the state set alone, and runs are kept and not repeated."""

import importlib
import json
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def experiment(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "password", raising=False)
    return importlib.import_module("password")


FAKE = """
import json, pathlib, sys
flags = sys.argv[1:]
value = {flag: flags[i + 1] for i, flag in enumerate(flags) if flag.startswith("--") and i + 1 < len(flags)}
folder = pathlib.Path(value["--run-dir"])
folder.mkdir()
depth = 5 + int(value["--seed"]) if "--state-set.fraction" in value else 100 + int(value["--seed"])
record = {"step": 100, "wall_seconds": 3.0, "episodes": 3000, "perf": depth / 128}
(folder / "metrics.jsonl").write_text(json.dumps(record) + "\\n")
summary = {"evaluation": {"perf": depth / 128, "score": depth}, "steps": 100, "train_seconds": 1.0, "devices": 1,
           "machine": "none"}
(folder / "summary.json").write_text(json.dumps(summary))
with open(LOG, "a") as log:
    log.write(json.dumps(value) + "\\n")
"""


def test_runs_are_kept_and_reported(experiment, monkeypatch, tmp_path, capsys):
    log, output, script = tmp_path / "log", tmp_path / "out" / "p.json", tmp_path / "fake.py"
    script.write_text(f"LOG = {str(log)!r}\n{FAKE}")
    real = experiment.subprocess.run
    monkeypatch.setattr(
        experiment.subprocess, "run", lambda command, **options: real([sys.executable, script, *command[3:]], **options)
    )

    def runs(*arguments):
        experiment.main(["--output", str(output), *arguments])
        return [json.loads(line) for line in log.read_text().splitlines()]

    made = runs("--seeds", "0", "1")
    assert [(run["--seed"], run.get("--state-set.fraction")) for run in made] == [
        ("0", None), ("0", "0"), ("1", None), ("1", "0"),
    ]  # fmt: skip
    assert all("--total-steps" not in run and run["--env.length"] == "128" for run in made)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0] == "| state set | 2 | 100.5 [100.0, 101.0] | 100.0, 101.0 |"
    assert rows[1] == "| no state set | 2 | 5.5 [5.0, 6.0] | 5.0, 6.0 |"
    assert output.with_suffix(".png").stat().st_size > 5000 and rows[0] in output.with_suffix(".md").read_text()
    # The same again is not run; another budget and other flags are.
    assert len(runs("--seeds", "0", "1", "--arms", "state set")) == 4
    made = runs("--seeds", "0", "--arms", "state set", "--steps", "7", "--", "--num-envs", "64")
    assert len(made) == 5 and made[-1]["--total-steps"] == "7" and made[-1]["--num-envs"] == "64"
    assert "| state set | 1 | 100.0 [100.0, 100.0] | 100.0 |" in capsys.readouterr().out
    assert len(json.loads(output.read_text())["results"]) == 5


def test_the_arms_are_flags_of_the_command(experiment):
    from pufferjax.cli import parse_train

    fractions = {
        arm: parse_train("password", flags).config.train.state_set.fraction for arm, flags in experiment.ARMS.items()
    }
    assert fractions["state set"] > 0 and fractions["no state set"] == 0
