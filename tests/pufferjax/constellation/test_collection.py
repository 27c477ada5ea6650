"""All runs under some folders: what is found, what is wrong with some, what changes, what the next start skips."""

import json
import os
import subprocess
import sys
import time

import pytest

from pufferjax.constellation import cache, collection, folders
from pufferjax.constellation.collection import Collection
from pufferjax.constellation.folders import roots_of
from pufferjax.runs.files import is_locked, locked


def look(*paths, **options):
    found = Collection(roots_of(paths), **options)
    found.refresh()
    return found


def again(found, since=""):
    found._next_look = 0.0
    found.refresh()
    return found.changes(since)


@pytest.fixture
def rows(rows_of):
    """`rows(*paths)`: what a new collection finds."""
    return lambda *paths, **options: rows_of(look(*paths, **options).changes())


def test_runs_at_any_depth_with_the_folder_above_as_experiment(tmp_path, make_run, rows):
    make_run(tmp_path / "alone", top=0.5)
    make_run(tmp_path / "sweeps" / "lr" / "trial-0007", learning_rate=0.002, lines=7)
    make_run(tmp_path / "sweeps" / "lr" / "trial-0008" / "seed-1", seed=1)
    (tmp_path / "alone" / "checkpoints" / "1000").mkdir(parents=True)
    (tmp_path / "alone" / "checkpoints" / "1000" / "summary.json").write_text("{}")
    base = tmp_path.name
    found = rows(tmp_path)
    assert set(found) == {
        (base, "alone"),
        (f"{base}/sweeps/lr", "trial-0007"),
        (f"{base}/sweeps/lr/trial-0008", "seed-1"),
    }
    trial = found[f"{base}/sweeps/lr", "trial-0007"]
    assert trial["status"] == "finished" and trial["problem"] is None
    assert trial["settings"]["ppo.learning_rate"] == 0.002
    assert trial["settings"]["environment"] == "maze" and trial["settings"]["env.size"] == 9
    assert trial["settings"]["stopped_by"] == "total_steps"
    ones = [trial["settings"][x] for x in ("ppo.bootstrap", "state_set.min_states", "ppo.rho_clip")]
    assert ones == [True, 1, 1.0] and [type(x) for x in ones] == [bool, int, float]
    assert trial["figures"]["step"] == 7000 and trial["figures"]["evaluation.perf"] == 1.0
    assert trial["figures"]["train_seconds"] == 3.5
    assert found[f"{base}/sweeps/lr/trial-0008", "seed-1"]["settings"]["seed"] == 1
    assert set(rows(tmp_path / "alone")) == {(base, "alone")}  # the folder given may be the run itself


def test_a_figure_that_the_last_line_lacks_is_that_of_a_line_before(tmp_path, make_run, rows, record, write_lines):
    run = make_run(tmp_path / "a" / "b", lines=3, top=0.6)
    write_lines(run, [record(4, None)])
    (found,) = rows(tmp_path).values()
    assert found["figures"]["step"] == 4000 and found["figures"]["perf"] == pytest.approx(0.6)


def test_without_a_summary_a_run_is_live_or_interrupted(tmp_path, make_run, rows, rows_of, record, write_lines):
    run = make_run(tmp_path / "e" / "run", finished=False)
    found = look(tmp_path)
    assert [x["status"] for x in rows_of(found.changes()).values()] == ["interrupted"]
    with locked(run):
        write_lines(run, [record(6, 1.0)])
        assert [x["status"] for x in rows_of(again(found)).values()] == ["live"]
        assert [x["status"] for x in rows(tmp_path).values()] == ["live"]
    assert [x["status"] for x in rows_of(again(found)).values()] == ["interrupted"]


def test_looking_whether_a_run_is_live_keeps_none_from_beginning(tmp_path):
    source = (
        "import fcntl, os, sys, time\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_SH)\n"
        "print('held', flush=True)\n"
        "time.sleep(0.04)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source, tmp_path], stdout=subprocess.PIPE) as looking:
        looking.stdout.readline()
        with locked(tmp_path):
            pass
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert not is_locked(descriptor)
    with locked(tmp_path):
        assert is_locked(descriptor)
        with pytest.raises(BlockingIOError), locked(tmp_path):
            pass
    assert not is_locked(descriptor)
    os.close(descriptor)


NAMES = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "naïve ☃",
    "tab\tnew\nline\x07",
    "a'b\"c\\d",
]


def test_broken_foreign_and_half_written_runs_are_listed_with_the_reason(tmp_path, make_run, rows):
    def spoilt(name, **files):
        folder = make_run(tmp_path / "bad" / name)
        for file, content in files.items():
            path = folder / {"config": "config.toml", "metrics": "metrics.jsonl", "summary": "summary.json"}[file]
            path.unlink()
            if content is not None:
                path.write_bytes(content)
        return folder

    spoilt("toml", config=b"a = = 1")
    spoilt("empty-config", config=b"")
    spoilt("binary-config", config=b"\xff\xfe\x00")
    spoilt("foreign", config=b'[tool]\nname = "x"\n')
    spoilt("no-config", config=None)
    spoilt("summary", summary=b"{")
    spoilt("summary-list", summary=b"[1]")
    spoilt("summary-types", summary=b'{"evaluation": 3, "stopped_by": [], "train_seconds": "x"}')
    spoilt("metrics", metrics=b"1\n2\nx\n")
    spoilt("huge-config", config=b"#" * (2 << 20))
    spoilt("empty", config=b"", metrics=b"", summary=b"")
    spoilt("torn", metrics=b'{"step": 5, "perf": 0.5}\n{"step": 6, "pe')
    spoilt("nan", metrics=b'{"step": 5, "perf": NaN}\n')
    spoilt("no-lines", metrics=b"", summary=None)
    spoilt("no-metrics", metrics=None, summary=None)
    os.mkfifo(spoilt("pipe", metrics=None) / "metrics.jsonl")
    (spoilt("folder", config=None) / "config.toml").mkdir()
    for name in NAMES:
        make_run(tmp_path / "names" / name.replace("/", "∕"))
    os.mkdir(os.fsencode(tmp_path) + b"/names/\xff\xfe")
    (tmp_path / "names" / os.fsdecode(b"\xff\xfe") / "summary.json").write_text("{}")
    started = time.monotonic()
    found = {name: x for (_, name), x in rows(tmp_path).items()}
    assert time.monotonic() - started < 5  # the pipe is not waited for
    reasons = {name: x["problem"] for name, x in found.items() if x["problem"]}
    assert {name: found[name]["status"] for name in reasons} == dict.fromkeys(reasons, "broken")
    for name, words in {
        "toml": "config.toml: ", "empty-config": "names no env", "binary-config": "utf-8", "foreign": "names no env",
        "no-config": "it has no config.toml", "summary": "summary.json: ", "summary-list": "no JSON object",
        "metrics": "its last lines are no JSON objects", "huge-config": "2,097,152 bytes",
        "empty": "names no env: ", "pipe": "metrics.jsonl cannot be read: it is no plain file",
        "folder": "config.toml cannot be read", "\udcff\udcfe": "it has no config.toml",
    }.items():  # fmt: skip
        assert words.removesuffix(": ") in reasons[name], (name, reasons[name])
    assert set(reasons) == {
        "toml", "empty-config", "binary-config", "foreign", "no-config", "summary", "summary-list", "metrics",
        "huge-config", "empty", "pipe", "folder", "\udcff\udcfe",
    }  # fmt: skip
    assert found["torn"]["figures"]["step"] == 5 and "perf" not in found["nan"]["figures"]
    assert found["no-lines"]["status"] == found["no-metrics"]["status"] == "interrupted"
    assert found["toml"]["figures"]["step"] == 5000  # what can be read is shown
    assert {x.replace("/", "∕") for x in NAMES} <= set(found)


def test_no_link_is_followed(tmp_path, make_run, rows):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    make_run(outside / "secret")
    make_run(inside / "run")
    (inside / "run" / "states.png").symlink_to(outside / "secret" / "config.toml")
    (inside / "link").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    linked = make_run(inside / "linked-files")
    for name in folders.FILES:
        (linked / name).unlink()
        (linked / name).symlink_to(outside / "secret" / name)
    found = rows(inside)
    assert {name for _, name in found} == {"run", "linked-files"}
    assert found["inside", "linked-files"]["status"] == "broken"
    assert found["inside", "linked-files"]["settings"] == found["inside", "linked-files"]["figures"] == {}
    with folders.opened(folders.Found(str(inside), ("run",), ())) as folder:
        assert folders.images_of(folder) == []
    with pytest.raises(OSError), folders.opened(folders.Found(str(inside), ("link", "secret"), ())):
        pass
    assert {name for _, name in rows(inside / "link")} == {"secret"}  # a link that was given is what was asked for


def test_a_folder_without_permission_is_listed(tmp_path, make_run, monkeypatch, rows):
    make_run(tmp_path / "e" / "closed")
    make_run(tmp_path / "e" / "open")
    real = os.open

    def refusing(path, *arguments, **options):  # root may read everything
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(folders.os, "open", refusing)
    found = {name: x for (_, name), x in rows(tmp_path).items()}
    assert found["closed"]["problem"] == "the folder cannot be read: Permission denied"
    assert found["open"]["status"] == "finished"


def test_only_what_has_changed_is_told_again(tmp_path, make_run, rows_of, record, write_lines):
    first, second = make_run(tmp_path / "e" / "a"), make_run(tmp_path / "e" / "b", finished=False)
    found = look(tmp_path)
    table = json.loads(found.changes())
    assert table["is_all"] and len(table["rows"]) == 2
    same = json.loads(again(found, table["version"]))
    assert same["version"] == table["version"] and not same["rows"] and not same["removed"] and not same["is_all"]
    write_lines(second, [record(6, 0.75, brand_new=1.5)])
    after = json.loads(again(found, table["version"]))
    ((_, row),) = rows_of(after).items()
    assert row["figures"]["perf"] == 0.75 and row["figures"]["brand_new"] == 1.5 and not after["is_all"]
    first.rename(tmp_path / "e2")
    moved = json.loads(again(found, after["version"]))
    assert [x[2] for x in moved["rows"]] == ["e2"] and moved["folders"] == [tmp_path.name]
    assert moved["removed"] == [x[0] for x in table["rows"] if x[2] == "a"]
    assert json.loads(found.changes("another-process.1"))["is_all"]
    assert json.loads(found.changes("nonsense"))["is_all"]


def test_folders_of_one_name_are_told_apart_and_none_is_read_twice(tmp_path, make_run, rows):
    for name in ("x/runs/a", "y/runs/a"):
        make_run(tmp_path / name)
    both = rows(tmp_path / "x" / "runs", tmp_path / "y" / "runs")
    assert set(both) == {("x/runs", "a"), ("y/runs", "a")}
    assert len(rows(tmp_path, tmp_path / "x", tmp_path / "x" / "runs" / "a")) == 2
    with pytest.raises(ValueError, match="DIR must be folders"):
        roots_of([tmp_path / "nowhere"])


def test_what_was_read_is_kept_until_a_file_changes(tmp_path, make_run, monkeypatch, rows, record, write_lines):
    for i in range(5):
        make_run(tmp_path / "e" / f"run-{i}", learning_rate=0.01 * (i + 1), top=i / 4)
    (tmp_path / "e" / "run-4" / "config.toml").write_text("broken")
    before = rows(tmp_path)
    read = []
    real = collection.read_run
    monkeypatch.setattr(collection, "read_run", lambda found, *rest: read.append(found.parts[-1]) or real(found, *rest))
    assert rows(tmp_path) == before and read == []
    write_lines(tmp_path / "e" / "run-3", [record(6, 0.125)])
    after = rows(tmp_path)
    assert read == ["run-3"] and after[f"{tmp_path.name}/e", "run-3"]["figures"]["perf"] == 0.125
    assert rows(tmp_path, use_cache=False) == after


def spoil(kind, content):
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "bit":
        return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    return {
        "empty": b"",
        "garbage": os.urandom(500),
        "other version": content.replace(b"constellation 1", b"constellation 0"),
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "bit", "empty", "garbage", "other version"])
def test_a_spoilt_cache_is_made_anew(tmp_path, make_run, kind, rows):
    make_run(tmp_path / "e" / "a")
    before = rows(tmp_path)
    path = cache.cache_path(roots_of([tmp_path]))
    good = path.read_bytes()
    path.write_bytes(spoil(kind, good))
    assert cache.load(path) == ({}, {})
    assert rows(tmp_path) == before
    assert path.read_bytes() == good


def test_where_no_cache_can_be_kept_there_is_none(tmp_path, make_run, monkeypatch, rows):
    make_run(tmp_path / "e" / "a")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(rows(tmp_path / "e")) == 1
