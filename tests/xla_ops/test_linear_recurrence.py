import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from pufferjax import xla_ops
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.linear_recurrence.op import TARGET, TARGET_BACKWARD
from pufferjax.xla_ops.linear_recurrence.reference import (
    linear_recurrence_backward_reference,
    linear_recurrence_reference,
)

OP = "linear_recurrence"

# float32 against float64: every step rounds twice (2^-24 each, relative to values of size 1 to 20) and |a| <= 1 keeps
# older errors from growing; 257 steps of worst-case rounding give 257 * 2 * 6e-8 * 20 = 6e-4, the usual walk 4e-5.
TOLERANCE = {"rtol": 1e-5, "atol": 5e-5}


def brute_force(a, b, h0, reset):
    """Element by element in float64, the backward pass written out.

    Returns h and a function (h_bar, h as it was saved) -> cotangents.
    """
    a, b, h0 = (np.asarray(x, np.float64) for x in (a, b, h0))
    flags = np.zeros(a.shape, bool)
    if reset is not None:
        flags |= np.asarray(reset).reshape(reset.shape + (1,) * (a.ndim - reset.ndim))
    h = np.zeros_like(a)
    for t in range(a.shape[0]):
        for i in np.ndindex(a.shape[1:]):
            before = h0[i] if t == 0 else h[t - 1, *i]
            h[t, *i] = a[t, *i] * (0.0 if flags[t, *i] else before) + b[t, *i]

    def backward(h_bar, saved=h):
        h_bar = np.asarray(h_bar, np.float64)
        a_bar, b_bar, carried = np.zeros_like(a), np.zeros_like(a), np.zeros_like(h0)
        for t in reversed(range(a.shape[0])):
            for i in np.ndindex(a.shape[1:]):
                g = h_bar[t, *i] + carried[i]
                before = h0[i] if t == 0 else saved[t - 1, *i]
                b_bar[t, *i] = g
                a_bar[t, *i] = 0.0 if flags[t, *i] else g * before
                carried[i] = 0.0 if flags[t, *i] else g * a[t, *i]
        return a_bar, b_bar, carried

    return h, backward


def operands(shape, reset_rank, seed=0, reset_rate=0.3, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, shape).astype(np.float32)
    b = rng.normal(size=shape).astype(np.float32)
    h0 = rng.normal(size=shape[1:]).astype(np.float32)
    reset = None if reset_rank is None else jnp.asarray(rng.random(shape[:reset_rank]) < reset_rate)
    return jnp.asarray(a, dtype), jnp.asarray(b, dtype), jnp.asarray(h0, dtype), reset


CASES = [
    ((1,), 1),
    ((1,), None),
    ((257,), 1),
    ((1, 1), 2),
    ((1, 257), 2),
    ((3, 17), None),
    ((17, 33), 1),
    ((33, 17), 2),
    ((3, 2, 257), 2),
    ((17, 3, 5), 3),
    ((4, 2, 3, 5), 2),
    ((4, 2, 3, 5), 3),
    ((5, 0), 2),
    ((5, 3, 0), 2),
    ((5, 0, 3), None),
]


@pytest.mark.parametrize(("shape", "reset_rank"), CASES)
def test_values_and_gradients_match_brute_force(impl, shape, reset_rank):
    a, b, h0, reset = operands(shape, reset_rank)
    h_bar = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    @jax.jit
    def run(a, b, h0, h_bar):
        h, pull = jax.vjp(lambda *x: xla_ops.linear_recurrence(*x, reset, impl=impl), a, b, h0)
        return h, pull(h_bar)

    h, cotangents = run(a, b, h0, h_bar)
    expected, backward = brute_force(a, b, h0, reset)
    assert h.shape == shape and h.dtype == jnp.float32
    np.testing.assert_allclose(h, expected, **TOLERANCE)
    for got, want in zip(cotangents, backward(h_bar), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, **TOLERANCE)


@pytest.mark.parametrize("reset_rank", [None, 1, 2, 3])
def test_blocks_and_threads_cover_every_column(reset_rank):
    # For the native code: wider than a block of columns, and enough work for several threads; 2,731 divides neither.
    shape = (9, 2731, 7)
    a, b, h0, reset = operands(shape, reset_rank, reset_rate=0.1)

    def run(recurrence):
        h, pull = jax.vjp(lambda *x: recurrence(*x, reset), a, b, h0)
        return h, *pull(b)

    got = jax.jit(lambda: run(xla_ops.linear_recurrence))()
    for x, y in zip(got, jax.jit(lambda: run(linear_recurrence_reference))(), strict=True):
        np.testing.assert_allclose(x, y, **TOLERANCE)


@pytest.mark.parametrize(("shape", "reset_rank"), [((257,), 1), ((33, 17), None), ((17, 3, 9), 2), ((4, 2, 3, 5), 3)])
def test_bfloat16_is_rounded_once(impl, shape, reset_rank):
    """Within half a unit in the last place (2^-8, relatively) of float64, on top of what float32 is off."""
    a, b, h0, reset = operands(shape, reset_rank, dtype=jnp.bfloat16)
    h_bar = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.bfloat16)
    once = {"rtol": 2**-8, "atol": TOLERANCE["atol"]}

    @jax.jit
    def run(a, b, h0, h_bar):
        h, pull = jax.vjp(lambda *x: xla_ops.linear_recurrence(*x, reset, impl=impl), a, b, h0)
        return h, pull(h_bar)

    h, cotangents = run(a, b, h0, h_bar)
    expected, backward = brute_force(a, b, h0, reset)
    assert h.shape == shape and h.dtype == jnp.bfloat16
    np.testing.assert_allclose(h.astype(jnp.float32), expected, **once)
    if impl == "native":  # from the states as they were stored; the twin's derivative has those it carried
        expected = np.asarray(h, np.float64)
    for got, want in zip(cotangents, backward(h_bar, expected), strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), want, **once)


@pytest.mark.parametrize("reset_rank", [None, 1, 2, 3])
def test_bfloat16_has_the_bits_of_the_twin(reset_rank):
    """Where sums are exact in float32 all roundings are those of storing. Blocks and threads as above."""
    shape = (7, 2731, 7)
    rng = np.random.default_rng(0)
    eighths = lambda most, *shape: jnp.asarray(rng.integers(-most, most + 1, shape) / 8, jnp.bfloat16)  # noqa: E731
    a, b, h0 = 2 * eighths(3, *shape), eighths(5, *shape), eighths(5, *shape[1:])
    reset = operands(shape, reset_rank, reset_rate=0.1)[3]

    def run(recurrence):
        h, pull = jax.vjp(lambda *x: recurrence(*x, reset), a, b, h0)
        return h, *pull(b)

    def twin():
        h = linear_recurrence_reference(a, b, h0, reset)
        return h, *linear_recurrence_backward_reference(a, h, h0, reset, b)

    for x, y in zip(jax.jit(lambda: run(xla_ops.linear_recurrence))(), jax.jit(twin)(), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_bfloat16_under_vmap_and_scan(impl):
    in_axes = (None, 1, 0, 2)
    # Whole numbers of few bits: with any storage the same.
    lanes = [operands((4, 3, 2), 2, seed=seed) for seed in range(3)]
    mapped = [
        lanes[0][i] if axis is None else jnp.stack([lane[i] for lane in lanes], axis) for i, axis in enumerate(in_axes)
    ]
    mapped = [jnp.sign(jnp.round(x)) if x.dtype == jnp.float32 else x for x in mapped]

    def loss(a, b, h0, reset):
        def body(h, _):
            states = xla_ops.linear_recurrence(a, b, h, reset, impl=impl)
            return states[-1], jnp.sum(states * b)

        h, sums = jax.lax.scan(body, h0, None, length=2)
        return jnp.sum(h) + jnp.sum(sums)

    run = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1, 2)), in_axes))
    got = run(*(x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x for x in mapped))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(got))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.astype(jnp.float32), y), got, run(*mapped))


def test_explicit_backward_of_the_twin_is_its_derivative():
    a, b, h0, reset = operands((17, 3, 5), 2)
    h, pull = jax.vjp(lambda *x: linear_recurrence_reference(*x, reset), a, b, h0)
    for x, y in zip(linear_recurrence_backward_reference(a, h, h0, reset, b), pull(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)  # the same products, summed in the same order


@pytest.mark.parametrize("reset_rank", [None, 2, 3])
def test_check_grads(impl, reset_rank):
    a, b, h0, reset = operands((5, 3, 2), reset_rank)
    # Differences of float32 values with JAX's default step are good to about 1e-2.
    check_grads(
        lambda *x: xla_ops.linear_recurrence(*x, reset, impl=impl), (a, b, h0), 1, ["rev"], atol=1e-2, rtol=1e-2
    )


def test_worked_example(impl):
    a = jnp.array([[0.5], [0.5], [2.0]])
    b = jnp.array([[1.0], [2.0], [3.0]])
    reset = jnp.array([False, True, False])
    h = xla_ops.linear_recurrence(a, b, jnp.array([4.0]), reset, impl=impl)
    np.testing.assert_array_equal(h, [[3.0], [2.0], [7.0]])


def test_reset_equals_separate_runs(impl):
    a, b, h0, _ = operands((9, 4), None)
    reset = jnp.zeros((9, 4), bool).at[4, :].set(True)
    h = xla_ops.linear_recurrence(a, b, h0, reset, impl=impl)
    first = xla_ops.linear_recurrence(a[:4], b[:4], h0, impl=impl)
    second = xla_ops.linear_recurrence(a[4:], b[4:], jnp.zeros(4), impl=impl)
    np.testing.assert_allclose(h, jnp.concatenate([first, second]), rtol=1e-6, atol=1e-6)  # at most contraction differs


@pytest.mark.parametrize(("reset_rank", "poison"), [(1, np.nan), (2, np.inf), (3, np.nan)])
def test_reset_stops_nan_and_gradient(impl, reset_rank, poison):
    a, b, h0, _ = operands((4, 2, 3), None)
    reset = jnp.zeros((4, 2, 3)[:reset_rank], bool).at[2].set(True)
    h0 = jnp.full_like(h0, poison)
    f = lambda a, b, h0: xla_ops.linear_recurrence(a, b, h0, reset, impl=impl)  # noqa: E731
    h, pull = jax.vjp(f, a, b, h0)
    assert not np.isfinite(h[:2]).any() and np.isfinite(h[2:]).all()
    a_bar, b_bar, h0_bar = pull(jnp.zeros_like(h).at[2:].set(1.0))
    np.testing.assert_array_equal(h0_bar, 0.0)
    np.testing.assert_array_equal(a_bar[2], 0.0)
    np.testing.assert_array_equal(b_bar[:2], 0.0)
    assert np.isfinite(a_bar[2:]).all()


def test_nan_stays_in_its_column(impl):
    a, b, h0, _ = operands((5, 4), None)
    h = xla_ops.linear_recurrence(a, b.at[2, 1].set(jnp.nan), h0, impl=impl)
    assert np.isnan(h[2:, 1]).all()
    assert np.isfinite(h[:2]).all() and np.isfinite(np.delete(h, 1, axis=1)).all()


def test_single_steps_equal_one_call(impl):
    a, b, h0, reset = operands((7, 5, 3), 2)
    h, states = h0, []
    for t in range(7):
        h = xla_ops.linear_recurrence(a[t : t + 1], b[t : t + 1], h, reset[t : t + 1], impl=impl)[0]
        states.append(h)
    np.testing.assert_allclose(  # XLA may contract a multiply-add in one program and not in the other
        jnp.stack(states), xla_ops.linear_recurrence(a, b, h0, reset, impl=impl), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("in_axes", "reset_rank"),
    [((0, 0, 0, 0), 2), ((0, None, None, None), 2), ((None, 1, 0, None), None), ((2, 0, 1, 1), 3)],
)
def test_vmap(impl, in_axes, reset_rank):
    lanes = [operands((5, 3, 4), reset_rank, seed=seed) for seed in range(3)]
    mapped = [
        lanes[0][i] if axis is None else jnp.stack([lane[i] for lane in lanes], axis) for i, axis in enumerate(in_axes)
    ]
    lanes = [[lanes[0][i] if axis is None else lane[i] for i, axis in enumerate(in_axes)] for lane in lanes]

    def loss(a, b, h0, reset):
        return jnp.sum(jnp.sin(xla_ops.linear_recurrence(a, b, h0, reset, impl=impl)))

    got = jax.jit(jax.vmap(lambda *x: xla_ops.linear_recurrence(*x, impl=impl), in_axes))(*mapped)
    want = np.stack([brute_force(*lane)[0] for lane in lanes])
    np.testing.assert_allclose(got, want, **TOLERANCE)

    grad = jax.jit(jax.grad(loss, (0, 1, 2)))
    want = [grad(*lane) for lane in lanes]
    vmap_of_grad = jax.jit(jax.vmap(grad, in_axes))(*mapped)
    for i in range(3):
        np.testing.assert_allclose(vmap_of_grad[i], jnp.stack([w[i] for w in want]), **TOLERANCE)

    grad_of_vmap = jax.jit(jax.grad(lambda *x: jnp.sum(jax.vmap(loss, in_axes)(*x)), (0, 1, 2)))(*mapped)
    for i, axis in enumerate(in_axes[:3]):
        stacked = jnp.stack([w[i] for w in want], 0 if axis is None else axis)
        np.testing.assert_allclose(grad_of_vmap[i], stacked.sum(0) if axis is None else stacked, **TOLERANCE)


def test_gradient_through_a_scan(impl):
    a, b, h0, reset = operands((4, 3), 2)

    def loss(a, b, h0, recurrence):
        def body(h, _):
            states = recurrence(a, b, h, reset)
            return states[-1], jnp.sum(states**2)

        h, losses = jax.lax.scan(body, h0, None, length=3)
        return jnp.sum(h) + jnp.sum(losses)

    op = lambda *x: xla_ops.linear_recurrence(*x, impl=impl)  # noqa: E731
    got = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)(a, b, h0, op)
    want = jax.grad(loss, (0, 1, 2))(a, b, h0, linear_recurrence_reference)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, **TOLERANCE)


def test_reference_has_forward_mode():
    a, b, h0, reset = operands((4, 3), 2)
    f = lambda b: xla_ops.linear_recurrence(a, b, h0, reset, impl="reference")  # noqa: E731
    _, tangent = jax.jvp(f, (b,), (jnp.ones_like(b),))
    np.testing.assert_allclose(tangent, linear_recurrence_reference(a, jnp.ones_like(b), 0 * h0, reset), **TOLERANCE)


def test_two_devices(run_on_devices):
    run_on_devices("""
        rng = np.random.default_rng(0)
        a = jnp.asarray(rng.uniform(-1, 1, (5, 4, 3)), jnp.float32)
        b = jnp.asarray(rng.normal(size=(5, 4, 3)), jnp.float32)
        h0 = jnp.asarray(rng.normal(size=(1, 3)), jnp.float32)  # on both devices: its cotangents are summed
        reset = jnp.asarray(rng.random((5, 4)) < 0.3)
        rows = P(None, "data")

        def loss(a, b, h0, reset, impl):
            def body(h, _):
                states = xla_ops.linear_recurrence(a, b, h, reset, impl=impl)
                return states[-1], jnp.sum(states)
            start = jnp.broadcast_to(h0, a.shape[1:])
            states = xla_ops.linear_recurrence(a, b, start, reset, impl=impl)
            h, sums = jax.lax.scan(body, states[-1], None, length=3)
            return jnp.sum(jnp.sin(h)) + jnp.sum(sums)

        for dtype, impl in ((jnp.float32, None), (jnp.float32, "reference"), (jnp.bfloat16, None)):
            a, b, h0 = (x.astype(dtype) for x in (a, b, h0))
            want = jax.grad(loss, (0, 1, 2))(a, b, h0, reset, impl)
            def local(a, b, h0, reset):
                return jax.lax.psum(loss(a, b, h0, reset, impl), "data")
            specs = (rows, rows, P(), rows)
            outside = jax.grad(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P()), (0, 1, 2))
            inside = jax.grad(lambda *x: loss(*x, impl), (0, 1, 2))
            inside = jax.shard_map(inside, mesh=mesh, in_specs=specs, out_specs=specs[:3])
            for f in (outside, inside) if dtype == jnp.float32 else (inside,):
                for x, y in zip(jax.jit(f)(a, b, h0, reset), want, strict=True):
                    # In bfloat16 each device rounds its part of the cotangent of h0, and the parts' sum is rounded.
                    tolerance = {"rtol": 1e-5, "atol": 5e-5} if dtype == jnp.float32 else {"rtol": 0.02, "atol": 0.05}
                    x, y = (np.asarray(v, np.float32) for v in (x, y))
                    np.testing.assert_allclose(x, y, **tolerance)
    """)


BAD = [
    ("a", {"a": jnp.zeros((3, 2), jnp.int32)}, TypeError),
    ("a", {"a": jnp.zeros((3, 2), jnp.float16)}, TypeError),
    ("b", {"a": jnp.zeros((3, 2), jnp.bfloat16)}, TypeError),
    ("h0", {"a": jnp.zeros((3, 2), jnp.bfloat16), "b": jnp.zeros((3, 2), jnp.bfloat16)}, TypeError),
    ("a", {"a": "nonsense"}, TypeError),
    ("a", {"a": None}, TypeError),
    ("a", {"a": jnp.float32(1)}, ValueError),
    ("a", {"a": jnp.zeros((0, 2))}, ValueError),
    ("b", {"b": jnp.zeros((3, 1))}, ValueError),
    ("b", {"b": jnp.zeros((4, 2))}, ValueError),
    ("b", {"b": jnp.zeros((3, 2), bool)}, TypeError),
    ("h0", {"h0": jnp.zeros((3,))}, ValueError),
    ("h0", {"h0": jnp.zeros(())}, ValueError),
    ("h0", {"h0": object()}, TypeError),
    ("reset", {"reset": jnp.zeros((3, 2))}, TypeError),
    ("reset", {"reset": jnp.zeros((3, 1), bool)}, ValueError),
    ("reset", {"reset": jnp.zeros((2,), bool)}, ValueError),
    ("reset", {"reset": jnp.zeros((3, 2, 1), bool)}, ValueError),
    ("reset", {"reset": jnp.zeros((), bool)}, ValueError),
    ("impl", {"impl": "gpu"}, ValueError),
]


@pytest.mark.parametrize(("name", "change", "error"), BAD)
def test_bad_arguments_are_named(name, change, error):
    good = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((3, 2)), "h0": jnp.zeros((2,)), "reset": jnp.zeros((3, 2), bool)}
    with pytest.raises(error, match=rf"\b{name} must"):
        xla_ops.linear_recurrence(**(good | change))


@pytest.mark.parametrize(
    ("target", "shapes", "message"),
    [
        (TARGET, [(3, 2, 1), (3, 1, 1), (2, 1)], "b has 3 elements, expected 6"),
        (TARGET, [(3, 2, 1), (3, 2, 1), (3, 1)], "h0 has 3 elements, expected 2"),
        (TARGET, [(2, 1), (2, 1), (1,)], r"must be \[..., T, R, K\]"),
        (TARGET_BACKWARD, [(3, 2, 1), (3, 2, 2), (2, 1)], "h has 12 elements, expected 6"),
    ],
)
def test_handler_refuses_sizes_that_do_not_fit(target, shapes, message):
    if not ffi.has_native(target, jax.default_backend()):
        pytest.skip("no native build")
    arrays = [jnp.zeros(shape) for shape in shapes] + [jnp.zeros((0,), bool)]
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)  # noqa: E731
    results = [like(arrays[0])]
    if target == TARGET_BACKWARD:
        arrays.append(arrays[0])
        results = [like(arrays[0]), like(arrays[0]), like(arrays[2])]
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=message):
        jax.block_until_ready(ffi.native_call(target, results, *arrays))
