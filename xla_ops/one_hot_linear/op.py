"""A linear layer on the one-hot code of small integers, without the one-hot tensor."""

import functools
import math

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array
from pufferjax.xla_ops.one_hot_linear.reference import one_hot_linear_reference, one_hot_linear_reference_bwd

TARGET_FWD = "pufferjax.one_hot_linear.fwd"
TARGET_BWD = "pufferjax.one_hot_linear.bwd"
TARGET_BWD_SCRATCH = "pufferjax.one_hot_linear.bwd.scratch"  # on a GPU


def one_hot_linear(x, weight, bias, *, impl=None) -> jax.Array:
    """f32[..., H]: the first layer of a policy whose observation is C cells with codes 0..K.

        y[..., h] = bias[h] + sum over c with x[..., c] > 0 of weight[c, x[..., c] - 1, h]

    That is `one_hot(x - 1) @ weight + bias`, with code 0 ("empty") contributing nothing. The native version adds the
    selected rows of `weight` and never builds the code, so its cost falls with the share of zeros.

    Args:
      x: u8[..., C], codes in 0..K; any leading axes. Not differentiable.
      weight: f32[C, K, H], 1 <= K <= 255; weight[c, k - 1] is the row of code k in cell c.
      bias: f32[H].
      impl: "native", "reference" or None (native where there is one).

    Reverse-mode differentiable in weight and bias. On one set of weights pass all rows in one call: `jax.vmap` over x
    shares the weights too, but its gradient holds one dweight per lane before they are summed.

    Weights must be finite: the twin multiplies those that x does not select by 0, and 0 * NaN is NaN; the native
    version does not look at them. The same holds for cotangents.

    The native version is bit-identical from run to run, for any number of threads, on any CPU and on any GPU; y is the
    same on both, the gradients are sums in another order, as is all of the twin. A code above K fails the native call
    on a CPU with an error naming x; the native call on a GPU and the twin cannot raise under jit, there such a code
    contributes nothing. On a GPU the native version takes at most 8 mapped axes. Raises TypeError or ValueError naming
    the argument.
    """
    op = "one_hot_linear"
    x = check_array(op, "x", x, (..., "C"), jnp.uint8)
    *leading, num_cells = x.shape
    weight = check_array(op, "weight", weight, (num_cells, "K", "H"), jnp.float32)
    _, num_codes, num_hidden = weight.shape
    if not 1 <= num_codes <= 255:
        raise ValueError(f"{op}: weight must be f32[C, K, H] with K in 1..255 (x is u8), got shape {weight.shape}")
    bias = check_array(op, "bias", bias, (num_hidden,), jnp.float32)
    # Outside the custom_vjp: transposing this sums the gradient over the devices that share the weights.
    rows, weight, bias = ffi.vary_together((x.reshape(math.prod(leading), num_cells), weight, bias))
    return _apply(impl, num_codes, rows, weight, bias).reshape(*leading, num_hidden)


# The custom_vjp is around `select`, not inside its native branch: differentiating the platform switch would keep the
# residuals of every branch.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _apply(impl, num_codes, x, weight, bias):
    def native(x, weight, bias):
        result = jax.ShapeDtypeStruct((x.shape[0], bias.shape[0]), jnp.float32)
        return ffi.native_call(TARGET_FWD, [result], x, weight, bias, vmap_method="expand_dims")[0]

    return ffi.select(TARGET_FWD, native, one_hot_linear_reference, x, weight, bias, impl=impl)


def _apply_fwd(impl, num_codes, x, weight, bias):
    return _apply(impl, num_codes, x, weight, bias), x


def _apply_bwd(impl, num_codes, x, cotangent):
    num_cells, num_hidden = x.shape[1], cotangent.shape[1]
    results = [
        jax.ShapeDtypeStruct((num_cells, num_codes, num_hidden), jnp.float32),
        jax.ShapeDtypeStruct((num_hidden,), jnp.float32),
    ]

    def native(*operands):
        return tuple(ffi.native_call(TARGET_BWD, results, *operands, vmap_method="expand_dims"))

    def native_with_scratch(*operands):
        parts = _num_parts(x.shape[0], num_cells, num_codes, num_hidden)
        sums = jax.ShapeDtypeStruct((parts, num_cells * num_codes + 1, num_hidden), jnp.float32)
        return tuple(ffi.native_call(TARGET_BWD_SCRATCH, [*results, sums], *operands, vmap_method="expand_dims")[:-1])

    reference = functools.partial(one_hot_linear_reference_bwd, num_codes=num_codes)
    cotangents = ffi.select(
        *(TARGET_BWD, native, reference, x, cotangent),
        impl=impl,
        alternative=(TARGET_BWD_SCRATCH, native_with_scratch),
    )
    return None, *cotangents


def _num_parts(num_rows, num_cells, num_codes, num_hidden):
    """Parts of the rows whose sums a GPU computes side by side: enough to keep it busy, none of few rows."""
    num_works = num_cells * -(-num_codes // 8) + 1  # as `OneHotPartSums` in kernels.h cuts them, 16 to a block
    blocks_per_part = -(-num_works // 16) * max(-(-num_hidden // 64), 1)
    return max(1, min(num_rows // 128, -(-1056 // blocks_per_part)))


_apply.defvjp(_apply_fwd, _apply_bwd)
