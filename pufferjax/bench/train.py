"""Training speed: the epochs that `pufferjax train` runs, one at a time, and what the curriculum costs."""

import dataclasses
import resource
import sys
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.bench import timing
from pufferjax.core.config import TrainConfig
from pufferjax.core.epochs import make_epochs
from pufferjax.envs import Env

_COMPILATION = "/jax/core/compile/backend_compile_duration"


class _Compilations:
    """Counts the compilations of this process while entered."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *exception):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, duration, **details):
        self.count += event == _COMPILATION


class Run:
    """A training run that is advanced one epoch at a time."""

    def __init__(self, env: Env, config: TrainConfig, devices):
        # Before the first reward training would wait, and there would be nothing to measure.
        config = dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, wait_for_reward=False))
        self._epochs, self._progress = make_epochs(env, config, devices), jnp.float32(0.5)
        hypers = config.hypers()
        train_state = jax.block_until_ready(self._epochs.warmup(self._epochs.init(jax.random.key(0)), hypers))
        self._epochs.begin(train_state, hypers)
        self.config = config

    def epoch(self) -> float:
        """Trains for one epoch; its seconds."""
        return timing.seconds(lambda: self._epochs.advance(self._progress)())


def peak_memory_bytes() -> int:
    """Of this process since it began, compilation included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bench_train(
    env: Env, config: TrainConfig, replay_ratios: list[float], epochs: int, warmup: int, devices
) -> dict[str, Any]:
    """Steps per second for each replay ratio, memory, and compilations after the first epoch."""
    results = []
    for replay_ratio in replay_ratios:
        own = dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, replay_ratio=replay_ratio))
        sizes = own.sizes(env.spec.num_agents)
        run = Run(env, own, devices)
        run.epoch()
        with _Compilations() as compilations:
            times = [run.epoch() for _ in range(warmup + epochs)][warmup:]
        results.append(
            {
                "replay_ratio": replay_ratio,
                "minibatches": sizes.num_minibatches,
                "steps_per_second": timing.per_second(sizes.batch_size, times),
                "epoch_seconds": timing.summarize(times),
                "compilations_after_first_epoch": compilations.count,
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )
    return {**run_header("train", env, config, devices), "results": results}


def bench_state_set(env: Env, config: TrainConfig, pairs: int, warmup: int, devices) -> dict[str, Any]:
    """Epoch seconds with the curriculum (A, as configured) and without (B, fraction 0), interleaved, in one process.

    Both train on the same number of samples; what differs is sampling, restoring, snapshots, re-scoring and the heap.
    """
    if config.state_set.fraction == 0:
        raise ValueError("--pair state-set compares with fraction 0: state_set.fraction must be > 0, got 0")
    without = dataclasses.replace(config, state_set=dataclasses.replace(config.state_set, fraction=0.0))
    runs = Run(env, config, devices), Run(env, without, devices)
    for run in runs:
        run.epoch()
    with _Compilations() as compilations:
        a, b, ratios = timing.paired(runs[0].epoch, runs[1].epoch, pairs, warmup)
    return {
        **run_header("train", env, config, devices),
        "pair": "state-set",
        "fraction": config.state_set.fraction,
        "epoch_seconds_with": timing.summarize(a),
        "epoch_seconds_without": timing.summarize(b),
        "with_over_without": timing.summarize(ratios),
        "compilations_after_first_epoch": compilations.count,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def run_header(name: str, env: Env, config: TrainConfig, devices) -> dict[str, Any]:
    return {
        **timing.header(name),
        "devices": len(devices),
        "env": env.spec.name,
        "params": dict(env.params),
        "num_envs": config.num_envs,
        "horizon": config.horizon,
        "hidden_size": config.policy.hidden_size,
        "num_layers": config.policy.num_layers,
        "minibatch_size": config.ppo.minibatch_size,
    }


def describe(result: dict[str, Any]) -> str:
    lines = [
        result["machine"],
        f"{result['env']} {result['params']}, {result['num_envs']} envs x {result['horizon']} steps, "
        f"{result['num_layers']} x {result['hidden_size']}, {result['devices']} devices",
    ]
    if "pair" in result:
        ratio = timing.with_interval(result["with_over_without"], ".4f")
        lines += [
            f"epoch with the state set     {timing.with_interval(result['epoch_seconds_with'], '.4f')} s",
            f"epoch without                {timing.with_interval(result['epoch_seconds_without'], '.4f')} s",
            f"with / without               {ratio}  (95 % interval)",
            f"compilations after epoch 1   {result['compilations_after_first_epoch']}",
        ]
        return "\n".join(lines)
    lines.append(
        f"{'replay':>6} {'updates':>7}  {'steps per second [95 % interval]':<36} {'compiled':>8} {'peak MB':>8}"
    )
    for row in result["results"]:
        lines.append(
            f"{row['replay_ratio']:>6} {row['minibatches']:>7}  {timing.with_interval(row['steps_per_second']):<36} "
            f"{row['compilations_after_first_epoch']:>8} {row['peak_memory_bytes'] / 1e6:>8.0f}"
        )
    return "\n".join(lines)
