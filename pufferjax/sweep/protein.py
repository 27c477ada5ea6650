"""Protein, PufferLib's sampler for sweeps in which some settings cost more than others, as a sampler of Optuna.

It keeps to the front: the next trial is one of many small changes of the trials that nobody beats on score and cost
together, the one with the best predicted score at a predicted cost near a target that is drawn anew each time, so that
the whole front is pushed outwards and not only its expensive end. Two Gaussian processes predict score and log cost;
their means alone count. Points of the learning curves are observations of cheaper trials.

Departures from the original: a change that would leave the bounds is reflected, where clipping piles suggestions up at
the bounds; the processes are fitted anew for each trial, from the trials alone, so that any worker suggests the same;
the start is another evenly spread sequence than Sobol's, which costs nothing to load; choices are coordinates of their
own; a cost that hardly varies is no target.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pufferjax.sweep.gaussian_process import fit, predict

_CENTRES, _CHANGES = 32, 256  # points that are changed, and changes of each
_REACH = 0.5  # half-width of a change, where a coordinate is 2 wide
_SWAPPED = 0.25  # probability that a change draws a choice anew
_TARGETS = (0.16, 0.32, 0.48, 0.64, 0.8, 1.0)  # of cost, from the least met to the most
_POINTS = 256  # that a process is fitted to at most
_LEAST_SPREAD = math.log(1.2)  # of costs; below it they are taken as equal


class Codec:
    """Values of parameters as coordinates and back: a number is one in [-1, 1], even on its scale, a choice as many as
    there are, all 0 but its own, 1."""

    def __init__(self, space: Mapping[str, BaseDistribution]):
        self.space = dict(space)
        self.columns: dict[str, slice] = {}
        start = 0
        for name, distribution in self.space.items():
            width = len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1
            self.columns[name] = slice(start, start + width)
            start += width
        self.size = start

    def encode(self, parameters: Mapping[str, Any]) -> np.ndarray:
        x = np.zeros(self.size)
        for name, distribution in self.space.items():
            value, columns = parameters[name], self.columns[name]
            if isinstance(distribution, CategoricalDistribution):
                x[columns.start + int(distribution.to_internal_repr(value))] = 1
            else:
                x[columns] = self.coordinate(name, value)
        return x

    def coordinate(self, name: str, value: Any) -> Any:
        """Of a number, or of an array of them."""
        distribution = self.space[name]
        low, high = distribution.low, distribution.high
        if distribution.log:
            low, high, value = math.log(low), math.log(high), np.log(np.maximum(value, 1e-300))
        return 2 * (value - low) / (high - low) - 1 if high > low else 0.0 * value

    def decode(self, x: np.ndarray) -> dict[str, Any]:
        found = {}
        for name, distribution in self.space.items():
            values = x[self.columns[name]]
            if isinstance(distribution, CategoricalDistribution):
                found[name] = distribution.choices[int(np.argmax(values))]
                continue
            value = float(self._values(name, values)[0])
            found[name] = int(value) if isinstance(distribution, IntDistribution) else value
        return found

    def _values(self, name: str, coordinates: np.ndarray) -> np.ndarray:
        distribution = self.space[name]
        low, high = distribution.low, distribution.high
        share = (coordinates + 1) / 2
        if distribution.log:
            values = np.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            values = low + share * (high - low)
        values = np.round(values) if isinstance(distribution, IntDistribution) else values
        return np.clip(values, low, high)

    def snapped(self, x: np.ndarray) -> np.ndarray:
        """Points [N, D] moved to where whole numbers are."""
        x = x.copy()
        for name, distribution in self.space.items():
            if isinstance(distribution, IntDistribution):
                column = self.columns[name].start
                x[:, column] = self.coordinate(name, self._values(name, x[:, column]))
        return x


class Observations(NamedTuple):
    """What the trials of a study have shown, in their order: points of curves, and their ends."""

    x: np.ndarray  # f64[N, D]
    score: np.ndarray  # f64[N], the larger the better
    cost: np.ndarray  # f64[N], > 0


class ProteinSampler(optuna.samplers.BaseSampler):
    """A sampler of a study with the objectives (score, cost), or score alone with `max_cost`.

    Args:
      space: the distributions of all parameters, by name.
      fidelity: the parameter that says how long a trial is, if there is one, on which points of a curve are placed:
        half-way through a trial of 2,000,000 steps is a trial of 1,000,000.
      max_cost: trials whose predicted cost is above it are not suggested.
      seed: with the trials before, and its number, it makes a trial's suggestion.
      num_startup: trials after the first that are spread over the space, at the cheap end of the fidelity. The first is
        the caller's (`study.enqueue_trial`), or the middle of the space: targets of cost are shares of the costs met,
        and grow slowly beyond them.
      curve_points: of each trial at most; 1: only its end.

    A finished trial has the objectives' values, and in its user attributes, where they are known, `cost`, `score`, and
    `curve`: a list of [share of the trial, cost, score]; `ran`: parameters that were changed before it ran. A pruned
    trial counts with its curve; a failed one, or a pruned one without, as the worst score met.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        *,
        fidelity: str | None = None,
        max_cost: float | None = None,
        seed: int = 0,
        num_startup: int = 10,
        curve_points: int = 5,
    ):
        if fidelity is not None and (fidelity not in space or isinstance(space[fidelity], CategoricalDistribution)):
            raise ValueError(f"fidelity must be a number of the space, got {fidelity!r}")
        self._codec = Codec(space)
        self._fidelity, self._max_cost, self._seed = fidelity, max_cost, seed
        self._num_startup, self._curve_points = num_startup, curve_points

    def infer_relative_search_space(self, study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._codec.space

    def sample_independent(self, study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution):
        return optuna.samplers.RandomSampler(seed=self._generator(trial).integers(2**31)).sample_independent(
            study, trial, param_name, param_distribution
        )

    def sample_relative(self, study, trial: FrozenTrial, search_space) -> dict[str, Any]:
        generator = self._generator(trial)
        observations = self.observe(study)
        if trial.number <= self._num_startup or len(np.unique(observations.score)) < 2:
            return self._codec.decode(self._spread(trial.number, generator))
        return self._codec.decode(self._suggest(observations, trial.number, generator))

    def _generator(self, trial: FrozenTrial) -> np.random.Generator:
        return np.random.default_rng([self._seed, trial.number])

    def _spread(self, number: int, generator: np.random.Generator) -> np.ndarray:
        """The middle, then points of a low-discrepancy sequence; beyond the start of a study, random ones."""
        if number == 0:
            return np.zeros(self._codec.size)
        if number <= self._num_startup:
            offset = np.random.default_rng([self._seed, 3]).random(self._codec.size)
            u = (offset + number * _steps(self._codec.size)) % 1
        else:
            u = generator.random(self._codec.size)
        x = 2 * u - 1
        if self._fidelity is not None:
            cheap = -0.8 + 0.1 * generator.standard_normal()
            x[self._codec.columns[self._fidelity]] = np.clip(cheap, -1, 1)
        return x

    def observe(self, study) -> Observations:
        """What the finished trials have shown."""
        sign = 1.0 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1.0
        x, score, cost, failed = [], [], [], []
        for trial in study.get_trials(deepcopy=False):
            parameters = {**trial.params, **trial.user_attrs.get("ran", {})}
            if not trial.state.is_finished() or not all(name in parameters for name in self._codec.space):
                continue
            point, points = self._codec.encode(parameters), self._points(trial)
            if not points and (trial.state == TrialState.PRUNED or "failure" in trial.user_attrs):
                failed.append((len(x), self._placed(point, parameters, 1.0)))
            for share, its_cost, its_score in points:
                x.append(self._placed(point, parameters, share))
                score.append(sign * its_score)
                cost.append(its_cost)
        if not x:
            return Observations(np.zeros((0, self._width)), np.zeros(0), np.zeros(0))
        if len(x) < 100:  # else the worst of so many says enough
            worst, usual = min(score), float(np.median(cost))
            x += [point for _, point in failed]
            score += [worst] * len(failed)
            cost += [usual] * len(failed)
        return Observations(np.array(x), np.array(score), np.maximum(np.array(cost), 1e-9))

    @property
    def _width(self) -> int:
        return self._codec.size + (self._fidelity is None)

    def _points(self, trial: FrozenTrial) -> list[Sequence[float]]:
        """Evenly spaced points of a trial's curve, [share, cost, score], the end among them if it has one."""
        curve = [point for point in trial.user_attrs.get("curve", []) if None not in point and point[0] > 0]
        end = None
        if trial.state == TrialState.COMPLETE:
            cost = trial.values[1] if len(trial.values) > 1 else trial.user_attrs.get("cost", 1.0)
            end = [1.0, cost, trial.values[0]]
        shares = np.arange(1, self._curve_points + (end is None)) / self._curve_points
        if not curve or not len(shares):
            return [end] if end else []
        places = sorted({int(np.argmin([abs(point[0] - share) for point in curve])) for share in shares})
        points = [curve[i] for i in places if end is None or curve[i][0] < 0.95]
        return points + ([end] if end else [])

    def _placed(self, point: np.ndarray, parameters: Mapping[str, Any], share: float) -> np.ndarray:
        """The point of a trial after a share of it."""
        if self._fidelity is None:
            return np.append(point, 2 * share - 1)
        point = point.copy()
        value = parameters[self._fidelity] * share
        point[self._codec.columns[self._fidelity]] = max(self._codec.coordinate(self._fidelity, value), -3.0)
        return point

    def _suggest(self, observations: Observations, number: int, generator: np.random.Generator) -> np.ndarray:
        x, score, cost = _thinned(observations, generator)
        score = (score - score.min()) / max(score.max() - score.min(), 1e-12)
        log_cost = np.log(cost)
        least, most = log_cost.min(), np.quantile(log_cost, 0.97)
        spread = max(most - least, _LEAST_SPREAD)
        cost_share = (log_cost - least) / spread
        fitted = fit(x, np.stack([score, cost_share]))
        candidates = self._candidates(x, score, cost, generator)
        predicted_score, predicted_cost = predict(fitted, candidates)
        target = _target(self._seed, number)
        if most - least < _LEAST_SPREAD:
            target = predicted_cost
        rating = predicted_score * (1 - np.abs(target - predicted_cost))
        # A score below 0 is a prediction outside of all that was met; nearness to the target shall not make it better.
        rating = np.where(predicted_score < 0, predicted_score, rating)
        if self._max_cost is not None:
            within = predicted_cost * spread + least <= math.log(self._max_cost)
            rating = np.where(within, rating, -1e6 - predicted_cost)
        return candidates[int(np.argmax(rating))][: self._codec.size]

    def _candidates(self, x, score, cost, generator) -> np.ndarray:
        """Changes of the points on the front and of the best ones made cheaper, f64[_CENTRES * _CHANGES, D]."""
        front = pareto(score, cost)
        best = np.argsort(-score, kind="stable")[:5]
        centres = [x[i] for i in front]
        if self._fidelity is not None:
            column = self._codec.columns[self._fidelity].start
            for part in (1 / 2, 1 / 3):
                for point in x[best].copy():
                    point[column] += part * (-1 - point[column])
                    centres.append(point)
        else:
            centres += list(x[best])
        centres = np.array(centres)
        if len(centres) > _CENTRES:
            centres = centres[generator.choice(len(centres), _CENTRES, replace=False)]
        centres = np.repeat(np.resize(centres, (_CENTRES, centres.shape[1])), _CHANGES, axis=0)
        changed = centres.copy()
        for name, distribution in self._codec.space.items():
            columns = self._codec.columns[name]
            if isinstance(distribution, CategoricalDistribution):
                drawn = np.eye(columns.stop - columns.start)[
                    generator.integers(columns.stop - columns.start, size=len(changed))
                ]
                is_swapped = generator.random(len(changed)) < _SWAPPED
                changed[:, columns] = np.where(is_swapped[:, None], drawn, changed[:, columns])
            else:
                reach = self._reach(name)
                moved = np.clip(changed[:, columns.start], -1, 1) + generator.uniform(-reach, reach, len(changed))
                changed[:, columns.start] = _reflected(moved)
        if self._fidelity is None:
            changed[:, -1] = 1.0  # whole trials are suggested
        snapped = self._codec.snapped(changed[:, : self._codec.size])
        return np.concatenate([snapped, changed[:, self._codec.size :]], axis=1)

    def _reach(self, name: str) -> float:
        distribution = self._codec.space[name]
        if name == self._fidelity and distribution.log:  # a factor of 2 either way, of a range of many
            return min(_REACH, 2 / max(math.log2(distribution.high / distribution.low), 1))
        return _REACH


def pareto(score: np.ndarray, cost: np.ndarray) -> list[int]:
    """Indices of the points with a better score than all cheaper ones, by cost.

    Without the expensive tail where next to nothing is gained: where cost still rises by more than twice what score
    does, both as shares of their range, from a point that has 98 % of the best score.
    """
    front: list[int] = []
    for i in np.lexsort((-score, cost)):
        if not front or score[i] > score[front[-1]] + 1e-6:
            front.append(int(i))
    lowest, score_range = score.min(), max(score.max() - score.min(), 1e-12)
    cost_range = max(cost[front].max() - cost[front].min(), 1e-12)
    while len(front) > 1:
        last, before = front[-1], front[-2]
        gain = (score[last] - score[before]) / score_range
        efficiency = gain / max((cost[last] - cost[before]) / cost_range, 1e-12)
        if efficiency >= 0.5 or (score[before] - lowest) / score_range < 0.98:
            break
        front.pop()
    return front


def _steps(size: int) -> np.ndarray:
    """By which a sequence of points in the unit cube moves on, f64[size], so that any beginning of it is spread evenly:
    powers of the inverse of the number that is, to the power of size + 1, one more than itself (for one dimension the
    golden ratio)."""
    number = 2.0
    for _ in range(60):
        number = (1 + number) ** (1 / (size + 1))
    return number ** -np.arange(1.0, size + 1)


def _reflected(x: np.ndarray) -> np.ndarray:
    """Into [-1, 1]: what would leave it comes back."""
    x = (x + 1) % 4
    return np.where(x > 2, 4 - x, x) - 1


def _target(seed: int, number: int) -> float:
    """Of cost, as a share of the range met: each in turn in a random order, so that none is left out."""
    block, place = divmod(number, len(_TARGETS))
    order = np.random.default_rng([seed, 1, block]).permutation(len(_TARGETS))
    noise = 0.1 * np.random.default_rng([seed, 2, number]).standard_normal()
    return 1.1 * float(np.clip(_TARGETS[order[place]] + noise, 0, 1))


def _thinned(observations: Observations, generator: np.random.Generator) -> Observations:
    """At most `_POINTS` of them, none twice: the front, the most recent half, and a random part of the older ones."""
    _, first = np.unique(np.round(observations.x, 6), axis=0, return_index=True)
    first = np.sort(first)
    if len(first) > _POINTS:
        recent, older = first[-_POINTS // 2 :], first[: -_POINTS // 2]
        first = np.sort(np.concatenate([generator.choice(older, _POINTS // 2, replace=False), recent]))
    return Observations(observations.x[first], observations.score[first], observations.cost[first])
