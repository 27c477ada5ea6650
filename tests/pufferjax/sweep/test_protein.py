"""Protein as a sampler of Optuna: what it suggests, and that it does not do what users of the original report."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pufferjax.sweep import gaussian_process, protein
from pufferjax.sweep.gaussian_process import fit, predict
from pufferjax.sweep.protein import Codec, ProteinSampler, _reflected, _steps, _target, pareto

SPACE = {
    "steps": FloatDistribution(1e6, 1e8, log=True),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "gamma": FloatDistribution(0.0, 1.0),
}


def quality(p):
    """Best in the middle."""
    return math.exp(-0.5 * (math.log10(p["rate"]) + 2) ** 2 - 8 * (p["gamma"] - 0.5) ** 2)


def run(p, metric=quality):
    """(score, cost, curve) of a trial that is half learned after 1e7 steps."""

    def score(steps):
        return metric(p) * steps / (steps + 1e7)

    shares = np.arange(1, 11) / 10
    curve = [[share, p["steps"] * share / 1e5, score(p["steps"] * share)] for share in shares]
    return score(p["steps"]), p["steps"] / 1e5, curve


def search(count, metric=quality, objectives=2, space=SPACE, **options):
    """The trials of a study."""
    # Few points of a curve: what is fitted then has one size, and is compiled once.
    options = {"fidelity": "steps", "num_startup": 8, "curve_points": 2, **options}
    study = optuna.create_study(
        directions=["maximize", "minimize"][:objectives], sampler=ProteinSampler(space, **options)
    )
    study.enqueue_trial({"steps": 5e7, "rate": 0.5, "gamma": 0.1})
    for _ in range(count):
        trial = study.ask(dict(space))
        score, cost, curve = run(trial.params, metric)
        trial.set_user_attr("curve", curve)
        trial.set_user_attr("cost", cost)
        study.tell(trial, [score, cost][:objectives])
    return study.trials


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fewer candidates and steps: what is compiled without optimisation, as in tests, is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protein, "_CHANGES", 64)
        patch.setattr(gaussian_process, "_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def trials(quick):
    return search(18)


def test_it_finds_the_middle_and_does_not_hug_the_borders(trials):
    later = [t.params for t in trials[12:]]
    at_border = [abs(p["gamma"] - 0.5) > 0.49 or not 1.2e-4 < p["rate"] < 0.8 for p in later]
    assert np.mean(at_border) < 0.1
    assert max(map(quality, later)) > 0.9
    assert np.median([quality(p) for p in later]) > np.median([quality(t.params) for t in trials[:9]])


def test_cheap_trials_first_and_then_all_costs(trials):
    steps = np.array([t.params["steps"] for t in trials])
    assert max(steps[1:9]) < 1e7  # the start
    assert min(steps[9:]) < 5e6 and max(steps[9:]) > 2e7


def test_the_metric_that_is_given_is_the_one_that_counts():
    upwards, downwards = (
        search(12, metric, num_startup=5) for metric in (lambda p: p["gamma"], lambda p: 1 - p["gamma"])
    )
    assert [t.params for t in upwards[:6]] == [t.params for t in downwards[:6]]
    high, low = (np.mean([t.params["gamma"] for t in found[8:]]) for found in (upwards, downwards))
    assert high > 0.7 and low < 0.3


def test_the_same_trials_give_the_same_suggestion_and_another_number_another():
    again = search(11, seed=3)
    assert [t.params for t in search(11, seed=3)] == [t.params for t in again]
    assert len({t.params["rate"] for t in again}) == 11


def test_a_limit_of_cost_is_kept_to():
    costs = [t.user_attrs["cost"] for t in search(14, objectives=1, max_cost=30.0, num_startup=5)]
    assert costs[0] == 500  # and 1000 would be possible
    assert max(costs[7:]) < 60  # predictions, not measurements, are held against it
    assert max(costs[7:]) > 15  # and it is used


def test_changes_near_a_bound_are_not_all_at_the_bound():
    sampler = ProteinSampler(SPACE)  # of points whose last coordinate is the share of a trial
    x = np.array([[0.9, -0.95, 0.8, 1.0], [0.95, -0.9, 0.85, 1.0]])
    candidates = sampler._candidates(x, np.array([0.5, 1.0]), np.array([1.0, 2.0]), np.random.default_rng(0))
    assert np.abs(candidates[:, :3]).max() <= 1 and np.ptp(candidates[:, :3], axis=0).min() > 0.5
    assert np.mean(np.abs(candidates[:, :3]) > 0.999) < 0.02  # clipped, it would be a third


def test_what_a_trial_has_shown():
    study = optuna.create_study(directions=["maximize", "minimize"])
    params = {"steps": 1e7, "rate": 0.01, "gamma": 0.5}
    curve = [[share, 100 * share, share] for share in np.arange(1, 17) / 16]

    def add(state, values=None, **attributes):
        study.add_trial(optuna.create_trial(state=state, values=values, params=params, distributions=SPACE,
                                            user_attrs=attributes))  # fmt: skip

    sampler = ProteinSampler(SPACE, fidelity="steps")
    add(optuna.trial.TrialState.COMPLETE, [0.9, 100.0], curve=curve)
    seen = sampler.observe(study)
    assert len(seen.score) == 5 and seen.score[-1] == 0.9 and seen.cost[-1] == 100  # several points of the curve
    assert seen.x[-1, 0] == pytest.approx(0.0) and seen.x[1, 0] == pytest.approx(math.log10(0.375), abs=1e-6)
    assert len(ProteinSampler(SPACE, fidelity="steps", curve_points=1).observe(study).score) == 1
    add(optuna.trial.TrialState.PRUNED, curve=curve[:8])  # stopped early: what it had shown
    assert max(sampler.observe(study).cost[5:]) == pytest.approx(50)
    before = len(sampler.observe(study).score)
    add(optuna.trial.TrialState.FAIL, failure="out of memory")
    add(optuna.trial.TrialState.FAIL)  # its worker died: another attempt says what it is worth
    seen = sampler.observe(study)
    assert len(seen.score) == before + 1 and seen.score[-1] == min(seen.score)
    add(optuna.trial.TrialState.COMPLETE, [0.1, 3.0], ran={"gamma": 0.75})  # what was run, not what was drawn
    assert sampler.observe(study).x[-2, 2] == pytest.approx(0.5)


def test_choices_and_whole_numbers():
    space = {**SPACE, "layers": IntDistribution(1, 4), "kind": CategoricalDistribution(["a", "b", None])}
    codec = Codec(space)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.uniform(-1, 1, (1, codec.size))
        params = codec.decode(codec.snapped(x)[0])
        assert all(space[name]._contains(space[name].to_internal_repr(value)) for name, value in params.items())
        assert codec.decode(codec.encode(params)) == pytest.approx(params)

    sampler = ProteinSampler(space, fidelity="steps")
    x = codec.encode({"steps": 1e7, "rate": 0.1, "gamma": 0.5, "layers": 2, "kind": "b"})[None]
    candidates = sampler._candidates(x, np.ones(1), np.ones(1), np.random.default_rng(0))
    kinds = [codec.decode(candidate)["kind"] for candidate in candidates]
    assert 0.7 < np.mean([kind == "b" for kind in kinds]) < 0.95 and {*kinds} == {"a", "b", None}
    assert (candidates[:, codec.columns["kind"]].sum(1) == 1).all()
    assert {codec.decode(candidate)["layers"] for candidate in candidates} >= {1, 2, 3}


def test_the_front_and_its_expensive_tail():
    score, cost = np.array([0.1, 0.5, 0.4, 0.99, 1.0, 0.2]), np.array([1.0, 2.0, 3.0, 4.0, 100.0, 0.5])
    assert pareto(score, cost) == [5, 1, 3]  # a hundredth for 96 more: cut
    assert pareto(np.array([0.1, 0.5, 0.9]), np.array([1.0, 2.0, 100.0])) == [0, 1, 2]


def test_the_start_is_spread_evenly():
    points = (np.arange(64)[:, None] * _steps(3)) % 1
    for column in points.T:
        assert np.histogram(column, bins=8, range=(0, 1))[0].min() >= 5  # 8 each, if it were perfect


def test_a_change_beyond_a_bound_comes_back():
    np.testing.assert_allclose(_reflected(np.array([-1.3, -1.0, 0.2, 1.0, 1.4])), [-0.7, -1.0, 0.2, 1.0, 0.6])


def test_every_cost_is_a_target_in_its_turn():
    targets = np.array([_target(0, number) for number in range(600)])
    assert targets.min() >= 0 and targets.max() <= 1.1
    assert np.histogram(targets, bins=4, range=(0, 1.1))[0].min() > 100


def test_the_process_predicts_what_it_has_not_seen():
    # Of the sizes that the searches above have compiled.
    rng = np.random.default_rng(0)
    x, q = rng.uniform(-1, 1, (40, 3)), rng.uniform(-0.9, 0.9, (2048, 3))
    f = lambda x: np.stack([np.sin(2 * x[:, 0]) + x[:, 1] ** 2, 5 + x[:, 1]])  # noqa: E731
    fitted = fit(x, f(x) + 0.01 * rng.standard_normal((2, 40)))
    assert np.abs(predict(fitted, q) - f(q)).mean(1) == pytest.approx([0, 0], abs=0.1)
    same = fit(np.repeat(x[:1], 8, 0), np.ones((2, 8)))  # the same point again and again
    assert np.isfinite(predict(same, q)).all()
