"""The bar under which a run ends: a quantile, and when it is asked."""

import numpy as np
import pytest

from pufferjax.sweep.early_stop import Bar, fit_bar


def points(count=400):
    rng = np.random.default_rng(0)
    cost = np.exp(rng.uniform(0, 5, count))
    return list(zip(cost, 0.1 + 0.2 * np.log(cost) + rng.uniform(0, 1, count), strict=True))


@pytest.mark.parametrize("quantile", [0.3, 0.7])
def test_the_share_of_the_points_that_it_says_lies_below(quantile):
    cloud = points()
    bar = fit_bar(cloud, quantile, in_seconds=False)
    below = np.mean([score < bar.intercept + bar.slope * np.log(cost) for cost, score in cloud])
    assert below == pytest.approx(quantile, abs=0.02)
    # Of noise that is even between 0 and 1, the quantile is where it says.
    assert bar.slope == pytest.approx(0.2, abs=0.06)
    assert bar.intercept + 2.5 * bar.slope == pytest.approx(0.1 + 0.5 + quantile, abs=0.06)


def test_there_is_none_before_enough_is_known_or_if_none_is_asked_for():
    assert fit_bar(points(29), 0.3, False) is None and fit_bar(points(30), 0.3, False) is not None
    assert fit_bar(points(), 0.0, False) is None


def test_when_a_run_is_judged():
    bar = Bar(intercept=0.5, slope=0.0, best=1.0, most=100.0, in_seconds=True)
    assert bar.is_under(0.4, cost=50, share=0.5, steps=1e6) and not bar.is_under(0.6, cost=50, share=0.5, steps=1e6)
    assert not bar.is_under(0.4, cost=50, share=0.1, steps=1e6)  # not in its first fifth,
    assert bar.is_under(0.4, cost=50, share=0.1, steps=2e8)  # unless that is long;
    assert not bar.is_under(0.4, cost=39, share=0.5, steps=1e6)  # nor before a third of the cost and 10 seconds
    assert bar._replace(in_seconds=False).is_under(0.4, cost=39, share=0.5, steps=1e6)
    assert bar.is_under(0.8, cost=130, share=0.5, steps=1e6)  # beyond all costs met, nine tenths of the best
    assert not bar.is_under(0.95, cost=130, share=0.5, steps=1e6)
