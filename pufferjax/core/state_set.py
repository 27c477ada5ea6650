"""The state set: a bounded priority heap of simulator snapshots, as a pytree.

Sampling, re-scoring and inserting are custom calls (`xla_ops.prioritized_sample`, `xla_ops.state_heap_*`), O(log M) per
element and in place under jit; on platforms without them the pure-JAX twins make the same decisions.
"""

import dataclasses

import jax
import jax.numpy as jnp

from pufferjax import xla_ops
from pufferjax.xla_ops.checks import check_count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateSet:
    """M slots of S bytes, of which `size` are filled."""

    snapshots: jax.Array  # u8[M, S]
    priorities: jax.Array  # f32[M], >= 0; 0 beyond size
    heap: jax.Array  # i32[M]: slots, the first `size` in binary min-heap order of (priority, slot)
    heap_position: jax.Array  # i32[M]: heap[heap_position[slot]] = slot
    size: jax.Array  # i32[]

    @classmethod
    def create(cls, capacity: int, state_bytes: int) -> "StateSet":
        """An empty set of `capacity` >= 1 slots of `state_bytes` >= 1. Raises ValueError otherwise."""
        capacity = check_count("StateSet.create", "capacity", capacity, 1)
        state_bytes = check_count("StateSet.create", "state_bytes", state_bytes, 1)
        return cls(
            snapshots=jnp.zeros((capacity, state_bytes), jnp.uint8),
            priorities=jnp.zeros(capacity, jnp.float32),
            heap=jnp.arange(capacity, dtype=jnp.int32),
            heap_position=jnp.arange(capacity, dtype=jnp.int32),
            size=jnp.int32(0),
        )

    def sample(self, key, num_samples: int, alpha=1.0, beta=0.0) -> tuple[jax.Array, jax.Array]:
        """(slots i32[num_samples], importance f32[num_samples]), with replacement, probability ~ priority ** alpha;
        importance is (size * probability) ** -beta. From an empty set: slots 0, importance 1."""
        return xla_ops.prioritized_sample(key, self.priorities, num_samples, alpha, beta, self.size)

    def rescore(self, slots, scores, decay, mask=None) -> "StateSet":
        """One after the other, in order: a score (f32[K]) at least as high as the priority of its slot (i32[K])
        replaces it; a lower one leaves `decay` times the old priority. `mask` bool[K]: False is skipped."""
        priorities, heap, heap_position = xla_ops.state_heap_rescore(
            self.priorities, self.heap, self.heap_position, self.size, slots, scores, decay, mask
        )
        return dataclasses.replace(self, priorities=priorities, heap=heap, heap_position=heap_position)

    def insert(self, rows, scores, mask=None) -> "StateSet":
        """One after the other, in order: rows u8[C, S] with scores f32[C] are appended while there is room, then
        replace the slot of least priority iff they score strictly higher. `mask` bool[C]: False is skipped."""
        return StateSet(
            *xla_ops.state_heap_insert(
                self.snapshots, self.priorities, self.heap, self.heap_position, self.size, rows, scores, mask
            )
        )
