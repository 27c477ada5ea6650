"""Sampling in proportion to a power of a priority, exact for any number of entries."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_count, check_index, check_scalar, random_words
from pufferjax.xla_ops.prioritized_sample.reference import prioritized_sample_reference

TARGET = "pufferjax.prioritized_sample"
TARGET_SCRATCH = "pufferjax.prioritized_sample.scratch"  # on a GPU


def prioritized_sample(
    key, priorities, num_samples, alpha=1.0, beta=0.0, size=None, *, impl=None
) -> tuple[jax.Array, jax.Array]:
    """Draws `num_samples` of the first `size` entries, with replacement, in proportion to priority^alpha.

        P_i = p_i^alpha / sum_j p_j^alpha,   importance_k = (size P_{i_k})^-beta

    after Schaul et al., "Prioritized experience replay" (2016), with the importance weights not normalised.

    With alpha > 0 an entry whose priority is not a positive finite number weighs 0 and is never drawn; every other
    entry, denormals included, can be drawn. If all weigh 0, or alpha = 0, the draw is uniform over the first `size`
    entries and importance is 1. With size = 0 there is nothing to draw: indices are 0 and importance is 1, for the
    caller to mask.

    Weights are 64-bit integers read from the bits of the priorities, so a draw is the same for any number of threads,
    and natively the same on the CPU and on the GPU; for alpha = 0 or 1 also in the pure-JAX twin. Rounding moves less
    than 2^-29 of the probability for those; any other alpha adds to each weight a relative error below 2e-7
    max(1, alpha) natively, of the order of 1e-6 in the twin.

    Args:
      key: a JAX random key; the same key and arguments give the same draws.
      priorities: f32[M], M >= 1.
      num_samples: K, a static integer >= 0.
      alpha, beta: finite scalars >= 0; may be traced.
      size: integer scalar in [0, M], default M; may be traced. Entries beyond it do not influence the result.
      impl: "native", "reference" or None (native where there is one).

    Returns:
      (indices i32[K], importance f32[K]), constants for differentiation: no gradient flows to any argument.

    Raises TypeError or ValueError naming the argument. Of traced values, the native op on the CPU refuses a bad `size`
    or `alpha` when it runs (invalid argument, naming it). The twin and the native op on a GPU cannot raise then: they
    clip `size` to [0, M] and read a negative or NaN `alpha` as 0. A traced `beta` is not checked.
    """
    op = "prioritized_sample"
    priorities = check_array(op, "priorities", priorities, ("M",), jnp.float32)
    capacity = priorities.shape[0]
    if capacity == 0:
        raise ValueError(f"{op}: priorities must have at least one entry, got shape (0,)")
    num_samples = check_count(op, "num_samples", num_samples, 0)
    alpha = check_scalar(op, "alpha", alpha, 0)
    beta = check_scalar(op, "beta", beta, 0)
    size = check_index(op, "size", capacity if size is None else size, 0, capacity)
    words = random_words(op, key, (num_samples, 2))
    priorities, alpha, beta = jax.lax.stop_gradient((priorities, alpha, beta))

    shapes = [jax.ShapeDtypeStruct((num_samples,), dtype) for dtype in (jnp.int32, jnp.float32)]

    def native(*operands):
        return tuple(ffi.native_call(TARGET, shapes, *operands))

    def native_with_scratch(*operands):
        scratch = jax.ShapeDtypeStruct((_scratch_bytes(capacity, num_samples),), jnp.uint8)
        return tuple(ffi.native_call(TARGET_SCRATCH, [*shapes, scratch], *operands)[:-1])

    indices, relative = ffi.select(
        *(TARGET, native, prioritized_sample_reference, words, priorities, size, alpha),
        impl=impl,
        alternative=(TARGET_SCRATCH, native_with_scratch),
    )
    return indices, relative**-beta


def _scratch_bytes(capacity, num_samples):
    """The memory for sums that the kernels need for each lane: `ManyBlocks::ScratchBytes` in kernels.h."""
    if capacity <= 16384 and num_samples <= 16384:  # one launch does it all
        return 0
    return 24 + -(-capacity // 4096) * (1 + 64) * 8
