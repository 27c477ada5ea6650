"""Presets: `<env>.toml`, the settings `pufferjax train <env>` starts from. Of the environment NAME of a suite it is
`<suite>/<NAME>.toml`, or else `<suite>.toml`.

A preset has the layout of a run's config.toml and lists only what differs from the defaults of the dataclasses:

    total_steps = 50_000_000       # fields of TrainConfig
    [env]                          # arguments of envs.make
    [policy] [ppo] [state_set]     # fields of PolicyConfig, PPOConfig, StateSetConfig
    [run]                          # fields of RunOptions
    [sweep]                        # what `pufferjax sweep` varies: bounds and a scale, or choices (docs/sweeps.md)
    "ppo.gamma" = [0.9, 0.9995, "logit"]

    [[overlay]]                    # tried in order; the first whose max_size >= env.size is laid over the rest
    max_size = 15
    total_steps = 5_000_000
    [overlay.ppo]
    learning_rate = 0.02
"""

import importlib.resources
import tomllib
from collections.abc import Mapping
from typing import Any


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table."""
    merged = dict(base)
    for name, value in over.items():
        is_table = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if is_table else value
    return merged


def resolve(preset: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """The preset without its overlays and [sweep], the overlay for an environment of this `size` laid over it."""
    return {name: value for name, value in _laid_over(preset, size).items() if name != "sweep"}


def sweep(preset: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """The [sweep] of the preset for an environment of this `size`; empty if it has none."""
    table = _laid_over(preset, size).get("sweep", {})
    if not isinstance(table, Mapping):
        raise ValueError(f"preset: sweep must be a table [sweep], got {table!r}")
    return dict(table)


def _laid_over(preset: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    table = {name: value for name, value in preset.items() if name != "overlay"}
    for overlay in preset.get("overlay", []):
        if "max_size" not in overlay:
            raise ValueError("preset: an [[overlay]] must have max_size")
        if size is not None and size <= overlay["max_size"]:
            return merge(table, {name: value for name, value in overlay.items() if name != "max_size"})
    return table


def load(name: str) -> dict[str, Any]:
    """The preset of an environment as it is in its file; empty if it has none."""
    suite, colon, environment = name.partition(":")
    for stem in (f"{suite}/{environment}", suite) if colon else (name,):
        file = importlib.resources.files(__name__).joinpath(f"{stem}.toml")
        if not file.is_file():
            continue
        try:
            return tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"preset {stem}.toml: {error}") from None
    return {}
