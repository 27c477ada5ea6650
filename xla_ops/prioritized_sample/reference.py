"""Pure-JAX twin of `prioritized_sample`: its specification, fallback and test oracle.

Weights and their sums are 64-bit integers, here pairs (high, low) of u32 because JAX has no u64 unless x64 is on.
Integer sums are associative: `associative_scan` gives the same prefix as the native op's blocks.
"""

import jax.numpy as jnp
from jax import lax


def prioritized_sample_reference(words, priorities, size, alpha):
    """Indices i32[K] and `size * P` f32[K]; words u32[K, 2] are the random bits. See `pufferjax.xla_ops`.

    A `size` outside [0, M] is clipped; a NaN or negative `alpha` counts as 0.
    """
    capacity = priorities.shape[0]
    size = jnp.clip(size, 0, capacity)
    alpha = jnp.where(alpha > 0, alpha, 0.0)
    bits = lax.bitcast_convert_type(priorities, jnp.uint32)
    present = jnp.arange(capacity, dtype=jnp.int32) < size
    positive = present & (bits - 1 < 0x7F7FFFFF)  # neither 0, negative, infinite nor NaN
    top = jnp.max(jnp.where(positive, bits, 0))
    uniform = (alpha == 0) | (top == 0)

    mantissa, exponent = _normalise(bits)
    top_mantissa, top_exponent = _normalise(top)
    log2_ratio = (exponent - top_exponent).astype(jnp.float32) + (_log2(mantissa) - _log2(top_mantissa))
    power_mantissa, power_exponent = _normalise(lax.bitcast_convert_type(jnp.exp2(alpha * log2_ratio), jnp.uint32))
    mantissa = jnp.where(alpha == 1, mantissa, power_mantissa)
    exponent = jnp.where(alpha == 1, exponent - top_exponent, power_exponent - 127)

    def weights(width):
        high, low = _shift_left(mantissa, width - 24 + exponent)
        low = jnp.where((high == 0) & (low == 0), 1, low)  # whatever is positive can be drawn
        low = jnp.where(uniform, present.astype(jnp.uint32), jnp.where(positive, low, 0))
        return jnp.where(positive & ~uniform, high, 0), low

    # `size` weights below 2^width sum to less than 2^62.
    zero, count = jnp.uint32(0), size.astype(jnp.uint32)
    width = 62 - _bit_length(zero, jnp.maximum(count, 1) - 1)
    total = lax.reduce(weights(width), (zero, zero), _add, (0,))
    # Where rounding could move 2^-30 of the probability, use the bits that the small sum left free.
    refine = _less(total, (count >> 2, count << 30))
    width = width + jnp.where(refine & ~uniform, 62 - _bit_length(*_add(total, (zero, count))), 0)
    prefix = lax.associative_scan(_add, weights(width))
    total = (prefix[0][-1], prefix[1][-1])
    target = _multiply_high((words[:, 0], words[:, 1]), total)

    def halve(_, bounds):
        first, last = bounds
        middle = first + (last - first) // 2
        above = _less(target, (prefix[0][middle], prefix[1][middle]))
        return jnp.where(above, first, middle + 1), jnp.where(above, middle, last)

    # Written with the operands so that the loop's carry varies over the mesh axes that they vary over.
    first = (words[:, 0] & 0).astype(jnp.int32) + (size & 0)
    bounds = (first, first + jnp.maximum(size - 1, 0))
    index = lax.fori_loop(0, capacity.bit_length(), halve, bounds)[1]
    before = jnp.maximum(index - 1, 0)
    before = (jnp.where(index > 0, prefix[0][before], 0), jnp.where(index > 0, prefix[1][before], 0))
    weight = _subtract((prefix[0][index], prefix[1][index]), before)
    relative = size.astype(jnp.float32) * (_to_float(weight) / _to_float(total))
    return index, jnp.where(uniform | (size == 0), 1.0, relative)


def _normalise(bits):
    """A positive float is mantissa * 2^(exponent - 150), mantissa in [2^23, 2^24), denormals included."""
    exponent = (bits >> 23).astype(jnp.int32)
    spare = lax.clz(bits) - 8  # of a denormal
    mantissa = jnp.where(exponent == 0, bits << spare, (bits & 0x7FFFFF) | 0x800000)
    return mantissa, jnp.where(exponent == 0, 1 - spare.astype(jnp.int32), exponent)


def _log2(mantissa):
    return jnp.log2(lax.bitcast_convert_type((mantissa & 0x7FFFFF) | 0x3F800000, jnp.float32))


def _shift_left(x, shift):
    """(high, low) of the u32 `x` times 2^shift, rounded down; shift may be negative and is below 64."""
    up = jnp.clip(shift, 0, 31).astype(jnp.uint32)
    down = jnp.clip(-shift, 0, 31).astype(jnp.uint32)
    beyond = jnp.clip(shift - 32, 0, 31).astype(jnp.uint32)
    high = jnp.where(shift >= 32, x << beyond, (x >> 1) >> (31 - up))
    return high, jnp.where(shift >= 32, 0, (x << up) >> down)


def _bit_length(high, low):
    return jnp.where(high > 0, 64 - lax.clz(high), 32 - lax.clz(low)).astype(jnp.int32)


def _add(a, b):
    low = a[1] + b[1]
    return a[0] + b[0] + (low < b[1]).astype(jnp.uint32), low


def _subtract(a, b):
    return a[0] - b[0] - (a[1] < b[1]).astype(jnp.uint32), a[1] - b[1]


def _less(a, b):
    return (a[0] < b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))


def _multiply_wide(a, b):
    """The 64-bit product of two u32, from products of their 16-bit halves."""
    a1, a0, b1, b0 = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a1 * b0 + (a0 * b0 >> 16)  # below 2^32
    other = a0 * b1 + (middle & 0xFFFF)  # below 2^32
    return a1 * b1 + (middle >> 16) + (other >> 16), a * b


def _multiply_high(a, b):
    """The upper 64 bits of the 128-bit product."""
    zero = jnp.uint32(0)
    middle = _add(_multiply_wide(a[0], b[1]), (zero, _multiply_wide(a[1], b[1])[0]))  # below 2^64
    other = _add(_multiply_wide(a[1], b[0]), (zero, middle[1]))  # below 2^64
    return _add(_add(_multiply_wide(a[0], b[0]), (zero, middle[0])), (zero, other[0]))


def _to_float(x):
    return x[0].astype(jnp.float32) * 4294967296.0 + x[1].astype(jnp.float32)
