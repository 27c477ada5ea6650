"""one_hot_linear against a dense one-hot matmul in float64, under every transformation it is used with."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax.xla_ops import backends, ffi, one_hot_linear
from pufferjax.xla_ops.one_hot_linear.op import TARGET_FWD

NATIVE = backends()["one_hot_linear"]["cpu"] == "native"
IMPLS = [pytest.param("native", marks=pytest.mark.skipif(not NATIVE, reason="no native module")), "reference"]
SHAPES = [  # R, C, K, H
    (0, 4, 2, 8),
    (1, 1, 1, 1),
    (3, 7, 5, 5),
    (257, 13, 3, 33),
    (3, 122, 5, 64),
    (257, 10, 2, 130),
    (5, 3, 255, 16),
    (1100, 6, 2, 17),  # two partial sums in the native gradient
]


def make(num_rows, num_cells, num_codes, num_hidden, seed=0, zeros=0.5):
    rng = np.random.default_rng(seed)
    x = rng.integers(1, num_codes + 1, (num_rows, num_cells)) * (rng.random((num_rows, num_cells)) >= zeros)
    weight = rng.normal(size=(num_cells, num_codes, num_hidden)).astype(np.float32)
    return x.astype(np.uint8), weight, rng.normal(size=num_hidden).astype(np.float32)


def dense_code(x, num_codes):
    return (x[..., None] == np.arange(1, num_codes + 1)).astype(np.float64)


def dense(x, weight, bias):
    return np.einsum("...ck,ckh->...h", dense_code(x, weight.shape[1]), weight.astype(np.float64)) + bias


def assert_close(actual, expected, terms):
    # The error of a float32 sum of `terms` standard normals is below eps * terms * their largest size.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=6e-7 * (terms + 1))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_gradient_match_the_dense_layer(shape, impl):
    x, weight, bias = make(*shape)
    cotangent = np.random.default_rng(1).normal(size=(shape[0], shape[3])).astype(np.float32)
    y, pullback = jax.vjp(functools.partial(one_hot_linear, impl=impl), x, weight, bias)
    assert y.shape == cotangent.shape and y.dtype == jnp.float32
    assert_close(y, dense(x, weight, bias), shape[1])
    dx, dweight, dbias = pullback(jnp.asarray(cotangent))
    assert dx.dtype == jax.dtypes.float0
    assert dweight.shape == weight.shape and dbias.shape == bias.shape
    assert_close(dweight, np.einsum("rck,rh->ckh", dense_code(x, shape[2]), cotangent.astype(np.float64)), shape[0])
    assert_close(dbias, cotangent.astype(np.float64).sum(0), shape[0])


@pytest.mark.parametrize("impl", IMPLS)
def test_empty_and_full_rows(impl):
    _, weight, bias = make(1, 9, 3, 70)
    x = np.stack([np.zeros(9, np.uint8), np.full(9, 3, np.uint8), np.full(9, 1, np.uint8)])
    y, pullback = jax.vjp(lambda w: one_hot_linear(x, w, bias, impl=impl), weight)
    np.testing.assert_array_equal(y[0], bias)
    assert_close(y[1:], np.stack([bias + weight[:, 2].sum(0), bias + weight[:, 0].sum(0)]), 9)
    (dweight,) = pullback(jnp.ones_like(y))
    np.testing.assert_array_equal(dweight, np.broadcast_to(np.array([1, 0, 1.0])[None, :, None], weight.shape))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (0, 3)], ids=str)
def test_leading_axes(leading, impl):
    x, weight, bias = make(6, 5, 2, 10)
    x = np.resize(x, (*leading, 5))
    y = one_hot_linear(x, weight, bias, impl=impl)
    assert y.shape == (*leading, 10)
    assert_close(y, dense(x, weight, bias), 5)


@pytest.mark.skipif(not NATIVE, reason="no native module")
def test_a_row_does_not_depend_on_the_rows_beside_it():
    x, weight, bias = make(67, 122, 5, 64 + 16 + 3)
    together = one_hot_linear(x, weight, bias)
    alone = jnp.stack([one_hot_linear(row, weight, bias) for row in x[:5]])
    np.testing.assert_array_equal(together[:5], alone)
    # Nor does a unit depend on how H is cut into blocks.
    np.testing.assert_array_equal(together[:, :70], one_hot_linear(x, weight[..., :70], bias[:70]))


def losses(impl):
    def loss(weight, bias, x):
        return jnp.sin(one_hot_linear(x, weight, bias, impl=impl)).sum()

    return loss


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("axes", [(None, None, 0), (0, None, 0), (0, 0, 0), (0, 0, None), (None, 0, 0)], ids=str)
def test_vmap_of_value_and_grad(axes, impl):
    num_lanes, shape = 3, (9, 6, 2, 21)
    lanes = [make(*shape, seed=seed) for seed in range(num_lanes)]
    x, weight, bias = (np.stack(parts) for parts in zip(*lanes, strict=True))
    operands = [value if axis == 0 else value[0] for value, axis in zip((weight, bias, x), axes, strict=True)]
    run = jax.value_and_grad(losses(impl), argnums=(0, 1))
    value, (dweight, dbias) = jax.jit(jax.vmap(run, axes))(*operands)
    for lane in range(num_lanes):
        inputs = [value_[lane] if axis == 0 else value_ for value_, axis in zip(operands, axes, strict=True)]
        expected, (expected_dweight, expected_dbias) = jax.value_and_grad(losses("reference"), argnums=(0, 1))(*inputs)
        np.testing.assert_allclose(value[lane], expected, atol=1e-4)
        np.testing.assert_allclose(dweight[lane], expected_dweight, atol=1e-5)
        np.testing.assert_allclose(dbias[lane], expected_dbias, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_grad_of_vmap_and_nested_vmap(impl):
    x, weight, bias = make(24, 6, 2, 21)
    layer = functools.partial(one_hot_linear, impl=impl)
    nested = jax.vmap(jax.vmap(layer, (0, None, None)), (0, 0, None))  # weight mapped by the outer axis only
    weights = np.stack([weight, 2 * weight])
    expected = np.stack([dense(x[:12], weights[0], bias), dense(x[12:], weights[1], bias)])
    assert_close(nested(x.reshape(2, 12, 6), weights, bias), expected, 20)

    def loss(weight):
        return jnp.sin(jax.vmap(layer, (0, None, None))(x, weight, bias)).sum()

    np.testing.assert_allclose(jax.grad(loss)(weight), jax.grad(losses("reference"))(weight, bias, x), atol=1e-5)


@pytest.mark.skipif(not NATIVE, reason="no native module")
def test_shared_weights_are_not_copied_per_lane():
    x, weight, bias = make(35, 6, 2, 21)
    layer = jax.vmap(functools.partial(one_hot_linear, impl="native"), (0, None, None))
    text = jax.jit(layer).lower(x.reshape(5, 7, 6), weight, bias).as_text()
    assert "tensor<1x6x2x21xf32>" in text and "tensor<5x6x2x21xf32>" not in text


@pytest.mark.parametrize("impl", IMPLS)
def test_scan_carries_the_gradient(impl):
    x, weight, bias = make(12, 6, 2, 21)

    def loss(weight, impl):
        def step(total, rows):
            return total + jnp.sin(one_hot_linear(rows, weight, bias, impl=impl)).sum(), None

        return jax.lax.scan(step, 0.0, x.reshape(3, 4, 6))[0]

    actual = jax.jit(jax.value_and_grad(loss), static_argnums=1)(weight, impl)
    expected = jax.value_and_grad(losses("reference"))(weight, bias, x)
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-5)


SHARDED = """
from pufferjax.xla_ops import one_hot_linear

rng = np.random.default_rng(0)
x = rng.integers(0, 3, (8, 6)).astype(np.uint8)
weight, bias = rng.normal(size=(6, 2, 21)).astype(np.float32), rng.normal(size=21).astype(np.float32)
for impl in IMPLS:
    def loss(weight, bias, x):
        return jnp.sin(one_hot_linear(x, weight, bias, impl=impl)).sum()

    def update(weight, bias, x):  # two steps, the weights replicated and carried by a scan
        def step(weights, _):
            grads = jax.grad(lambda weights: loss(*weights, x))(weights)
            return jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads), None
        return jax.lax.scan(step, (weight, bias), length=2)[0]

    sharded = jax.jit(jax.shard_map(update, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P())))
    for a, b in zip(sharded(weight, bias, x), update(weight, bias, x)):
        np.testing.assert_allclose(a, b, atol=2e-5)
    y = jax.shard_map(lambda x: one_hot_linear(x, weight, bias, impl=impl), mesh=mesh, in_specs=P("data"),
                      out_specs=P("data"))(x)
    np.testing.assert_allclose(y, one_hot_linear(x, weight, bias, impl=impl), atol=1e-5)
"""


def test_shard_map_on_two_devices(run_on_devices):
    run_on_devices(SHARDED.replace("IMPLS", repr(["native", "reference"] if NATIVE else ["reference"])))


@pytest.mark.skipif(not NATIVE, reason="no native module")
def test_the_gradient_has_the_same_bits_on_every_run():
    x, weight, bias = make(5000, 20, 2, 33)
    grad = jax.jit(jax.grad(losses("native"), argnums=(0, 1)))
    first = grad(weight, bias, x)
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, grad(weight, bias, x), first)


GRADIENT_BYTES = """
import hashlib, jax, jax.numpy as jnp, numpy as np
from pufferjax.xla_ops import one_hot_linear

rng = np.random.default_rng(0)
x = rng.integers(0, 3, (3000, 20)).astype(np.uint8)
weight, bias = rng.normal(size=(20, 2, 33)).astype(np.float32), rng.normal(size=33).astype(np.float32)
y, pullback = jax.vjp(lambda w, b: one_hot_linear(x, w, b, impl="native"), weight, bias)
print(hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in (y, *pullback(y)))).hexdigest())
"""


@pytest.mark.skipif(not NATIVE or not hasattr(os, "sched_setaffinity"), reason="no native module, or not Linux")
def test_one_thread_gives_the_same_bits():
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    digests = {
        subprocess.run(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {use!r})\n" + GRADIENT_BYTES],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout
        for use in (cores[:1], cores)
    }
    assert len(digests) == 1


@pytest.mark.skipif(not NATIVE, reason="no native module")
def test_a_code_above_k_is_an_error():
    x, weight, bias = make(4, 6, 2, 21)
    x[2, 5] = 3
    message = r"one_hot_linear: x has code 3 in row 2, cell 5; valid codes are 0\.\.2"
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(one_hot_linear(x, weight, bias, impl="native"))
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(jax.jit(jax.grad(losses("native")))(weight, bias, x))


def test_a_code_above_k_contributes_nothing_in_the_twin():
    x, weight, bias = make(4, 6, 2, 21)
    bad = np.where(x == 0, np.uint8(3), x)
    np.testing.assert_array_equal(
        one_hot_linear(bad, weight, bias, impl="reference"), one_hot_linear(x, weight, bias, impl="reference")
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, w, b: (x.astype(np.int32), w, b), TypeError, "x must be uint8.*got dtype int32"),
        (lambda x, w, b: (x[0, 0], w, b), ValueError, "x must have shape"),
        (lambda x, w, b: (x, w.astype(np.int32), b), TypeError, "weight must be float32.*got dtype int32"),
        (lambda x, w, b: (x, w[:-1], b), ValueError, r"weight must have shape float32\[6, K, H\], got \(5, 2, 21\)"),
        (lambda x, w, b: (x, w[0], b), ValueError, "weight must have shape"),
        (lambda x, w, b: (x, w[:, :0], b), ValueError, "weight must be.* with K in 1..255"),
        (lambda x, w, b: (x, np.zeros((6, 256, 21), np.float32), b), ValueError, "weight must be.* with K in 1..255"),
        (lambda x, w, b: (x, w, b[:-1]), ValueError, r"bias must have shape float32\[21\], got \(20,\)"),
        (lambda x, w, b: (x, w, None), TypeError, "bias must be an array"),
        (lambda x, w, b: ([[1], [1, 2]], w, b), TypeError, r"x must be an array uint8\[\.\.\., C\], got a ragged list"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"one_hot_linear: {message}"):
        one_hot_linear(*change(*make(4, 6, 2, 21)))


@pytest.mark.skipif(not NATIVE, reason="no native module")
def test_a_handler_refuses_operands_of_another_rank():
    """No call of the op can: the handler must say so before it looks at a size that is not there."""
    _, weight, bias = make(4, 6, 2, 21)
    y = jax.ShapeDtypeStruct((4, 21), jnp.float32)
    with pytest.raises(Exception, match=r"one_hot_linear: x must be \[4, 6\] with leading axes \[\] or 1, got \[\]"):
        jax.block_until_ready(ffi.native_call(TARGET_FWD, [y], np.uint8(1), weight, bias))


def test_impl_is_checked():
    with pytest.raises(ValueError, match="impl"):
        one_hot_linear(*make(4, 6, 2, 21), impl="fast")
