"""The state set as users hold it; the heap's own tests are in tests/xla_ops/test_state_heap.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import StateSet


def rows(*values):
    return jnp.asarray(values, jnp.uint8)[:, None] * jnp.ones((1, 3), jnp.uint8)


def test_keeps_the_best_and_appends_first():
    state_set = StateSet.create(3, 3).insert(rows(1, 2, 3, 4, 5), jnp.array([0.5, 0.2, 0.9, 0.2, 0.3]))
    assert int(state_set.size) == 3
    kept = dict(zip(np.asarray(state_set.snapshots[:, 0]).tolist(), np.asarray(state_set.priorities), strict=True))
    # 4 scores no more than the minimum and stays out; 5 takes the place of 2.
    assert kept == {1: np.float32(0.5), 5: np.float32(0.3), 3: np.float32(0.9)}


def test_rescore_raises_or_decays():
    state_set = StateSet.create(4, 3).insert(rows(1, 2), jnp.array([1.0, 1.0]))
    state_set = state_set.rescore(jnp.array([0, 1, 1]), jnp.array([2.0, 0.0, 0.0]), 0.5)
    np.testing.assert_allclose(state_set.priorities[:2], [2.0, 0.25])
    skipped = state_set.rescore(jnp.array([0]), jnp.array([9.0]), 0.5, jnp.array([False]))
    np.testing.assert_array_equal(skipped.priorities, state_set.priorities)


def test_sample_by_priority():
    state_set = StateSet.create(8, 3).insert(rows(1, 2, 3), jnp.array([1.0, 0.0, 3.0]))
    slots, importance = jax.jit(lambda s, key: s.sample(key, 4000, 1.0, 1.0))(state_set, jax.random.key(0))
    share = np.bincount(slots, minlength=3) / 4000
    np.testing.assert_allclose(share, [0.25, 0, 0.75], atol=0.025)  # 3.6 standard errors
    np.testing.assert_allclose(importance[slots == 2], 1 / (3 * 0.75), rtol=1e-5)


def test_is_a_pytree():
    sets = jax.vmap(lambda score: StateSet.create(2, 3).insert(rows(1), score[None]))(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(sets.priorities[:, 0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("capacity", "state_bytes", "name"), [(0, 4, "capacity"), (4, 0, "state_bytes"), (2.5, 4, "capacity")]
)
def test_refuses_impossible_sizes(capacity, state_bytes, name):
    with pytest.raises((ValueError, TypeError), match=name):
        StateSet.create(capacity, state_bytes)


def test_refuses_rows_of_another_size():
    with pytest.raises(ValueError, match="rows"):
        StateSet.create(4, 3).insert(jnp.zeros((2, 5), jnp.uint8), jnp.zeros(2))
