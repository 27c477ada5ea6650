"""`pufferjax train ENV`: a run with the preset of an environment, changed by flags."""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pufferjax.cli.compile_cache import Flag, use_compile_cache
from pufferjax.cli.refusals import fail, refusals, warn

_STATUS = {"SIGINT": 130, "SIGTERM": 143, "non_finite": 1}

USAGE = """\
  pufferjax train ENV [--env.size 35] [--state-set.fraction 0.4] [--seed 1] [--max-seconds 600] [--run-dir runs/x]
      train with the preset of ENV; flags override it (pufferjax train ENV --help lists them all)
  pufferjax train ENV --run-dir runs/x --resume
      go on with a run, stopped or killed, from its latest good checkpoint
"""


def main(argv: list[str]) -> int:
    from pufferjax import envs

    if not argv or argv[0].startswith("-"):
        print(
            f"usage: pufferjax train ENV [flags]; ENV is one of {', '.join(envs.names())}, or SUITE:NAME (pufferjax "
            "envs lists the suites)",
            file=sys.stderr,
        )
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    name, flags = argv[0], argv[1:]
    with refusals():
        args = parse_train(name, flags)
        use_compile_cache(args.compile_cache)
        from pufferjax.core.parallel import choose_devices
        from pufferjax.core.train import make_update
        from pufferjax.runs import run
        from pufferjax.runs.checkpoint import CheckpointError
        from pufferjax.runs.run_dir import check_run_dir
        from pufferjax.runs.signals import StoppedEarly

        config = args.config
        env = config.make_env()
        fitted = config.train.fitted(env.spec.state_bytes)
        choose_devices(fitted, config.options.devices)
        make_update(env, fitted)  # checks that policy and environment fit
        run_dir = (
            args.run_dir
            or Path("runs") / f"{name.replace(':', '-')}-{time.strftime('%Y%m%d-%H%M%S')}-{config.options.seed}"
        )
        if not args.resume:
            check_run_dir(run_dir)
    try:
        result = run.train(env, config.train, run_dir=run_dir, resume=args.resume, **dataclasses.asdict(config.options))
    except (OSError, CheckpointError) as error:
        raise fail(error) from None
    except StoppedEarly as stop:
        warn(f"{stop}; --run-dir {run_dir} --resume starts it again")
        _leave(_STATUS[stop.name])
    return _STATUS.get(result.stopped_by, 0)


def _leave(status: int) -> NoReturn:
    """Ends the process at once: Python would wait for what is compiled, and for the random walk, in the background."""
    from pufferjax.cli import streams

    streams.flush()
    os._exit(status)


@dataclasses.dataclass(frozen=True)
class TrainArgs:
    config: Any  # RunConfig
    run_dir: Path | None
    resume: bool
    compile_cache: str | None = None  # of the process, not of the run: a run resumes with any


def parse_train(name: str, flags: Sequence[str]) -> TrainArgs:
    """Defaults < preset < flags; for a resumed run its config.toml < flags.

    Raises ValueError for a bad value, or one that a resumed run cannot change; SystemExit for a bad flag, its message
    printed.
    """
    import tyro

    from pufferjax import envs, presets
    from pufferjax.runs.run_config import RunConfig, read_config

    parameters, meanings = envs.parameters(name), envs.meanings(name)
    preset = presets.load(name)

    def resolved(size: int | None) -> RunConfig:
        table = presets.resolve(preset, size)
        if "env" in table.get("run", {}):
            raise ValueError("a preset has no key run.env")
        return RunConfig.from_table(presets.merge(table, {"run": {"env": name}}))

    def env_field(env_params):
        fields = [
            (key, Annotated[parameter.annotation, tyro.conf.arg(help=meanings.get(key))], env_params[key])
            for key, parameter in parameters.items()
        ]
        section = dataclasses.make_dataclass("Env", fields, frozen=True)
        section.__doc__ = f"Arguments of envs.make({name!r}, ...)."
        return section, section()

    def parse(fields, flags, **options):
        args = dataclasses.make_dataclass("Args", fields)
        args.__doc__ = f"Train on {name}. Defaults are those of its preset."
        return tyro.cli(args, args=list(flags), prog=f"pufferjax train {name}", **options)

    help_run_dir = "Default: runs/ENV-TIME-SEED."
    help_resume = "Go on with the run in --run-dir from its latest checkpoint, with the settings it was started with."
    shell_fields = [
        ("run_dir", Annotated[Path | None, tyro.conf.arg(help=help_run_dir)], None),
        ("resume", Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help=help_resume)], False),
        ("compile_cache", Flag, None),
    ]
    # What the other flags default to depends on the size of the environment, or on the run resumed: these come first.
    section, default = env_field(resolved(None).env_params)
    known, _ = parse([*shell_fields, ("env", section, default)], flags, return_unknown_args=True, add_help=False)
    if known.resume:
        if known.run_dir is None:
            raise ValueError("--resume needs --run-dir")
        base = read_config(known.run_dir)
        if base.env != name:
            raise ValueError(f"{known.run_dir} is a run of {base.env}, not of {name}")
    else:
        base = resolved(getattr(known.env, "size", None))
    section, default = env_field(base.env_params)
    train, options = _unchecked(base.train), _unchecked(base.options)
    flat = tyro.conf.arg(name="")
    args = parse(
        [
            *shell_fields,
            ("options", Annotated[type(options), flat], options),
            ("train", Annotated[type(train), flat], train),
            ("env", section, default),
        ],
        flags,
    )
    env, train, options = (dataclasses.asdict(x) for x in (args.env, args.train, args.options))
    config = RunConfig.from_table({**train, "env": env, "run": {"env": name, **options}})
    if args.resume:
        from pufferjax.runs.run_dir import check_resumable

        check_resumable(args.run_dir, config, shown=lambda setting: "--" + setting.replace("_", "-"))
    return TrainArgs(config, args.run_dir, args.resume, args.compile_cache)


def _unchecked(config):
    """A copy of a dataclass without its checks, nested ones alike: tyro would wrap their messages in a box."""

    class Unchecked(type(config)):
        __doc__ = type(config).__doc__

        def __post_init__(self):
            pass

    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return Unchecked(**{name: _unchecked(x) if dataclasses.is_dataclass(x) else x for name, x in values.items()})
