"""The priority heap of the state set: which snapshots to keep, and what they are worth."""

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_index, check_scalar
from pufferjax.xla_ops.state_heap.reference import state_heap_insert_reference, state_heap_rescore_reference

RESCORE_TARGET = "pufferjax.state_heap.rescore"
INSERT_TARGET = "pufferjax.state_heap.insert"


def state_heap_rescore(
    priorities, heap, heap_position, size, slots, scores, decay, mask=None, *, impl=None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gives replayed slots their new scores, one after the other, in order.

        p[slot] <- score if score >= p[slot], else decay p[slot]

    A slot that comes several times is updated each time, so decay compounds. This is the update of PufferLib's state
    set. NaN and negative scores count as 0, +infinity as the largest finite number, a decayed priority below 2^-126
    as 0.

    Args:
      priorities: f32[M], M >= 1, non-negative and not NaN.
      heap: i32[M], slot ids; the first `size` are a binary min-heap of (priority, slot id).
      heap_position: i32[M], its inverse: heap[heap_position[slot]] == slot for slot < size. Entries beyond `size` of
        both are not looked at; start them as `arange(M)`.
      size: integer scalar in [0, M]; may be traced.
      slots: i32[K], K >= 0, each in [0, size) where mask is True.
      scores: f32[K].
      decay: scalar in [0, 1]; may be traced.
      mask: bool[K], default all True; where False the entry is skipped.
      impl: "native", "reference" or None (native where there is one).

    Returns:
      (priorities, heap, heap_position). Native and twin agree on every bit of the priorities; the heaps may differ in
      layout, on which no result depends. The native op works in place in O(log M) per slot: under jit with the arrays
      donated, nothing is copied. No gradient flows to any argument.

    Raises TypeError or ValueError naming the argument. Of traced values, the native op refuses bad `size`, `slots`,
    `decay`, and a corrupt heap where it meets one, when it runs (invalid argument); the twin cannot raise then: it
    skips such slots and clips the scalars.
    """
    op = "state_heap_rescore"
    heap_arrays, size = _check_heap(op, priorities, heap, heap_position, size)
    slots = check_array(op, "slots", slots, ("K",), jnp.int32)
    num_slots = slots.shape[0]
    scores = check_array(op, "scores", scores, (num_slots,), jnp.float32)
    decay = check_scalar(op, "decay", decay, 0, 1)
    mask = _check_mask(op, mask, num_slots)
    if not any(isinstance(x, jax.core.Tracer) for x in (slots, size, mask)):
        bad = np.asarray(mask) & ((np.asarray(slots) < 0) | (np.asarray(slots) >= int(size)))
        if bad.any():
            at = int(bad.argmax())
            raise ValueError(
                f"{op}: slots must be in [0, size) = [0, {int(size)}) where mask is True, "
                f"got {int(slots[at])} at position {at}"
            )
    if num_slots == 0:
        return heap_arrays
    operands = (size, slots, scores, decay, mask)
    return _in_place(RESCORE_TARGET, state_heap_rescore_reference, heap_arrays, operands, impl)


def state_heap_insert(
    snapshots, priorities, heap, heap_position, size, rows, scores, mask=None, *, impl=None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Offers candidates to the state set, one after the other, in order.

    While there is room a candidate is appended; after that it replaces the minimum if its score is strictly greater.
    The minimum is that of (priority, slot id): among equal priorities the lowest slot goes first. This is PufferLib's
    rule with the order made total. NaN and negative scores count as 0, +infinity as the largest finite number.

    Args:
      snapshots: u8[M, S], M >= 1, one row per slot.
      priorities, heap, heap_position, size: as for `state_heap_rescore`.
      rows: u8[C, S], the candidates, C >= 0.
      scores: f32[C].
      mask: bool[C], default all True; where False the candidate is skipped.
      impl: "native", "reference" or None (native where there is one).

    Returns:
      (snapshots, priorities, heap, heap_position, size i32[]). Native and twin agree on every bit of snapshots,
      priorities and size; the heaps may differ in layout, on which no result depends. The native op works in place in
      O(log M) per candidate that enters and O(1) per other: under jit with the arrays donated, nothing is copied. No
      gradient flows to any argument.

    Raises TypeError or ValueError naming the argument. Of traced values, the native op refuses a bad `size`, and a
    corrupt heap where it meets one, when it runs (invalid argument); the twin clips `size`.
    """
    op = "state_heap_insert"
    snapshots = check_array(op, "snapshots", snapshots, ("M", "S"), jnp.uint8)
    heap_arrays, size = _check_heap(op, priorities, heap, heap_position, size, snapshots.shape[0])
    rows = check_array(op, "rows", rows, ("C", snapshots.shape[1]), jnp.uint8)
    num_rows = rows.shape[0]
    scores = check_array(op, "scores", scores, (num_rows,), jnp.float32)
    mask = _check_mask(op, mask, num_rows)
    state = (snapshots, *heap_arrays, size)
    if num_rows == 0:
        return state
    return _in_place(INSERT_TARGET, state_heap_insert_reference, state, (rows, scores, mask), impl)


def _in_place(target, reference, state, operands, impl):
    """What the op makes of the arrays of `state`, each result in the place of its operand."""

    def native(*operands):
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in state]
        return tuple(ffi.native_call(target, shapes, *operands, aliases={i: i for i in range(len(state))}))

    return ffi.select(target, native, reference, *jax.lax.stop_gradient((*state, *operands)), impl=impl)


def _check_heap(op, priorities, heap, heap_position, size, capacity="M"):
    """((priorities, heap, heap_position), size), checked."""
    priorities = check_array(op, "priorities", priorities, (capacity,), jnp.float32)
    capacity = priorities.shape[0]
    if capacity == 0:
        raise ValueError(f"{op}: priorities must have at least one entry, got shape (0,)")
    heap = check_array(op, "heap", heap, (capacity,), jnp.int32)
    heap_position = check_array(op, "heap_position", heap_position, (capacity,), jnp.int32)
    return (priorities, heap, heap_position), check_index(op, "size", size, 0, capacity)


def _check_mask(op, mask, count):
    return jnp.ones((count,), bool) if mask is None else check_array(op, "mask", mask, (count,), jnp.bool_)
