"""What the experiments share: files of results that several processes add to, and the intervals."""

import json
import threading

import numpy as np
import pytest


@pytest.fixture
def runs(load):
    return load("runs")


def test_a_result_replaces_the_one_with_its_key(runs, tmp_path):
    results = runs.Results(tmp_path / "new" / "r.json", order=lambda r: r["seed"], machine="m")
    assert results.all() == [] and results.matching({"seed": 0}) == []
    results.add({"seed": 1, "arm": "a"}, {"perf": 0.5})
    results.add({"seed": 0, "arm": "a"}, {"perf": 0.25})
    results.add({"seed": 1, "arm": "a"}, {"perf": 0.75})
    document = json.loads(results.path.read_text())
    assert document["machine"] == "m"
    assert document["results"] == [
        {"seed": 0, "arm": "a", "perf": 0.25},
        {"seed": 1, "arm": "a", "perf": 0.75},
    ]
    assert results.matching({"arm": "a", "seed": 1}) == document["results"][1:]
    assert results.matching({"arm": "a", "budget": None}) == []  # a key that says more is another run
    assert [path.name for path in results.path.parent.iterdir()] == ["r.json"]


def test_a_run_that_is_there_is_not_run_again(runs, tmp_path):
    results, made = runs.Results(tmp_path / "r.json"), []

    def run(arm, seed):
        made.append((arm, seed))
        return {"perf": seed / 4}

    for arm, seed in (("a", 1), ("b", 1), ("a", 1), ("a", 2)):
        results.add_missing({"arm": arm, "seed": seed}, run, arm, seed)
    assert made == [("a", 1), ("b", 1), ("a", 2)]
    assert [(r["arm"], r["seed"], r["perf"]) for r in results.all()] == [("a", 1, 0.25), ("b", 1, 0.25), ("a", 2, 0.5)]


def test_nothing_is_lost_when_several_add_at_once(runs, tmp_path):
    path = tmp_path / "r.json"

    def add(writer):
        results = runs.Results(path)
        for seed in range(10):
            results.add({"writer": writer, "seed": seed}, {})

    threads = [threading.Thread(target=add, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((r["writer"], r["seed"]) for r in runs.Results(path).all()) == [
        (writer, seed) for writer in range(4) for seed in range(10)
    ]


def test_bootstrap_covers_the_mean_as_often_as_it_says(runs, monkeypatch):
    monkeypatch.setattr(runs, "RESAMPLES", 1000)
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        mean, low, high = runs.bootstrap(random.normal(3, 1, 30))
        assert low < mean < high
        covered += low <= 3 <= high
    assert 0.88 < covered / 300 < 0.98  # 30 values: about 0.94
    assert runs.bootstrap([1.0, 2.0, 4.0]) == runs.bootstrap([1.0, 2.0, 4.0])


def test_the_interquartile_mean_is_that_of_the_middle_half(runs):
    from scipy.stats import trim_mean

    random = np.random.default_rng(2)
    for count in (1, 2, 3, 4, 5, 8, 11):
        values = random.normal(size=(3, count))
        np.testing.assert_allclose(runs.interquartile_mean(values), trim_mean(values, 0.25, axis=-1))
    middle, low, high = runs.bootstrap([0.0, 1.0, 1.0, 1.0, 100.0], runs.interquartile_mean)
    assert middle == 1 and low <= middle <= high < 100


def test_wilson_has_width_when_all_seeds_agree(runs):
    share, low, high = runs.wilson(5, 5)
    assert share == high == 1 and low == pytest.approx(5 / (5 + 1.96**2))
    assert runs.wilson(1, 4)[1:] == pytest.approx((0.0456, 0.6994), abs=1e-4)


def test_committed_results_can_still_be_reported(load, tmp_path):
    script = load("maze_sparse")
    results = script.Results(script.RESULTS / "maze_sparse.json").all()
    rows = script.table(results).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["15x15", "21x21", "27x27", "35x35"]
    assert all(f"{result['perf']:.3f}" in script.table(results) for result in results)
    script.plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
