"""Lines out of a metrics.jsonl without reading it."""

import json
import os

import numpy as np
import pytest

from pufferjax.constellation import samples

LINES = 20_000


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """(descriptor, size) of LINES records, x = 2 * step."""
    path = tmp_path_factory.mktemp("long") / "metrics.jsonl"
    rest = {f"figure_{i}": 0.123456789 for i in range(30)}
    path.write_text("".join(json.dumps({"step": i, "x": 2 * i, **rest}) + "\n" for i in range(LINES)))
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor, path.stat().st_size
    os.close(descriptor)


@pytest.fixture
def opened(tmp_path):
    """`opened(content)`: (descriptor, size)."""
    descriptors = []

    def open_file(content):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(content)
        descriptors.append(os.open(path, os.O_RDONLY))
        return descriptors[-1], len(content)

    yield open_file
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("count", [2, 10, 200])
def test_points_are_evenly_spaced_from_the_first_to_the_last_line(long_file, count, monkeypatch):
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: read.append(arguments[1]) or pread(*arguments))
    groups = samples.spread_groups(*long_file, count, 1)
    steps = np.array([group[-1]["step"] for group in groups])
    assert len(steps) == count and steps[0] == 0 and steps[-1] == LINES - 1
    assert np.abs(steps - np.linspace(0, LINES - 1, count)).max() < 12  # lines of a chunk
    assert sum(read) <= 4096 * count + 8192 < long_file[1]
    assert all(record["x"] == 2 * record["step"] for group in groups for record in group)


def test_a_short_file_is_pooled_whole(opened):
    content = b"".join(b'{"step": %d, "x": %d}\n' % (i, i % 2) for i in range(1000))
    groups = samples.spread_groups(*opened(content), 100, 1)
    assert [len(group) for group in groups] == [10] * 100
    curves = samples.curves_of(groups)
    assert curves["x"] == [0.5] * 100
    few = samples.spread_groups(*opened(content), 2000, 1)
    assert [x["step"] for (x,) in few] == list(range(1000))


def test_a_mean_over_episodes_counts_them():
    group = [{"perf": 1.0, "loss": 1.0, "episodes": 1}, {"loss": 3.0, "episodes": 50}, {"perf": 0.0, "episodes": 3}]
    assert samples.mean(group, "perf") == 0.25
    assert samples.mean(group, "loss") == 2.0
    assert samples.mean(group, "score") is None
    assert samples.mean([{"perf": 1.0, "episodes": 0}], "perf") is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b'{"step": 1', []),
        (b'{"step": 1}\n{"st', [{"step": 1}]),
        (b'{"step": 1}\n{"step": 2}\n', [{"step": 2}, {"step": 1}]),
        (b'{"step": 1}\nnot json\n[3]\n\xff\xfe\n7\n', [{"step": 1}]),
        (
            b'{"a": NaN, "b": Infinity, "c": 1e999, "d": "x", "e": null, "f": true, "g": [1], "step": 2}\n',
            [{"step": 2}],
        ),
        (b'{"big": 1' + b"0" * 400 + b', "step": 3}\n', [{"step": 3}]),
        (b"[" * 100_000 + b'\n{"step": 4}\n', [{"step": 4}]),
        (b'{"stage_seconds": {"rollout": 0.5, "heap": "x"}, "step": 5}\n', [{"stage_seconds.rollout": 0.5, "step": 5}]),
    ],
)
def test_bad_lines_are_passed_over(opened, content, expected):
    lines = samples.last_lines(*opened(content), 50)
    assert [x for x in map(samples.record_of, lines) if x is not None] == expected
    groups = samples.spread_groups(*opened(content), 50, 2)
    assert [x for group in groups for x in group] == expected[::-1]


@pytest.mark.parametrize("line", [
    b'{"step": 3, "perf": 0.25, "episodes": 7, "x": null}', b'{"perf": -1.5e-3}', b'{"perf": null, "step": 1}', b"{}",
    b'{"perf": NaN, "step": Infinity}', b'{"perf": "0.5", "step": true}', b'{"perf": [1, 2], "step": 2}', b'{"step": 1',
    b'{"a": "\\"perf\\": 3", "step": 1}', b'{"a": {"perf": 3}, "step": 1}', b'[{"perf": 3}]', b'{"perf":0.5, "step":2}',
])  # fmt: skip
def test_some_figures_of_a_line_are_those_of_the_line(line):
    names = ("step", "perf", "episodes")
    whole = samples.record_of(line)
    expected = None if whole is None else {x: whole[x] for x in names if x in whole}
    assert samples.some_of(names)(line) == expected


def test_a_file_of_one_endless_line_is_not_read_whole(opened, monkeypatch):
    read = []
    pread = os.pread
    file = opened(b"x" * 5_000_000)
    monkeypatch.setattr(os, "pread", lambda *arguments: read.append(arguments[1]) or pread(*arguments))
    assert samples.last_lines(*file) == []
    assert samples.spread_groups(*file, 100, 2) == []
    assert sum(read) < 2_500_000
