"""What a run may use: epochs and seconds."""

import time

import pytest

from pufferjax.runs import budget as budget_module
from pufferjax.runs.budget import Budget


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(budget_module.time, "perf_counter", lambda: now[0])
    assert time.perf_counter() == 100.0

    def epoch(budget, seconds):
        now[0] += seconds
        budget.epoch_ended()

    return epoch


@pytest.mark.parametrize(("max_seconds", "expected"), [(None, 1.0), (1000.0, 1.0), (50.0, 1.0), (20.0, 0.4)])
def test_the_share_of_the_steps_that_the_seconds_hold(clock, max_seconds, expected):
    budget = Budget(num_epochs=100, max_seconds=max_seconds, start=100.0)
    assert budget.share_that_fits(0) is None
    for _ in range(4):
        clock(budget, 0.5)
    # Four epochs in two seconds: two in each second to come.
    assert budget.share_that_fits(4) == pytest.approx(expected)
