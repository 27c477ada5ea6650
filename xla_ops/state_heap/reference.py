"""Pure-JAX twins of the state heap's operations: specification, fallback and test oracle.

Priorities compare by their bits (non-negative floats order like integers), which is right for denormals too. The heap
they return is the sorted array: a valid min-heap, if not the native one's layout.
"""

import jax
import jax.numpy as jnp
from jax import lax

_INFINITY = 0x7F800000
_SMALLEST_NORMAL = 0x00800000


@jax.jit
def state_heap_rescore_reference(priorities, heap, heap_position, size, slots, scores, decay, mask):
    """See `pufferjax.xla_ops.state_heap_rescore`; one step per slot.

    A slot outside [0, size) is skipped; `size` is clipped to [0, M], `decay` to [0, 1] (NaN: 0).
    """
    del heap, heap_position  # rebuilt
    capacity = priorities.shape[0]
    size = jnp.clip(size, 0, capacity)
    decay = jnp.where(decay > 0, jnp.minimum(decay, 1.0), 0.0)
    score_bits = _clean(scores)

    def step(k, bits):
        slot = slots[k]
        active = mask[k] & (slot >= 0) & (slot < size)
        slot = jnp.clip(slot, 0, capacity - 1)
        old = bits[slot]
        new = jnp.where(score_bits[k] >= old, score_bits[k], _decayed(old, decay))
        return bits.at[slot].set(jnp.where(active, new, old))

    bits = lax.fori_loop(0, slots.shape[0], step, _bits(priorities))
    return lax.bitcast_convert_type(bits, jnp.float32), *_sorted_heap(bits, size)


@jax.jit
def state_heap_insert_reference(snapshots, priorities, heap, heap_position, size, rows, scores, mask):
    """See `pufferjax.xla_ops.state_heap_insert`; one step per candidate that enters. `size` is clipped to [0, M]."""
    del heap, heap_position  # rebuilt
    capacity, num_rows = priorities.shape[0], rows.shape[0]
    size = jnp.clip(size, 0, capacity)
    score_bits = _clean(scores)
    candidates = jnp.arange(num_rows, dtype=jnp.int32)

    def next_entrant(bits, size, start):
        """The first candidate from `start` on that enters (num_rows: none does) and the slot it takes."""
        minimum = jnp.argmin(bits).astype(jnp.int32)  # the lowest slot id among equals; used only when full
        enters = mask & (candidates >= start) & ((size < capacity) | (score_bits > bits[minimum]))
        candidate = jnp.where(jnp.any(enters), jnp.argmax(enters).astype(jnp.int32), num_rows)
        return candidate, jnp.where(size < capacity, size, minimum)

    def enter(state):
        bits, size, row_of_slot, candidate, slot = state
        bits = bits.at[slot].set(score_bits[candidate])
        row_of_slot = row_of_slot.at[slot].set(candidate)
        size = jnp.where(size < capacity, size + 1, size)
        return bits, size, row_of_slot, *next_entrant(bits, size, candidate + 1)

    bits = _bits(priorities)
    # -1: keeps its snapshot. The sum makes the carry vary over a mesh axis wherever the operands do.
    row_of_slot = jnp.full_like(bits, -1) + (bits & 0)
    state = (bits, size, row_of_slot, *next_entrant(bits, size, 0))
    bits, size, row_of_slot, _, _ = lax.while_loop(lambda state: state[3] < num_rows, enter, state)
    snapshots = jnp.where(row_of_slot[:, None] >= 0, rows[jnp.maximum(row_of_slot, 0)], snapshots)
    return snapshots, lax.bitcast_convert_type(bits, jnp.float32), *_sorted_heap(bits, size), size


def _bits(x):
    return lax.bitcast_convert_type(x, jnp.int32)


def _clean(scores):
    """Bits of the scores; NaN and negative count as 0, +infinity as the largest finite number."""
    bits = _bits(scores)
    return jnp.where((bits < 0) | (bits > _INFINITY), 0, jnp.minimum(bits, _INFINITY - 1))


def _decayed(bits, decay):
    """Bits of the product; what is below 2^-126 counts as 0, for not every thread keeps it."""
    product = _bits(lax.bitcast_convert_type(bits, jnp.float32) * decay)
    is_zero = (bits < _SMALLEST_NORMAL) | (_bits(decay) < _SMALLEST_NORMAL) | (product < _SMALLEST_NORMAL)
    return jnp.where(is_zero, 0, product)


def _sorted_heap(bits, size):
    """Slots in the order of (priority, slot), those beyond `size` last and in place; and the inverse."""
    slots = jnp.arange(bits.shape[0], dtype=jnp.int32) + (bits & 0)  # varies over a mesh axis wherever `bits` does
    key = jnp.where(slots < size, bits.astype(jnp.uint32), jnp.uint32(0xFFFFFFFF))
    heap = lax.sort((key, slots), num_keys=1, is_stable=True)[1]
    return heap, jnp.zeros_like(heap).at[heap].set(slots)
