"""From the values of a trial to the run it stands for: its flags, checked before anything is started."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pufferjax.core.train import make_update
from pufferjax.runs.run_config import RunConfig, settings
from pufferjax.sweep.plan import Plan, merged_flags
from pufferjax.sweep.repair import repaired

Parse = Callable[[str, Sequence[str]], RunConfig]  # of the flags of `pufferjax train ENV`; ValueError for a bad value


class Prepared(NamedTuple):
    config: RunConfig
    flags: list[str]  # of `pufferjax train ENV`
    settings: dict[str, Any]  # those that are swept, as they are run
    repaired: dict[str, Any]  # those that had to change, swept or not


class Preparer:
    """Calls itself with what a trial drew; keeps the environments that it has made."""

    def __init__(self, plan: Plan, parse: Parse):
        self._plan, self._parse = plan, parse
        self._base = functools.lru_cache(maxsize=64)(self._make_base)

    def base(self) -> tuple[RunConfig, Any]:
        """The run without anything swept, and its environment."""
        return self._base(())

    def __call__(self, drawn: Mapping[str, Any]) -> Prepared:
        """The run of a trial; `drawn`: settings by name. ValueError if there is no such run, and none close to it."""
        env_flags = merged_flags(
            self._plan.env, (), {name: value for name, value in drawn.items() if name.startswith("env.")}
        )
        config, env = self._base(tuple(env_flags))
        changes = repaired({**settings(config.to_table()), **drawn}, env.spec.num_agents)
        flags = merged_flags(self._plan.env, self._plan.flags, {**drawn, **changes})
        config = self._parse(self._plan.env, flags)
        make_update(env, config.train.fitted(env.spec.state_bytes))  # checks that they fit
        return Prepared(config, flags, {**drawn, **{k: v for k, v in changes.items() if k in drawn}}, changes)

    def _make_base(self, env_flags: tuple[str, ...]) -> tuple[RunConfig, Any]:
        config = self._parse(self._plan.env, [*self._plan.flags, *env_flags])
        return config, config.make_env()

    def start(self) -> dict[str, Any]:
        """The settings without a sweep, as values of the parameters, moved into their bounds."""
        config, _ = self.base()
        # None is left out of the table; `get` gives it back.
        current = settings(config.to_table())
        values = {
            parameter: dimension.parameter_of(current.get(dimension.name))
            for parameter, dimension in self._plan.space.items()
        }
        return {
            parameter: value
            for parameter, value in values.items()
            if value is not None or None in self._plan.space[parameter].choices
        }

    def check_ends(self) -> None:
        """ValueError that names the setting, if a run refuses a bound or a choice of it, all else being as it is."""
        for dimension in self._plan.space.values():
            ends = dimension.choices if dimension.bounds is None else dimension.bounds
            for value in ends:
                try:
                    self({dimension.name: value})
                except (ValueError, TypeError) as error:
                    raise ValueError(f"sweep of {dimension.name}: {error}") from None
