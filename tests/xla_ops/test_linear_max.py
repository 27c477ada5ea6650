"""linear_max against a loop over entities in float64, under every transformation it is used with.

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
from pufferjax.xla_ops.linear_max.op import TARGET, TARGET_BACKWARD, TARGET_FORWARD
from pufferjax.xla_ops.linear_max.reference import linear_max_backward_reference, linear_max_saved_reference

OP = "linear_max"


def brute_force(x, weight, bias, mask=None):
    """(y, winner, -1 where no entity is present), one entity after the other."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    mask = np.ones(x.shape[:-1], bool) if mask is None else np.asarray(mask)
    best = np.zeros((*x.shape[:-2], weight.shape[1]))
    winner = np.full(best.shape, -1)
    for n in range(x.shape[-2]):
        with np.errstate(invalid="ignore"):
            score = x[..., n, :] @ weight
        is_first = winner < 0
        is_better = (score > best) | (np.isnan(score) & ~np.isnan(best))
        takes = mask[..., n, None] & (is_first | is_better)
        best, winner = np.where(takes, score, best), np.where(takes, n, winner)
    return np.where(winner < 0, 0, best + np.asarray(bias)), winner


def brute_force_cotangents(x, weight, winner, y_bar):
    """Of x, weight and bias: each output's cotangent goes to its winner."""
    x_bar, weight_bar, bias_bar = (np.zeros(s) for s in (x.shape, weight.shape, weight.shape[1:]))
    for *row, h in zip(*np.nonzero(winner >= 0), strict=True):
        place, g = (*row, winner[*row, h]), float(y_bar[*row, h])
        x_bar[place] += g * np.asarray(weight[:, h], np.float64)
        weight_bar[:, h] += g * np.asarray(x[place], np.float64)
        bias_bar[h] += g
    return x_bar, weight_bar, bias_bar


def quarters(rng, *shape):
    return (rng.integers(-3, 4, shape) / 4).astype(np.float32)


def operands(leading, num_entities, num_features, num_hidden, has_mask=True, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((*leading, num_entities)) < 0.6 if has_mask else None
    x, weight, bias = (quarters(rng, *s) for s in (
        (*leading, num_entities, num_features), (num_features, num_hidden), (num_hidden,)))  # fmt: skip
    return x, weight, bias, mask


@functools.partial(jax.jit, static_argnums=0)
def value_and_cotangents(impl, x, weight, bias, mask, y_bar):
    y, pull = jax.vjp(lambda *v: xla_ops.linear_max(*v, mask, impl=impl), x, weight, bias)
    return y, *pull(y_bar)


SIZES = [  # leading axes, N, D, H, mask
    ((), 1, 1, 1, False),
    ((2, 3), 17, 4, 33, True),
    ((5,), 131, 13, 50, True),  # more entities than are scored together
    ((3,), 257, 1, 5, False),  # winners are u16
    ((130,), 9, 20, 17, True),  # rows in two parts, features in two vectors
    ((4,), 0, 3, 6, True),
    ((0,), 3, 2, 5, False),
    ((3,), 5, 0, 4, True),
    ((3,), 5, 2, 0, False),
]


# The twin knows no blocks and parts, and its compilation takes most of the time of these tests.
CASES = [("native", size) for size in SIZES] + [("reference", SIZES[i]) for i in (1, 3, 5)]


@pytest.mark.parametrize(("impl", "size"), CASES, ids=str, indirect=["impl"])
def test_values_and_gradients(impl, size):
    x, weight, bias, mask = operands(*size)
    want, winner = brute_force(x, weight, bias, mask)
    y_bar = quarters(np.random.default_rng(1), *want.shape)
    y, *cotangents = value_and_cotangents(impl, x, weight, bias, mask, y_bar)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, want)
    if impl == "native":  # without a gradient: another target
        np.testing.assert_array_equal(xla_ops.linear_max(x, weight, bias, mask, impl=impl), want)
    for got, expected in zip(cotangents, brute_force_cotangents(x, weight, winner, y_bar), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [SIZES[1], SIZES[5]], ids=str)
def test_twin_of_the_saving_forward_and_of_backward(size):
    # What runs where there is no native build.
    x, weight, bias, mask = operands(*size)
    want, winner = brute_force(x, weight, bias, mask)
    y_bar = quarters(np.random.default_rng(1), *want.shape)
    y, saved = jax.jit(linear_max_saved_reference)(x, weight, bias, mask)
    cotangents = jax.jit(linear_max_backward_reference)(x, weight, mask, saved, y_bar)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(saved, np.maximum(winner, 0))
    assert saved.dtype == jnp.uint8
    for got, expected in zip(cotangents, brute_force_cotangents(x, weight, winner, y_bar), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_bfloat16_entities(impl):
    x, weight, bias, mask = operands((6,), 7, 5, 19)
    want, winner = brute_force(x, weight, bias, mask)
    y_bar = quarters(np.random.default_rng(1), *want.shape)
    halves = x.astype(ml_dtypes.bfloat16)
    y, x_bar, weight_bar, bias_bar = value_and_cotangents(impl, halves, weight, bias, mask, y_bar)
    assert (y.dtype, x_bar.dtype, weight_bar.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    want_x, want_weight, want_bias = brute_force_cotangents(x, weight, winner, y_bar)
    np.testing.assert_array_equal(y, want)  # x has 8 bits or fewer
    np.testing.assert_array_equal(x_bar, want_x.astype(ml_dtypes.bfloat16))  # summed in float32, rounded once
    np.testing.assert_array_equal(weight_bar, want_weight)
    np.testing.assert_array_equal(bias_bar, want_bias)


def test_ties_go_to_the_lowest_index(impl):
    x = jnp.asarray([[1.0], [3.0], [2.0], [3.0]])
    grad = jax.jit(jax.grad(lambda x, b: xla_ops.linear_max(x, jnp.ones((1, 2)), b, impl=impl).sum()))
    np.testing.assert_array_equal(grad(x, jnp.zeros(2))[:, 0], [0, 2, 0, 0])
    np.testing.assert_array_equal(grad(jnp.zeros((4, 1)), jnp.zeros(2))[:, 0], [2, 0, 0, 0])
    # The bias adds after the maximum: it cannot round different scores to a tie.
    close = jnp.asarray([[1.0], [1.0000001], [0.0], [0.0]])
    np.testing.assert_array_equal(grad(close, jnp.full(2, 1e6))[:, 0], [0, 2, 0, 0])


def test_nan_wins_as_in_max_and_absent_ones_do_not_count(impl):
    x, weight, bias, _ = operands((2,), 9, 3, 18, has_mask=False)
    x[0, 3, 1] = x[0, 6, 0] = x[1, 0, 2] = np.nan
    mask = np.ones((2, 9), bool)
    mask[1, 0] = False
    y, x_bar, weight_bar, _ = value_and_cotangents(impl, x, weight, bias, mask, jnp.ones((2, 18)))
    assert jnp.isnan(jnp.max(jnp.asarray(x[0]) @ weight, axis=0)).all()
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()
    np.testing.assert_array_equal(x_bar[0].any(-1), np.arange(9) == 3)  # the first NaN takes all of it
    assert np.isfinite(x_bar).all() and not x_bar[1, 0].any()
    assert np.isnan(weight_bar[1]).all() and np.isfinite(weight_bar[jnp.array([0, 2])]).all()


def test_infinities(impl):
    x, weight, bias, mask = operands((6,), 7, 2, 20)
    weight = np.abs(weight) + 1
    x[0, :, :] = -np.inf  # all lose: the lowest present one wins
    x[1, 2, 0] = np.inf
    x[2, 3, :] = -np.inf
    x[3, 1, :] = np.inf, -np.inf  # their sum is NaN
    mask[1:, :4] = True
    mask[0] = np.arange(7) >= 2
    want, winner = brute_force(x, weight, bias, mask)
    assert (winner[0] == 2).all() and (winner[1] == 2).all() and (winner[2] != 3).all() and np.isnan(want[3]).all()
    y, x_bar, *_ = value_and_cotangents(impl, x, weight, bias, mask, np.ones_like(want))
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(x_bar.any(-1), [[n in row for n in range(7)] for row in winner])
    # What loses leaves the gradient alone, though 0 times infinity is NaN.
    mask[[0, 1, 3]] = False
    got = value_and_cotangents(impl, x, weight, bias, mask, np.ones_like(want))[1:]
    finite = np.where(np.isfinite(x), x, 0)
    winner[[0, 1, 3]] = -1
    for a, b in zip(got, brute_force_cotangents(finite, weight, winner, np.ones_like(want)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_huge_numbers_are_no_different(impl):
    # Above 1e12 the native version takes the way that NaN needs. Powers of two: all results scale exactly.
    x, weight, bias, mask = operands((4,), 150, 5, 37)
    y_bar = quarters(np.random.default_rng(1), 4, 37)
    small = value_and_cotangents(impl, x, weight, bias, mask, y_bar)
    x, weight, bias = (np.ldexp(v, power) for v, power in ((x, 60), (weight, 50), (bias, 110)))
    large = value_and_cotangents(impl, x, weight, bias, mask, y_bar)
    for a, b, power in zip(small, large, (110, 50, 60, 0), strict=True):
        np.testing.assert_array_equal(np.ldexp(a, power), b)


def test_no_entity_gives_zeros_and_no_gradient(impl):
    x, weight, bias, _ = operands((3,), 5, 4, 21)
    x[1] = np.nan
    mask = np.asarray([[True] * 5, [False] * 5, [False, False, True, False, False]])
    y, x_bar, weight_bar, bias_bar = value_and_cotangents(impl, x, weight, bias + 99, mask, jnp.ones((3, 21)))
    assert not y[1].any() and not x_bar[1].any() and (y[jnp.array([0, 2])] > 50).all()
    assert np.isfinite(weight_bar).all()
    np.testing.assert_array_equal(bias_bar, 2.0)
    assert not x_bar[2][~mask[2]].any()


def test_many_rows_and_entities():
    # For the native code: enough work for several threads, several blocks of entities, several parts of rows.
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    x, weight, bias, mask = operands((300,), 200, 13, 70)
    want, winner = brute_force(x, weight, bias, mask)
    y_bar = quarters(np.random.default_rng(1), *want.shape)
    expected = (want, *brute_force_cotangents(x, weight, winner, y_bar))
    rough = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)  # not exact: the order of sums shows
    results = []
    try:
        for limit in (1, 1000):
            ffi.limit_threads(limit)
            for a, b in zip(value_and_cotangents("native", x, weight, bias, mask, y_bar), expected, strict=True):
                np.testing.assert_array_equal(a, b)
            results.append(value_and_cotangents("native", rough, weight, bias, mask, y_bar))
            jax.block_until_ready(results)
    finally:
        ffi.limit_threads(1000)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_entities_than_16_bits_number(impl):
    x = np.zeros((1, 65538, 1), np.float32)
    x[0, 65536:] = 3  # a tie of the last two
    weight = np.float32([[1, -1]])
    y, x_bar, *_ = value_and_cotangents(impl, x, weight, np.zeros(2, np.float32), None, np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(y, [[3, 0]])
    assert x_bar[0, 0] == -1 and x_bar[0, 65536] == 1 and np.count_nonzero(x_bar) == 2


def test_memory_does_not_grow_with_entities():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")

    def temporary_bytes(num_entities):
        shapes = (64, num_entities, 4), (4, 128), (128,)
        loss = lambda *v: xla_ops.linear_max(*v, impl="native").sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(256) <= temporary_bytes(16) + 64 < 4 * 64 * 128 * 4  # y, its cotangent and the winners


def test_check_grads(impl):
    rng = np.random.default_rng(0)
    x, weight, bias = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3, 4), (4, 5), (5,)))
    scores = np.sort(np.asarray(x @ weight), axis=1)
    assert (scores[:, -1] - scores[:, -2]).min() > 0.02  # the winner changes nowhere near
    # Differences of float32 values with JAX's default step are good to about 1e-2.
    f = jax.jit(functools.partial(xla_ops.linear_max, impl=impl))
    check_grads(f, (x, weight, bias), 1, ["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("impl", "in_axes"),
    [("native", (0, None, None, None)), ("native", (None, 0, None, None)), ("native", (2, 0, 1, 1)),
     ("reference", (2, 0, 1, 1))],
    indirect=["impl"],
)  # fmt: skip
def test_vmap(impl, in_axes):
    lanes = [operands((4,), 3, 5, 6, seed=seed) for seed in range(3)]
    mapped = [
        lanes[0][i] if axis is None else np.stack([lane[i] for lane in lanes], axis) for i, axis in enumerate(in_axes)
    ]
    lanes = [[lanes[0][i] if axis is None else lane[i] for i, axis in enumerate(in_axes)] for lane in lanes]
    y_bar = quarters(np.random.default_rng(1), 3, 4, 6)
    f = lambda *v: xla_ops.linear_max(*v, impl=impl)  # noqa: E731

    @jax.jit
    def grad_of_vmap(x, weight, bias, mask, y_bar):
        y, pull = jax.vjp(lambda *v: jax.vmap(f, in_axes)(*v, mask), x, weight, bias)
        return y, *pull(y_bar)

    want = []
    for lane, g in zip(lanes, y_bar, strict=True):
        y, winner = brute_force(*lane)
        want.append((y, *brute_force_cotangents(*lane[:2], winner, g)))
    lanewise = jax.vmap(functools.partial(value_and_cotangents, impl), (*in_axes, 0))(*mapped, y_bar)
    together = grad_of_vmap(*mapped, y_bar)
    for i, axis in enumerate((0, *in_axes[:3])):  # of y, x, weight, bias
        np.testing.assert_array_equal(lanewise[i], np.stack([w[i] for w in want]))
        stacked = np.stack([w[i] for w in want], 0 if axis is None else axis)
        np.testing.assert_array_equal(together[i], stacked.sum(0) if axis is None else stacked)


def test_shared_weights_are_not_copied_per_lane():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    x, weight, bias, _ = operands((5, 7), 3, 6, 21)
    layer = jax.vmap(lambda *v: xla_ops.linear_max(*v, impl="native"), (0, None, None))
    text = jax.jit(layer).lower(x, weight, bias).as_text()
    assert "tensor<1x6x21xf32>" in text and "tensor<5x6x21xf32>" not in text


def test_gradient_through_a_scan(impl):
    x, weight, bias, mask = operands((3, 4), 5, 2, 6)

    def loss(weight, bias):
        def step(total, row):
            y = xla_ops.linear_max(row[0], weight, bias, row[1], impl=impl)
            return total + jnp.sum(y), None

        return jax.lax.scan(step, 0.0, (x, mask))[0]

    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(weight, bias)
    y, winner = brute_force(x, weight, bias, mask)
    assert value == y.sum()
    for got, expected in zip(grads, brute_force_cotangents(x, weight, winner, np.ones_like(y))[1:], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_every_precision_is_exact(impl):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 4, 16)).astype(np.float32), rng.normal(size=(16, 8)).astype(np.float32)
    bias = np.zeros(8, np.float32)
    want, _ = brute_force(x, weight, bias)
    y = jax.jit(functools.partial(xla_ops.linear_max, impl=impl))(x, weight, bias)
    np.testing.assert_allclose(y, want, rtol=0, atol=5e-6)  # 16 products of standard normals, each rounded to 6e-8
    names = ("default", "fastest", "bfloat16", "high", "bfloat16_3x", "tensorfloat32", "highest", "float32")
    for precision in (*names, *jax.lax.Precision):
        f = functools.partial(xla_ops.linear_max, precision=precision, impl=impl)
        np.testing.assert_array_equal(jax.jit(f)(x, weight, bias), y)


BAD = [
    ("x", {"x": jnp.zeros(3)}, ValueError),
    ("x", {"x": jnp.zeros((2, 3, 4), jnp.float16)}, TypeError),
    ("x", {"x": [[1.0], [1.0, 2.0]]}, TypeError),
    ("x", {"x": None}, TypeError),
    ("weight", {"weight": jnp.zeros((5, 6))}, ValueError),
    ("weight", {"weight": jnp.zeros((4, 6), jnp.bfloat16)}, TypeError),
    ("bias", {"bias": jnp.zeros(5)}, ValueError),
    ("mask", {"mask": jnp.ones((2, 4), bool)}, ValueError),
    ("mask", {"mask": jnp.ones((2, 3))}, TypeError),
    ("precision", {"precision": "float16"}, ValueError),
    ("precision", {"precision": 1}, ValueError),
    ("precision", {"precision": ("high", "high")}, ValueError),
    ("impl", {"impl": "fast"}, ValueError),
]


@pytest.mark.parametrize(("name", "change", "error"), BAD)
def test_bad_arguments_are_named(name, change, error):
    good = {"x": jnp.zeros((2, 3, 4)), "weight": jnp.zeros((4, 6)), "bias": jnp.zeros(6)}
    with pytest.raises(error, match=rf"\b{name} must"):
        xla_ops.linear_max(**(good | change))


def call_handler(target, change, passes=1):
    """The target on operands that fit R = 2, N = 3, D = 4, H = 6 but for `change`, {position: array}."""
    if not ffi.has_native(target, jax.default_backend()):
        pytest.skip("no native build")
    x, weight, bias, mask = jnp.zeros((2, 3, 4)), jnp.zeros((4, 6)), jnp.zeros(6), jnp.ones((2, 3), bool)
    y, winner = jnp.zeros((2, 6)), jnp.zeros((2, 6), jnp.uint8)
    given = {TARGET_BACKWARD: [x, weight, mask, winner, y]}.get(target, [x, weight, bias, mask])
    results = {TARGET: [y], TARGET_FORWARD: [y, winner], TARGET_BACKWARD: [x, weight, bias]}[target]
    for position, array in change.items():
        (results if position < 0 else given)[position] = array
    results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in results]
    attributes = {} if target == TARGET_BACKWARD else {"passes": np.int64(passes)}
    return ffi.native_call(target, results, *given, vmap_method="expand_dims", **attributes)


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        (TARGET, {0: jnp.zeros((2, 3))}, r"x must be \[..., R, N, D\]"),
        (TARGET, {0: jnp.zeros((2, 3, 4), jnp.int32)}, "x must be f32 or bf16"),
        (TARGET, {1: jnp.zeros((4, 5))}, r"weight must be \[4, 6\]"),
        (TARGET, {1: jnp.zeros(4)}, r"weight must be \[4, 6\]"),
        (TARGET, {2: jnp.zeros(5)}, r"bias must be \[6\]"),
        (TARGET, {3: jnp.ones((2, 2), bool)}, r"mask must be \[2, 3\]"),
        (TARGET, {-1: jnp.zeros((3, 6))}, r"the result must be \[2, 6\]"),
        (TARGET_FORWARD, {-1: jnp.zeros((2, 6), jnp.int32)}, "winner must be u8 for N = 3"),
        (TARGET_BACKWARD, {3: jnp.zeros((2, 5), jnp.uint8)}, r"winner must be \[2, 6\]"),
        (TARGET_BACKWARD, {3: jnp.full((2, 6), 3, jnp.uint8)}, r"winner must hold numbers of entities, in 0\.\.2"),
        (TARGET_BACKWARD, {4: jnp.zeros((2, 5))}, r"the cotangent of the result must be \[2, 6\]"),
        (TARGET_BACKWARD, {-3: jnp.zeros((2, 3, 4), jnp.bfloat16)}, "must have the data type of x"),
        (TARGET_BACKWARD, {-2: jnp.zeros((4, 5))}, "cotangent of the weight has 20 elements, expected 24"),
    ],
)
def test_handler_refuses_operands_that_do_not_fit(target, change, message):
    jax.block_until_ready(call_handler(target, {}))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match=message):
        jax.block_until_ready(call_handler(target, change))


def test_handler_refuses_passes_that_there_are_not():
    for target in (TARGET, TARGET_FORWARD):
        with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="passes must be 0, 1 or 3, got 2"):
            jax.block_until_ready(call_handler(target, {}, passes=2))
