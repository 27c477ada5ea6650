"""Every CUDA op on a GPU: against its twin there, and the sampler and the entities' winners against the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import xla_ops

pytestmark = pytest.mark.gpu

KEY = jax.random.key(3)
CPU = jax.devices("cpu")[0]

# The twin on a GPU may fuse products with sums, the kernels never do: a rounding or two (6e-8) per step on values of
# size up to 30; over the lengths here older errors are damped, or grow no faster than the steps.
TOLERANCE = {"rtol": 2e-5, "atol": 1e-4}


def on(device, function, *operands):
    """The results of `function` under jit, all of it on `device`."""
    return jax.tree.map(np.asarray, jax.jit(function)(*jax.device_put(operands, device)))


def both(gpu, function, *operands):
    """(native, twin) results of function(*operands, impl) on the GPU."""
    return [on(gpu, lambda *x, impl=impl: function(*x, impl), *operands) for impl in ("native", "reference")]


def assert_close(native, twin, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or TOLERANCE)), native, twin)


def test_all_ops_with_kernels_are_native():
    assert {op for op, platforms in xla_ops.backends().items() if platforms["cuda"] == "native"} >= {
        "entity_encoder",
        "gae_vtrace",
        "linear_max",
        "linear_recurrence",
        "mingru_layer",
        "one_hot_linear",
        "prioritized_sample",
    }


# --- prioritized_sample -----------------------------------------------------------------------------------------------


def odd_priorities(capacity):
    rng = np.random.default_rng(capacity)
    yield np.exp(rng.normal(size=capacity) * 12).astype(np.float32)
    yield rng.integers(0, 2**32, capacity, np.uint32).view(np.float32)  # any bits at all
    yield rng.integers(0, 2**23, capacity, np.uint32).view(np.float32)  # denormals
    spike = np.full(capacity, 1.5 * 2.0**-46, np.float32)  # beside the 1, lost without the second width
    spike[capacity // 3] = 1
    yield spike
    yield np.full(capacity, -1.0, np.float32)


@pytest.mark.parametrize("capacity", [1, 2, 63, 1000, 1024, 1025, 16384, 16385, 65_537, 300_000, 5_000_000])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
def test_draws_have_the_bits_of_the_cpu(gpu, capacity, alpha):
    def sample(priorities, size):
        return xla_ops.prioritized_sample(KEY, priorities, 1000, alpha, 0.0, size, impl="native")

    for priorities in odd_priorities(capacity):
        for size in {capacity, capacity // 2 + 1}:
            np.testing.assert_array_equal(
                on(gpu, sample, priorities, np.int32(size))[0], on(CPU, sample, priorities, np.int32(size))[0]
            )


@pytest.mark.parametrize("num_samples", [0, 1, 1025, 20_000])
def test_any_number_of_draws(gpu, num_samples):
    priorities = np.random.default_rng(0).exponential(size=5000).astype(np.float32)

    def sample(p):
        return xla_ops.prioritized_sample(KEY, p, num_samples, 1.0, 1.0, impl="native")

    got, expected = on(gpu, sample, priorities), on(CPU, sample, priorities)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)  # the power of beta is XLA's


@pytest.mark.parametrize("capacity", [40, 20_000])
def test_draws_of_lanes(gpu, capacity):
    keys = jax.random.split(KEY, 5)
    priorities = np.random.default_rng(0).exponential(size=(5, capacity)).astype(np.float32)
    sizes = np.array([capacity, 1, 7, 0, 33], np.int32)
    alphas = np.array([0.0, 1.0, 0.5, 1.0, 2.0], np.float32)

    def sample(key, p, size, alpha):
        return xla_ops.prioritized_sample(key, p, 16, alpha, 0.0, size, impl="native")[0]

    operands = (keys, priorities, sizes, alphas)
    np.testing.assert_array_equal(on(gpu, jax.vmap(sample), *operands), on(CPU, jax.vmap(sample), *operands))


def test_many_runs_give_the_same_draws(gpu):
    priorities = np.random.default_rng(0).exponential(size=2_000_000).astype(np.float32)
    sample = jax.jit(lambda p: xla_ops.prioritized_sample(KEY, p, 10_000, impl="native")[0])
    on_device = jax.device_put(priorities, gpu)
    first = np.asarray(sample(on_device))
    for _ in range(20):
        np.testing.assert_array_equal(sample(on_device), first)


def test_bad_traced_values_count_as_in_the_twin(gpu):
    def draws(size, alpha, impl):
        return xla_ops.prioritized_sample(KEY, jnp.arange(1.0, 8.0), 50, alpha, size=size, impl=impl)[0]

    for size, alpha in [(99, 1.0), (-5, 1.0), (7, np.nan), (7, -1.0)]:
        native, twin = both(gpu, draws, np.int32(size), np.float32(alpha))
        np.testing.assert_array_equal(native, twin)


# --- gae_vtrace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 1), (15, 3), (16, 64), (17, 65), (33, 257), (5, 0), (128, 4099)])
def test_advantages_match_the_twin(gpu, sizes):
    rng = np.random.default_rng(0)
    rewards, values, ratios = rng.normal(size=(3, *sizes)).astype(np.float32)
    operands = (rewards, values, rng.normal(size=sizes[1]).astype(np.float32), rng.random(sizes) < 0.1, np.exp(ratios))
    native, twin = both(gpu, lambda *x: xla_ops.gae_vtrace(*x[:-1], 0.99, 0.95, 1.1, 0.9, impl=x[-1]), *operands)
    assert_close(native, twin)


def test_advantages_of_lanes(gpu):
    rng = np.random.default_rng(0)
    rewards, values, ratios = rng.normal(size=(3, 4, 20, 37)).astype(np.float32)
    operands = (rewards, values, rewards[:, 0], rewards > 1, np.exp(ratios), np.linspace(0.5, 1, 4, dtype=np.float32))
    native, twin = both(
        gpu, lambda *x: jax.vmap(lambda *lane: xla_ops.gae_vtrace(*lane, 0.9, impl=x[-1]))(*x[:-1]), *operands
    )
    assert_close(native, twin)


# --- linear_recurrence ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "reset_rank"),
    [((1,), 1), ((15, 3), 2), ((16, 64), None), ((17, 3, 65), 2), ((33, 17), 1), ((5, 0), 2), ((64, 128, 128), 2)],
)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_recurrence_and_its_gradients_match_the_twin(gpu, shape, reset_rank, dtype):
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, shape).astype(dtype)
    b, h_bar = rng.normal(size=(2, *shape)).astype(dtype)
    reset = None if reset_rank is None else rng.random(shape[:reset_rank]) < 0.2

    def run(a, b, h0, h_bar, reset, impl):
        h, backward = jax.vjp(lambda *x: xla_ops.linear_recurrence(*x, reset, impl=impl), a, b, h0)
        return jax.tree.map(lambda x: x.astype(jnp.float32), (h, backward(h_bar)))

    native, twin = both(gpu, run, a, b, b[0] / 2, h_bar, reset)
    # In bfloat16 the twin's derivative has the states that it carried, the kernel those that were stored.
    assert_close(native, twin, **({} if dtype == np.float32 else {"rtol": 2**-6, "atol": 1e-4}))


def test_a_reset_lets_nothing_pass(gpu):
    a = jnp.full((40, 70), 0.5)
    b = jnp.ones((40, 70)).at[3, 5].set(jnp.nan).at[4, 6].set(jnp.inf)
    reset = jnp.zeros((40, 70), bool).at[20].set(True)

    def last(a, b, h0, reset):
        return xla_ops.linear_recurrence(a, b, h0, reset, impl="native")[-1].sum()

    value, (a_bar, b_bar, h0_bar) = on(gpu, jax.value_and_grad(last, (0, 1, 2)), a, b, b[0], reset)
    assert np.isfinite(value) and np.isfinite(a_bar[20:]).all()
    assert not b_bar[:20].any() and not h0_bar.any() and not a_bar[:3].any()  # later ones multiply the NaN by 0


def test_recurrence_of_lanes_in_a_scan(gpu):
    """Under vmap and scan, as a policy meets it."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (3, 12, 5, 8)).astype(np.float32)
    b, h0 = rng.normal(size=a.shape).astype(np.float32), rng.normal(size=(3, 5, 8)).astype(np.float32)
    reset = rng.random((3, 12, 5)) < 0.3

    def run(a, b, h0, reset, impl):
        def layer(h0, _):
            h = jax.vmap(lambda *x: xla_ops.linear_recurrence(*x, impl=impl))(a, b, h0, reset)
            return h[:, -1], h

        return jax.lax.scan(layer, h0, None, length=3)

    native, twin = both(gpu, run, a, b, h0, reset)
    assert_close(native, twin)


# --- mingru_layer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (1, 300, 64), (8, 3, 33), (9, 2, 5), (40, 17, 65), (5, 0, 3), (64, 128, 128)]
)
@pytest.mark.parametrize("has_reset", [False, True])
def test_mingru_layer_and_its_gradients_match_the_twin(gpu, sizes, has_reset):
    num_steps, batch, hidden = sizes
    rng = np.random.default_rng(0)
    x, y_bar = rng.normal(size=(2, *sizes)).astype(np.float32)
    h0, h_last_bar = rng.normal(size=(2, batch, hidden)).astype(np.float32)
    kernel = (rng.normal(size=(hidden, 3 * hidden)) / hidden**0.5).astype(np.float32)
    reset = rng.random((num_steps, batch)) < 0.2 if has_reset else None

    def run(x, kernel, h0, y_bar, h_last_bar, reset, impl):
        layer = lambda *v: xla_ops.mingru_layer(*v, reset, impl=impl)  # noqa: E731
        value, backward = jax.vjp(layer, x, kernel, h0)
        return value, backward((y_bar, h_last_bar)), layer(x, kernel, h0)

    with jax.default_matmul_precision("highest"):
        native, twin = both(gpu, run, x, kernel, h0, y_bar, h_last_bar, reset)
    # The cotangent of the kernel sums over steps and rows, in an order that is the product's own.
    assert_close(native, twin, rtol=1e-4, atol=1e-3 if batch > 90 else 1e-4)


def test_mingru_layer_of_lanes_in_a_scan(gpu):
    """Under vmap and scan, as a policy meets it."""
    rng = np.random.default_rng(0)
    x, h0 = rng.normal(size=(3, 12, 5, 8)).astype(np.float32), rng.normal(size=(3, 5, 8)).astype(np.float32)
    kernel = rng.normal(size=(3, 8, 24)).astype(np.float32)
    reset = rng.random((3, 12, 5)) < 0.3

    def run(x, kernel, h0, reset, impl):
        def layer(h0, _):
            y, h0 = jax.vmap(lambda *v: xla_ops.mingru_layer(*v, impl=impl))(x, kernel, h0, reset)
            return h0, y

        return jax.lax.scan(layer, h0, None, length=3)

    with jax.default_matmul_precision("highest"):
        native, twin = both(gpu, run, x, kernel, h0, reset)
    assert_close(native, twin)


# --- one_hot_linear ---------------------------------------------------------------------------------------------------


def one_hot_operands(leading, cells, codes, hidden):
    """x, weight, bias and the cotangent of the layer's output."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, codes + 1, (*leading, cells)) * (rng.random((*leading, cells)) < 0.5)
    shapes = ((cells, codes, hidden), (hidden,), (*leading, hidden))
    return x.astype(np.uint8), *(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def one_hot_layer(x, weight, bias, cotangent, impl):
    y, backward = jax.vjp(lambda *w: xla_ops.one_hot_linear(x, *w, impl=impl), weight, bias)
    return y, backward(cotangent)


@pytest.mark.parametrize(
    "sizes",  # leading axes, C, K, H
    [
        ((), 1, 1, 1),
        ((2, 3), 7, 5, 5),
        ((257,), 13, 3, 33),
        ((1024,), 122, 5, 64),
        ((16_384,), 122, 5, 128),
        ((700,), 300, 9, 130),
        ((40,), 3, 255, 16),
        ((0,), 4, 2, 8),
        ((9,), 0, 2, 8),
        ((9,), 4, 2, 0),
    ],
    ids=str,
)
def test_one_hot_layers_match_the_twin_and_the_cpu(gpu, sizes):
    operands = one_hot_operands(*sizes)
    rows = int(np.prod(sizes[0]))
    native, twin = both(gpu, one_hot_layer, *operands)
    assert_close(native, twin, rtol=1e-5, atol=6e-7 * (max(rows, sizes[1]) + 1))
    np.testing.assert_array_equal(native[0], on(CPU, lambda *x: one_hot_layer(*x, "native")[0], *operands))
    for _ in range(3):
        assert_equal(native, on(gpu, lambda *x: one_hot_layer(*x, "native"), *operands))


def test_codes_above_k_contribute_nothing(gpu):
    x, *others = one_hot_operands((500,), 11, 3, 20)
    x[x == 0] = 200
    native, twin = both(gpu, one_hot_layer, x, *others)
    assert_close(native, twin, atol=3e-4)


@pytest.mark.parametrize("axes", [(0, None, None, 0), (0, 0, None, 0), (None, 0, 0, 0), (0, None, 0, None)], ids=str)
def test_one_hot_layers_of_lanes_in_a_scan(gpu, axes):
    """Under vmap and scan, as a policy meets them; the twin's lanes are what a loop over them gives."""
    operands = [v if axis is None else np.stack([v, v[::-1], 2 * v]) for v, axis in
                zip(one_hot_operands((150,), 12, 2, 36), axes, strict=True)]  # fmt: skip
    operands[0] = np.minimum(operands[0], 2)

    def run(*operands):
        *operands, impl = operands

        def step(scale, _):
            x, weight, bias, cotangent = operands
            lanes = jax.vmap(lambda *lane: one_hot_layer(*lane, impl), axes)
            return scale + 1, lanes(x, scale * weight, bias, scale * cotangent)

        return jax.lax.scan(step, 1.0, length=3)[1]

    native, twin = both(gpu, run, *operands)
    assert_close(native, twin, rtol=1e-5, atol=1e-3)


# --- linear_max and entity_encoder ------------------------------------------------------------------------------------


def entity_operands(leading, n, d, p, h, dtype=np.float32):
    """x, the weights (of both layers unless p is None), the cotangent of y, mask.

    Small multiples of 1/4: sums are exact in any order, so results are compared for equality, and ties are common.
    """
    rng = np.random.default_rng(0)
    quarters = lambda *shape: (rng.integers(-3, 4, shape) / 4).astype(np.float32)  # noqa: E731
    first = () if p is None else (quarters(d, p), quarters(p))
    weights = (*first, quarters(d if p is None else p, h), quarters(h))
    return quarters(*leading, n, d).astype(dtype), weights, quarters(*leading, h), rng.random((*leading, n)) < 0.6


def entity_layer(x, weights, mask, impl, precision=None):
    layer = xla_ops.linear_max if len(weights) == 2 else xla_ops.entity_encoder
    return layer(x, *weights, mask, precision=precision, impl=impl)


def value_and_cotangents(x, weights, y_bar, mask, impl, precision=None):
    y, backward = jax.vjp(lambda x, weights: entity_layer(x, weights, mask, impl, precision), x, weights)
    return y, backward(y_bar)


def assert_equal(one, other):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.astype(np.float32), y.astype(np.float32)), one, other)


@pytest.mark.parametrize(
    "sizes",  # leading axes, N, D, P, H
    [
        ((), 1, 1, None, 1),
        ((2, 3), 17, 4, 16, 33),
        ((700,), 40, 13, 16, 130),
        ((33,), 257, 2, 5, 7),
        ((20,), 7, 21, 35, 150),
        ((300,), 8, 37, None, 64),
        ((4096,), 16, 4, 16, 128),
        ((9_000,), 3, 16, 16, 610),
        ((5,), 0, 3, 16, 6),
        ((5,), 4, 0, None, 6),
        ((0,), 4, 2, 3, 6),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_entities_match_the_twin_and_the_cpu(gpu, sizes, dtype):
    operands = entity_operands(*sizes, dtype)
    native, twin = both(gpu, value_and_cotangents, *operands)
    assert_equal(native, twin)
    assert_equal(native, on(CPU, lambda *x: value_and_cotangents(*x, "native"), *operands))
    assert_equal(native[0], on(gpu, lambda x, weights, _, mask: entity_layer(x, weights, mask, "native"), *operands))


@pytest.mark.parametrize("p", [None, 16])
def test_any_entities_match_the_twin(gpu, p):
    rng = np.random.default_rng(0)
    x, weights, y_bar, mask = jax.tree.map(
        lambda v: v if v.dtype == bool else rng.normal(size=v.shape).astype(np.float32),
        entity_operands((64,), 50, 13, p, 40),  # few enough that no two scores are nearly the same
    )
    native, twin = both(gpu, value_and_cotangents, x, weights, y_bar, mask)
    # Up to 16 products twice; sums of up to 2,600 terms of size 4, which reach 200 and are rounded at each term.
    assert_close(native[0], twin[0], rtol=1e-5, atol=2e-5)
    assert_close(native[1], twin[1], rtol=1e-5, atol=5e-4)
    again = on(gpu, lambda *v: value_and_cotangents(*v, "native"), x, weights, y_bar, mask)
    assert_equal(again, native)  # run to run the same bits


@pytest.mark.parametrize("precision", ["bfloat16", "high"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "sizes",  # leading axes, N, D, P, H
    [
        ((), 1, 1, None, 1),
        ((700,), 40, 13, 16, 130),
        ((33,), 257, 16, 5, 7),
        ((300,), 9, 16, None, 64),
        ((4096,), 16, 4, 16, 128),
        ((1024,), 200, 13, 16, 128),
        ((9_000,), 3, 16, 16, 610),
        ((5,), 0, 3, 16, 6),
        ((5,), 4, 0, None, 6),
    ],
    ids=str,
)
def test_tensor_cores_are_exact_where_bfloat16_is(gpu, sizes, dtype, precision):
    """The operands and the units, multiples of 1/16 up to 9.75, have at most 8 bits."""
    operands = entity_operands(*sizes, dtype)
    native = on(gpu, lambda *v: value_and_cotangents(*v, "native", precision), *operands)
    assert_equal(native, on(gpu, lambda *v: value_and_cotangents(*v, "reference"), *operands))
    no_winners = on(gpu, lambda x, weights, _, mask: entity_layer(x, weights, mask, "native", precision), *operands)
    assert_equal(native[0], no_winners)


@pytest.mark.parametrize("p", [None, 16])
@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.008), ("high", 2.0**-14)])
def test_errors_of_tensor_cores_are_within_the_bound(gpu, p, precision, error):
    rng = np.random.default_rng(0)
    x, weights, _, mask = jax.tree.map(
        lambda v: v if v.dtype == bool else rng.normal(size=v.shape).astype(np.float32),
        entity_operands((512,), 50, 13, p, 128),
    )
    y = on(gpu, lambda *v: entity_layer(*v, "native", precision), x, weights, mask)
    again = on(gpu, lambda *v: entity_layer(*v, "native", precision), x, weights, mask)
    np.testing.assert_array_equal(again, y)  # run to run the same bits
    *first, weight, bias = (w.astype(np.float64) for w in weights)
    units, off = x.astype(np.float64), 0
    if first:
        w1, b1 = first
        off = error * (np.abs(x) @ np.abs(w1) + np.abs(b1))
        units = np.maximum(x @ w1 + b1, 0)
    scores = np.where(mask[..., None], units @ weight, -np.inf)
    bound = np.where(mask[..., None], (off + error * (np.abs(units) + off)) @ np.abs(weight), 0).max(axis=1)
    assert (np.abs(y - (scores.max(axis=1) + bias)) <= bound + 1e-6).all()
    assert np.abs(y - (scores.max(axis=1) + bias)).max() > (1e-3 if precision == "bfloat16" else 0)  # it was used


@pytest.mark.parametrize("precision", [None, "bfloat16", "high"])
def test_nan_infinities_and_absent_entities(gpu, precision):
    x, weights, y_bar, mask = entity_operands((8,), 21, 3, None, 40)
    mask[:, :3] = True
    x[0, 3, 1] = x[0, 6, 1] = x[1, 0, 0] = x[2, 0, 0] = np.nan
    mask[0, 3], mask[1, 0], mask[2] = True, False, False
    x[3, 1], x[4], x[5, 2] = np.inf, -np.inf, -np.inf
    operands = (x, (np.abs(weights[0]) + 1, weights[1]), y_bar, mask)
    native, twin = both(gpu, lambda *v: value_and_cotangents(*v, precision), *operands)
    assert_equal(native, twin)


@pytest.mark.parametrize("p", [None, 16])
@pytest.mark.parametrize("shares_weights", [False, True])
def test_lanes_of_entities(gpu, p, shares_weights):
    """As a vmapped policy meets them: one call for all lanes, weights mapped or not."""
    lanes = [entity_operands((6,), 9, 4, p, 33) for _ in range(3)]
    x, weights, y_bar, mask = jax.tree.map(lambda *v: np.stack(v), *lanes)
    x[1], y_bar[2] = x[1][::-1], -y_bar[2]
    axes = (0, None if shares_weights else 0, 0, 0)
    if shares_weights:
        weights = lanes[0][1]
    else:
        weights = jax.tree.map(
            lambda v: v * np.arange(1, 4, dtype=np.float32).reshape(-1, *[1] * (v.ndim - 1)), weights
        )

    def run(*operands):
        *operands, impl = operands
        return jax.vmap(lambda *lane: value_and_cotangents(*lane, impl), axes)(*operands)

    native, twin = both(gpu, run, x, weights, y_bar, mask)
    assert_equal(native, twin)
