"""What a sweep varies: settings of a run, each on a scale, as Optuna's distributions and back as flags.

A setting is named as its flag is (`ppo.gamma`, `env.size`, `total_steps`), and given by two bounds and a scale, or by
choices: in a preset

    [sweep]
    total_steps = [1_000_000, 30_000_000, "log"]
    [sweep.ppo]
    gamma = [0.8, 0.9999, "logit"]
    optimizer = ["muon", "adam"]

and as a flag `--sweep.ppo.gamma 0.8 0.9999 logit`.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pufferjax import envs
from pufferjax.core.config import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig
from pufferjax.runs.run_config import RunConfig, RunOptions

SCALES = {
    "linear": "evenly between the bounds",
    "log": "evenly in the logarithm",
    "logit": "evenly in the logarithm of 1 - x, for what is close to 1",
    "pow2": "powers of two",
    "integer": "whole numbers, evenly",
    "choice": "one of those listed",
}
_SECTIONS = {"policy": PolicyConfig, "ppo": PPOConfig, "state_set": StateSetConfig}
_DIGITS = 4  # significant ones of a number that is drawn: enough to tell two runs apart, and read


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A setting that is swept. A trial knows it as a parameter of Optuna's, `parameter`: the setting itself, or what of
    it is even on the scale (`1 - ppo.gamma`, `log2 horizon`)."""

    name: str  # of the setting
    scale: str  # of SCALES
    bounds: tuple[float, float] | None  # None: choices
    choices: tuple[Any, ...] = ()  # as JSON holds them
    is_integer: bool = False  # the setting is a whole number

    @property
    def parameter(self) -> str:
        return {"logit": f"1 - {self.name}", "pow2": f"log2 {self.name}"}.get(self.scale, self.name)

    def words(self) -> list[Any]:
        """As a preset lists it; `parse_dimension` of it is this dimension."""
        return [*(self.choices if self.bounds is None else self.bounds), self.scale]

    def distribution(self):
        """Optuna's distribution of `parameter`."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.bounds is None:
            return CategoricalDistribution(self.choices)
        low, high = self.bounds
        if self.scale == "pow2":
            return IntDistribution(round(math.log2(low)), round(math.log2(high)))
        if self.scale == "logit":
            return FloatDistribution(1 - high, 1 - low, log=True)
        if self.is_integer or self.scale == "integer":
            return IntDistribution(int(low), int(high), log=self.scale == "log")
        return FloatDistribution(low, high, log=self.scale == "log")

    def setting(self, parameter: Any) -> Any:
        """The setting at a value of the parameter, rounded to what can be read."""
        if self.bounds is None:
            return parameter
        low, high = self.bounds
        if self.scale == "pow2":
            value = 2.0**parameter
        elif self.scale == "logit":
            value = round(1 - _rounded(parameter), 12)
        else:
            value = _rounded(parameter) if isinstance(parameter, float) else parameter
        value = min(max(value, low), high)
        return int(value) if self.is_integer or self.scale == "integer" else value

    def parameter_of(self, setting: Any) -> Any:
        """The value of the parameter that is closest to a setting; None if the choices lack it, or it is None."""
        if self.bounds is None:
            # Optuna tells True from 1 no more than Python does.
            return next((x for x in self.choices if x == setting and type(x) is type(setting)), None)
        if setting is None:
            return None
        low, high = self.bounds
        value = min(max(setting, low), high)
        if self.scale == "pow2":
            return round(math.log2(value))
        if self.scale == "logit":
            return min(max(1 - value, 1 - high), 1 - low)
        return int(value) if self.is_integer or self.scale == "integer" else float(value)


Space = Mapping[str, Dimension]


def _rounded(x: float) -> float:
    return float(f"{x:.{_DIGITS}g}")


def flag(env: str, name: str, value: Any) -> list[str]:
    """The words of a `pufferjax train ENV` that give a setting its value."""
    words = name.replace("_", "-")
    if field_types(env).get(name) is bool:
        section, dot, field = words.rpartition(".")
        return [f"--{section}{dot}{'' if value else 'no-'}{field}"]
    if isinstance(value, (list, tuple)):
        return [f"--{words}", *map(str, value)]
    return [f"--{words}", str(value)]


@functools.cache
def field_types(env: str) -> Mapping[str, Any]:
    """{setting: its type} of everything that a flag of `pufferjax train ENV` can set."""
    found = {name: hint for name, hint in typing.get_type_hints(TrainConfig).items() if name not in _SECTIONS}
    for section, config in _SECTIONS.items():
        found |= {f"{section}.{name}": hint for name, hint in typing.get_type_hints(config).items()}
    found |= typing.get_type_hints(RunOptions)
    found |= {f"env.{name}": parameter.annotation for name, parameter in envs.parameters(env).items()}
    return found


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def parse_dimension(env: str, name: str, words: Sequence[Any], given: str) -> Dimension:
    """The dimension of a setting from its bounds and scale, or its choices; `given` is how the user named it.

    Raises ValueError that begins with `given` for a setting that there is not, a bad scale, and bounds that are none.
    """
    hints = field_types(env)
    if name not in hints:
        close = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
        close = close or [other for other in hints if other.rpartition(".")[2] == name.rpartition(".")[2]][:1]
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"{given}: there is no setting {name} of {env} to sweep{hint} (pufferjax train {env} --help lists them)"
        )
    kinds = _alternatives(hints[name])
    is_number = any(kind in (int, float) for kind in kinds)
    words, scale = list(words), None
    if words and isinstance(words[-1], str) and words[-1] in SCALES:
        scale = words.pop()
    elif is_number and (len(words) == 3 or (words and _number(words[-1]) is None and "None" not in words)):
        raise ValueError(f"{given}: {words[-1]!r} is no scale; valid are {', '.join(SCALES)}")
    if scale is None:
        scale = "choice" if not is_number else "linear" if float in kinds else "integer"
    if scale == "choice":
        choices = [_as_setting(kinds, word, given) for word in words]
        if len(choices) < 2 or len({(type(x), str(x)) for x in choices}) < len(choices):
            raise ValueError(f"{given}: two or more different choices are needed, got {' '.join(map(str, words))!r}")
        return Dimension(name, scale, None, tuple(choices))
    if not is_number:
        raise ValueError(f"{given}: {name} is no number, so its values must be listed: it cannot be {scale}")
    bounds = [_number(word) for word in words]
    if len(bounds) != 2 or None in bounds:
        raise ValueError(
            f"{given} needs two bounds and a scale, as in `1e-4 1 log`, got {' '.join(map(str, words)) or 'nothing'!r}"
        )
    return _checked(name, scale, bounds, int in kinds and float not in kinds, given)


def _checked(name: str, scale: str, bounds: list[float], is_integer: bool, given: str) -> Dimension:
    low, high = bounds
    if not low < high:
        raise ValueError(f"{given}: the lower bound must be below the upper one, got {low:g} and {high:g}")
    if (is_integer or scale == "integer") and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{given}: its bounds must be whole numbers, got {low:g} and {high:g}")
    if scale == "log" and low <= 0:
        raise ValueError(f"{given}: the scale log needs bounds above 0, got {low:g}")
    if scale == "logit" and (is_integer or not 0 <= low < high < 1):
        raise ValueError(f"{given}: the scale logit needs bounds in [0, 1), got {low:g} and {high:g}")
    if scale == "pow2" and not all(x > 0 and math.log2(x).is_integer() for x in bounds):
        raise ValueError(f"{given}: the scale pow2 needs powers of two, got {low:g} and {high:g}")
    if is_integer or scale == "integer":
        low, high = int(low), int(high)
    return Dimension(name, scale, (low, high), is_integer=is_integer)


def _number(word: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(word, bool):
        return None
    try:
        number = float(word)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _as_setting(kinds: tuple[Any, ...], word: Any, given: str) -> Any:
    """A choice as the setting's type has it."""
    text = str(word)
    for kind in kinds:
        if kind is type(None) and text == "None":
            return None
        if kind is bool and text in ("True", "False"):
            return text == "True"
        if kind in (int, float) and _number(word) is not None and (kind is float or _number(word).is_integer()):
            return kind(float(word))
        if typing.get_origin(kind) is Literal and text in typing.get_args(kind):
            return text
        if kind is str or (kind not in (bool, int, float, type(None)) and not typing.get_args(kind)):
            return text
        if typing.get_origin(kind) is tuple:
            raise ValueError(f"{given} is a list, which cannot be swept")
    valid = [x for kind in kinds for x in (typing.get_args(kind) or ((True, False) if kind is bool else ()))]
    hint = f"; valid are {', '.join(map(str, valid))}" if valid else ""
    raise ValueError(f"{given}: {text!r} is no value of this setting{hint}")


def default_lines(config: RunConfig) -> dict[str, list[Any]]:
    """What is swept where the preset does not say: what matters for most, and how long is trained."""
    most = config.train.total_steps
    least = max(most // 10, config.train.num_envs * config.train.horizon)
    lines = {
        "ppo.learning_rate": [1e-3, 0.1, "log"],
        "ppo.entropy_coef": [1e-5, 0.1, "log"],
        "ppo.gamma": [0.9, 0.9995, "logit"],
        "ppo.gae_lambda": [0.6, 0.995, "logit"],
        "ppo.replay_ratio": [0.25, 2.0, "log"],
        "ppo.clip_eps": [0.05, 0.5, "log"],
    }
    return ({"total_steps": [least, most, "log"]} if least < most else {}) | lines


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Sequence[Any]]:
    """{setting: words} of a preset's [sweep] table; an empty list takes out what is below it."""
    found = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found |= {f"{prefix}{name}": value} if value else {}
        else:
            raise ValueError(f'[sweep] {prefix}{name} must be a list, as [1e-4, 1, "log"], got {value!r}')
    return found


def make_space(
    env: str,
    preset: Mapping[str, Sequence[Any]],
    flags: Mapping[str, Sequence[str]],
    fixed: Iterable[str],
    only: Sequence[str],
) -> dict[str, Dimension]:
    """{parameter: dimension}: the preset's lines, without settings that are `fixed` by a flag of their own, and `flags`
    laid over them; if `only` names any, those alone. ValueError as `parse_dimension`."""
    lines = {name: ("[sweep] " + name, words) for name, words in preset.items() if name not in set(fixed)}
    lines |= {name: ("--sweep." + name.replace("_", "-"), words) for name, words in flags.items()}
    if unknown := [name for name in only if name not in lines]:
        raise ValueError(f"--sweep-only: {unknown[0]} is not swept; swept are {', '.join(lines)}")
    lines = {name: line for name, line in lines.items() if not only or name in only}
    if not lines:
        raise ValueError("nothing is swept: every setting of the preset's [sweep] is fixed by a flag")
    dimensions = [parse_dimension(env, name, words, given) for name, (given, words) in lines.items()]
    return {dimension.parameter: dimension for dimension in dimensions}
