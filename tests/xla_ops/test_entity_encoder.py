"""entity_encoder against NumPy in float64. What it shares with linear_max (ties, infinities, memory) is tested there.

Operands are small multiples of 1/4: every product and sum is then exact in float32, in any order, so results are
compared for equality and ties are common.
"""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.test_util import check_grads

from pufferjax import xla_ops
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.entity_encoder.op import TARGET, TARGET_BACKWARD
from pufferjax.xla_ops.entity_encoder.reference import (
    entity_encoder_backward_reference,
    entity_encoder_saved_reference,
)

OP = "entity_encoder"


def brute_force(x, w1, b1, w2, b2, mask, y_bar):
    """(y, the cotangents of x, w1, b1, w2 and b2 for that of y), with every unit and score of every entity."""
    x, w1, b1, w2, b2 = (np.asarray(v, np.float64) for v in (x, w1, b1, w2, b2))
    mask = np.ones(x.shape[:-1], bool) if mask is None else mask
    units = np.maximum(x @ w1 + b1, 0)
    scores = np.where(mask[..., None], units @ w2, -np.inf)
    is_any = mask.any(-1)[..., None]
    if x.shape[-2] == 0:
        return np.zeros(y_bar.shape), *map(np.zeros_like, (x, w1, b1, w2, b2))
    winner = scores.argmax(-2)  # the lowest of equals
    y = np.where(is_any, scores.max(-2) + b2, 0)
    is_winner = np.arange(x.shape[-2])[:, None] == winner[..., None, :]
    score_bar = is_winner * np.where(is_any, y_bar, 0)[..., None, :]
    pre_bar = (score_bar @ w2.T) * (units > 0)
    w1_bar, w2_bar = (np.tensordot(a, b, (range(a.ndim - 1),) * 2) for a, b in ((x, pre_bar), (units, score_bar)))
    rows = tuple(range(x.ndim - 1))
    return y, pre_bar @ w1.T, w1_bar, pre_bar.sum(rows), w2_bar, score_bar.sum(rows)


def quarters(rng, *shape):
    return (rng.integers(-3, 4, shape) / 4).astype(np.float32)


def operands(leading, num_entities, num_features, num_units, num_hidden, has_mask=True, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((*leading, num_entities)) < 0.6 if has_mask else None
    shapes = ((*leading, num_entities, num_features), (num_features, num_units), (num_units,), (num_units, num_hidden),
              (num_hidden,))  # fmt: skip
    return *(quarters(rng, *shape) for shape in shapes), mask


@functools.partial(jax.jit, static_argnums=0)
def value_and_cotangents(impl, *operands):
    *primals, mask, y_bar = operands
    y, pull = jax.vjp(lambda *v: xla_ops.entity_encoder(*v, mask, impl=impl), *primals)
    return y, *pull(y_bar)


def assert_equal(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


SIZES = [  # leading axes, N, D, P, H, mask
    ((), 1, 1, 1, 1, False),
    ((2, 3), 17, 4, 16, 33, True),
    ((3,), 131, 13, 5, 50, True),  # more entities than are scored together
    ((130,), 9, 20, 33, 17, True),  # rows in two parts; features in two vectors, units in three
    ((3,), 257, 2, 16, 5, False),  # winners are u16
    ((4,), 0, 3, 16, 6, True),
    ((3,), 5, 0, 4, 6, False),
    ((3,), 5, 2, 0, 6, True),
    ((0,), 3, 2, 16, 0, False),
]


# The twin knows no blocks and parts, and its compilation takes most of the time of these tests.
CASES = [("native", size) for size in SIZES] + [("reference", SIZES[i]) for i in (1, 5, 7)]


@pytest.mark.parametrize(("impl", "size"), CASES, ids=str, indirect=["impl"])
def test_values_and_gradients(impl, size):
    primals = operands(*size)
    y_bar = quarters(np.random.default_rng(1), *size[0], size[4])
    want = brute_force(*primals, y_bar)
    got = value_and_cotangents(impl, *primals, y_bar)
    assert all(v.dtype == jnp.float32 for v in got)
    assert_equal(got, want)
    if impl == "native":  # without a gradient: another target
        np.testing.assert_array_equal(xla_ops.entity_encoder(*primals, impl=impl), want[0])


def test_twin_of_the_saving_forward_and_of_backward():
    # What runs where there is no native build.
    *primals, mask = operands(*SIZES[1])
    y_bar = quarters(np.random.default_rng(1), 2, 3, 33)
    y, winner = jax.jit(entity_encoder_saved_reference)(*primals, mask)
    cotangents = jax.jit(entity_encoder_backward_reference)(*primals[:4], mask, winner, y_bar)
    assert_equal((y, *cotangents), brute_force(*primals, mask, y_bar))


def test_bfloat16_entities(impl):
    x, *rest = operands((6,), 7, 5, 16, 19)
    y_bar = quarters(np.random.default_rng(1), 6, 19)
    y, want_x, *want = brute_force(x, *rest, y_bar)
    got_y, got_x, *got = value_and_cotangents(impl, x.astype(ml_dtypes.bfloat16), *rest, y_bar)
    assert (got_y.dtype, got_x.dtype, got[0].dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    assert_equal([got_y, *got], [y, *want])
    np.testing.assert_array_equal(got_x, want_x.astype(ml_dtypes.bfloat16))  # summed in float32, rounded once


def test_equals_linear_max_of_the_first_layer(impl):
    rng = np.random.default_rng(0)
    x, w1, b1, w2, b2 = (rng.normal(size=s).astype(np.float32) for s in ((9, 20, 6), (6, 16), (16,), (16, 40), (40,)))
    mask = rng.random((9, 20)) < 0.5
    units = np.maximum(x @ w1 + b1, 0)
    got = jax.jit(functools.partial(xla_ops.entity_encoder, precision="highest", impl=impl))(x, w1, b1, w2, b2, mask)
    want = jax.jit(functools.partial(xla_ops.linear_max, impl=impl))(units, w2, b2, mask)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)  # two layers of up to 16 products, in another order


def test_nan_infinities_and_absent_entities(impl):
    x, w1, b1, w2, b2, _ = operands((4,), 9, 3, 16, 18)
    x[0, 3, 1] = x[0, 6, 0] = np.nan
    x[1, 0, 2] = np.nan  # absent
    x[2] = np.nan  # all absent
    x[3, 5] = np.inf
    mask = np.ones((4, 9), bool)
    mask[1, 0] = mask[2] = False
    y_bar = np.ones((4, 18), np.float32)
    y, x_bar, *_ = value_and_cotangents(impl, x, w1, b1, w2, b2, mask, y_bar)
    with np.errstate(invalid="ignore"):
        want = (np.maximum(x @ w1 + b1, 0) @ w2).max(1) + b2  # NaN wins here, too
    np.testing.assert_array_equal(y[0], want[0])
    np.testing.assert_array_equal(y[3], want[3])
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all() and not y[2].any() and np.isnan(y[3]).any()
    assert not x_bar[1, 0].any() and not x_bar[2].any()
    mask[[0, 3]] = False  # nothing of an absent entity reaches any gradient
    _, *bars = value_and_cotangents(impl, x, w1, b1, w2, b2, mask, y_bar)
    assert all(np.isfinite(v).all() for v in bars)
    _, *clean = value_and_cotangents(impl, np.where(mask[..., None], x, 0), w1, b1, w2, b2, mask, y_bar)
    assert_equal(bars, clean)


def test_dead_units_stop_the_gradient(impl):
    # One unit at exactly 0, one below, one above: only the last passes anything on.
    x, w1, b1 = jnp.ones((1, 1)), jnp.ones((1, 3)), jnp.asarray([-1.0, -2.0, 0.5])
    w2, b2, y_bar = jnp.full((3, 1), 2.0), jnp.zeros(1), jnp.ones(1)
    _, x_bar, w1_bar, b1_bar, w2_bar, _ = value_and_cotangents(impl, x, w1, b1, w2, b2, None, y_bar)
    np.testing.assert_array_equal(x_bar, [[2.0]])
    np.testing.assert_array_equal(w1_bar, [[0.0, 0.0, 2.0]])
    np.testing.assert_array_equal(b1_bar, [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(w2_bar[:, 0], [0.0, 0.0, 1.5])


def test_many_rows_and_entities():
    # For the native code: enough work for several threads, several blocks of entities, several parts of rows.
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    x, *rest = operands((200,), 200, 13, 16, 70)
    y_bar = quarters(np.random.default_rng(1), 200, 70)
    rough = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)  # not exact: the order of sums shows
    want, results = brute_force(x, *rest, y_bar), []
    try:
        for limit in (1, 1000):
            ffi.limit_threads(limit)
            assert_equal(value_and_cotangents("native", x, *rest, y_bar), want)
            results.append(value_and_cotangents("native", rough, *rest, y_bar))
            jax.block_until_ready(results)
    finally:
        ffi.limit_threads(1000)
    assert_equal(*results)


def test_memory_does_not_grow_with_entities():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")

    def temporary_bytes(num_entities):
        shapes = (64, num_entities, 4), (4, 16), (16,), (16, 128), (128,)
        loss = lambda *v: xla_ops.entity_encoder(*v, impl="native").sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss, range(5))).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(256) <= temporary_bytes(16) + 64 < 4 * 64 * 128 * 4  # y, its cotangent and the winners


def test_check_grads(impl):
    rng = np.random.default_rng(4)
    x, w1, b1, w2, b2 = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3, 2), (2, 4), (4,), (4, 3), (3,)))
    pre = x @ w1 + b1
    scores = np.sort(np.asarray(jax.nn.relu(pre) @ w2), axis=1)
    assert np.abs(pre).min() > 0.02 and (scores[:, -1] - scores[:, -2]).min() > 0.02  # no kink anywhere near
    # Differences of float32 values with JAX's default step are good to about 1e-2.
    f = jax.jit(functools.partial(xla_ops.entity_encoder, impl=impl))
    check_grads(f, (x, w1, b1, w2, b2), 1, ["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("impl", "in_axes"),
    [("native", (0, None, None, None, None, 0)), ("native", (None, 0, 0, 0, 0, 0)),
     ("native", (2, 0, None, 1, 1, None)), ("reference", (2, 0, None, 1, 1, None))],
    indirect=["impl"],
)  # fmt: skip
def test_vmap(impl, in_axes):
    lanes = [operands((4,), 3, 5, 16, 6, seed=seed) for seed in range(3)]
    mapped = [
        lanes[0][i] if axis is None else np.stack([lane[i] for lane in lanes], axis) for i, axis in enumerate(in_axes)
    ]
    lanes = [[lanes[0][i] if axis is None else lane[i] for i, axis in enumerate(in_axes)] for lane in lanes]
    y_bar = quarters(np.random.default_rng(1), 3, 4, 6)
    layer = jax.vmap(functools.partial(xla_ops.entity_encoder, impl=impl), in_axes)

    @jax.jit
    def grad_of_vmap(*operands):
        *primals, mask, y_bar = operands
        y, pull = jax.vjp(lambda *v: layer(*v, mask), *primals)
        return y, *pull(y_bar)

    want = [brute_force(*lane, g) for lane, g in zip(lanes, y_bar, strict=True)]
    if impl == "native":
        lanewise = jax.vmap(functools.partial(value_and_cotangents, impl), (*in_axes, 0))(*mapped, y_bar)
        assert_equal(lanewise, [np.stack(v) for v in zip(*want, strict=True)])
    together = grad_of_vmap(*mapped, y_bar)
    for got, axis, values in zip(together, (0, *in_axes[:5]), zip(*want, strict=True), strict=True):
        np.testing.assert_array_equal(got, sum(values) if axis is None else np.stack(values, axis))


def test_shared_weights_are_not_copied_per_lane():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    primals = operands((5, 7), 3, 6, 16, 21, has_mask=False)[:5]
    layer = jax.vmap(lambda *v: xla_ops.entity_encoder(*v, impl="native"), (0, *[None] * 4))
    text = jax.jit(layer).lower(*primals).as_text()
    assert "tensor<1x6x16xf32>" in text and "tensor<1x16x21xf32>" in text
    assert "tensor<5x6x16xf32>" not in text and "tensor<5x16x21xf32>" not in text


def test_gradient_through_a_scan(impl):
    x, *weights, mask = operands((3, 4), 5, 2, 16, 6)

    def loss(*weights):
        def step(total, row):
            return total + jnp.sum(xla_ops.entity_encoder(row[0], *weights, row[1], impl=impl)), None

        return jax.lax.scan(step, 0.0, (x, mask))[0]

    value, grads = jax.jit(jax.value_and_grad(loss, range(4)))(*weights)
    y, _, *want = brute_force(x, *weights, mask, np.ones((3, 4, 6)))
    assert value == y.sum()
    assert_equal(grads, want)


def test_two_devices(run_on_devices):
    # Also linear_max, to start one process and not two.
    run_on_devices("""
        rng = np.random.default_rng(0)
        quarters = lambda *shape: jnp.asarray(rng.integers(-3, 4, shape) / 4, jnp.float32)
        x, mask = quarters(6, 5, 3), jnp.asarray(rng.random((6, 5)) < 0.6)
        weights = (quarters(3, 16), quarters(16), quarters(16, 9), quarters(9))  # on both devices

        def loss(x, mask, weights, impl):
            def body(total, _):
                y = xla_ops.entity_encoder(x, *weights, mask, impl=impl)
                return total + jnp.sum(y) + jnp.sum(xla_ops.linear_max(x, *weights[:2], mask, impl=impl)), None
            return jax.lax.scan(body, jnp.sum(x), None, length=2)[0]

        for impl in (None, "reference"):
            grad = jax.grad(lambda *v: loss(*v, impl), (0, 2))
            specs = P("data"), P("data"), P()
            sharded = jax.jit(jax.shard_map(grad, mesh=mesh, in_specs=specs, out_specs=(P("data"), P())))
            got = sharded(x, mask, weights)
            assert len(got[0].sharding.device_set) == 2
            jax.tree.map(np.testing.assert_array_equal, got, jax.jit(grad)(x, mask, weights))
    """)


BAD = [
    ("x", {"x": jnp.zeros(3)}, ValueError),
    ("x", {"x": jnp.zeros((2, 3, 4), jnp.int32)}, TypeError),
    ("w1", {"w1": jnp.zeros((5, 16))}, ValueError),
    ("b1", {"b1": jnp.zeros(15)}, ValueError),
    ("w2", {"w2": jnp.zeros((15, 6))}, ValueError),
    ("w2", {"w2": None}, TypeError),
    ("b2", {"b2": jnp.zeros((6,), jnp.bfloat16)}, TypeError),
    ("mask", {"mask": jnp.ones((3,), bool)}, ValueError),
    ("precision", {"precision": "bf16"}, ValueError),
    ("impl", {"impl": 1}, ValueError),
]


@pytest.mark.parametrize(("name", "change", "error"), BAD)
def test_bad_arguments_are_named(name, change, error):
    x, w1, b1, w2, b2, _ = operands((2,), 3, 4, 16, 6)
    with pytest.raises(error, match=rf"\b{name} must"):
        xla_ops.entity_encoder(**({"x": x, "w1": w1, "b1": b1, "w2": w2, "b2": b2} | change))


@pytest.mark.parametrize(
    ("target", "position", "shape", "message"),
    [
        (TARGET, 1, (5, 16), r"w1 must be \[4, 16\]"),
        (TARGET, 1, (4,), r"w1 must be \[..., D, P\]"),
        (TARGET, 2, (15,), r"b1 must be \[16\]"),
        (TARGET, 3, (16, 5), r"w2 must be \[16, 6\]"),
        (TARGET, 4, (5,), r"b2 must be \[6\]"),
        (TARGET_BACKWARD, 3, (15, 6), r"w2 must be \[16, 6\]"),
        (TARGET_BACKWARD, 6, (2, 5), r"the cotangent of the result must be \[2, 6\]"),
        (TARGET_BACKWARD, -4, (4, 15), "cotangent of w1 has 60 elements, expected 64"),
        (TARGET_BACKWARD, -3, (15,), "cotangent of b1 has 15 elements, expected 16"),
    ],
)
def test_handler_refuses_operands_that_do_not_fit(target, position, shape, message):
    if not ffi.has_native(target, jax.default_backend()):
        pytest.skip("no native build")
    x, w1, b1, w2, b2, mask = map(jnp.asarray, operands((2,), 3, 4, 16, 6))
    y, winner = jnp.zeros((2, 6)), jnp.zeros((2, 6), jnp.uint8)
    given = [x, w1, b1, w2, b2, mask] if target == TARGET else [x, w1, b1, w2, mask, winner, y]
    results = [y] if target == TARGET else [x, w1, b1, w2, b2]
    (results if position < 0 else given)[position] = jnp.zeros(shape)
    results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in results]
    attributes = {"passes": np.int64(0)} if target == TARGET else {}
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=message):
        jax.block_until_ready(ffi.native_call(target, results, *given, vmap_method="expand_dims", **attributes))
