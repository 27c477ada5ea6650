"""The state heap against a plain Python model; native and twin agree on every bit."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pufferjax.xla_ops import backends, state_heap_insert, state_heap_rescore

HAS_NATIVE = backends()["state_heap_insert"]["cpu"] == "native" and jax.default_backend() == "cpu"
needs_native = pytest.mark.skipif(not HAS_NATIVE, reason="no native op")
IMPLS = [pytest.param("native", marks=needs_native), "reference"]
LARGEST = np.finfo(np.float32).max
ROW_BYTES = 5

# Each in one compiled program per shape, as a user would call them.
insert = jax.jit(state_heap_insert, static_argnames="impl")
rescore = jax.jit(state_heap_rescore, static_argnames="impl")


class Model:
    """The specification: lists, a linear search for the minimum, no heap."""

    def __init__(self, capacity):
        self.snapshots = np.zeros((capacity, ROW_BYTES), np.uint8)
        self.priorities = np.zeros(capacity, np.float32)
        self.size = 0

    @staticmethod
    def clean(score):
        # Negative by its sign: comparisons on a thread that reads denormals as 0 are not to be trusted.
        return np.float32(0) if np.isnan(score) or np.signbit(score) else min(np.float32(score), LARGEST)

    def insert(self, rows, scores, mask):
        for row, score, present in zip(rows, scores, mask, strict=True):
            score = self.clean(score)
            if not present:
                continue
            if self.size < len(self.priorities):
                slot, self.size = self.size, self.size + 1
            else:
                slot = min(range(self.size), key=lambda slot: (self.priorities[slot].view(np.int32), slot))
                if not score.view(np.int32) > self.priorities[slot].view(np.int32):
                    continue
            self.priorities[slot], self.snapshots[slot] = score, row

    def rescore(self, slots, scores, decay, mask):
        for slot, score, present in zip(slots, scores, mask, strict=True):
            if present:
                old, score = self.priorities[slot], self.clean(score)
                product = np.float32(old) * np.float32(decay)
                decayed = product if product >= np.finfo(np.float32).tiny else np.float32(0)
                self.priorities[slot] = score if score.view(np.int32) >= old.view(np.int32) else decayed


def empty(capacity):
    slots = jnp.arange(capacity, dtype=jnp.int32)
    return jnp.zeros((capacity, ROW_BYTES), jnp.uint8), jnp.zeros(capacity), slots, slots, jnp.int32(0)


def filled(priorities, impl="reference"):
    """A full set with these priorities, snapshot i of slot i all i."""
    count = len(priorities)
    rows = np.repeat(np.arange(count, dtype=np.uint8)[:, None], ROW_BYTES, 1)
    return insert(*empty(count), rows, np.asarray(priorities, np.float32), impl=impl)


def check_invariant(state):
    priorities, heap, heap_position, size = map(np.asarray, state[1:])
    np.testing.assert_array_equal(np.sort(heap[:size]), np.arange(size))
    np.testing.assert_array_equal(heap[heap_position[:size]], np.arange(size))
    np.testing.assert_array_equal(heap[size:], np.arange(size, len(heap)))
    np.testing.assert_array_equal(heap_position[size:], np.arange(size, len(heap)))
    bits = priorities.view(np.int32)
    for child in range(1, size):
        parent = (child - 1) // 2
        assert (bits[heap[parent]], heap[parent]) < (bits[heap[child]], heap[child])


def check_equal(state, model):
    snapshots, priorities, _, _, size = state
    np.testing.assert_array_equal(snapshots, model.snapshots)
    np.testing.assert_array_equal(np.asarray(priorities).view(np.int32), model.priorities.view(np.int32))
    assert int(size) == model.size and size.dtype == jnp.int32
    check_invariant(state)


def random_scores(rng, count):
    """Many ties and every oddity."""
    odd = np.array([0, -0.0, -1, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 2e-38, LARGEST], np.float32)
    scores = rng.integers(0, 12, count).astype(np.float32) / 4
    return np.where(rng.random(count) < 0.15, rng.choice(odd, count), scores).astype(np.float32)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("capacity", [1, 2, 3, 16, 37])
def test_random_sequences_match_the_model(impl, capacity):
    """About 10,000 elements per capacity; insert and rescore by turns."""
    rng = np.random.default_rng(capacity)
    model, state = Model(capacity), empty(capacity)
    for turn in range(200):
        count = (1, 7, 40)[turn % 3]
        rows = rng.integers(0, 256, (count, ROW_BYTES), np.uint8)
        scores, mask = random_scores(rng, count), rng.random(count) < 0.8
        state = insert(*state, rows, scores, mask, impl=impl)
        model.insert(rows, scores, mask)
        check_equal(state, model)
        slots = rng.integers(0, max(model.size, 1), count).astype(np.int32)  # duplicates
        scores, mask = random_scores(rng, count), (rng.random(count) < 0.8) & (model.size > 0)
        decay = np.float32(rng.choice([0, 0.5, 0.95, 1]))
        state = (state[0], *rescore(*state[1:], slots, scores, decay, mask, impl=impl), state[4])
        model.rescore(slots, scores, decay, mask)
        check_equal(state, model)


operation = st.tuples(
    st.booleans(),
    st.lists(st.tuples(st.floats(width=32), st.booleans(), st.integers(0, 6)), min_size=4, max_size=4),
)


@needs_native
@settings(max_examples=60, deadline=None)
@given(st.lists(operation, max_size=8), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_native_and_twin_agree_on_any_sequence(operations, decay):
    native = twin = empty(7)
    for is_insert, elements in operations:
        scores = np.array([score for score, _, _ in elements], np.float32)
        mask = np.array([present for _, present, _ in elements])
        numbers = np.array([number for _, _, number in elements], np.int32)
        if is_insert:
            rows = np.repeat(numbers[:, None].astype(np.uint8), ROW_BYTES, 1)
            native = insert(*native, rows, scores, mask, impl="native")
            twin = insert(*twin, rows, scores, mask, impl="reference")
        else:
            mask &= numbers < int(native[4])
            native = (native[0], *rescore(*native[1:], numbers, scores, decay, mask, impl="native"), native[4])
            twin = (twin[0], *rescore(*twin[1:], numbers, scores, decay, mask, impl="reference"), twin[4])
        for i in (0, 1, 4):
            assert np.asarray(native[i]).tobytes() == np.asarray(twin[i]).tobytes()
        check_invariant(native)
        check_invariant(twin)


@pytest.mark.parametrize("impl", IMPLS)
def test_insert_needs_strictly_more_and_evicts_the_lowest_slot_among_equals(impl):
    state = filled([2, 1, 3, 1], impl)
    rows = np.full((1, ROW_BYTES), 99, np.uint8)
    same = insert(*state, rows, np.float32([1]), impl=impl)
    np.testing.assert_array_equal(same[0], state[0])
    more = insert(*state, rows, np.nextafter(np.float32([1]), np.float32(2)), impl=impl)
    np.testing.assert_array_equal(more[0][:, 0], [0, 99, 2, 3])
    more = insert(*more, rows + 1, np.float32([5]), impl=impl)
    np.testing.assert_array_equal(more[0][:, 0], [0, 99, 2, 100])
    np.testing.assert_array_equal(more[1], np.float32([2, 1 + 2**-23, 3, 5]))


@pytest.mark.parametrize("impl", IMPLS)
def test_a_candidate_of_the_same_call_can_be_evicted(impl):
    rows = np.arange(4, dtype=np.uint8)[:, None].repeat(ROW_BYTES, 1)
    state = insert(*empty(1), rows, np.float32([1, 3, 2, 4]), impl=impl)
    assert state[1][0] == 4 and state[0][0, 0] == 3
    state = insert(*empty(2), rows, np.float32([1, 3, 2, 0]), impl=impl)
    np.testing.assert_array_equal(state[1], [2, 3])
    np.testing.assert_array_equal(state[0][:, 0], [2, 1])


@pytest.mark.parametrize("impl", IMPLS)
def test_odd_scores(impl):
    scores = np.float32([np.nan, -1, np.inf, -np.inf, -0.0, 1e-40])
    expected = np.float32([0, 0, LARGEST, 0, 0, 1e-40])
    state = filled(scores, impl)
    np.testing.assert_array_equal(np.asarray(state[1]).view(np.int32), expected.view(np.int32))
    slots = np.arange(6, dtype=np.int32)
    ones = filled(np.ones(6), impl)
    np.testing.assert_array_equal(
        rescore(*ones[1:], slots, scores, 0.5, impl=impl)[0], [0.5, 0.5, LARGEST, 0.5, 0.5, 0.5]
    )
    zeros = filled(np.zeros(6), impl)  # a denormal is more than 0
    raised = rescore(*zeros[1:], slots, scores, 0.5, impl=impl)[0]
    np.testing.assert_array_equal(np.asarray(raised).view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("impl", IMPLS)
def test_decay_compounds_and_order_matters(impl):
    state = filled([8, 8], impl)
    slots = np.int32([0, 0, 0, 1, 1])
    priorities, _, _ = rescore(*state[1:], slots, np.float32([1, 1, 2, 9, 1]), 0.5, impl=impl)
    np.testing.assert_array_equal(priorities, [2.0, 4.5])  # 8, 4, 2, then 2 >= 2; 9, then decayed


@pytest.mark.parametrize("impl", IMPLS)
def test_nothing_to_do(impl):
    state = filled([3, 1, 2], impl)
    none = insert(*state, np.zeros((0, ROW_BYTES), np.uint8), np.zeros(0, np.float32), impl=impl)
    masked = insert(*state, np.zeros((2, ROW_BYTES), np.uint8), np.float32([9, 9]), np.zeros(2, bool), impl=impl)
    for after in (none, masked):
        for i in (0, 1, 4):
            np.testing.assert_array_equal(after[i], state[i])
        check_invariant(after)
    for slots in (np.zeros(0, np.int32), np.int32([0, 77, -5])):  # a masked slot may be anything
        scores, mask = np.zeros(len(slots), np.float32), np.zeros(len(slots), bool)
        after = state_heap_rescore(*state[1:], slots, scores, 0.5, mask, impl=impl)
        np.testing.assert_array_equal(after[0], state[1])


@pytest.mark.parametrize("impl", [None, *IMPLS])
def test_vmap_and_scan_equal_separate_calls(impl):
    rng = np.random.default_rng(3)
    lanes, capacity, count, turns = 3, 6, 5, 4
    rows = rng.integers(0, 256, (lanes, turns, count, ROW_BYTES), np.uint8)
    scores = np.stack([[random_scores(rng, count) for _ in range(turns)] for _ in range(lanes)])
    slots = rng.integers(0, count, (lanes, turns, count)).astype(np.int32)

    def turn(state, x):
        row, score, slot = x
        state = state_heap_insert(*state, row, score, impl=impl)
        return (state[0], *state_heap_rescore(*state[1:], slot, score, 0.9, impl=impl), state[4]), state[1]

    def run(rows, scores, slots):
        return jax.lax.scan(turn, empty(capacity), (rows, scores, slots))

    mapped, history = jax.jit(jax.vmap(run))(rows, scores, slots)
    for lane in range(lanes):
        state = empty(capacity)
        for t in range(turns):
            state, priorities = turn(state, (rows[lane, t], scores[lane, t], slots[lane, t]))
            np.testing.assert_array_equal(history[lane, t], priorities)
        for got, expected in zip(mapped, state, strict=True):
            np.testing.assert_array_equal(got[lane], expected)
    # Only the candidates are mapped: each lane changes its own copy of one set.
    start = filled(np.ones(capacity), impl or "reference")
    shared = jax.vmap(lambda s: state_heap_insert(*start, rows[0, 0], s, impl=impl))(scores[:, 0])
    for lane in range(lanes):
        alone = state_heap_insert(*start, rows[0, 0], scores[lane, 0], impl=impl)
        np.testing.assert_array_equal(shared[0][lane], alone[0])
        np.testing.assert_array_equal(shared[1][lane], alone[1])


@pytest.mark.parametrize("impl", IMPLS)
def test_operands_survive_when_not_donated(impl):
    state = filled([3, 1, 2], impl)
    before = [np.array(x) for x in state]
    # The set's own rows as candidates: the aliased buffer is read by the same call.
    after = jax.jit(functools.partial(state_heap_insert, impl=impl))(*state, state[0][::-1], np.float32([9, 9, 9]))
    for x, expected in zip(state, before, strict=True):
        np.testing.assert_array_equal(x, expected)
    same = jax.jit(lambda s: state_heap_insert(s[0], *s[1:], s[0], jnp.array([9.0, 8.0, 7.0]), impl=impl))(state)
    np.testing.assert_array_equal(after[0][:, 0], [0, 2, 1])
    np.testing.assert_array_equal(same[0][:, 0], [2, 0, 1])


@needs_native
@pytest.mark.parametrize("impl", [None, "native"])
def test_donated_arrays_are_updated_in_place(impl):
    state = [jnp.array(x) for x in filled(np.ones(1000), "native")]
    pointers = [x.unsafe_buffer_pointer() for x in state]
    rows = jnp.full((50, ROW_BYTES), 7, jnp.uint8)
    update = jax.jit(functools.partial(state_heap_insert, impl=impl), donate_argnums=range(5))
    after = update(*state, rows, jnp.arange(50.0))
    assert [x.unsafe_buffer_pointer() for x in after] == pointers
    assert int((after[0] == 7).all(1).sum()) >= 48
    update = jax.jit(functools.partial(state_heap_rescore, impl=impl), donate_argnums=range(3))
    rescored = update(*after[1:], jnp.arange(50, dtype=jnp.int32), jnp.zeros(50), 0.5)
    assert [x.unsafe_buffer_pointer() for x in rescored] == pointers[1:4]


@needs_native
def test_an_insert_costs_no_more_for_a_large_set():
    """O(log M): with every array donated a call must not touch the other 100 MB. The bound is loose on purpose."""
    capacity, row_bytes = 1_000_000, 100
    slots = jnp.arange(capacity, dtype=jnp.int32)
    state = (jnp.zeros((capacity, row_bytes), jnp.uint8), jnp.ones(capacity), slots, slots + 0, jnp.int32(capacity))
    update = jax.jit(state_heap_insert, donate_argnums=range(5))
    rows, scores = jnp.ones((8, row_bytes), jnp.uint8), jnp.full(8, 2.0)
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        state = jax.block_until_ready(update(*state, rows, scores))
        best = min(best, time.perf_counter() - start)
    assert best < 5e-3  # copying the snapshots alone takes tens of milliseconds


GOOD = {
    "snapshots": jnp.zeros((4, 3), jnp.uint8),
    "priorities": jnp.zeros(4),
    "heap": jnp.arange(4, dtype=jnp.int32),
    "heap_position": jnp.arange(4, dtype=jnp.int32),
    "size": 2,
    "rows": jnp.zeros((2, 3), jnp.uint8),
    "slots": jnp.array([0, 1], jnp.int32),
    "scores": jnp.zeros(2),
    "decay": 0.5,
    "mask": jnp.ones(2, bool),
}
INSERT = ("snapshots", "priorities", "heap", "heap_position", "size", "rows", "scores", "mask")
RESCORE = ("priorities", "heap", "heap_position", "size", "slots", "scores", "decay", "mask")
BAD = [
    ("snapshots", jnp.zeros((4, 3)), TypeError, "snapshots must be uint8"),
    ("snapshots", jnp.zeros(4, jnp.uint8), ValueError, "snapshots must have shape"),
    ("priorities", jnp.zeros(0), ValueError, "priorities must have"),
    ("priorities", jnp.zeros(4, jnp.int32), TypeError, "priorities must be float32"),
    ("heap", jnp.zeros(3, jnp.int32), ValueError, r"heap must have shape int32\[4\]"),
    ("heap_position", jnp.zeros(4), TypeError, "heap_position must be int32"),
    ("size", 5, ValueError, r"size must be an integer in \[0, 4\], got 5"),
    ("size", -1, ValueError, r"size must be an integer in \[0, 4\], got -1"),
    ("size", 1.0, TypeError, "size must be an integer"),
    ("rows", jnp.zeros((2, 4), jnp.uint8), ValueError, r"rows must have shape uint8\[C, 3\]"),
    ("slots", jnp.zeros(2), TypeError, "slots must be int32"),
    (
        "slots",
        jnp.array([0, 2], jnp.int32),
        ValueError,
        r"slots must be in \[0, size\) = \[0, 2\).*got 2 at position 1",
    ),
    ("slots", np.array([-1, 0]), ValueError, r"slots must be in \[0, size\).*got -1 at position 0"),
    ("slots", np.array([2**40, 0]), ValueError, "slots must be int32"),
    ("scores", jnp.zeros(3), ValueError, r"scores must have shape float32\[2\]"),
    ("decay", 1.5, ValueError, r"decay must be a finite number in \[0, 1\]"),
    ("decay", np.nan, ValueError, "decay must be a finite number"),
    ("mask", jnp.ones(2), TypeError, "mask must be bool"),
    ("mask", jnp.ones(3, bool), ValueError, "mask must have shape"),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), BAD)
def test_bad_arguments(name, value, error, message):
    for function, names in ((state_heap_insert, INSERT), (state_heap_rescore, RESCORE)):
        if name in names:
            with pytest.raises(error, match=f"^{function.__name__}: {message}"):
                function(**{n: GOOD[n] for n in names} | {name: value})


@needs_native
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("size", 5, r"size must be in \[0, 4\], got 5"),
        ("size", -1, r"size must be in \[0, 4\], got -1"),
        ("slots", np.int32([0, 2]), r"slots must be in \[0, size\) = \[0, 2\) where mask is True, got 2 at position 1"),
        ("slots", np.int32([-(2**31), 0]), r"slots must be in"),
        ("decay", 1.5, r"decay must be a finite number in \[0, 1\], got 1.5"),
        ("decay", np.nan, "decay must be a finite number"),
        ("heap", np.int32([0, 2**30, 2, 3]), "heap"),
        ("heap", np.int32([-1, -1, -1, -1]), "heap"),
        ("heap_position", np.int32([2**30, -5, 2, 3]), "heap_position is corrupt"),
    ],
)
def test_bad_traced_arguments_native(name, value, message):
    for function, names in ((state_heap_insert, INSERT), (state_heap_rescore, RESCORE)):
        if name not in names or (name == "heap_position" and function is state_heap_insert):  # insert never reads it
            continue
        arguments = {n: GOOD[n] for n in names} | {"scores": jnp.ones(2), name: value}
        if name == "heap" and function is state_heap_insert:
            arguments["size"] = 4
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=f"{function.__name__}: {message}"):
            jax.block_until_ready(jax.jit(functools.partial(function, impl="native"))(**arguments))


@needs_native
def test_a_corrupt_heap_never_leads_out_of_bounds():
    rng = np.random.default_rng(0)
    rows, scores = rng.integers(0, 256, (16, ROW_BYTES), np.uint8), np.arange(16, dtype=np.float32)
    slots, failures = rng.integers(0, 9, 16).astype(np.int32), 0
    for _ in range(200):
        snapshots, priorities, heap, heap_position, _ = filled(rng.random(9), "native")
        heap, heap_position = np.array(heap), np.array(heap_position)
        for array in (heap, heap_position):
            array[rng.integers(0, 9, 3)] = rng.choice([-(2**31), -1, 0, 5, 8, 9, 2**31 - 1], 3)
        try:
            jax.block_until_ready(insert(snapshots, priorities, heap, heap_position, 9, rows, scores, impl="native"))
            jax.block_until_ready(rescore(priorities, heap, heap_position, 9, slots, scores, 0.9, impl="native"))
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            assert "corrupt" in str(error)
            failures += 1
    assert failures > 100


def test_bad_traced_arguments_reference():
    state = filled([4, 5, 6])
    after = rescore(*state[1:], np.int32([7, 1, -1]), np.float32([9, 0, 9]), np.nan, impl="reference")
    np.testing.assert_array_equal(after[0], [4, 0, 6])
    after = insert(*state[:4], 99, np.zeros((1, ROW_BYTES), np.uint8), np.float32([9]), impl="reference")
    np.testing.assert_array_equal(after[1], [9, 5, 6])


TWO_DEVICES = """
from pufferjax.xla_ops import state_heap_insert, state_heap_rescore
slots = jnp.arange(4, dtype=jnp.int32)
start = (jnp.zeros((4, 3), jnp.uint8), jnp.zeros(4), slots, slots, jnp.int32(0))
rows = jnp.arange(2 * 3 * 5 * 3, dtype=jnp.uint8).reshape(2, 3, 5, 3)
scores = jax.random.uniform(jax.random.key(0), (2, 3, 5))
for impl in (None, "reference"):
    def turn(state, x):
        state = state_heap_insert(*state, *x, impl=impl)
        rescored = state_heap_rescore(*state[1:], slots[:2], x[1][:2], 0.5, impl=impl)
        return (state[0], *rescored, state[4]), state[1]
    def run(start, rows, scores):
        return jax.lax.scan(turn, start, (rows, scores))[0]
    def share(start, rows, scores):
        return jax.tree.map(lambda x: x[None], run(jax.tree.map(lambda x: x[0], start), rows[0], scores[0]))
    specs = (P("data"), P("data"), P("data"))
    two = jax.tree.map(lambda x: jnp.stack([x, x]), start)
    got = jax.jit(jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=P("data")))(two, rows, scores)
    for i in range(2):
        for a, b in zip(got, run(start, rows[i], scores[i]), strict=True):
            np.testing.assert_array_equal(a[i], b)
    # A replicated set stays replicated.
    same = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P()))(start, rows[0], scores[0])
    for a, b in zip(same, run(start, rows[0], scores[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    # Each device's own candidates into a replicated start.
    def own(start, rows, scores):
        return jax.tree.map(lambda x: x[None], state_heap_insert(*start, rows[0, 0], scores[0, 0], impl=impl))
    specs = (P(), P("data"), P("data"))
    got = jax.jit(jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=P("data")))(start, rows, scores)
    for i in range(2):
        np.testing.assert_array_equal(got[1][i], state_heap_insert(*start, rows[i, 0], scores[i, 0], impl=impl)[1])
"""


def test_two_devices(run_on_devices):
    run_on_devices(TWO_DEVICES)
