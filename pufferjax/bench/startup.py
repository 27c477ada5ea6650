"""How long a start takes: from the command to the end of the first epoch, in processes of their own.

Cold is a start with an empty compilation cache, warm the same start again. Each child runs the real command and is
looked at where the run calls its epochs (`watch`), so what is measured is what a user waits for.
"""

import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from pufferjax.bench import timing
from pufferjax.core.waiting import wait
from pufferjax.runs import run

# In order; together they are `total`.
PHASES = {
    "import": "Python, JAX and pufferjax imported",
    "environment": "flags read, environment and devices made",
    "first programs": "all programs traced, those of the start compiled or loaded; the initial state made",
    "warm-up": "the random warm-up, while the epoch is compiled or loaded",
    "epoch program": "what was left of that when the warm-up had ended",
    "first epoch": "",
}
# Seconds of JAX's own, summed over threads: they overlap with each other and with the warm-up.
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling or loading",
}


class _Watched:
    """Epochs that note when each of the things a start consists of has ended, and leave after the first epoch."""

    def __init__(self, epochs: Any, marks: dict[str, float], leave: Callable[[dict[str, Any]], None]):
        self._epochs, self._marks, self._leave = epochs, marks, leave
        self._seconds = dict.fromkeys(_EVENTS.values(), 0.0)
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        marks["environment"] = time.time()

    def _listen(self, event: str, duration: float, **details: Any) -> None:
        if event in _EVENTS:
            self._seconds[_EVENTS[event]] += duration

    def init(self, key):
        self._key = key
        train_state = self._epochs.init(key)
        wait(train_state.epoch)
        return train_state

    def warmup(self, train_state, hypers, *report):
        self._marks["first programs"] = time.time()
        train_state = self._epochs.warmup(train_state, hypers, *report)
        wait(train_state.warmup_rewards)
        self._marks["warm-up"] = time.time()
        return train_state

    def begin(self, train_state, hypers):
        self._hypers = hypers
        self._epochs.begin(train_state, hypers)
        self._marks["epoch program"] = time.time()

    @property
    def train_state(self):  # saved before the first epoch, if a slow start has made a checkpoint due
        return self._epochs.train_state

    def advance(self, progress):
        figures = self._epochs.advance(progress)
        figures()
        self._marks["first epoch"] = time.time()
        seconds = dict(self._seconds)  # before the warm-up is run once more
        train_state = self._epochs.init(self._key)
        wait(train_state.epoch)
        start = time.time()
        wait(self._epochs.warmup(train_state, self._hypers).warmup_rewards)
        alone = time.time() - start
        self._leave({"marks": self._marks, "jax": seconds, "warm-up alone": alone})


def watch(started: float, leave: Callable[[dict[str, Any]], None]) -> None:
    """In a child: the next `run.train` of this process calls `leave` after its first epoch, with what it took.

    started: `time.time()` when the child was asked for; all has been imported when this is called.
    """
    marks = {"start": started, "import": time.time()}
    make_epochs = run.make_epochs
    run.make_epochs = lambda *args, **kwargs: _Watched(make_epochs(*args, **kwargs), marks, leave)


def _start(command: Sequence[str], cache: str) -> dict[str, float]:
    """Seconds by phase of one start."""
    environment = {name: x for name, x in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [*command, repr(time.time()), "--compile-cache", cache], env=environment, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        raise ValueError(f"a start ended with status {done.returncode}: {done.stderr.strip()[-2000:]}")
    facts = json.loads(lines[-1])
    marks = facts["marks"]
    names = ["start", *PHASES]
    seconds = {name: marks[name] - marks[before] for before, name in itertools.pairwise(names)}
    total = marks["first epoch"] - marks["start"]
    alone = facts["warm-up alone"]
    return {**seconds, **facts["jax"], "warm-up alone": alone, "total": total, "beyond the warm-up": total - alone}


def bench_startup(command: Sequence[str], env: str, flags: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of `repeats` cold and warm starts, by turns.

    command: begins a child, which takes the time and flags after it.
    """
    starts = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for seconds in starts.values():
                seconds.append(_start(command, cache))
    results = {
        kind: {name: timing.summarize([one[name] for one in seconds]) for name in seconds[0]}
        for kind, seconds in starts.items()
    }
    return {**timing.header("startup"), "cpus": os.cpu_count(), "env": env, "flags": list(flags), "results": results}


def describe(result: dict[str, Any]) -> str:
    cold, warm = (result["results"][kind] for kind in ("cold", "warm"))
    lines = [
        result["machine"],
        f"pufferjax train {' '.join([result['env'], *result['flags']])}: seconds, median of {cold['total']['samples']}",
        f"{'':<22} {'cold':>8} {'warm':>8}",
    ]
    for name in cold:
        about = f"   {PHASES[name]}" if PHASES.get(name) else ""
        lines.append(f"{name:<22} {cold[name]['median']:>8.2f} {warm[name]['median']:>8.2f}{about}".rstrip())
    return "\n".join(lines)
