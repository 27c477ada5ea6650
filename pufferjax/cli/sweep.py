"""`pufferjax sweep ENV`: many runs, to find the settings with the best score at every cost."""

import dataclasses
import importlib.util
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pufferjax.cli.compile_cache import use_compile_cache
from pufferjax.cli.refusals import Exit, fail, refusals, warn

USAGE = """\
  pufferjax sweep ENV [--trials 50] [--max-seconds 60] [--sweep.ppo.learning-rate 1e-3 0.1 log] [--name NAME]
      many runs, for the best settings at every cost; goes on where it was stopped. Flags of train are for every run
"""
_STATUS = {"SIGINT": 130, "SIGTERM": 143}


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Besides these flags, all of `pufferjax train ENV` for every run, and for each setting of these that is swept
    `--sweep.SETTING LOW HIGH SCALE`, as `--sweep.ppo.gamma 0.8 0.999 logit`, with a scale out of linear, log, logit,
    pow2 and integer, or `--sweep.SETTING CHOICE CHOICE ...`. What the preset's [sweep] says is swept besides."""

    trials: int = 50  # in all, those of before included when the sweep goes on; >= 1
    name: str | None = None  # of the sweep, in its storage and of its folder. Default: sweep-ENV
    # Where the trials are kept: sqlite:///FILE, or postgresql://USER@HOST/DATABASE for workers on several machines.
    # Default: sweep.db in the folder of the runs.
    storage: str | None = None
    runs_dir: Path = Path("runs")  # the runs go into a folder of the sweep's name in it
    # What is made large: "perf", "score" or "episode_return", of the final evaluation. Default: perf where the
    # environment has one, else episode_return.
    metric: str | None = None
    cost: Literal["seconds", "steps"] = "seconds"  # what is kept small: of training, compilation included for seconds
    # The best score within this cost is looked for, instead of the best score at every cost; in the unit of --cost.
    max_cost: float | None = None
    sampler: Literal["protein", "tpe", "nsga2", "random"] = "protein"  # what draws the settings of the next trial
    sweep_only: tuple[str, ...] = ()  # of what would be swept only these settings, as ppo.gamma
    seeds: int = 1  # runs of each trial, with seeds that follow that of --seed; 1 to 1000
    # What the scores of a trial's seeds come to: "mean", or "lower_bound", the mean less its standard error.
    aggregate: Literal["mean", "lower_bound"] = "mean"
    # A run is ended when its score falls below that of so large a part of the runs before, at the same cost; in [0, 1),
    # 0: no run is.
    early_stop_quantile: float = 0.3
    # So many GPUs, or cores where there are none, for each trial, and as many trials at once as there are devices for.
    # Default: all of them, one trial at a time.
    devices_per_trial: int | None = None
    grace_seconds: int = 60  # a worker that has been silent for so long counts as dead, and another has its trial; >= 2


def main(argv: list[str]) -> int:
    from pufferjax import envs

    if not argv or argv[0].startswith("-"):
        if argv and argv[0] in ("-h", "--help"):
            argv = ["ENV", "--help"]
        else:
            print(f"usage: pufferjax sweep ENV [flags]; ENV is one of {', '.join(envs.names())}", file=sys.stderr)
            return 2
    name, words = argv[0], argv[1:]
    if "-h" in words or "--help" in words:
        _parse_options(name, ["--help"])
    check_optuna("sweep")
    from pufferjax.sweep.shares import make_shares

    with refusals():
        options, swept, flags = split(name, words)
        shares = make_shares(options.devices_per_trial)
        plan, start, trials, folder, storage = _begin(name, options, swept, flags)
    place = Place(folder, storage, options.grace_seconds, shares)
    return work(plan, trials, place, start=(options.trials, start), again="the same command")


def check_optuna(command: str) -> None:
    """Exit, its line printed, where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise fail(f"pufferjax {command} needs Optuna, which is not installed: pip install 'pufferjax[sweep]'")


def split(name: str, words: Sequence[str]) -> tuple[SweepOptions, dict[str, list[str]], list[str]]:
    """A command line as (the options of the sweep, {setting: bounds and scale, or choices}, flags of train)."""
    from pufferjax.sweep.plan import setting_of

    own = {field.name for field in dataclasses.fields(SweepOptions)}
    options, swept, flags = [], {}, []
    target: list[str] = flags
    for word in words:
        if word.startswith("--sweep."):
            setting, equals, value = word.removeprefix("--sweep.").partition("=")
            setting = setting.replace("-", "_")
            if setting in swept:
                raise ValueError(f"{word} is given twice")
            target = swept[setting] = [value] if equals else []
            continue
        if word.startswith("--"):
            setting = setting_of(word)
            if setting in ("run_dir", "resume"):
                raise ValueError(
                    f"{word} is of a single run: a sweep's runs are in --runs-dir, and the same command goes on with it"
                )
            target = options if setting in own else flags
        target.append(word)
    if flags and not flags[0].startswith("--"):
        raise ValueError(f"unexpected {flags[0]!r} before the first flag")
    return _parse_options(name, options), swept, flags


def _parse_options(name: str, words: Sequence[str]) -> SweepOptions:
    import tyro

    return tyro.cli(SweepOptions, args=list(words), prog=f"pufferjax sweep {name}")


def parse(name: str, flags: Sequence[str]) -> Any:
    """The RunConfig of flags of train."""
    from pufferjax.cli.train import parse_train

    return parse_train(name, flags).config


def _begin(name: str, options: SweepOptions, swept: dict[str, list[str]], flags: list[str]):
    """(plan, the first trial's parameters, the trials in their storage, the folder of the runs, the storage's URL).
    Everything that can be refused is, before anything is written."""
    _check_options(options)
    on_host()
    plan, preparer = _make_plan(name, options, swept, flags)
    folder = _folder(options.runs_dir, plan.name)
    start = preparer.start()
    preparer.check_ends()
    from pufferjax.sweep.trials import Trials, open_storage, shown
    from pufferjax.sweep.worker import own_folder

    if options.storage is None:
        folder.mkdir(parents=True, exist_ok=True)
    url = options.storage or f"sqlite:///{folder}/sweep.db"
    storage = open_storage(url, options.grace_seconds)
    try:
        stored = Trials(storage, plan.name).plan()
    except KeyError:
        stored = None
    if stored is None:
        own_folder(folder, plan, write=False)
        stored = Trials.create(storage, plan).plan()
    plan.check_same(stored, shown(url))
    own_folder(folder, stored)
    return stored, start, Trials(storage, plan.name), folder, url


def _check_options(options: SweepOptions) -> None:
    from pufferjax.runs.paths import local_path

    for field, least, most in (("trials", 1, 1_000_000), ("grace_seconds", 2, 10**6)):
        value = getattr(options, field)
        if not least <= value <= most:
            raise ValueError(f"--{field.replace('_', '-')} must be an integer in [{least}, {most}], got {value}")
    local_path("--runs-dir", options.runs_dir)


def on_host() -> None:
    """This process draws settings, and leaves the accelerator's memory to the runs."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _make_plan(name: str, options: SweepOptions, swept: dict[str, list[str]], flags: list[str]):
    from pufferjax import presets
    from pufferjax.cli.train import parse_train
    from pufferjax.core.evaluate import check_has_episodes
    from pufferjax.sweep import plan as plans
    from pufferjax.sweep.prepare import Preparer
    from pufferjax.sweep.space import default_lines, flattened, make_space

    args = parse_train(name, flags)
    use_compile_cache(args.compile_cache)
    env = args.config.make_env()
    check_has_episodes(env)
    table = presets.sweep(presets.load(name), args.config.env_params.get("size"))
    lines = flattened(table) or default_lines(args.config)
    given = plans.split_flags(flags)
    only = [plans.setting_of("--" + word) for word in options.sweep_only]
    space = make_space(name, lines, swept, given, only)
    if options.metric == "perf" and not env.spec.has_perf:
        raise ValueError(f"--metric perf: {name} does not say how good an episode is; take score or episode_return")
    plan = plans.Plan(
        name=options.name if options.name is not None else f"sweep-{name.replace(':', '-')}",
        env=name,
        flags=tuple(flags),
        space=space,
        metric=options.metric or ("perf" if env.spec.has_perf else "episode_return"),
        cost=options.cost,
        max_cost=options.max_cost,
        sampler=options.sampler,
        num_startup=min(10, max(2, options.trials // 3)),
        seed=args.config.options.seed,
        seeds=options.seeds,
        aggregate=options.aggregate,
        early_stop_quantile=options.early_stop_quantile,
        id=uuid.uuid4().hex,
    )
    return plan, Preparer(plan, parse)


def _folder(runs_dir: Path, name: str) -> Path:
    from pufferjax.runs.paths import local_path

    return local_path("--runs-dir", runs_dir) / name


class Place(NamedTuple):
    """Where a worker works."""

    folder: Path  # of the runs
    storage: str  # its URL
    grace_seconds: int
    shares: list[Any]  # of the machine's devices, `pufferjax.sweep.shares.Share`


def work(plan, trials, place: Place, *, start: tuple[int, dict[str, Any]] | None, again: str) -> int:
    """A worker's life, in words on stdout.

    start: how many trials there are to be, and the first one's parameters; None: another process has said.
    """
    from pufferjax.runs.files import locked
    from pufferjax.sweep.report import counts, report
    from pufferjax.sweep.shares import helpers, take
    from pufferjax.sweep.trials import AWAY, shown
    from pufferjax.sweep.worker import StopRequest, Worker

    folder, storage = place.folder, place.storage
    swept = ", ".join(f"{x.name} {' '.join(map(str, x.words()))}" for x in plan.space.values())
    say(f"sweep {plan.name} of {plan.env}: {swept}\ntrials in {shown(storage)}, runs in {folder}")
    with StopRequest() as stop:
        if start is not None:
            with locked(folder, wait=True):  # of two that begin at once, the second finds all queued
                trials.enqueue(*start)
        helper = ["sweep-worker", "--storage", storage, "--name", plan.name, "--runs-dir", str(folder.parent)]
        helper += ["--grace-seconds", str(place.grace_seconds)]
        if len(place.shares) > 1:
            take(place.shares[0])
        with helpers(place.shares[1:], helper, folder / "logs"):
            try:
                Worker(trials, plan, parse, folder, say).work(stop)
            except AWAY as error:
                reason = str(error).strip().splitlines()[0]
                raise fail(f"the storage cannot be reached any more ({reason}); {again} goes on") from None
    if stop.name is not None:
        warn(f"stopped by {stop.name}; {again} goes on")
        raise Exit(_STATUS[stop.name])
    done = trials.all()
    say("\n" + report(plan, done, str(folder)))
    return 0 if counts(done)["finished"] else 1


def say(line: str) -> None:
    print(line, flush=True)
