"""The folder of compiled programs of the command: used, refused, absent; and the same results with it."""

import os
import subprocess
import sys

import jax
import pytest

from pufferjax.cli import compile_cache
from pufferjax.runs.metrics import read_metrics

TIMES = ("wall_seconds", "steps_per_second")


@pytest.fixture
def train(tmp_path, tiny_flags):
    """A function: a training process with these flags and changes of its environment; (metrics, stderr)."""

    def run(name, *flags, **changes):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
        command = [sys.executable, "-m", "pufferjax", "train", "maze", *tiny_flags, "--eval-episodes", "0"]
        command += ["--run-dir", str(tmp_path / name), *map(str, flags)]
        done = subprocess.run(command, env=environment | changes, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows], done.stderr

    return run


def test_a_second_start_loads_the_same_programs(train, tmp_path):
    cold, _ = train("cold", XDG_CACHE_HOME=str(tmp_path / "home"))
    (folder,) = (tmp_path / "home" / "pufferjax").iterdir()
    entries = {path.name for path in folder.iterdir() if path.name.endswith("-cache")}
    assert any("update" in name for name in entries)
    warm, errors = train("warm", XDG_CACHE_HOME=str(tmp_path / "home"))
    assert warm == cold and errors == ""  # XLA would complain here of programs of another machine
    assert {path.name for path in folder.iterdir() if path.name.endswith("-cache")} == entries


@pytest.fixture
def settings(monkeypatch):
    """What the command would set in its own process, as a dict; the one of the tests stays as it is."""
    changed = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    return changed


def test_none_and_the_folder_asked_for(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "of-jax"))
    assert compile_cache.use_compile_cache("none") is None
    assert settings == {"jax_enable_compilation_cache": False}
    assert compile_cache.use_compile_cache() == tmp_path / "of-jax"
    assert compile_cache.use_compile_cache(str(tmp_path / "mine")) == tmp_path / "mine"
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / "mine")
    assert settings["jax_persistent_cache_min_compile_time_secs"] == 0


def test_a_folder_that_cannot_be_written_is_done_without(settings, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compile_cache.use_compile_cache() is None
    assert settings == {"jax_enable_compilation_cache": False} and capsys.readouterr().err == ""
    assert compile_cache.use_compile_cache(str(tmp_path / "file")) is None
    assert capsys.readouterr().err.count("\n") == 1


def test_a_user_without_a_home(settings, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compile_cache.Path, "home", no_home)
    assert compile_cache.use_compile_cache() is None
