"""The scripts of experiments/ as modules, and training runs that are made up instead of trained."""

import importlib
import itertools
import json
import pathlib
import subprocess
import sys
import types

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def load(monkeypatch):
    """`load(name)`: a script of experiments/, or what they share, newly imported."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "runs", raising=False)

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


class Training:
    """Stands in for `subprocess.run` of `pufferjax train ENV`: notes the flags and writes what `outcome` makes of them.

    Of a flag given twice the last value counts; one without a value has None.
    """

    def __init__(self, outcome):
        self.made: list[dict] = []
        self._outcome = outcome

    def __call__(self, command, *, check):
        assert command[:4] == [sys.executable, "-m", "pufferjax", "train"] and check
        assert all(isinstance(word, str) for word in command)
        words = [*command[5:], "--"]
        flags = {
            word: None if after.startswith("--") else after
            for word, after in itertools.pairwise(words)
            if word.startswith("--")
        }
        self.made.append({"env": command[4], **flags})
        if flags["--seed"] == "9":
            raise subprocess.CalledProcessError(1, command)
        folder = pathlib.Path(flags["--run-dir"])
        folder.mkdir()
        summary, records = self._outcome(flags)
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def training(load, monkeypatch):
    """`training(outcome)`: from now on runs are made up by `outcome(flags) -> (summary, records)`; a `Training`."""

    def start(outcome):
        fake = Training(outcome)
        monkeypatch.setattr(importlib.import_module("runs"), "subprocess", types.SimpleNamespace(run=fake))
        return fake

    return start
