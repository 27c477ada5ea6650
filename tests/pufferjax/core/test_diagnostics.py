"""The figures of the state set against slow NumPy on the same states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import StateSet, make_init, make_update, make_warmup
from pufferjax.core import diagnostics
from pufferjax.core.diagnostics import entered_slots, filled_slots, state_set_metrics


def walked(env, num_envs, num_steps, seed=0):
    """Rows of a random agent."""
    state = env.reset(jax.random.key(seed), num_envs)[1]
    for t in range(num_steps):
        key = jax.random.key(1000 * seed + t)
        state = env.step(key, state, jax.random.randint(key, num_envs, 0, 5))[1]
    return np.asarray(env.snapshot(state))


def expected(env, state_set, born, epoch):
    """The figures of the stored states, one state at a time."""
    kept = np.flatnonzero(filled_slots(state_set))
    rows = np.asarray(state_set.snapshots)[kept]
    times = rows[:, 4:8].copy().view(np.uint32)[:, 0]  # the maze's layout: level, clock, x, y
    places = {row[:4].tobytes() + row[8:].tobytes() for row in rows}
    figures = {"state_repeats": 1 - len(places) / len(kept)}
    priorities = np.asarray(state_set.priorities)[kept]
    columns = {"priority": priorities, "state_age": epoch - np.asarray(born)[kept], "state_time": times}
    for name, column in columns.items():
        for quantile, q in {"p10": 0.1, "p50": 0.5, "p90": 0.9}.items():
            figures[f"{name}_{quantile}"] = np.sort(column)[round(q * (len(kept) - 1))]
    return figures


def test_figures_of_the_stored_states(tiny_env):
    early, late = walked(tiny_env, 20, 3), walked(tiny_env, 20, 40)
    rows = np.concatenate([early, late, early[:5]])
    state_set = StateSet.create(64, rows.shape[1]).insert(rows, np.linspace(1, 0.1, 45, dtype=np.float32))
    born = np.arange(64, dtype=np.int32) % 7
    empty = StateSet.create(64, rows.shape[1])
    figures = jax.jit(functools.partial(state_set_metrics, tiny_env))(empty, state_set, born, jnp.int32(9))
    truth = expected(tiny_env, state_set, born, 9)
    assert truth["state_time_p10"] == 3 and 0.1 < truth["state_repeats"] < 0.9 and truth["state_age_p90"] == 9
    for name, value in truth.items():
        assert float(figures[name]) == pytest.approx(value, rel=1e-6), name
    assert (float(figures["state_set_size"]), float(figures["state_inserts"]), float(figures["state_evictions"])) == (
        45, 45, 0)  # fmt: skip
    assert float(figures["priority_min"]) == pytest.approx(0.1) and float(figures["priority_max"]) == 1
    assert float(figures["priority_mean"]) == pytest.approx(0.55)


def test_an_empty_set_gives_zeros(tiny_env):
    empty = StateSet.create(8, tiny_env.spec.state_bytes)
    figures = state_set_metrics(tiny_env, empty, empty, jnp.zeros(8, jnp.int32), jnp.int32(3))
    assert {name: float(x) for name, x in figures.items() if x != 0} == {}


def test_a_large_set_is_sampled_evenly(tiny_env, monkeypatch):
    rows = np.tile(walked(tiny_env, 1, 2), (40, 1))
    state_set = StateSet.create(64, rows.shape[1]).insert(rows, np.arange(1, 41, dtype=np.float32))
    monkeypatch.setattr(diagnostics, "MAX_SLOTS", 16)
    empty = StateSet.create(64, rows.shape[1])
    figures = state_set_metrics(tiny_env, empty, state_set, jnp.zeros(64, jnp.int32), jnp.int32(0))
    # Every fourth slot: priorities 1, 5, ..., 37; what needs no order is still exact.
    assert [float(figures[f"priority_{name}"]) for name in ("p10", "p50", "p90")] == [5, 17, 33]
    assert float(figures["state_set_size"]) == 40 and float(figures["priority_max"]) == 40


@pytest.mark.parametrize("scale", [1.0, 1e-40])  # 1e-40: denormal numbers, which some CPU settings take for zero
def test_who_entered_is_known_without_looking_at_snapshots(scale):
    random = np.random.default_rng(0)
    insert = jax.jit(StateSet.insert)
    seen = set()
    for _ in range(60):
        state_set, number = StateSet.create(6, 2), 1
        for _ in range(4):
            rows = np.zeros((5, 2), np.uint8)
            rows[:, 0] = np.arange(number, number + 5)
            number += 5
            # Few different scores, zero among them: many ties.
            after = insert(state_set, rows, (random.integers(0, 4, 5) * scale).astype(np.float32))
            entered = np.asarray(entered_slots(state_set, after))
            changed = np.asarray(state_set.snapshots[:, 0]) != np.asarray(after.snapshots[:, 0])
            np.testing.assert_array_equal(entered, changed)
            seen.add(int(entered.sum()))
            state_set = after
    assert {0, 1, 5} <= seen


def test_shares_of_several_devices():
    state_set = StateSet.create(6, 1)
    shares = StateSet(
        state_set.snapshots, state_set.priorities, state_set.heap, state_set.heap_position, jnp.array([1, 3])
    )
    assert np.asarray(filled_slots(shares)).tolist() == [True, False, False, True, True, True]


def contents(state_set):
    """The row in each slot, None where there is none."""
    rows = zip(np.asarray(state_set.snapshots), filled_slots(state_set), strict=True)
    return [row.tobytes() if is_filled else None for row, is_filled in rows]


def test_births_and_counts_of_a_run(tiny_env, tiny_config):
    config = tiny_config()
    hypers = config.hypers()
    state = jax.jit(make_warmup(tiny_env, config))(make_init(tiny_env, config)(jax.random.key(0)), hypers)
    update = jax.jit(make_update(tiny_env, config))
    inserts = 0
    for epoch in range(6):
        before, born = state.state_set, np.asarray(state.born)
        state, metrics = update(state, hypers, jnp.float32(0))
        old, new = contents(before), contents(state.state_set)
        changed = np.array([a != b for a, b in zip(old, new, strict=True)])
        assert int(metrics["state_inserts"]) == changed.sum()
        assert int(metrics["state_evictions"]) == sum(a is not None and a != b for a, b in zip(old, new, strict=True))
        np.testing.assert_array_equal(state.born, np.where(changed, epoch, born))
        for name, value in expected(tiny_env, state.state_set, state.born, epoch).items():
            assert float(metrics[name]) == pytest.approx(value, rel=1e-6, abs=1e-7), (epoch, name)
        inserts += int(metrics["state_inserts"])
    assert inserts > 10 and float(metrics["rewards"]) > 0 and float(metrics["state_age_p10"]) < 5
