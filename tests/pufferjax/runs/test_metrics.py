"""pufferjax.runs.metrics, and what dashboard and plots make of them."""

import io
import json
import math
import sys

import numpy as np
import pytest

from pufferjax.runs.dashboard import Dashboard
from pufferjax.runs.json_text import json_text, spelled
from pufferjax.runs.metrics import MetricsWriter, pool, read_metrics
from pufferjax.watch.plots import plot_runs, solve_rate_curve


def epoch(**changes):
    figures = {
        "episodes": 0.0, "perf": 0.0, "score": 0.0, "episode_return": 0.0, "episode_length": 0.0,
        "restarted_episodes": 0.0, "restarted_perf": 0.0, "restarted_score": 0.0, "restarted_episode_return": 0.0,
        "restarted_episode_length": 0.0, "restarted_envs": 4.0,
        "loss": 1.0, "policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "kl": 0.0, "clip_fraction": 0.0,
        "value_clip_fraction": 0.0, "grad_norm": 0.0, "skipped_updates": 0.0, "bad_rows": 0.0, "bad_reward_rows": 0.0,
        "learning_rate": 0.1, "entropy_coef": 0.0,
        "state_set_size": 3.0, "priority_min": 1.0, "priority_mean": 2.0, "priority_max": 3.0,
        "priority_p10": 1.0, "priority_p50": 2.0, "priority_p90": 3.0, "state_age_p10": 0.0, "state_age_p50": 5.0,
        "state_age_p90": 9.0, "state_time_p10": 16.0, "state_time_p50": 32.0, "state_time_p90": 4800.0,
        "state_repeats": 0.25, "state_inserts": 3.0, "state_evictions": 1.0,
    }  # fmt: skip
    return {**figures, **{name: np.float32(value) for name, value in changes.items()}}


def record(**changes):
    figures = {"step": 100, "wall_seconds": 61.0, "epoch": 1, "steps_per_second": 1234.5}
    return {**figures, **pool([epoch()], 10), "warmup_steps": 5, "warmup_rewards": 2, **changes}


def test_episode_figures_pool_sums_not_means():
    pooled = pool([epoch(episodes=1, perf=1, episode_length=10), epoch(episodes=9, perf=0, episode_length=900)], 10)
    assert pooled["episodes"] == 10 and pooled["perf"] == 0.1 and pooled["episode_length"] == 91


def test_other_figures():
    pooled = pool(
        [
            epoch(loss=1, learning_rate=0.5, state_set_size=3, state_age_p50=5, state_inserts=3),
            epoch(loss=2, learning_rate=0.25, state_set_size=4, state_age_p50=6, state_inserts=0),
        ],
        16,
    )
    assert pooled["state_age_p50"] == 6 and pooled["state_inserts"] == 1.5
    assert pooled["loss"] == 1.5 and pooled["learning_rate"] == 0.25 and pooled["state_set_size"] == 4
    assert pooled["restarted_share"] == 0.25
    assert "restarted_envs" not in pooled and "restarted_score" not in pooled


def test_no_episode_and_not_finite_are_null():
    pooled = pool([epoch(loss=float("nan"), grad_norm=float("inf"))], 10)
    for name in ("perf", "score", "episode_return", "episode_length", "restarted_perf", "loss", "grad_norm"):
        assert pooled[name] is None
    assert "NaN" not in json.dumps(pooled, allow_nan=False)


def test_opposite_infinities_are_null_too():
    pooled = pool([epoch(episodes=1, perf=float("inf")), epoch(episodes=1, perf=float("-inf"), score=3)], 10)
    assert pooled["perf"] is None and pooled["score"] == 1.5


def test_json_without_nan():
    value = {"a": [1.5, math.nan], "b": {"c": (-math.inf, 2)}, "d": np.float64("nan"), "e": "NaN"}
    assert json.loads(json_text(value)) == {"a": [1.5, None], "b": {"c": [None, 2]}, "d": None, "e": "NaN"}
    back = json.loads(json.dumps(spelled(value), allow_nan=False))
    assert back == {"a": [1.5, "nan"], "b": {"c": ["-inf", 2]}, "d": "nan", "e": "NaN"}
    assert math.isnan(float(back["a"][1])) and float(back["b"]["c"][0]) == -math.inf


class Broken(io.StringIO):
    """Takes a number of writes, then raises `error`."""

    def __init__(self, error, writes=2, terminal=False):
        super().__init__()
        self.error, self.left, self.terminal = error, writes, terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            if isinstance(self.error, ValueError):
                self.close()
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left"), ValueError("closed file")])
def test_output_that_breaks_costs_only_itself(error, terminal):
    stdout = sys.stdout
    stream = Broken(error, terminal=terminal)
    with Dashboard("title", 1000, 0.0, stream) as dashboard:
        for _ in range(3):
            dashboard.message("hello")
            dashboard.update(record(episodes=1, perf=1.0), 0.5, 1.0)
    assert stream.left >= -2 and sys.stdout is stdout  # what failed, at most the end of a table, and never again


def test_output_that_is_not_there(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with Dashboard("title", 1000, 0.0) as dashboard:
        dashboard.message("hello")
    stream = io.StringIO()
    stream.close()
    with Dashboard("title", 1000, 0.0, stream) as dashboard:
        dashboard.message("hello")


def test_a_reader_that_is_behind_misses_a_line():
    stream = Broken(BlockingIOError(), writes=0)
    with Dashboard("title", 1000, 0.0, stream) as dashboard:
        dashboard.message("lost")
        stream.left = 9
        dashboard.message("there")
    assert stream.getvalue().strip() == "there"


def test_what_the_output_has_no_code_for_is_spelled_out():
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    with Dashboard("\u00e9", 1000, 0.0, stream) as dashboard:
        dashboard.message("runs/\u00e9\udcff")
    assert buffer.getvalue() == b"runs/\\xe9\\udcff\n"


def test_a_mistake_of_ours_is_still_raised():
    with Dashboard("title", 1000, 0.0, Broken(None, terminal=True)) as dashboard, pytest.raises(TypeError):
        dashboard.update({**record(), "step": None}, 0.5, 1.0)


def test_a_solve_rate_that_is_no_number_counts_no_episodes():
    records = [record(episodes=300, perf=0.5, step=10), record(episodes=300, perf=None, step=20)]
    assert solve_rate_curve(records)["perf"].tolist() == [0.5]
    stream = io.StringIO()
    dashboard = Dashboard("title", 100, 0, stream=stream)
    for line in records:
        dashboard.update(line, 0.5, 1.0)
    assert stream.getvalue().count("perf 0.500 (300 episodes)") == 2


def test_a_figure_new_in_the_core_is_averaged():
    pooled = pool([{**epoch(), "explained_variance": 0.5}, {**epoch(), "explained_variance": 1.0}], 10)
    assert pooled["explained_variance"] == 0.75


def test_lines_are_appended_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write({"step": 1})
    assert path.read_text() == '{"step": 1}\n'  # there at once, without closing
    writer.write({"step": 2, "loss": float("nan")})
    writer.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "loss": None}]
    with open(path, "a") as file:
        file.write('{"step": 3')
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "loss": None}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with Dashboard("title", 1000, 1e9, stream) as dashboard:
        dashboard.message("hello")
        dashboard.update(record(), 0.1, 90.0)
        dashboard.update(record(step=200), 0.2, 80.0)  # too soon
        dashboard.update(record(step=300, episodes=4, perf=0.25), 0.3, None, last=True)
    hello, first, last = stream.getvalue().splitlines()
    assert hello == "hello" and "\x1b" not in stream.getvalue()
    for part in ("step 100 (10%)", "1,234 steps/s", "elapsed 1m01s", "left 1m30s", "perf - (0 episodes)", "states 3",
                 "age 5", "restarted 40%  restarted perf -"):  # fmt: skip
        assert part in first
    assert "step 300 (30%)" in last and "perf 0.250 (4 episodes)" in last and "restarted 40%" in last


def test_a_table_on_a_terminal():
    stream = Terminal()
    with Dashboard("the title", 1000, 5.0, stream) as dashboard:
        dashboard.update(record(), 0.1, 90.0)
        dashboard.message("a [message]")
    for part in ("the title", "100 / 1,000", "1m30s", "solve rate", "3 states", "40%", "a [message]",
                 "16/32/4800", "0/5/9", "1/2/3", "3 / 1", "25%"):  # fmt: skip
        assert part in stream.getvalue()


def test_silence():
    stream = Terminal()
    with Dashboard("title", 1000, 0.0, stream, show=False) as dashboard:
        dashboard.message("hello")
        dashboard.update(record(), 0.1, None, last=True)
    assert stream.getvalue() == ""


def test_shown_solve_rate_forgets_old_episodes():
    stream = io.StringIO()
    with Dashboard("title", 1000, 0.0, stream) as dashboard:
        for perf in (0.0, 0.0, 1.0, 1.0):
            dashboard.update(record(episodes=100, perf=perf), 0.1, None)
    assert [line.split("perf ")[1].split(" ")[0] for line in stream.getvalue().splitlines()] == [
        "0.000",
        "0.000",
        "0.500",
        "1.000",
    ]


def test_curve_pools_until_there_are_enough_episodes():
    records = [
        record(step=step, wall_seconds=step / 10, episodes=episodes, perf=perf)
        for step, episodes, perf in ((1, 0, None), (2, 150, 0.0), (3, 50, 1.0), (4, 200, 0.5), (5, 10, 1.0))
    ]
    curve = solve_rate_curve(records, min_episodes=200)
    np.testing.assert_allclose(curve["step"], [3, 4, 5])
    np.testing.assert_allclose(curve["seconds"], [0.3, 0.4, 0.5])
    np.testing.assert_allclose(curve["perf"], [0.25, 0.5, 1.0])
    assert solve_rate_curve([])["perf"].size == 0


def test_plot(tmp_path, tiny_run):
    from PIL import Image

    plot_runs({"tiny": tiny_run.run_dir / "metrics.jsonl"}, tmp_path / "curves.png", title="Tiny")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
