"""The `pufferjax` command."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

_USAGE = """\
usage: pufferjax COMMAND ...

  pufferjax train ENV [--env.size 35] [--state-set.fraction 0.4] [--seed 1] [--max-seconds 600] [--run-dir runs/x]
      train with the preset of ENV; flags override it (pufferjax train ENV --help lists them all)
  pufferjax train ENV --run-dir runs/x --resume
      go on with a run, stopped or killed, from its latest good checkpoint
  pufferjax eval RUN_DIR [--episodes 2000] [--json] [--seen] [--greedy] [--seed 0] [--gif out.gif]
      solve rate of a run over fresh episodes, on levels it was not trained on unless --seen
  pufferjax play RUN_DIR [--episodes 3] [--fps 15] [--seen] [--greedy] [--seed 0] [--gif out.gif]
      watch its policy in the terminal
  pufferjax bench envs|train|ops [--json out.json]
      how fast simulators, training and ops are on this machine (pufferjax bench train --help)
  pufferjax envs
      the environments
  pufferjax states RUN_DIR [--output states.png] [--step 1000000]
      what the state set of a checkpoint holds, as a picture and in numbers: where the curriculum stands
"""


class _Exit(Exception):
    """Ends the command with an exit status."""

    def __init__(self, status: int):
        self.status = status


def _fail(message: object) -> _Exit:
    print(f"pufferjax: error: {message}", file=sys.stderr)
    return _Exit(2)


def _warn(message: str) -> None:
    print(f"pufferjax: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Around everything that checks what the user gave: a refusal is one line and exit status 2, not a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise _fail(error) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for a refusal, 130 for Ctrl-C, 143 for SIGTERM."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {"train": _train, "eval": _eval, "play": _play, "bench": _bench, "envs": _envs, "states": _states}
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(_USAGE, end="")
            return 0 if argv else 2
        if argv[0] not in commands:
            raise _fail(f"unknown command {argv[0]!r}; valid are {', '.join(commands)}")
        return commands[argv[0]](argv[1:])
    except _Exit as exit:
        return exit.status
    except SystemExit as exit:  # tyro's, after --help or a bad flag
        return exit.code if isinstance(exit.code, int) else 2
    except KeyboardInterrupt:
        return 130


def _train(argv: list[str]) -> int:
    from pufferjax import envs

    if not argv or argv[0].startswith("-"):
        print(f"usage: pufferjax train ENV [flags]; ENV is one of {', '.join(envs.names())}", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    name, flags = argv[0], argv[1:]
    with _refusals():
        args = parse_train(name, flags)
        from pufferjax import run
        from pufferjax.checkpoint import CheckpointError
        from pufferjax.parallel import choose_devices
        from pufferjax.train import make_update

        config = args.config
        env = config.make_env()
        choose_devices(config.train, config.options.devices)
        make_update(env, config.train)  # checks that policy and environment fit
        run_dir = args.run_dir or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{config.options.seed}"
        if not args.resume:
            run.check_run_dir(run_dir)
    try:
        result = run.train(env, config.train, run_dir=run_dir, resume=args.resume, **dataclasses.asdict(config.options))
    except (OSError, CheckpointError) as error:
        raise _fail(error) from None
    return {"SIGINT": 130, "SIGTERM": 143}.get(result.stopped_by, 0)


@dataclasses.dataclass(frozen=True)
class TrainArgs:
    config: Any  # RunConfig
    run_dir: Path | None
    resume: bool


def parse_train(name: str, flags: Sequence[str]) -> TrainArgs:
    """Defaults < preset < flags; for a resumed run its config.toml < flags.

    Raises ValueError for a bad value, or one that a resumed run cannot change; SystemExit for a bad flag, its message
    printed.
    """
    import tyro

    from pufferjax import envs, presets
    from pufferjax.run_config import RunConfig, read_config

    parameters = envs.parameters(name)
    preset = presets.load(name)

    def resolved(size: int | None) -> RunConfig:
        table = presets.resolve(preset, size)
        if "env" in table.get("run", {}):
            raise ValueError("a preset has no key run.env")
        return RunConfig.from_table(presets.merge(table, {"run": {"env": name}}))

    def env_field(env_params):
        fields = [(key, parameter.annotation, env_params[key]) for key, parameter in parameters.items()]
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
        from pufferjax.run import check_resumable

        check_resumable(args.run_dir, config, shown=lambda setting: "--" + setting.replace("_", "-"))
    return TrainArgs(config, args.run_dir, args.resume)


def _unchecked(config):
    """A copy of a dataclass without its checks, nested ones alike: tyro would wrap their messages in a box."""

    class Unchecked(type(config)):
        __doc__ = type(config).__doc__

        def __post_init__(self):
            pass

    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return Unchecked(**{name: _unchecked(x) if dataclasses.is_dataclass(x) else x for name, x in values.items()})


def _eval(argv: list[str]) -> int:
    import json

    import tyro

    @dataclasses.dataclass
    class Args:
        """Solve rate of a run over whole fresh episodes."""

        run_dir: tyro.conf.Positional[Path]
        episodes: int = 2000
        json: tyro.conf.FlagCreatePairsOff[bool] = False
        """Print one JSON object and nothing else."""
        seen: tyro.conf.FlagCreatePairsOff[bool] = False
        """On the levels of training instead of others."""
        greedy: tyro.conf.FlagCreatePairsOff[bool] = False
        """Take the most likely action instead of a random one."""
        seed: int = 0
        gif: Path | None = None
        """Also write one episode, a solved one if there is any, as an animation."""

    args = tyro.cli(Args, args=argv, prog="pufferjax eval")
    with _refusals():
        _check_watching(args)
        import jax

        from pufferjax.evaluate import check_has_episodes, evaluate

        config, env, policy, train_state = _load_to_watch(args)
        check_has_episodes(env)
    result = evaluate(env, policy, train_state.params, jax.random.key(args.seed), args.episodes, greedy=args.greedy)
    result = {
        "env": env.spec.name,
        "levels": "seen" if args.seen else "unseen",
        "step": int(train_state.epoch) * config.train.sizes(env.spec.num_agents).batch_size,
        **result,
    }
    if args.gif is not None:
        result["gif"] = _write_gif(env, policy, train_state, args)
    if args.json:
        print(json.dumps(result, allow_nan=False))
    else:
        _print_result(result)
    return 0


def _print_result(result: dict[str, Any]) -> None:
    error = "" if result["perf_stderr"] is None else f" +- {result['perf_stderr']:.4f} (standard error)"
    print(f"{result['env']}, {result['levels']} levels, {result['episodes']} fresh episodes, {result['seconds']:.1f} s")
    print(f"perf            {result['perf']:.4f}{error}")
    print(f"score           {result['score']:.4f}")
    print(f"episode return  {result['episode_return']:.4f}")
    print(f"episode length  {result['episode_length']:.1f}")
    if "gif" in result:
        print(f"gif             {_gif_line(result['gif'])}")


def _check_watching(args: Any) -> None:
    if args.episodes < 1:
        raise ValueError(f"--episodes must be an integer >= 1, got {args.episodes}")
    if not 0 <= args.seed < 2**32:
        raise ValueError(f"--seed must be an integer in [0, {2**32 - 1}], got {args.seed}")


def _load_to_watch(args: Any) -> tuple[Any, Any, Any, Any]:
    """(config, env, policy, train_state) of args.run_dir, on levels it was not trained on unless args.seen."""
    from pufferjax import run
    from pufferjax.evaluate import unseen

    config, env, policy, train_state = run.load_run(args.run_dir, warn=_warn)
    return config, env if args.seen else unseen(env), policy, train_state


def _write_gif(env: Any, policy: Any, train_state: Any, args: Any) -> dict[str, Any]:
    import jax

    from pufferjax import render

    try:
        return render.episode_gif(
            env, policy, train_state.params, jax.random.key(args.seed), args.gif, greedy=args.greedy
        )
    except OSError as error:
        raise _fail(error) from None


def _gif_line(facts: dict[str, Any]) -> str:
    return f"{facts['path']} ({'solved' if facts['solved'] else 'not solved'})"


def _play(argv: list[str]) -> int:
    import math

    import tyro

    @dataclasses.dataclass
    class Args:
        """Shows the policy of a run at work, in the terminal."""

        run_dir: tyro.conf.Positional[Path]
        episodes: int = 3
        fps: float = 15.0
        """Steps shown per second."""
        seen: tyro.conf.FlagCreatePairsOff[bool] = False
        """On the levels of training instead of others."""
        greedy: tyro.conf.FlagCreatePairsOff[bool] = False
        """Take the most likely action instead of a random one."""
        seed: int = 0
        gif: Path | None = None
        """Instead of showing episodes, write one, a solved one if there is any, as an animation."""

    args = tyro.cli(Args, args=argv, prog="pufferjax play")
    with _refusals():
        _check_watching(args)
        if not 0 < args.fps < math.inf:
            raise ValueError(f"--fps must be a number > 0, got {args.fps}")
        if args.gif is None and not sys.stdout.isatty():
            raise ValueError("play draws on a terminal, and stdout is none; --gif PATH writes an animation instead")
        _, env, policy, train_state = _load_to_watch(args)
    if args.gif is not None:
        print(f"gif: {_gif_line(_write_gif(env, policy, train_state, args))}")
        return 0
    import jax
    from rich.console import Console

    from pufferjax.play import play

    played = play(
        env, policy, train_state.params, jax.random.key(args.seed), Console(),
        episodes=args.episodes, fps=args.fps, greedy=args.greedy,
    )  # fmt: skip
    for number, figures in enumerate(played, start=1):
        print(
            f"episode {number}: perf {figures['perf']:g}, return {figures['episode_return']:g}, "
            f"{figures['episode_length']:.0f} steps"
        )
    return 0


def _states(argv: list[str]) -> int:
    import tyro

    @dataclasses.dataclass
    class Args:
        """Draws the states that the state set of a checkpoint holds."""

        run_dir: tyro.conf.Positional[Path]
        output: Path = Path("states.png")
        """The picture."""
        step: int | None = None
        """Of the checkpoint. Default: the latest one."""

    args = tyro.cli(Args, args=argv, prog="pufferjax states")
    with _refusals():
        from pufferjax import run
        from pufferjax.stored_states import draw_states, read_states

        config, env, _, train_state = run.load_run(args.run_dir, args.step, _warn)
        states = read_states(env, train_state)
        step = int(train_state.epoch) * config.train.sizes(env.spec.num_agents).batch_size
        draw_states(env, states, args.output, title=f"{args.run_dir}, step {step:,}")
    print(f"step {step:,}: {len(states.rows)} states")
    if len(states.rows):
        for name, values in states.columns().items():
            print(f"{name:<24}" + "  ".join(f"{q} % {x:,.4g}" for q, x in states.quantiles(values).items()))
    print(f"picture: {args.output}")
    return 0


def _bench(argv: list[str]) -> int:
    from pufferjax.bench.command import COMMANDS

    if not argv or argv[0] not in COMMANDS:
        print(f"usage: pufferjax bench {'|'.join(COMMANDS)} [flags]; --help after one lists its flags", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    with _refusals():
        COMMANDS[argv[0]](argv[1:])
    return 0


def _envs(argv: list[str]) -> int:
    if argv:
        if argv[0] in ("-h", "--help"):
            print("usage: pufferjax envs")
            return 0
        raise _fail(f"envs takes no arguments, got {argv[0]!r}")
    from pufferjax import envs

    columns = ("environment", "observation", "actions", "agents", "state bytes", "step limit", "parameters")
    rows = []
    for name in envs.names():
        env = envs.make(name)
        spec = env.spec
        short = {"uint8": "u8", "float32": "f32"}.get(spec.obs_dtype.name, spec.obs_dtype.name)
        rows.append(
            (
                name,
                f"{short}[{', '.join(map(str, spec.obs_shape))}]",
                " x ".join(map(str, spec.num_actions)),
                str(spec.num_agents),
                str(spec.state_bytes),
                str(spec.max_episode_steps or "none"),
                ", ".join(f"{key}={value}" for key, value in env.params.items()),
            )
        )
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        Console().print(table, markup=False)
    else:
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
