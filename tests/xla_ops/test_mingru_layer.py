import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from pufferjax import xla_ops
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.mingru_layer.op import (
    TARGET,
    TARGET_BACKWARD,
    TARGET_CELL,
    TARGET_CELL_BACKWARD,
    TARGET_FORWARD,
)
from pufferjax.xla_ops.mingru_layer.reference import (
    mingru_layer_backward_reference,
    mingru_layer_reference,
    mingru_layer_saved_reference,
)

OP = "mingru_layer"

# float32 against float64: sigmoids are good to 4e-7, products of up to 300 terms to about 1e-6, states are averages of
# candidates of size up to 5 (so errors do not grow with T, but a gate near 0 remembers 1 / z of them); gradients
# multiply up to four such factors and sum over the steps that a state survives, the kernel's over all steps and rows.
TOLERANCE = {"rtol": 5e-5, "atol": 1e-4}


def sigmoid(x):
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


def brute_force(x, kernel, h0, reset):
    """One element after the other in float64."""
    x, kernel, h = (np.array(v, np.float64) for v in (x, kernel, h0))
    num_steps, batch, hidden = x.shape
    y = np.zeros_like(x)
    for t in range(num_steps):
        for b in range(batch):
            before = np.zeros(hidden) if reset is not None and reset[t, b] else h[b].copy()
            for i in range(hidden):
                h_in, g, p = (sum(x[t, b, j] * kernel[j, k * hidden + i] for j in range(hidden)) for k in range(3))
                z, s = sigmoid(g), sigmoid(p)
                candidate = h_in + 0.5 if h_in >= 0 else sigmoid(h_in)
                h[b, i] = (1 - z) * before[i] + z * candidate
                y[t, b, i] = s * h[b, i] + (1 - s) * x[t, b, i]
    return y, h


def operands(num_steps, batch, hidden, has_reset=True, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_steps, batch, hidden)).astype(np.float32)
    kernel = (2 * rng.normal(size=(hidden, 3 * hidden)) / max(hidden, 1) ** 0.5).astype(np.float32)
    h0 = rng.uniform(0, 2, (batch, hidden)).astype(np.float32)
    reset = jnp.asarray(rng.random((num_steps, batch)) < 0.3) if has_reset else None
    return jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(h0), reset


def with_projection(projected):
    """(x f32[1, 1, H], kernel) such that x @ kernel = projected f32[3H], infinities and NaN included."""
    hidden = projected.shape[-1] // 3
    return jnp.zeros((1, 1, hidden)).at[0, 0, 0].set(1.0), jnp.zeros((hidden, 3 * hidden)).at[0].set(projected)


def value_and_cotangents(f, x, kernel, h0, reset, y_bar, h_last_bar):
    value, pull = jax.vjp(lambda *v: f(*v, reset), x, kernel, h0)
    return *value, *pull((y_bar, h_last_bar))


SIZES = [
    ((1, 1, 1), True),
    ((1, 19, 33), True),
    ((3, 1, 47), False),
    ((2, 41, 16), True),
    ((17, 3, 1), True),
    ((33, 2, 17), True),
    ((33, 2, 17), False),
    ((257, 1, 3), True),
    ((2, 0, 3), True),
    ((2, 3, 0), False),
]


@pytest.mark.parametrize(("sizes", "has_reset"), SIZES)
def test_values_and_gradients(impl, sizes, has_reset):
    primals = operands(*sizes, has_reset)
    num_steps, batch, hidden = sizes
    rng = np.random.default_rng(1)
    y_bar = rng.normal(size=(num_steps, batch, hidden)).astype(np.float32)
    h_last_bar = rng.normal(size=(batch, hidden)).astype(np.float32)

    f = lambda *v: xla_ops.mingru_layer(*v, impl=impl)  # noqa: E731
    y, h_last, *cotangents = jax.jit(lambda *v: value_and_cotangents(f, *v))(*primals, y_bar, h_last_bar)
    want_y, want_h_last = brute_force(*primals)
    np.testing.assert_allclose(y, want_y, **TOLERANCE)
    np.testing.assert_allclose(h_last, want_h_last, **TOLERANCE)
    for got, want in zip(jax.jit(f)(*primals), (y, h_last), strict=True):  # without a gradient: another target
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)

    # The derivative of the twin, in float64.
    with jax.enable_x64(True):
        wide = [None if v is None else jnp.asarray(v, v.dtype if v.dtype == bool else jnp.float64) for v in primals]
        bars = jnp.asarray(y_bar, jnp.float64), jnp.asarray(h_last_bar, jnp.float64)
        want = jax.jit(lambda *v: value_and_cotangents(mingru_layer_reference, *v))(*wide, *bars)[2:]
    for got, expected in zip(cotangents, want, strict=True):
        assert got.dtype == jnp.float32 and expected.dtype == np.float64
        np.testing.assert_allclose(got, expected, **TOLERANCE)


@pytest.mark.parametrize("sizes", [(3, 301, 64), (9, 5, 300), (128, 70, 64)])
def test_blocks_and_threads_cover_every_row(sizes):
    # For the native code: enough work for several threads; more rows, or longer ones, than a block holds.
    x, kernel, h0, reset = operands(*sizes)
    operand_list = (x, kernel, h0, reset, x, h0)
    got = jax.jit(lambda *v: value_and_cotangents(xla_ops.mingru_layer, *v))(*operand_list)
    want = jax.jit(lambda *v: value_and_cotangents(mingru_layer_reference, *v))(*operand_list)
    for a, b in zip(got, want, strict=True):
        # Sums of up to 9,000 terms in another order; small ones among them are differences of large ones.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_same_bits_for_any_number_of_threads():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    x, kernel, h0, reset = operands(3, 301, 64)
    results = []
    try:
        for limit in (1, 1000):
            ffi.limit_threads(limit)
            results.append(value_and_cotangents(xla_ops.mingru_layer, x, kernel, h0, reset, x, h0))
            jax.block_until_ready(results[-1])
    finally:
        ffi.limit_threads(1000)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_explicit_backward_of_the_twin_is_its_derivative():
    x, kernel, h0, reset = operands(9, 3, 5)
    _, h, gates = mingru_layer_saved_reference(x, kernel, h0, reset)
    got = mingru_layer_backward_reference(x, kernel, h0, reset, h, gates, x, h0)
    want = value_and_cotangents(mingru_layer_reference, x, kernel, h0, reset, x, h0)[2:]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # float32 products in another order


def test_check_grads(impl):
    x, kernel, h0, reset = operands(4, 3, 2, seed=1)
    assert float(jnp.min(jnp.abs((x @ kernel)[..., :2]))) > 0.02  # the candidate's slope jumps at h_in = 0
    # Differences of float32 values with JAX's default step are good to about 1e-2.
    check_grads(
        lambda *v: xla_ops.mingru_layer(*v, reset, impl=impl), (x, kernel, h0), 1, ["rev"], atol=1e-2, rtol=1e-2
    )


def test_worked_example(impl):
    # Gates of 0 are halves. h_in = 1.5: candidate 2; h_in = 0: exactly 1/2 on both branches.
    x = jnp.array([[[8.0]], [[0.0]], [[0.0]]])
    kernel = jnp.array([[1.5 / 8, 0.0, 0.0]])
    reset = jnp.array([[False], [False], [True]])
    y, h_last = xla_ops.mingru_layer(x, kernel, jnp.array([[4.0]]), reset, impl=impl)
    np.testing.assert_allclose(y[:, 0, 0], [5.5, 0.875, 0.125], rtol=1e-6)  # h = 3, 1.75, 0.25
    np.testing.assert_allclose(h_last, [[0.25]], rtol=1e-6)


def test_gradient_at_tiny_negative_inputs_takes_the_lower_branch(impl):
    # sigmoid(-1e-9) rounds to 1/2, where the upper branch begins: slope 1/4 on this side, 1 on the other.
    def h_of(h_in):
        projected = with_projection(jnp.array([h_in, 50.0, 0.0]))
        return xla_ops.mingru_layer(*projected, jnp.zeros((1, 1)), impl=impl)[1][0, 0]

    np.testing.assert_allclose([jax.grad(h_of)(-1e-9), jax.grad(h_of)(1e-9)], [0.25, 1.0], rtol=1e-6)


def gate_probe(g, impl):
    """sigmoid(g) as the op computes it: h0 = 0 and candidate 1 make h = z; an infinite highway gate makes y = h."""
    g = jnp.asarray(g, jnp.float32)
    probes = []
    for i in range(0, g.size, 64):  # the kernel has the square of the number of channels
        part = g[i : i + 64]
        projected = jnp.concatenate([jnp.full_like(part, 0.5), part, jnp.full_like(part, jnp.inf)])
        y, h = xla_ops.mingru_layer(*with_projection(projected), jnp.zeros((1, part.size)), impl=impl)
        np.testing.assert_array_equal(y[0], h)
        probes.append(h[0])
    return np.concatenate(probes)


def test_sigmoid_is_accurate():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    rng = np.random.default_rng(0)
    g = np.concatenate([np.linspace(-87.3, 100, 10_001), rng.normal(size=3000), rng.normal(size=500) * 1e-6])
    g = g.astype(np.float32)
    # A polynomial of 1e-7, six roundings of it, one division: the documented 4e-7.
    np.testing.assert_allclose(gate_probe(g, "native"), sigmoid(g), rtol=4e-7, atol=0)


def test_sigmoid_at_the_ends(impl):
    g = [np.inf, 1e30, 3e38, 100.0, 89.0, 0.0, -0.0, -104.0, -200.0, -1e6, -1e10, -3e38, -np.inf]
    np.testing.assert_allclose(gate_probe(g, impl), [1] * 5 + [0.5] * 2 + [0] * 6, rtol=1e-6, atol=1e-37)
    assert np.isnan(gate_probe([np.nan, -np.nan], impl)).all()


def test_candidate_branches_at_extremes(impl):
    h_in = jnp.array([-jnp.inf, -1e4, -0.0, 0.0, 1e4, jnp.inf, jnp.nan])
    projected = jnp.concatenate([h_in, jnp.full((7,), jnp.inf), jnp.full((7,), jnp.inf)])
    y, _ = xla_ops.mingru_layer(*with_projection(projected), jnp.zeros((1, 7)), impl=impl)
    np.testing.assert_allclose(y[0, 0], [0, 0, 0.5, 0.5, 1e4 + 0.5, np.inf, np.nan], rtol=1e-6)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_reset_stops_nan_and_gradient(impl, poison):
    x, kernel, h0, _ = operands(4, 2, 3)
    reset = jnp.zeros((4, 2), bool).at[2].set(True)
    h0 = jnp.full_like(h0, poison)
    (y, h_last), pull = jax.vjp(lambda *v: xla_ops.mingru_layer(*v, reset, impl=impl), x, kernel, h0)
    assert not np.isfinite(y[:2]).any() and np.isfinite(y[2:]).all() and np.isfinite(h_last).all()
    x_bar, kernel_bar, h0_bar = pull((jnp.zeros_like(y).at[2:].set(1.0), jnp.ones_like(h_last)))
    np.testing.assert_array_equal(h0_bar, 0.0)
    assert np.isfinite(x_bar[2:]).all()
    # The steps before the reset are lost to the poison: their outputs are, and 0 times NaN is NaN.
    assert np.isnan(kernel_bar).any() and np.isnan(x_bar[:2]).any()


def test_reset_equals_separate_runs(impl):
    x, kernel, h0, _ = operands(9, 3, 4)
    reset = jnp.zeros((9, 3), bool).at[4].set(True)
    y, h_last = xla_ops.mingru_layer(x, kernel, h0, reset, impl=impl)
    first, _ = xla_ops.mingru_layer(x[:4], kernel, h0, impl=impl)
    second, second_last = xla_ops.mingru_layer(x[4:], kernel, jnp.zeros((3, 4)), impl=impl)
    np.testing.assert_allclose(y, jnp.concatenate([first, second]), rtol=1e-6, atol=1e-6)  # contraction may differ
    np.testing.assert_allclose(h_last, second_last, rtol=1e-6, atol=1e-6)


def test_single_steps_equal_one_call(impl):
    x, kernel, h0, reset = operands(6, 3, 5)
    h, outputs = h0, []
    for t in range(6):
        one = slice(t, t + 1)
        y, h = xla_ops.mingru_layer(x[one], kernel, h, reset[one], impl=impl)
        outputs.append(y)
    want_y, want_h = xla_ops.mingru_layer(x, kernel, h0, reset, impl=impl)
    np.testing.assert_allclose(jnp.concatenate(outputs), want_y, rtol=1e-6, atol=1e-6)  # contraction may differ
    np.testing.assert_allclose(h, want_h, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("in_axes", [(0, 0, 0, 0), (2, None, 0, 1), (None, 2, None, None)])
def test_vmap(impl, in_axes):
    lanes = [operands(4, 3, 5, seed=seed) for seed in range(3)]
    mapped = [
        lanes[0][i] if axis is None else jnp.stack([lane[i] for lane in lanes], axis) for i, axis in enumerate(in_axes)
    ]
    lanes = [[lanes[0][i] if axis is None else lane[i] for i, axis in enumerate(in_axes)] for lane in lanes]

    def loss(x, kernel, h0, reset):
        y, h_last = xla_ops.mingru_layer(x, kernel, h0, reset, impl=impl)
        return jnp.sum(jnp.sin(y)) + jnp.sum(h_last**2)

    y, h_last = jax.jit(jax.vmap(lambda *v: xla_ops.mingru_layer(*v, impl=impl), in_axes))(*mapped)
    for i, lane in enumerate(lanes):
        want_y, want_h_last = brute_force(*lane)
        np.testing.assert_allclose(y[i], want_y, **TOLERANCE)
        np.testing.assert_allclose(h_last[i], want_h_last, **TOLERANCE)

    grad = jax.jit(jax.grad(loss, (0, 1, 2)))
    want = [grad(*lane) for lane in lanes]
    vmap_of_grad = jax.jit(jax.vmap(grad, in_axes))(*mapped)
    grad_of_vmap = jax.jit(jax.grad(lambda *v: jnp.sum(jax.vmap(loss, in_axes)(*v)), (0, 1, 2)))(*mapped)
    for i, axis in enumerate(in_axes[:3]):
        np.testing.assert_allclose(vmap_of_grad[i], jnp.stack([w[i] for w in want]), **TOLERANCE)
        stacked = jnp.stack([w[i] for w in want], 0 if axis is None else axis)
        np.testing.assert_allclose(grad_of_vmap[i], stacked.sum(0) if axis is None else stacked, **TOLERANCE)


def test_gradient_through_a_scan(impl):
    x, kernel, h0, reset = operands(3, 2, 4)

    def loss(x, kernel, h0, op):
        def body(h, _):
            y, h = op(x, kernel, h, reset)
            return h, jnp.sum(y**2)

        h, losses = jax.lax.scan(body, h0, None, length=3)
        return jnp.sum(h) + jnp.sum(losses)

    op = lambda *v: xla_ops.mingru_layer(*v, impl=impl)  # noqa: E731
    grad = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
    for a, b in zip(grad(x, kernel, h0, op), grad(x, kernel, h0, mingru_layer_reference), strict=True):
        np.testing.assert_allclose(a, b, **TOLERANCE)


@pytest.mark.parametrize("impl", [None, "native"])
def test_each_platform_runs_its_own_form(monkeypatch, impl):
    """The whole layer is one call on a CPU; on a GPU products are XLA's, the rest is one. Lowered for both, not run."""
    targets = {"cpu": ffi._targets["cpu"], "cuda": frozenset({TARGET_CELL, TARGET_CELL_BACKWARD})}
    monkeypatch.setattr(ffi, "_targets", targets)
    x, kernel, h0, reset = operands(3, 2, 4)

    def run(x, kernel, h0):
        value, pull = jax.vjp(lambda *v: xla_ops.mingru_layer(*v, reset, impl=impl), x, kernel, h0)
        return value, pull(value), xla_ops.mingru_layer(x, kernel, h0, reset, impl=impl)

    def calls(platform):
        text = jax.jit(run).trace(x, kernel, h0).lower(lowering_platforms=(platform,)).as_text()
        return sorted(re.findall(r"custom_call @([\w.]+)\(", text)), "dot_general" in text, "while" in text

    assert calls("cuda") == ([TARGET_CELL, TARGET_CELL, TARGET_CELL_BACKWARD], True, False)
    assert xla_ops.backends()[OP]["cuda"] == "native"
    text = jax.jit(lambda *v: xla_ops.mingru_layer(*v, impl=impl)).trace(x, kernel, h0)
    text = text.lower(lowering_platforms=("cuda",)).as_text()
    # The state in place: a loop over single steps has nothing to copy.
    assert re.search(r"output_tuple_indices = \[1\],\s*operand_index = 2,", text)
    if ffi.has_native(TARGET, "cpu"):
        assert calls("cpu") == ([TARGET, TARGET_BACKWARD, TARGET_FORWARD], False, False)
    monkeypatch.setitem(targets, "cuda", frozenset({TARGET_CELL}))
    assert xla_ops.backends()[OP]["cuda"] == "reference"


def test_two_devices(run_on_devices):
    run_on_devices("""
        rng = np.random.default_rng(0)
        kernel = jnp.asarray(rng.normal(size=(3, 9)), jnp.float32)  # on both devices, like h0
        x = jnp.asarray(rng.normal(size=(5, 4, 3)), jnp.float32)
        h0 = jnp.asarray(rng.random((1, 3)), jnp.float32)  # on both devices: its cotangents are summed
        reset = jnp.asarray(rng.random((5, 4)) < 0.3)
        rows = P(None, "data")

        def loss(x, kernel, h0, reset, impl):
            def body(h, _):
                y, h = xla_ops.mingru_layer(x, kernel, h, reset, impl=impl)
                return h, jnp.sum(y)
            y, h = xla_ops.mingru_layer(x, kernel, jnp.broadcast_to(h0, x.shape[1:]), reset, impl=impl)
            h, sums = jax.lax.scan(body, h, None, length=3)
            return jnp.sum(jnp.sin(y)) + jnp.sum(h**2) + jnp.sum(sums)

        for impl in (None, "reference"):
            want = jax.grad(loss, (0, 1, 2))(x, kernel, h0, reset, impl)
            grad = jax.grad(lambda *v: loss(*v, impl), (0, 1, 2))
            specs = (rows, P(), P(), rows)
            got = jax.jit(jax.shard_map(grad, mesh=mesh, in_specs=specs, out_specs=specs[:3]))(x, kernel, h0, reset)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=5e-5)
    """)


BAD = [
    ("kernel", {"kernel": jnp.zeros((4, 4))}, ValueError),
    ("kernel", {"kernel": jnp.zeros((4, 12), jnp.float16)}, TypeError),
    ("kernel", {"kernel": None}, TypeError),
    ("x", {"x": jnp.zeros((3, 4))}, ValueError),
    ("x", {"x": jnp.zeros((0, 2, 4))}, ValueError),
    ("x", {"x": jnp.zeros((3, 2, 4), jnp.int32)}, TypeError),
    ("h0", {"h0": jnp.zeros((2, 5))}, ValueError),
    ("h0", {"h0": "nonsense"}, TypeError),
    ("reset", {"reset": jnp.zeros((3, 2))}, TypeError),
    ("reset", {"reset": jnp.zeros((3, 2, 4), bool)}, ValueError),
    ("reset", {"reset": jnp.zeros((2, 3), bool)}, ValueError),
    ("impl", {"impl": "fast"}, ValueError),
]


@pytest.mark.parametrize(("name", "change", "error"), BAD)
def test_bad_arguments_are_named(name, change, error):
    good = {"x": jnp.zeros((3, 2, 4)), "kernel": jnp.zeros((4, 12)), "h0": jnp.zeros((2, 4))}
    with pytest.raises(error, match=rf"\b{name} must"):
        xla_ops.mingru_layer(**(good | change))


@pytest.mark.parametrize(
    ("target", "position", "shape", "message"),
    [
        (TARGET, 0, (2, 4), r"x must be \[..., T, B, H\]"),
        (TARGET, 1, (4, 4), "kernel has 16 elements, expected 48"),
        (TARGET, 2, (4,), "h0 has 4 elements, expected 8"),
        (TARGET, 3, (5,), "reset has 5 elements, expected 0 or 6"),
        (TARGET_BACKWARD, 4, (2, 4), "h has 8 elements, expected 24"),
        (TARGET_BACKWARD, 5, (3, 2, 4), "gates has 24 elements, expected 72"),
        (TARGET_BACKWARD, 7, (3, 2, 4), "h_last_bar has 24 elements, expected 8"),
    ],
)
def test_handler_refuses_sizes_that_do_not_fit(target, position, shape, message):
    if not ffi.has_native(target, jax.default_backend()):
        pytest.skip("no native build")
    shapes = [(3, 2, 4), (4, 12), (2, 4), (0,), (3, 2, 4), (3, 2, 12), (3, 2, 4), (2, 4)]
    results = [shapes[0], shapes[1], shapes[2]] if target == TARGET_BACKWARD else [shapes[0], shapes[2]]
    shapes = shapes if target == TARGET_BACKWARD else shapes[:4]
    shapes[position] = shape
    arrays = [jnp.zeros(s, bool if i == 3 else jnp.float32) for i, s in enumerate(shapes)]
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=message):
        jax.block_until_ready(ffi.native_call(target, [jax.ShapeDtypeStruct(s, jnp.float32) for s in results], *arrays))
