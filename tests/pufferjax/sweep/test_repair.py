"""Whatever is drawn, a run takes what becomes of it; and what is possible stays as it is."""

import numpy as np

from pufferjax.core.config import TrainConfig
from pufferjax.runs.run_config import RunConfig, RunOptions, settings
from pufferjax.sweep.repair import repaired

BASE = settings(RunConfig("maze", {}, TrainConfig(), RunOptions()).to_table())


def config_of(flat):
    table = {"env": {}, "run": {"env": "maze"}}
    for name, value in flat.items():
        section, dot, field = name.partition(".")
        if dot and section in ("policy", "ppo", "state_set"):
            table.setdefault(section, {})[field] = value
        elif name in ("total_steps", "num_envs", "horizon"):
            table[name] = value
    return RunConfig.from_table(table).train


def test_combinations_that_no_run_takes_become_ones_that_it_does():
    rng, impossible = np.random.default_rng(0), 0
    for _ in range(300):
        drawn = {
            "num_envs": int(rng.integers(1, 3000)),
            "horizon": int(rng.integers(1, 300)),
            "total_steps": int(10 ** rng.uniform(2, 8)),
            "ppo.minibatch_size": int(rng.integers(1, 70_000)),
            "ppo.replay_ratio": float(10 ** rng.uniform(-4, 1)),
            "state_set.interval": int(rng.integers(1, 100)),
            "state_set.replay_span": int(rng.integers(1, 100)),
            "state_set.walk_steps": int(rng.integers(0, 300)),
            "state_set.capacity": int(rng.integers(1, 100)),
            "state_set.min_states": int(rng.integers(1, 100)),
            "state_set.fraction": float(10 ** rng.uniform(-5, -0.1)),
            "state_set.release_from": float(rng.uniform(0, 2)),
            "state_set.release_until": float(rng.uniform(0, 2)),
        }
        agents = int(rng.integers(1, 9))
        flat = {**BASE, **drawn}
        try:
            config_of(flat).sizes(agents)
        except ValueError:
            impossible += 1
        changes = repaired(flat, agents)
        config_of({**flat, **changes}).sizes(agents)  # raises if it is still impossible
        assert not changes.keys() & {"num_envs", "horizon", "state_set.capacity"}
        assert repaired({**flat, **changes}, agents) == {}
    assert impossible > 250


def test_what_is_possible_stays_and_what_is_not_moves_little():
    assert repaired(BASE) == {}
    changes = repaired({**BASE, "horizon": 96})
    assert changes == {"ppo.minibatch_size": 96 * 85}  # 8160; 8192 is no multiple of 96
    assert repaired({**BASE, "horizon": 64, "state_set.replay_span": 80}) == {"state_set.replay_span": 64}
    # 8192 of 2048 * 8 samples are half of them: no update is made of less.
    assert repaired({**BASE, "horizon": 8}) == {
        "state_set.interval": 8, "state_set.replay_span": 8, "ppo.replay_ratio": 0.5
    }  # fmt: skip
