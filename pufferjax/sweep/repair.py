"""Combinations of settings that a run would refuse, changed to the closest that it takes.

Settings are drawn one by one, but some depend on each other: a minibatch is whole rows, an interval divides the
horizon. What is no such matter stays as it is, and is refused where the run is made.
"""

import math
from collections.abc import Mapping
from typing import Any


def repaired(settings: Mapping[str, Any], num_agents: int = 1) -> dict[str, Any]:
    """{setting: value} of those that have to change, of a run of environments with `num_agents` agents each.

    settings: all of them, by name (`ppo.minibatch_size`). num_envs, horizon and state_set.capacity are never changed:
    the others are fitted to them.
    """
    s = dict(settings)
    horizon, rows = s["horizon"], s["num_envs"] * num_agents
    batch = rows * horizon
    s["state_set.interval"] = max(x for x in range(1, min(s["state_set.interval"], horizon) + 1) if horizon % x == 0)
    s["state_set.replay_span"] = min(s["state_set.replay_span"], horizon)
    s["state_set.walk_steps"] = 16 * round(s["state_set.walk_steps"] / 16)
    s["state_set.min_states"] = min(s["state_set.min_states"], s["state_set.capacity"])
    s["state_set.release_until"] = max(s["state_set.release_until"], s["state_set.release_from"])
    if 0 < s["state_set.fraction"] * s["num_envs"] < 1:
        s["state_set.fraction"] = _at_least(1 / s["num_envs"]) if s["num_envs"] > 1 else 0.0
    s["ppo.minibatch_size"] = horizon * min(max(1, round(s["ppo.minibatch_size"] / horizon)), rows)
    s["total_steps"] = max(s["total_steps"], batch)
    if 0 < s["ppo.replay_ratio"] * batch < s["ppo.minibatch_size"]:
        s["ppo.replay_ratio"] = _at_least(s["ppo.minibatch_size"] / batch)
    return {name: value for name, value in s.items() if value != settings[name]}


def _at_least(x: float) -> float:
    """`x`, or the next number above it that can be read."""
    digits = 6 - math.ceil(math.log10(x))
    return x if round(x, digits) == x else round(math.ceil(x * 10**digits) / 10**digits, digits)
