"""What a sweep is: kept with its trials in the storage, so that every worker does the same."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pufferjax.sweep.results import AGGREGATES, COSTS
from pufferjax.sweep.space import Dimension, flag, parse_dimension

METRICS = ("perf", "score", "episode_return")
SAMPLERS = ("protein", "tpe", "nsga2", "random")
FIDELITIES = ("total_steps", "max_seconds")  # settings that say how long a run is
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything but how many trials there are, and who runs them."""

    name: str
    env: str
    flags: tuple[str, ...]  # of `pufferjax train ENV`, as given
    space: Mapping[str, Dimension]  # by Optuna's name of the parameter
    metric: str
    cost: str = "seconds"
    max_cost: float | None = None
    sampler: str = "protein"
    num_startup: int = 10  # Protein's
    seed: int = 0
    seeds: int = 1
    aggregate: str = "mean"
    early_stop_quantile: float = 0.3
    id: str = ""  # of this sweep alone: tells its folder from that of another one of the same name

    def __post_init__(self):
        def check(name, valid, is_valid):
            if not is_valid:
                given = getattr(self, name)
                raise ValueError(f"--{name.replace('_', '-')} must be {valid}, got {given!r}")

        check("name", "letters, digits, and ._- after the first", _NAME.fullmatch(self.name) is not None)
        check("metric", f"one of {', '.join(METRICS)}", self.metric in METRICS)
        check("cost", f"one of {', '.join(COSTS)}", self.cost in COSTS)
        check("sampler", f"one of {', '.join(SAMPLERS)}", self.sampler in SAMPLERS)
        check("aggregate", f"one of {', '.join(AGGREGATES)}", self.aggregate in AGGREGATES)
        check("max_cost", "a number > 0", self.max_cost is None or 0 < self.max_cost < math.inf)
        check("seeds", "an integer in [1, 1000]", 1 <= self.seeds <= 1000)
        check("early_stop_quantile", "a number in [0, 1)", 0 <= self.early_stop_quantile < 1)

    @property
    def fidelity(self) -> str | None:
        """The parameter of how long a run is, if it is swept."""
        for parameter, dimension in self.space.items():
            if dimension.name in FIDELITIES and dimension.bounds is not None and parameter == dimension.name:
                return parameter
        return None

    def distributions(self) -> dict[str, Any]:
        return {parameter: dimension.distribution() for parameter, dimension in self.space.items()}

    def to_json(self) -> dict[str, Any]:
        table = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **table,
            "flags": list(self.flags),
            "space": {dimension.name: dimension.words() for dimension in self.space.values()},
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Plan":
        table = dict(table)
        env = table["env"]
        lines: Mapping[str, Sequence[Any]] = table["space"]
        dimensions = [parse_dimension(env, name, words, f"sweep of {name}") for name, words in lines.items()]
        space = {dimension.parameter: dimension for dimension in dimensions}
        return cls(**{**table, "flags": tuple(table["flags"]), "space": space})

    def check_same(self, stored: "Plan", where: str) -> None:
        """ValueError naming what differs, if this is not the sweep that is stored."""
        ours, theirs = self.to_json(), stored.to_json()
        ours_space, theirs_space = ours.pop("space"), theirs.pop("space")
        ours |= {f"sweep.{name}": words for name, words in ours_space.items()}
        theirs |= {f"sweep.{name}": words for name, words in theirs_space.items()}
        for name in {**theirs, **ours}:
            if name not in ("id", "num_startup") and ours.get(name) != theirs.get(name):
                shown = "flags of train" if name == "flags" else "--" + name.replace("_", "-")
                raise ValueError(
                    f"{where} has a sweep {self.name!r} already, and another one: {shown} {_text(theirs.get(name))} "
                    f"there, {_text(ours.get(name))} here; choose another --name, or give the same flags to go on "
                    "with it"
                )


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def split_flags(flags: Sequence[str]) -> dict[str, list[str]]:
    """{setting: the words of its flag and values} of a command line; what comes first without a flag is under ""."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in flags:
        if word.startswith("--") and len(word) > 2:
            name = setting_of(word)
            found[name] = [word]
        else:
            found.setdefault(name, []).append(word)
    return found


def setting_of(word: str) -> str:
    """The setting that a flag gives a value: `--ppo.no-scale-rewards` gives ppo.scale_rewards one."""
    section, dot, field = word.removeprefix("--").partition("=")[0].replace("-", "_").rpartition(".")
    return f"{section}{dot}{field.removeprefix('no_')}"


def merged_flags(env: str, flags: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Flags of `pufferjax train ENV` with those of `settings` in place of theirs, or behind them."""
    groups = split_flags(flags) | {name: flag(env, name, value) for name, value in settings.items()}
    return [word for words in groups.values() for word in words]
