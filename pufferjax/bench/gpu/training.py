"""Phase: training. How many steps a second, how long to compile, and how many seconds to a solve rate."""

import collections
import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax import presets
from pufferjax.bench.gpu.items import Context, Item
from pufferjax.core.config import TrainConfig
from pufferjax.core.epochs import make_epochs
from pufferjax.core.evaluate import evaluate, unseen
from pufferjax.core.policy import make_policy
from pufferjax.core.waiting import wait
from pufferjax.envs import Env
from pufferjax.runs.budget import Budget
from pufferjax.runs.run_config import RunConfig

_TINY: dict[str, Any] = {
    "total_steps": 1024,
    "num_envs": 16,
    "horizon": 16,
    "policy": {"hidden_size": 8, "num_layers": 1, "encoder_layers": 0},
    "ppo": {"minibatch_size": 64},
}
_TINY_SET = {"capacity": 32, "interval": 8, "warmup_envs": 4, "warmup_rewards": 4}
# Environments, samples of an update, and what else a throughput needs: a GPU is not filled by what two cores are.
_LARGE = {"num_envs": 16_384, "horizon": 128, "ppo": {"minibatch_size": 131_072, "replay_ratio": 0.4}}
_WINDOW = 1000  # episodes over which a solve rate is taken
_EVALUATION_SECONDS = 15.0


def items(dry_run: bool) -> list[Item]:
    rates = {
        "maze 35, overlap": ("maze", 35, {}, True),
        "maze 35, no overlap": ("maze", 35, {}, False),
        "maze 35, 64 x 2, replay .4, 16384 envs": ("maze", 35, _LARGE, True),
        "breakout": ("breakout", None, {}, None),
    }
    goals = {
        "maze 15 to .9": ("maze", 15, (0.5, 0.9), 60.0),
        "maze 35 to .87": ("maze", 35, (0.25, 0.5, 0.87), 150.0),
    }
    if dry_run:  # without a state set: a tenth of the programs to compile
        rates = {"breakout": rates["breakout"]}
        goals = {"breakout to 0": ("breakout", None, (0.0,), 20.0)}
    found = [Item("training", name, functools.partial(_rate, *case), 90.0) for name, case in rates.items()]
    found += [Item("training", name, functools.partial(_goal, *case), case[3] + 30) for name, case in goals.items()]
    # The headline first: the rate, then the goals; what else there is to tell, last.
    order = ["maze 35, overlap", *goals, *rates]
    return sorted(found, key=lambda item: order.index(item.name))


def preset(name: str, size: int | None, changes: dict[str, Any], dry_run: bool) -> tuple[Env, TrainConfig]:
    """The environment and settings of a preset, with changes; tiny ones in a dry run."""
    table = presets.resolve(presets.load(name), size)
    table = presets.merge(table, {"run": {"env": name}, **({} if size is None else {"env": {"size": size}}), **changes})
    if dry_run:
        table = presets.merge(table, _TINY)
        if table.get("state_set", {}).get("fraction") != 0:
            table = presets.merge(table, {"state_set": _TINY_SET})
        if size is not None:
            table = presets.merge(table, {"env": {"size": 5, "num_mazes": 64}})
    config = RunConfig.from_table(table)
    return config.make_env(), config.train


class _Training:
    """A run, one epoch dispatched ahead of the one whose figures are read, as in `pufferjax train`."""

    def __init__(self, context: Context, env: Env, config: TrainConfig, overlap: bool | None, seconds: float | None):
        self.env, self.config = env, config
        self.sizes = config.sizes(env.spec.num_agents)
        self.start = time.perf_counter()
        self.budget = Budget(self.sizes.num_epochs, seconds, self.start)
        self._epochs = make_epochs(env, config, [context.device], overlap=overlap)
        hypers = config.hypers()
        train_state = self._epochs.init(jax.random.key(1))
        self.init_seconds = self.elapsed()
        limit = self.elapsed() + config.state_set.warmup_max_seconds
        train_state = self._epochs.warmup(train_state, hypers, lambda *_: self.elapsed() < limit)
        self.warmup_seconds = self.elapsed() - self.init_seconds
        self._epochs.begin(train_state, hypers)
        wait(train_state.warmup_rewards)
        self.warmup_steps = float(train_state.warmup_steps)
        self.ready_seconds = self.elapsed()
        self.epoch, self._running = 0, None

    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    def advance(self) -> dict[str, Any] | None:
        """Dispatches an epoch; the figures of the one before, None at first."""
        figures = self._epochs.advance(jnp.float32(self.budget.progress(self.epoch)))
        self.epoch += 1
        running, self._running = self._running, figures
        if running is None:
            return None
        found = running()
        self.budget.epoch_ended()
        return found

    def last(self) -> dict[str, Any]:
        return self._running()

    @property
    def params(self):
        return self._epochs.train_state.params


def _rate(name: str, size: int | None, changes: dict[str, Any], overlap: bool | None, context: Context):
    env, config = preset(name, size, changes, context.dry_run)
    if config.state_set.fraction > 0:
        # Before the first reward training would wait, and there would be nothing to measure.
        config = dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, wait_for_reward=False))
    run = _Training(context, env, config, overlap, None)
    for _ in range(4):
        metrics = run.advance()
    times = []
    last = time.perf_counter()
    # A few seconds of it: the clock of the host, over epochs that follow each other without a pause.
    stop = last + (0.1 if context.dry_run else min(4.0, max(1.0, context.seconds_left() - 5)))
    while len(times) < 8 or (last < stop and len(times) < 200):
        metrics = run.advance()
        now = time.perf_counter()
        times.append(now - last)
        last = now
    seconds = sum(times) / len(times)
    run.last()
    return {
        "steps_per_second": run.sizes.batch_size / seconds,
        "epoch_ms": 1000 * seconds,
        "epochs": len(times),
        "batch": run.sizes.batch_size,
        "minibatches": run.sizes.num_minibatches,
        "loss": float(metrics["loss"]),
        **_starting(run),
    }


def _starting(run: _Training) -> dict[str, Any]:
    return {
        "init_seconds": run.init_seconds,
        "warmup_seconds": run.warmup_seconds,
        "ready_seconds": run.ready_seconds,
        "warmup_steps": run.warmup_steps,
    }


def _goal(name: str, size: int | None, goals: tuple[float, ...], limit: float, context: Context) -> dict[str, Any]:
    """Trains until the solve rate of fresh episodes has reached the last goal, and a row at each of them."""
    env, config = preset(name, size, {}, context.dry_run)
    seconds = min(limit, context.seconds_left() - (1 if context.dry_run else _EVALUATION_SECONDS))
    run = _Training(context, env, config, None, max(1.0, seconds))
    left, best = list(goals), -1.0
    window: collections.deque[tuple[float, float]] = collections.deque()
    while run.budget.spent(run.epoch) is None and left:
        metrics = run.advance()
        if metrics is None:
            continue
        window.append((float(metrics["perf"]), float(metrics["episodes"])))
        while sum(count for _, count in window) - window[0][1] >= _WINDOW:
            window.popleft()
        episodes = sum(count for _, count in window)
        if episodes >= (0 if context.dry_run else _WINDOW):
            best = max(best, sum(solved for solved, _ in window) / max(1.0, episodes))
        while left and best >= left[0]:
            context.emit(f"perf {left.pop(0):g}", seconds=run.elapsed(), steps=run.epoch * run.sizes.batch_size)
    run.last()
    trained, steps = run.elapsed(), run.epoch * run.sizes.batch_size
    figures = {"reached": not left, "best": best, "train_seconds": trained, "steps": steps, **_starting(run)}
    figures["steps_per_second"] = steps / max(1e-9, trained - run.ready_seconds)
    if context.seconds_left() > 5 or context.dry_run:
        episodes = 8 if context.dry_run else 2000
        found = evaluate(
            unseen(env), make_policy(env.spec, config.policy), jax.device_get(run.params), jax.random.key(0), episodes
        )
        figures["unseen_perf"] = found["perf"]
    return figures
