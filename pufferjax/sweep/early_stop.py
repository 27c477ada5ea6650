"""The bar under which a run is ended: the score that the lower part of the runs before had at the same cost.

score = A + B ln(cost) is fitted to the points of all curves so that a share of them, `quantile`, lies below (quantile
regression: the least sum of deviations, weighted 1 - quantile below the line and quantile above it).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_LEAST_POINTS = 30
_LEAST_SHARE, _LEAST_STEPS = 0.2, 100_000_000  # of a run, before it is judged
_LEAST_COST = 0.3  # of the largest cost met
_LEAST_SECONDS = 10.0  # besides, where cost is seconds: starting takes some
_FAR, _FAR_BAR = 1.2, 0.9  # beyond so many times the largest cost, so much of the best score is asked for


class Bar(NamedTuple):
    intercept: float
    slope: float
    best: float  # score met
    most: float  # cost met
    in_seconds: bool

    def is_under(self, score: float, cost: float, share: float, steps: float) -> bool:
        """Whether a run with this score so far is to be ended, at this cost, after this share of it and these steps."""
        if share < _LEAST_SHARE and steps < _LEAST_STEPS:
            return False
        if cost < _LEAST_COST * self.most + (_LEAST_SECONDS if self.in_seconds else 0.0):
            return False
        if cost > _FAR * self.most:
            return score < _FAR_BAR * self.best if self.best > 0 else False
        return score < self.intercept + self.slope * math.log(cost)


def fit_bar(points: Sequence[tuple[float, float]], quantile: float, in_seconds: bool) -> Bar | None:
    """The bar from (cost, score) of all curves; None while there are too few, or the quantile is 0."""
    points = [(cost, score) for cost, score in points if cost > 0]
    if not 0 < quantile < 1 or len(points) < _LEAST_POINTS:
        return None
    from scipy.optimize import linprog

    cost, score = np.array(points).T
    scale = max(float(np.abs(score).max()), 1e-12)
    n, ones = len(points), np.ones(len(points))
    # Unknowns: A, B, and how far each point is above and below the line.
    objective = np.concatenate([[0, 0], quantile * ones, (1 - quantile) * ones])
    equal = np.concatenate([ones[:, None], np.log(cost)[:, None], np.eye(n), -np.eye(n)], axis=1)
    bounds = [(None, None)] * 2 + [(0, None)] * (2 * n)
    found = linprog(objective, A_eq=equal, b_eq=score / scale, bounds=bounds, method="highs")
    if not found.success:
        return None
    intercept, slope = (float(x) * scale for x in found.x[:2])
    return Bar(intercept, slope, float(score.max()), float(cost.max()), in_seconds)
