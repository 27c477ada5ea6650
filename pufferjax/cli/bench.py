"""`pufferjax bench envs|train|ops|startup|gpu`: flags in, a table on stdout, JSON where --json says."""

import dataclasses
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from pufferjax.cli.compile_cache import use_compile_cache
from pufferjax.cli.refusals import refusals
from pufferjax.runs.json_text import json_text
from pufferjax.runs.paths import output_path

USAGE = """\
  pufferjax bench envs|train|ops|startup [--json out.json]
      how fast simulators, training, ops and a start are on this machine (pufferjax bench train --help)
  pufferjax bench gpu [--minutes 8] [--json report.jsonl]
      everything that needs a GPU, run and measured, each item in a process of its own
"""


@dataclasses.dataclass(frozen=True)
class _Output:
    json: Path | None = None
    """Also write the result, with every interval, to this file; "-": JSON on stdout instead of the table."""


@dataclasses.dataclass(frozen=True)
class _OfEnv(_Output):
    env: str = "maze"
    """An environment of `pufferjax envs`."""
    size: int | None = None
    """Of the environment; None: its default."""


@dataclasses.dataclass(frozen=True)
class _Envs(_OfEnv):
    """Random steps with observations, and random-walk steps without, per second on all cores."""

    num_envs: tuple[int, ...] = (2048, 8192)
    """Simulators; each number is measured."""
    num_steps: int = 256
    """Of every environment, in each timed call."""
    walk_steps: int = 8192
    """As num_steps, for the random walk."""
    repeats: int = 15
    """Timed calls, >= 1: figures are medians with 95 % intervals."""
    peer: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also the same game in Jumanji, gymnax or NAVIX, by turns, at the first of num_envs, and the ratio."""


@dataclasses.dataclass(frozen=True)
class _Train(_OfEnv):
    """Steps per second of the training epoch, its memory and compilations."""

    num_envs: int = 2048
    """Simulators."""
    horizon: int = 128
    """Steps per epoch and agent."""
    hidden_size: int = 64
    """Units of the encoder and of every recurrent layer."""
    num_layers: int = 2
    """Recurrent layers."""
    minibatch_size: int = 8192
    """Samples of an update; a multiple of the horizon."""
    replay_ratios: tuple[float, ...] = (1.0, 0.4)
    """Each is measured; with --pair or --profile only the first."""
    epochs: int = 15
    """Timed; with --pair, of each side."""
    warmup: int = 2
    """Epochs (with --pair, pairs) before them that do not count."""
    pair: Literal["none", "state-set"] = "none"
    """"state-set": epochs with and without the curriculum by turns, and the ratio of their times."""
    profile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Where the time of an epoch goes."""
    devices: int | None = None
    """None: all there are (on a CPU: one per core)."""


@dataclasses.dataclass(frozen=True)
class _Ops(_Output):
    """Native ops against their pure-JAX twins. Results are compared before anything is timed."""

    ops: tuple[str, ...] = ()
    """Of the table in pufferjax/bench/ops.py; none: all."""
    pairs: int = 9
    """Timed rounds of each of the two."""
    rotate_megabytes: float = 256.0
    """Size of the operands used by turns, so that the cache does not hold them from call to call."""
    tiny: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sizes that only show that everything runs."""


@dataclasses.dataclass(frozen=True)
class _Startup(_Output):
    """Seconds from the command to the end of the first epoch, with an empty compilation cache and with a full one."""

    env: str = "maze"
    """An environment of `pufferjax envs`."""
    flags: tuple[str, ...] = ()
    """Of `pufferjax train`, without their dashes and with "=": num-envs=64 env.size=9."""
    repeats: int = 3
    """Starts with each of the two, >= 1."""


def _check(args, **least) -> None:
    if args.json not in (None, Path("-")):
        output_path("--json", args.json)  # before the minutes that the rest takes
    for name, low in least.items():
        values = getattr(args, name)
        for value in values if isinstance(values, tuple) else (values,):
            if not value >= low:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {value}")


def _env(args):
    from pufferjax import envs

    if args.size is not None and "size" not in envs.parameters(args.env):
        raise ValueError(f"--size: {args.env} has no such parameter")
    return envs.make(args.env, **({} if args.size is None else {"size": args.size}))


def _save(args, result) -> None:
    """Writes the file of --json; also what is known of a result while it is measured."""
    if args.json not in (None, Path("-")):
        from pufferjax.runs.files import write_atomically

        write_atomically(output_path("--json", args.json), json_text(result, indent=2) + "\n")


def _finish(args, result, text: str) -> None:
    print(json_text(result, indent=2) if args.json == Path("-") else text)
    _save(args, result)


def _parse(kind, name: str, argv: Sequence[str]):
    return tyro.cli(kind, args=list(argv), prog=f"pufferjax bench {name}")


def _bench_envs(argv: Sequence[str]) -> None:
    args = _parse(_Envs, "envs", argv)
    _check(args, num_envs=1, num_steps=1, walk_steps=1, repeats=1)
    from pufferjax.bench import envs
    from pufferjax.bench.peers import make_peer
    from pufferjax.core.parallel import start_devices

    use_compile_cache()
    devices, env = start_devices(), _env(args)
    peer = make_peer(args.env, env.params) if args.peer else None  # refuses before anything is measured
    sizes = list(args.num_envs), args.num_steps, args.walk_steps, args.repeats
    result = envs.bench_envs(env, *sizes, devices, functools.partial(_save, args))
    if peer is not None:
        result["peer"] = envs.bench_peer(env, peer, args.num_envs[0], args.num_steps, args.repeats, devices)
    _finish(args, result, envs.describe(result))


def _bench_train(argv: Sequence[str]) -> None:
    args = _parse(_Train, "train", argv)
    _check(args, replay_ratios=0, epochs=1, warmup=0)
    if not args.replay_ratios:
        raise ValueError("--replay-ratios must be at least one number, got none")
    from pufferjax.bench import profile, train
    from pufferjax.core.config import PolicyConfig, PPOConfig, TrainConfig
    from pufferjax.core.parallel import choose_devices

    use_compile_cache()
    env = _env(args)
    config = TrainConfig(
        total_steps=max(args.num_envs * env.spec.num_agents * args.horizon, 1),
        num_envs=args.num_envs,
        horizon=args.horizon,
        policy=PolicyConfig(hidden_size=args.hidden_size, num_layers=args.num_layers),
        ppo=PPOConfig(minibatch_size=args.minibatch_size, replay_ratio=args.replay_ratios[0]),
    )
    devices = choose_devices(config, args.devices)
    if args.profile:
        result = profile.bench_profile(env, config, args.epochs, devices)
        _finish(args, result, profile.describe(result))
        return
    if args.pair == "state-set":
        result = train.bench_state_set(env, config, args.epochs, args.warmup, devices)
    else:
        result = train.bench_train(env, config, list(args.replay_ratios), args.epochs, args.warmup, devices)
    _finish(args, result, train.describe(result))


def _bench_ops(argv: Sequence[str]) -> None:
    args = _parse(_Ops, "ops", argv)
    _check(args, pairs=1, rotate_megabytes=0)
    from pufferjax.bench import ops

    use_compile_cache()
    result = ops.bench_ops(list(args.ops), args.pairs, args.rotate_megabytes, args.tiny, functools.partial(_save, args))
    _finish(args, result, ops.describe(result))


def _bench_startup(argv: Sequence[str]) -> None:
    args = _parse(_Startup, "startup", argv)
    _check(args, repeats=1)
    from pufferjax.bench import startup
    from pufferjax.cli.train import parse_train

    flags = ["--" + flag for flag in args.flags]
    parse_train(args.env, flags)  # refuses before a child does
    with tempfile.TemporaryDirectory() as folder:
        child = "import sys; from pufferjax.cli.bench import start_watched; sys.exit(start_watched(*sys.argv[1:]))"
        command = [sys.executable, "-c", child, args.env, f"{folder}/run", *flags]
        result = startup.bench_startup(command, args.env, flags, args.repeats)
    _finish(args, result, startup.describe(result))


def start_watched(env: str, run_dir: str, *rest: str) -> int:
    """A child of `bench startup`: `pufferjax train`, until the first epoch has ended.

    rest: flags, then the time at which the child was asked for, then flags of the compilation cache.
    """
    *flags, started, flag, folder = rest
    from pufferjax.bench import startup
    from pufferjax.cli import main

    def leave(facts):
        print(json.dumps(facts), flush=True)
        shutil.rmtree(run_dir, ignore_errors=True)
        os._exit(0)  # the run, and what it would still write, is of no interest

    startup.watch(float(started), leave)
    return main(["train", env, "--run-dir", run_dir, *flags, flag, folder])


def _bench_gpu(argv: Sequence[str]) -> int:
    from pufferjax.bench.gpu.__main__ import main

    return main(argv, prog="pufferjax bench gpu")


_BENCHMARKS = {
    "envs": _bench_envs,
    "train": _bench_train,
    "ops": _bench_ops,
    "startup": _bench_startup,
    "gpu": _bench_gpu,
}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in _BENCHMARKS:
        names = "|".join(_BENCHMARKS)
        print(f"usage: pufferjax bench {names} [flags]; --help after one lists its flags", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    with refusals():
        return _BENCHMARKS[argv[0]](argv[1:]) or 0
