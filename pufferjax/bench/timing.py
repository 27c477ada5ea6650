"""Timing that a busy machine cannot fool easily: alternating order, warm-up left out, medians with intervals."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from pufferjax.runs.machine import machine
from pufferjax.xla_ops import ffi

RESAMPLES = 2000


def summarize(samples: Sequence[float]) -> dict[str, float]:
    """Median, the 95 % bootstrap interval of the median, and the extremes. The same samples give the same interval."""
    samples = np.asarray(samples, np.float64)
    if samples.size == 0:
        raise ValueError("summarize: samples must not be empty")
    drawn = np.random.default_rng(0).choice(samples, (RESAMPLES, samples.size))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "median": float(np.median(samples)),
        "low": float(low),
        "high": float(high),
        "min": float(samples.min()),
        "max": float(samples.max()),
        "samples": int(samples.size),
    }


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of run() until every array it returns is there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def repeated(run: Callable[[], Any], repeats: int, warmup: int = 1) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that do not count."""
    for _ in range(warmup):
        seconds(run)
    return [seconds(run) for _ in range(repeats)]


def in_a_row(run: Callable[[], Any], calls: int, repeats: int, warmup: int = 1) -> list[float]:
    """Seconds per call of each of `repeats` rounds of `calls` calls, dispatched without waiting in between: what Python
    takes for a call hides behind the device's work on the one before."""

    def several():
        for _ in range(calls - 1):
            run()
        return run()

    return [time / calls for time in repeated(several, repeats, warmup)]


def paired(
    a: Callable[[], float], b: Callable[[], float], pairs: int, warmup: int = 1
) -> tuple[list[float], list[float], list[float]]:
    """(seconds of a, seconds of b, ratios a / b of each pair), after `warmup` pairs that do not count.

    a and b run once and return their own seconds. The order alternates, A B, B A, ...: what slows the machine down for
    longer than a pair, or drifts, cancels in the ratios.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(warmup + pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        measured = {which: (a, b)[which]() for which in order}
        if pair >= warmup:
            for which in order:
                times[which].append(measured[which])
    return *times, [x / y for x, y in zip(*times, strict=True)]


def per_second(count: int, times: Sequence[float]) -> dict[str, float]:
    """`summarize` of count / time."""
    return summarize([count / t for t in times])


def header(name: str) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "bench": name,
        "machine": machine(),
        "jax": jax.__version__,
        "instruction_set": ffi.instruction_set(),
        "devices": len(jax.local_devices()),
        "date": time.strftime("%Y-%m-%d"),
    }


def milliseconds(times: Sequence[float]) -> float:
    return 1000 * statistics.median(times)


def with_interval(summary: dict[str, float], form: str = ",.0f") -> str:
    """`median [low, high]` as text."""
    return "{} [{}, {}]".format(*(format(summary[key], form) for key in ("median", "low", "high")))
