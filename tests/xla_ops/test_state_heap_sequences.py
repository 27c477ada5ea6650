"""Long random sequences of StateSet calls against a plain Python model: 10^4 calls, 10^6 with PUFFERJAX_NIGHTLY=1."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pufferjax import StateSet

CALLS = 200  # of each sequence
SEQUENCES = 5000 if os.environ.get("PUFFERJAX_NIGHTLY") == "1" else 50
WIDTH, ROW_BYTES = 8, 5
KINDS = [*["insert"] * 8, *["rescore"] * 8, *["sample"] * 3, "reload"]
ODD = np.array([0, -0.0, -1, np.nan, np.inf, -np.inf, np.finfo(np.float32).tiny, np.finfo(np.float32).max], np.float32)
DECAYS = np.array([0, 0.5, 0.95, 1], np.float32)
LARGEST = np.finfo(np.float32).max
TINY = np.finfo(np.float32).tiny

insert = jax.jit(StateSet.insert)
rescore = jax.jit(StateSet.rescore)
sample = jax.jit(StateSet.sample, static_argnums=2)


class Model:
    """Slots as (priority, row); the least (priority, slot) goes first."""

    def __init__(self, capacity):
        self.capacity, self.priorities, self.rows = capacity, [], []

    @staticmethod
    def clean(score):
        return np.float32(0) if np.isnan(score) or score < 0 else min(score, LARGEST)

    def insert(self, rows, scores, mask):
        for row, score, present in zip(rows, scores, mask, strict=True):
            if not present:
                continue
            score = self.clean(score)
            if len(self.rows) < self.capacity:
                self.priorities.append(score)
                self.rows.append(row)
                continue
            least = min(self.priorities)
            if score > least:
                slot = self.priorities.index(least)
                self.priorities[slot], self.rows[slot] = score, row

    def rescore(self, slots, scores, decay, mask):
        for slot, score, present in zip(slots, scores, mask, strict=True):
            if present:
                old, score = self.priorities[slot], self.clean(score)
                product = old * decay
                self.priorities[slot] = score if score >= old else product if product >= TINY else np.float32(0)

    def check(self, state_set):
        size, priorities = len(self.rows), np.array(self.priorities, np.float32)
        assert int(state_set.size) == size
        assert np.array_equal(np.asarray(state_set.priorities)[:size], priorities)
        assert not size or np.array_equal(np.asarray(state_set.snapshots)[:size], self.rows)
        # The heap may have any valid layout.
        heap, position = np.asarray(state_set.heap)[:size], np.asarray(state_set.heap_position)
        children, slots = np.arange(1, size), np.arange(size)
        assert np.array_equal(position[heap], slots) and np.array_equal(np.sort(heap), slots)
        parent, child = heap[(children - 1) // 2], heap[1:]
        lower, equal = priorities[parent] < priorities[child], priorities[parent] == priorities[child]
        assert np.all(lower | (equal & (parent < child)))


def draw_scores(rng):
    """Ties, and now and then what no score should be. No denormals: test_state_heap.py has them."""
    scores = rng.integers(0, 12, WIDTH).astype(np.float32) / 4
    return np.where(rng.random(WIDTH) < 0.1, ODD[rng.integers(len(ODD), size=WIDTH)], scores)


def one_call(rng, model, state_set):
    """A random call on both; (what it was, the new state set)."""
    scores, mask = draw_scores(rng), rng.random(WIDTH) < (0.2, 0.9)[rng.integers(2)]
    what, size = KINDS[rng.integers(len(KINDS))], len(model.rows)
    if what == "insert":
        rows = rng.integers(0, 256, (WIDTH, ROW_BYTES), np.uint8)
        model.insert(rows, scores, mask)
        return what, insert(state_set, rows, scores, mask)
    if what == "rescore":
        slots = rng.integers(0, max(size, 1), WIDTH, np.int32)
        mask, decay = mask & (size > 0), DECAYS[rng.integers(len(DECAYS))]
        model.rescore(slots, scores, decay, mask)
        return what, rescore(state_set, slots, scores, decay, mask)
    if what == "sample":
        slots, importance = sample(state_set, rng.integers(0, 2**32, 2, np.uint32), WIDTH, 1.0, 1.0)
        slots, priorities = np.asarray(slots), np.array(model.priorities, np.float32)
        assert ((slots >= 0) & (slots < max(size, 1))).all()
        if size and priorities.max() > 0:
            assert (priorities[slots] > 0).all()
        assert (np.asarray(importance) >= 0).all()
        return what, state_set
    # As through a checkpoint: new arrays of the same content.
    return what, jax.tree.map(lambda x: jnp.asarray(np.array(x)), state_set)


@settings(max_examples=SEQUENCES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(capacity=st.sampled_from([1, 2, 3, 7, 16, 33]), seed=st.integers(0, 2**32 - 1))
def test_sequences_match_the_model(capacity, seed):
    rng = np.random.default_rng(seed)
    model, state_set = Model(capacity), StateSet.create(capacity, ROW_BYTES)
    for call in range(CALLS):
        what, state_set = one_call(rng, model, state_set)
        try:
            model.check(state_set)
        except AssertionError as error:
            raise AssertionError(f"after call {call}, {what}: {error}") from None
