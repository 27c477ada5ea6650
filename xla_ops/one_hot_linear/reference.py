"""Pure-JAX twin of `one_hot_linear`: its specification, fallback and test oracle."""

import jax
import jax.numpy as jnp


def one_hot_linear_reference(x, weight, bias):
    """See `pufferjax.xla_ops.one_hot_linear`; x u8[R, C]. Codes outside 1..K have an all-zero one-hot code."""
    code = _one_hot(x, weight.shape[1])
    return jnp.einsum("rck,ckh->rh", code, weight, precision=jax.lax.Precision.HIGHEST) + bias


def one_hot_linear_reference_bwd(x, cotangent, num_codes):
    """(dweight f32[C, K, H], dbias f32[H]) for the cotangent f32[R, H] of the output."""
    code = _one_hot(x, num_codes)
    return jnp.einsum("rck,rh->ckh", code, cotangent, precision=jax.lax.Precision.HIGHEST), cotangent.sum(0)


def _one_hot(x, num_codes):
    return jax.nn.one_hot(x.astype(jnp.int32) - 1, num_codes, dtype=jnp.float32)
