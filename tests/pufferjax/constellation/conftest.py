"""Made-up run directories, as training writes them."""

import importlib
import json
import pathlib
import sys

import pytest

from pufferjax.core.config import PPOConfig, TrainConfig
from pufferjax.runs.run_config import RunConfig, RunOptions, write_config

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[3] / "experiments"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test sees the cache of another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def browser_module(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.delitem(sys.modules, "browser", raising=False)
    return importlib.import_module("browser")


@pytest.fixture(scope="session")
def record():
    """`record(epoch, perf, **others)`: a line of metrics."""
    return _record


@pytest.fixture(scope="session")
def write_lines():
    """`write_lines(folder, records)` appends them to its metrics."""
    return _write_lines


@pytest.fixture(scope="session")
def rows_of():
    return _rows_of


def _record(epoch, perf, **others):
    return {
        "step": 1000 * epoch, "wall_seconds": 0.5 * epoch, "epoch": epoch, "steps_per_second": 2000.0, "episodes": 10,
        "perf": perf, "episode_return": perf, "loss": 1.0 / epoch, "entropy": 0.5, "rewards": 3.0,
        "state_set_size": 40.0, "priority_min": 0.1, "priority_p50": 0.2, "priority_max": 0.3, "priority_mean": 0.2,
        "state_inserts": 4.0, "state_evictions": 2.0, "restarted_share": 0.25, "restarted_episodes": 5,
        "restarted_perf": None, "learning_rate": 0.01, "value_loss": 0.1, "bad_rows": 0.0, **others,
    }  # fmt: skip


def _write_lines(folder, records):
    with open(folder / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(x) + "\n" for x in records)


@pytest.fixture(scope="session")
def make_run():
    """`make_run(folder, lines=5, top=1.0, finished=True, seed=0, learning_rate=..., **env)`: its folder, with a solve
    rate that rises to `top` in its last line."""

    def make(folder, lines=5, top=1.0, finished=True, seed=0, learning_rate=0.015, **env):
        config = TrainConfig(ppo=PPOConfig(learning_rate=learning_rate))
        write_config(folder, RunConfig("maze", {"size": 9, **env}, config, RunOptions(seed=seed)))
        _write_lines(folder, [_record(i + 1, top * (i + 1) / lines) for i in range(lines)])
        if finished:
            summary = {"env": "maze", "evaluation": {"perf": top, "episodes": 20}, "stopped_by": "total_steps",
                       "train_seconds": 0.5 * lines, "total_seconds": lines, "jax": "0.10.2"}  # fmt: skip
            (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def _rows_of(changes):
    """{(folder, name): {status, problem, id, settings: {name: value}, figures: {name: value}}} of what a page gets."""
    table = json.loads(changes) if isinstance(changes, str) else changes
    found = {}
    for name_id, folder, name, status, problem, settings, figures in table["rows"]:
        found[table["folders"][folder], name] = {
            "id": name_id, "status": status, "problem": problem,
            "settings": {n: table["values"][v] for n, v in zip(table["setting_names"], settings) if v >= 0},  # noqa: B905
            "figures": {n: x for n, x in zip(table["figure_names"], figures) if x is not None},  # noqa: B905
        }  # fmt: skip
    return found
