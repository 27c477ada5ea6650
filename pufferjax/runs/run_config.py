"""What a run is given: the environment, the training settings and the options of the run; RUN_DIR/config.toml."""

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pufferjax import envs
from pufferjax.core.config import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig, take_numpy_scalars
from pufferjax.core.policy import ActorCritic
from pufferjax.envs import Env
from pufferjax.runs.files import remove_leftovers, write_atomically
from pufferjax.runs.json_text import spelled
from pufferjax.runs.paths import local_path
from pufferjax.runs.sinks import NAMES as SINKS

_SECTIONS = {"policy": PolicyConfig, "ppo": PPOConfig, "state_set": StateSetConfig}

# What a resumed run may be given anew: how long it trains (which stretches the schedules from there on), and what
# leaves the training itself alone. All else is part of what makes it the same run.
RESUMABLE = (
    "total_steps",
    "max_seconds",
    "eval_episodes",
    "print_interval_seconds",
    "checkpoint_interval_seconds",
    "keep_checkpoints",
    "stop_on_non_finite",
    "log",
)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run needs besides the environment and the training settings; [run] in config.toml."""

    seed: int = 0  # of everything random but the levels (env.seed), 0 to 4294967295
    # Wall-clock budget in seconds from the start, compilation and warm-up included, final evaluation not; the schedules
    # end with it. None: only total_steps ends the run, and the same seed gives the same metrics.
    max_seconds: float | None = None
    log_interval: int = 1  # epochs pooled in each line of metrics.jsonl, >= 1
    print_interval_seconds: float = 5.0  # seconds between progress lines where the output is not a terminal; >= 0
    eval_episodes: int = 2000  # episodes of the final evaluation on unseen levels; 0: none
    devices: int | None = None  # devices that share the run; None: all there are (on a CPU: one per core)
    # While an epoch runs on the devices, the host takes in the one before and draws the restarts of the one after, so
    # that neither waits; restarts then come from the state set one epoch earlier. None: if the devices are not CPUs.
    overlap: bool | None = None
    # What a crash may cost, in seconds: a checkpoint after the first epoch that ends this long after the last one; 0:
    # after every epoch. Seconds, not epochs, because an epoch may take milliseconds or minutes.
    checkpoint_interval_seconds: float = 60.0
    keep_checkpoints: int = 3  # how many of the latest checkpoints stay, >= 1; older ones are deleted
    # End the run, as "non_finite", when for 10 epochs in a row every update was NaN or infinite and none could be made:
    # nothing is learned any more. False: go on.
    stop_on_non_finite: bool = True
    # Where the lines of metrics.jsonl go besides: "tensorboard" (event files in RUN_DIR/tensorboard), "wandb" (Weights
    # & Biases). One that fails is named once, and the run goes on without it.
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()

    def __post_init__(self):
        take_numpy_scalars(self)

        def check(name, valid, is_valid):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_valid(value):
                raise ValueError(f"{name} must be {valid}, got {value!r}")

        def is_int(low, high):
            return lambda x: isinstance(x, int) and low <= x <= high

        check("seed", "an integer in [0, 4294967295]", is_int(0, 2**32 - 1))
        check("log_interval", "an integer >= 1", is_int(1, 2**31 - 1))
        check("print_interval_seconds", "a number >= 0", lambda x: 0 <= x < math.inf)
        check("eval_episodes", "an integer >= 0", is_int(0, 2**31 - 1))
        check("checkpoint_interval_seconds", "a number >= 0", lambda x: 0 <= x < math.inf)
        check("keep_checkpoints", "an integer >= 1", is_int(1, 2**31 - 1))
        if self.devices is not None:
            check("devices", "an integer >= 1, or None", is_int(1, 2**31 - 1))
        if self.overlap is not None and not isinstance(self.overlap, bool):
            raise ValueError(f"overlap must be True, False or None, got {self.overlap!r}")
        if not isinstance(self.stop_on_non_finite, bool):
            raise ValueError(f"stop_on_non_finite must be True or False, got {self.stop_on_non_finite!r}")
        is_list = isinstance(self.log, (list, tuple)) and all(x in SINKS for x in self.log)
        if not is_list or len(set(self.log)) != len(self.log):
            raise ValueError(f"log must be a list of {' and '.join(SINKS)}, each at most once, got {self.log!r}")
        object.__setattr__(self, "log", tuple(self.log))
        if self.max_seconds is not None:
            check("max_seconds", "a number > 0, or None", lambda x: 0 < x < math.inf)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run; config.toml holds exactly this."""

    env: str
    env_params: Mapping[str, Any]  # arguments of envs.make
    train: TrainConfig
    options: RunOptions
    policy_class: str = ActorCritic.__name__  # another one was given to the run, and must be when it is loaded

    def make_env(self) -> Env:
        return envs.make(self.env, **self.env_params)

    @property
    def is_self_contained(self) -> bool:
        """Whether environment and policy can be made from this alone."""
        return envs.is_known(self.env) and self.policy_class == ActorCritic.__name__

    def to_table(self) -> dict[str, Any]:
        """As nested dicts, the layout of config.toml and of the presets. None is left out: TOML has no word for it."""
        table = dataclasses.asdict(self.train)
        sections = {name: table.pop(name) for name in _SECTIONS}
        options = {name: x for name, x in dataclasses.asdict(self.options).items() if x is not None}
        return {
            **table,
            "env": dict(self.env_params),
            **sections,
            "run": {"env": self.env, "policy_class": self.policy_class, **options},
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], env: Env | None = None) -> "RunConfig":
        """Inverse of `to_table`; missing keys take their defaults. ValueError names an unknown key or bad value.

        env: takes the place of the table's, which `envs.make` may not know.
        """
        top = {name: value for name, value in table.items() if name not in ("env", "run", *_SECTIONS)}
        run = _section(table, "run")
        name = run.pop("env", None)
        policy_class = run.pop("policy_class", cls.policy_class)
        if not isinstance(name, str):
            raise ValueError(f"run.env must be one of {', '.join(envs.names())}, got {name!r}")
        if env is None:
            parameters = envs.parameters(name)
            given = _section(table, "env")
            _check_keys("env.", given, parameters)
            env_params = {**{key: parameter.default for key, parameter in parameters.items()}, **given}
        else:
            name, env_params = env.spec.name, dict(env.params)
        train_fields = [field.name for field in dataclasses.fields(TrainConfig)]
        _check_keys("", top, [*(name for name in train_fields if name not in _SECTIONS), "env", "run", *_SECTIONS])
        sections = {}
        for key, section in _SECTIONS.items():
            values = _section(table, key)
            _check_keys(f"{key}.", values, [field.name for field in dataclasses.fields(section)])
            sections[key] = section(**values)
        _check_keys("run.", run, [field.name for field in dataclasses.fields(RunOptions)])
        return cls(name, env_params, TrainConfig(**top, **sections), RunOptions(**run), policy_class)


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, Mapping):
        raise ValueError(f"{name} must be a table [{name}], got {section!r}")
    return dict(section)


def _check_keys(prefix: str, given, valid) -> None:
    for name in given:
        if name not in valid:
            raise ValueError(f"unknown key {prefix}{name}; valid are {', '.join(prefix + v for v in valid)}")


def read_table(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The config.toml of a run directory. ValueError if it is none, TypeError if it is no path."""
    path = local_path("run_dir", run_dir) / "config.toml"
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no config.toml")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError is one
        raise ValueError(f"{path}: {error}") from None


def read_config(run_dir: str | os.PathLike, env: Env | None = None) -> RunConfig:
    """The configuration of a run directory, with `env` in place of its environment. ValueError if it is none."""
    table = read_table(run_dir)
    try:
        return RunConfig.from_table(table, env)
    except ValueError as error:
        raise ValueError(f"{Path(run_dir) / 'config.toml'}: {error}") from None


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Writes its config.toml, in a folder made if there is none. ValueError if TOML cannot hold it, OSError if the
    folder cannot be written."""
    import tomli_w

    try:
        content = tomli_w.dumps(config.to_table())
    except TypeError as error:
        raise ValueError(f"config.toml cannot hold the parameters of {config.env}: {error}") from None
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        remove_leftovers(run_dir)
        write_atomically(run_dir / "config.toml", content)
    except OSError as error:
        raise OSError(f"run directory {run_dir} cannot be written: {error.strerror}") from None


def settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a config.toml under its name as a flag (`seed`, `env.size`, `ppo.gamma`), as JSON holds it."""
    flat: dict[str, Any] = {"environment": table["run"]["env"]}
    for name, value in table.items():
        if name == "run":
            flat |= {key: x for key, x in value.items() if key != "env"}
        elif isinstance(value, Mapping):
            flat |= {f"{name}.{key}": x for key, x in value.items()}
        else:
            flat[name] = value
    return json.loads(json.dumps(spelled(flat), allow_nan=False))


def fixed_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of `settings` that differ although they belong to the run; what only one of them has is a matter of
    versions, not of runs."""
    return [name for name in ours if name in theirs and name not in RESUMABLE and ours[name] != theirs[name]]
