"""The CUDA kernels' arithmetic without a GPU: their bodies, compiled for the host, against the CPU ops.

A kernel's body is shared code (kernels.h, column.h); here a loop takes the turns of its blocks and threads, in both
orders. What this cannot see: the launches, and a barrier missing where uniform code is read.
"""

import ctypes
import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pufferjax.xla_ops import backends, ffi
from pufferjax.xla_ops.entity_encoder.op import TARGET_BACKWARD as ENCODER_BACKWARD
from pufferjax.xla_ops.entity_encoder.op import TARGET_FORWARD as ENCODER_FORWARD
from pufferjax.xla_ops.gae_vtrace.op import TARGET as GAE
from pufferjax.xla_ops.linear_max.entities import winner_dtype
from pufferjax.xla_ops.linear_max.op import TARGET_BACKWARD as LINEAR_BACKWARD
from pufferjax.xla_ops.linear_max.op import TARGET_FORWARD as LINEAR_FORWARD
from pufferjax.xla_ops.linear_recurrence.op import TARGET as RECURRENCE
from pufferjax.xla_ops.linear_recurrence.op import TARGET_BACKWARD as RECURRENCE_BACKWARD
from pufferjax.xla_ops.mingru_layer import op as mingru
from pufferjax.xla_ops.mingru_layer.reference import mingru_layer_reference
from pufferjax.xla_ops.one_hot_linear import op as one_hot
from pufferjax.xla_ops.prioritized_sample.op import TARGET as SAMPLE
from pufferjax.xla_ops.prioritized_sample.reference import prioritized_sample_reference

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or backends()["prioritized_sample"]["cpu"] != "native",
    reason="the native CPU ops are what the kernels are compared with",
)


@pytest.fixture(scope="module")
def kernels(compile_for_host):
    """The kernels' bodies as a ctypes library."""
    loaded = compile_for_host("kernels_on_host.cc")
    for function in (
        loaded.sample_many_blocks,
        loaded.one_block_suits,
        loaded.suits_tensor_cores,
        loaded.suits_forward_rows,
        loaded.suits_backward_rows,
    ):
        function.restype = ctypes.c_bool
    loaded.entity_forward.restype = loaded.entity_backward.restype = ctypes.c_int64
    return loaded


def pack(*fields):
    """A C struct of 64-bit fields: pointers of arrays (0 for None) and integers."""
    return (ctypes.c_int64 * len(fields))(
        *[0 if f is None else f.ctypes.data if isinstance(f, np.ndarray) else f for f in fields]
    )


def results_like(*shapes_and_dtypes):
    """Arrays of any bytes with a few more behind each, and a function that fails if those have changed."""
    blocks, arrays = [], []
    for shape, dtype in shapes_and_dtypes:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        blocks.append((np.full(size + 64, 0xCD, np.uint8), size))
        arrays.append(blocks[-1][0][:size].view(dtype).reshape(shape))

    def check():
        for block, size in blocks:
            assert (block[size:] == 0xCD).all(), "written past the end"

    return arrays, check


def both_orders(run, *shapes_and_dtypes):
    """The results of run(arrays, backwards), which must not depend on the order in which threads take their turns."""
    found = []
    for backwards in (False, True):
        arrays, check = results_like(*shapes_and_dtypes)
        run(arrays, ctypes.c_bool(backwards))
        check()
        found.append(arrays)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))
    return found[0]


# --- prioritized_sample -----------------------------------------------------------------------------------------------


def sample_on_host(kernels, way, words, priorities, size, alpha):
    lanes, num_samples, _ = words.shape

    def run(results, backwards):
        operands = pack(words, priorities, size, alpha, *results, priorities.shape[1], num_samples)
        if way == "one block":
            kernels.sample_one_block(operands, ctypes.c_int64(lanes), backwards)
        else:
            assert kernels.sample_many_blocks(operands, ctypes.c_int64(lanes), backwards), "scratch memory overrun"

    return both_orders(run, ((lanes, num_samples), np.int32), ((lanes, num_samples), np.float32))


def lanes_of(priorities, sizes, alphas, num_samples=150, seed=0):
    """Operands with one lane per (size, alpha); the first draws are the ends of the distribution."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, (len(sizes), num_samples, 2), np.uint32)
    words[:, 0] = 0
    words[:, 1] = 0xFFFFFFFF
    rows = np.ascontiguousarray(np.broadcast_to(priorities, (len(sizes), len(priorities))), np.float32)
    return words, rows, np.array(sizes, np.int32), np.array(alphas, np.float32)


def assert_as_on_the_cpu(kernels, way, operands):
    words = operands[0]
    shapes = [jax.ShapeDtypeStruct(words.shape[:2], dtype) for dtype in (jnp.int32, jnp.float32)]
    expected = ffi.native_call(SAMPLE, shapes, *map(jnp.asarray, operands))
    got = sample_on_host(kernels, way, *operands)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1].view(np.uint32), np.asarray(expected[1]).view(np.uint32))


def odd_priorities(capacity):
    """Many orders of magnitude; any bits at all; denormals; a spike that needs the second width; nothing positive."""
    rng = np.random.default_rng(capacity)
    yield np.exp(rng.normal(size=capacity) * 12).astype(np.float32)
    yield rng.integers(0, 2**32, capacity, np.uint32).view(np.float32)
    yield rng.integers(0, 2**23, capacity, np.uint32).view(np.float32)
    spike = np.full(capacity, 1e-9, np.float32)
    spike[capacity // 3] = 1
    yield spike
    yield np.full(capacity, -1.0, np.float32)


WAYS = ["one block", "many blocks"]
ALPHAS = (0.0, 1e-40, 1.0, 0.6, 3.0, 40.0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("capacity", [1, 2, 63, 64, 65, 1023, 1024, 1025, 4096, 4097, 9000, 16384])
def test_draws_have_the_bits_of_the_cpu(kernels, way, capacity):
    for priorities in odd_priorities(capacity):
        sizes = (capacity, capacity // 2 + 1, capacity, capacity, capacity - 1, capacity)
        assert_as_on_the_cpu(kernels, way, lanes_of(priorities, sizes, ALPHAS))


@pytest.mark.parametrize("capacity", [65_537, 4_300_000])
def test_draws_from_many_have_the_bits_of_the_cpu(kernels, capacity):
    """4.3 million: more than 1,024 tiles, so that a thread of the scan over the tiles has several, and a sample."""
    for priorities in itertools.islice(odd_priorities(capacity), 4 if capacity < 1e6 else 1):
        alphas = (1.0, 0.6) if capacity < 1e6 else (1.0,)
        assert_as_on_the_cpu(kernels, "many blocks", lanes_of(priorities, [capacity - 3] * len(alphas), alphas))
    spike = np.full(capacity, 1.5 * 2.0**-46, np.float32)
    spike[7] = 1
    assert_as_on_the_cpu(kernels, "many blocks", lanes_of(spike, [capacity], [1.0]))


@pytest.mark.parametrize("others", [0.6, 1.5 * 2.0**-46, 0.0, -1.0])
def test_the_largest_may_be_outside_the_sample(kernels, others):
    """Of this many, one line in 32 is looked at; with the second value the weights then also need more bits."""
    priorities = np.full(4_200_000, others, np.float32)
    priorities[32:1024] = 0.9
    assert_as_on_the_cpu(kernels, "many blocks", lanes_of(priorities, [len(priorities)], [1.0]))
    priorities[32:1024] = others
    priorities[40] = 1
    assert_as_on_the_cpu(kernels, "many blocks", lanes_of(priorities, [len(priorities)], [1.0]))


@pytest.mark.parametrize("way", WAYS)
def test_nothing_to_draw_from_or_to_draw(kernels, way):
    operands = lanes_of(np.ones(5, np.float32), (0, 0, 1), (1.0, 0.0, 0.5))
    assert_as_on_the_cpu(kernels, way, operands)
    indices, relative = sample_on_host(kernels, way, *operands)
    assert not indices.any() and (relative == 1).all()
    sample_on_host(kernels, way, *lanes_of(np.ones(5, np.float32), (5,), (1.0,), num_samples=2))
    words = np.zeros((2, 0, 2), np.uint32)
    assert sample_on_host(kernels, way, words, *operands[1:])[0].shape == (2, 0)


@pytest.mark.parametrize("way", WAYS)
def test_bad_values_count_as_in_the_twin(kernels, way):
    """On the device nobody can raise: sizes are clipped, a negative or NaN alpha is 0."""
    priorities = np.arange(1, 8, dtype=np.float32)
    nan = np.float32("nan")
    operands = lanes_of(priorities, (99, -5, 7, 7, 2**31 - 1), (1.0, 1.0, nan, -1.0, nan))
    indices, relative = sample_on_host(kernels, way, *operands)
    for lane in range(5):
        expected = prioritized_sample_reference(*(x[lane] for x in operands))
        np.testing.assert_array_equal(indices[lane], expected[0])
        np.testing.assert_allclose(relative[lane], expected[1], rtol=1e-6)


def test_which_way_is_taken(kernels):
    suits = lambda m, k: kernels.one_block_suits(ctypes.c_int64(m), ctypes.c_int64(k))  # noqa: E731
    assert suits(16384, 16384) and not suits(16385, 1) and not suits(1, 16385)


@pytest.mark.parametrize("alpha", [1e-3, 0.3, 0.6, 0.999, 2.0, 7.5, 40.0])
def test_powers_against_float64(kernels, alpha):
    """The promised error; the rounding of the priorities themselves has an effect of this size."""
    rng = np.random.default_rng(0)
    smaller = 1.7 * np.exp2(rng.uniform(-30 / max(1, alpha), 0, 50_000))  # powers far above the least weight
    priorities = np.concatenate([[1.7], smaller]).astype(np.float32)
    weights = np.zeros(len(priorities), np.uint64)
    width = 62
    kernels.weights_of(
        ctypes.c_void_p(priorities.ctypes.data),
        ctypes.c_int64(len(priorities)),
        ctypes.c_uint32(int(priorities[:1].view(np.uint32)[0])),
        ctypes.c_float(alpha),
        ctypes.c_int32(width),
        ctypes.c_void_p(weights.ctypes.data),
    )
    exact = (priorities.astype(np.float64) / priorities[0].astype(np.float64)) ** np.float64(np.float32(alpha))
    error = np.abs(weights / 2.0 ** (width - 1) / exact - 1).max()
    assert error < 2e-7 * max(1, alpha)
    assert weights[0] == 2 ** (width - 1)


# --- gae_vtrace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "num_steps", "num_envs"), [(1, 1, 1), (3, 15, 4), (2, 16, 7), (2, 17, 3), (1, 50, 33)]
)
def test_advantages_have_the_bits_of_the_cpu(kernels, lanes, num_steps, num_envs):
    rng = np.random.default_rng(num_steps)
    shape = (lanes, num_steps, num_envs)
    rewards, values = rng.normal(size=(2, *shape)).astype(np.float32)
    bootstrap = rng.normal(size=(lanes, num_envs)).astype(np.float32)
    terminated = rng.random(shape) < 0.2
    ratios = np.exp(rng.normal(size=shape)).astype(np.float32)
    scalars = rng.uniform(0.5, 1, (4, lanes)).astype(np.float32)
    # What must not be looked at is not; what must be kept is.
    rewards[0, 0, 0] = np.inf
    ratios[-1, -1, -1] = np.nan
    bootstrap[0, 0], terminated[0, -1, 0] = np.nan, True

    def run(results, backwards):
        operands = pack(rewards, values, bootstrap, terminated, ratios, *scalars, *results, num_steps, num_envs)
        kernels.gae_columns(operands, ctypes.c_int64(lanes), backwards)

    (got,) = both_orders(run, (shape, np.float32))
    operands = (rewards, values, bootstrap, terminated, ratios, *scalars)
    expected = ffi.native_call(GAE, [jax.ShapeDtypeStruct(shape, jnp.float32)], *map(jnp.asarray, operands))[0]
    np.testing.assert_array_equal(got, expected)
    assert np.isfinite(got[0, -1, 0]) or num_steps == 1


# --- linear_recurrence ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "num_steps", "flags", "group"),
    [(1, 1, 1, 1), (2, 15, 3, 1), (2, 16, 3, 5), (1, 17, 1, 9), (2, 32, 3, 2), (2, 50, 4, 2)],
)
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_recurrences_have_the_bits_of_the_cpu(kernels, lanes, num_steps, flags, group, with_resets, dtype):
    rng = np.random.default_rng(num_steps)
    shape = (lanes, num_steps, flags, group)
    a, b, h_bar = rng.normal(size=(3, *shape)).astype(dtype)
    h0 = rng.normal(size=(lanes, flags, group)).astype(dtype)
    reset = rng.random(shape[:3]) < 0.3 if with_resets else None
    if with_resets:  # does not pass a reset, neither forwards nor backwards
        h0[0, 0, 0], reset[0, 0, 0] = np.nan, True
    sizes = pack(lanes, num_steps, flags, group)
    no_flags = np.zeros((lanes, 0), bool)
    is_bfloat16 = ctypes.c_bool(dtype == ml_dtypes.bfloat16)

    def native(target, shapes, *operands):
        target += ".bf16" if is_bfloat16 else ""
        results = [jax.ShapeDtypeStruct(s, dtype) for s in shapes]
        return map(np.asarray, ffi.native_call(target, results, *map(jnp.asarray, operands)))

    def run(results, backwards):
        kernels.recurrence_forward(sizes, pack(a, b, h0, reset, *results), is_bfloat16, backwards)

    (h,) = both_orders(run, (shape, dtype))
    (expected,) = native(RECURRENCE, [shape], a, b, h0, no_flags if reset is None else reset)
    np.testing.assert_array_equal(h, expected)
    assert np.isfinite(h.astype(np.float32)).all()

    def run_backward(results, backwards):
        kernels.recurrence_backward(sizes, pack(a, h, h0, reset, h_bar, *results), is_bfloat16, backwards)

    shapes = (shape, shape, h0.shape)
    got = both_orders(run_backward, *((s, dtype) for s in shapes))
    expected = native(RECURRENCE_BACKWARD, shapes, a, h, h0, no_flags if reset is None else reset, h_bar)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one.astype(np.float32)).all()


# --- mingru_layer -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cells_on_host(kernels, monkeypatch):
    """The kernels in the place of their handlers, for arrays with leading axes, as vmap brings them, or without."""

    def native_call(target, results, *operands, aliases=None):
        projected, x, h0, reset, *others = map(np.asarray, operands)
        sizes = pack(int(np.prod(x.shape[:-3])), *x.shape[-3:])
        operands = (projected, x, h0, reset if reset.size else None, *others)

        def run(arrays, backwards):
            given = list(operands)
            for operand, result in (aliases or {}).items():
                arrays[result][...] = given[operand]
                given[operand] = arrays[result]
            if target == mingru.TARGET_CELL:
                kernels.mingru_cell(sizes, pack(*given, *arrays, int(arrays[1].size != h0.size)), backwards)
            else:
                kernels.mingru_cell_backward(sizes, pack(*given, *arrays), backwards)

        return [jnp.asarray(x) for x in both_orders(run, *((r.shape, r.dtype) for r in results))]

    monkeypatch.setattr(ffi, "native_call", native_call)


def mingru_operands(num_steps, batch, hidden, has_reset, seed=0):
    rng = np.random.default_rng(seed)
    x, y_bar = rng.normal(size=(2, num_steps, batch, hidden)).astype(np.float32)
    kernel = (2 * rng.normal(size=(hidden, 3 * hidden)) / max(hidden, 1) ** 0.5).astype(np.float32)
    h0, h_last_bar = rng.normal(size=(2, batch, hidden)).astype(np.float32)
    reset = jnp.asarray(rng.random((num_steps, batch)) < 0.3) if has_reset else None
    return (*map(jnp.asarray, (x, kernel, h0)), reset), tuple(map(jnp.asarray, (y_bar, h_last_bar)))


@pytest.mark.parametrize(
    ("num_steps", "batch", "hidden", "has_reset"),
    [
        (1, 2, 3, True),
        (7, 3, 5, False),
        (8, 1, 33, True),
        (9, 4, 1, True),
        (16, 3, 6, True),
        (25, 3, 6, True),
        (3, 0, 2, False),
    ],
)
def test_cells_match_the_twin(cells_on_host, num_steps, batch, hidden, has_reset):
    operands, bars = mingru_operands(num_steps, batch, hidden, has_reset)
    y, h_last = mingru._cell(*operands, "highest")
    saved_y, h, projected = mingru._cell_saved(*operands, "highest")
    np.testing.assert_array_equal(y, saved_y)
    np.testing.assert_array_equal(h_last, h[-1])

    @jax.jit
    def twin(x, kernel, h0, reset, *bars):
        value, pull = jax.vjp(lambda *v: mingru_layer_reference(*v, reset), x, kernel, h0)
        return *value, *pull(bars)

    got = y, h_last, *mingru._cell_backward(*operands, h, projected, *bars, "highest")
    for one, other in zip(got, twin(*operands, *bars), strict=True):
        # Sigmoids to 4e-7; states and cotangents carry what they are off from step to step.
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


def test_cells_of_lanes_are_those_of_each(cells_on_host):
    lanes = [mingru_operands(11, 3, 5, has_reset=True, seed=seed) for seed in range(3)]
    x, kernel, h0, reset, y_bar, h_last_bar = (jnp.stack(v) for v in zip(*[a + b for a, b in lanes], strict=True))
    projected = jnp.matmul(x, kernel[:, None])
    y, h = ffi.native_call(mingru.TARGET_CELL, [x, x], projected, x, h0, reset)
    results = [projected, x, h0]
    operands = (projected, x, h0, reset, h, y_bar, h_last_bar)
    got = y, h, *ffi.native_call(mingru.TARGET_CELL_BACKWARD, results, *operands)
    for i in range(3):
        one = ffi.native_call(mingru.TARGET_CELL, [x[i], x[i]], projected[i], x[i], h0[i], reset[i])
        results_of_one = [v[i] for v in results]
        one += ffi.native_call(mingru.TARGET_CELL_BACKWARD, results_of_one, *(v[i] for v in operands))
        for a, b in zip(got, one, strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_a_reset_of_a_cell_lets_nothing_pass(cells_on_host):
    (x, kernel, h0, _), (y_bar, h_last_bar) = mingru_operands(20, 2, 3, has_reset=False)
    reset = jnp.zeros((20, 2), bool).at[10].set(True)
    operands = (x, kernel, jnp.full_like(h0, np.nan), reset)
    y, h, projected = mingru._cell_saved(*operands, "highest")
    assert np.isnan(h[:10]).all() and np.isfinite(y[10:]).all()
    x_bar, _, h0_bar = mingru._cell_backward(*operands, h, projected, y_bar.at[:10].set(0.0), h_last_bar, "highest")
    np.testing.assert_array_equal(h0_bar, 0.0)
    assert np.isfinite(x_bar[10:]).all()


# --- one_hot_linear ---------------------------------------------------------------------------------------------------


def one_hot_operands(rows, cells, codes, hidden, lanes=(), shared=()):
    """x, weight, bias and the cotangent of y, each with `lanes` in front, of size 1 if its name is in `shared`."""
    rng = np.random.default_rng(0)
    shapes = {"x": (rows, cells), "weight": (cells, codes, hidden), "bias": (hidden,), "cotangent": (rows, hidden)}
    shapes = {name: ((1,) * len(lanes) if name in shared else lanes) + shape for name, shape in shapes.items()}
    x = rng.integers(1, codes + 1, shapes["x"]) * (rng.random(shapes["x"]) < 0.6)
    return x.astype(np.uint8), *(rng.normal(size=shape).astype(np.float32) for shape in list(shapes.values())[1:])


def one_hot_on_host(kernels, operands, num_parts, lanes=()):
    """y, dweight, dbias."""
    x, weight, *_ = operands
    cells, codes, hidden = weight.shape[-3:]
    rows, count = x.shape[-2], len(lanes)
    axes = [np.array(operand.shape[:count], np.int64) for operand in operands]
    fields = [field for pair in zip(operands, axes, strict=True) for field in pair]
    call = pack(rows, cells, codes, hidden, count, np.array(lanes, np.int64), *fields)
    pointers = lambda results: [ctypes.c_void_p(r.ctypes.data) for r in results]  # noqa: E731

    def forward(results, backwards):
        kernels.one_hot_forward(call, *pointers(results), backwards)

    def backward(results, backwards):
        kernels.one_hot_backward(call, ctypes.c_int64(num_parts), *pointers(results), backwards)

    shapes = [weight.shape[-3:], (hidden,), (num_parts, cells * codes + 1, hidden)]
    (y,) = both_orders(forward, ((*lanes, rows, hidden), np.float32))
    return y, *both_orders(backward, *(((*lanes, *shape), np.float32) for shape in shapes))[:2]


def dense_gradients(x, cotangent, codes):
    code = (x[..., None] == np.arange(1, codes + 1)).astype(np.float64)
    return np.einsum("...rck,...rh->...ckh", code, cotangent.astype(np.float64)), cotangent.astype(np.float64).sum(-2)


@pytest.mark.parametrize(
    ("sizes", "num_parts"),
    [
        ((0, 4, 2, 8), 1),
        ((1, 1, 1, 1), 1),
        ((3, 0, 2, 8), 2),  # more parts than rows have any use for, and no cells
        ((65, 7, 5, 5), 1),
        ((130, 34, 3, 68), 3),
        ((3, 130, 9, 130), 1),  # two lists of cells, two chunks of codes, three tiles
        ((5, 3, 255, 16), 1),
        ((7, 2, 3, 0), 1),
    ],
    ids=str,
)
def test_one_hot_layers_match_the_cpu(kernels, sizes, num_parts):
    operands = one_hot_operands(*sizes)
    x, weight, bias, cotangent = operands
    y, dweight, dbias = one_hot_on_host(kernels, operands, num_parts)
    expected = ffi.native_call(one_hot.TARGET_FWD, [jax.ShapeDtypeStruct(y.shape, jnp.float32)], x, weight, bias)[0]
    np.testing.assert_array_equal(y, expected)  # the same sums in the same order
    for one, other in zip((dweight, dbias), dense_gradients(x, cotangent, sizes[2]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=6e-7 * (sizes[0] + 1))


@pytest.mark.parametrize("shared", [(), ("weight", "bias"), ("x",), ("cotangent", "bias")])
def test_one_hot_layers_of_lanes(kernels, shared):
    """As vmap brings them: an operand that it does not map has size 1 on its axis."""
    lanes = (2, 3)
    operands = one_hot_operands(20, 6, 3, 12, lanes, shared)
    got = one_hot_on_host(kernels, operands, 2, lanes)
    for lane in np.ndindex(*lanes):
        own = [np.broadcast_to(v, (*lanes, *v.shape[2:]))[lane] for v in operands]
        for one, other in zip(got, one_hot_on_host(kernels, [v.copy() for v in own], 2), strict=True):
            np.testing.assert_array_equal(one[lane], other)


def test_codes_above_k_contribute_nothing(kernels):
    x, *others = one_hot_operands(70, 9, 3, 8)
    bad = np.where(x == 0, np.uint8(4), x)
    bad[0, 0] = 255
    x[0, 0] = 0
    for one, other in zip(*(one_hot_on_host(kernels, (v, *others), 1) for v in (bad, x)), strict=True):
        np.testing.assert_array_equal(one, other)


# --- linear_max and entity_encoder ------------------------------------------------------------------------------------


class Entities:
    """Operands [*lanes, ...] of linear_max (num_units None) or entity_encoder, and what the kernels make of them."""

    def __init__(self, rows, num_entities, num_features, num_units, num_hidden, *, lanes=(), shared=(), seed=0,
                 has_mask=True, exact=True):  # fmt: skip
        """`exact`: small multiples of 1/4, whose sums are the same in any order, and ties; else normal numbers.

        `shared`: names of operands that all lanes share.
        """
        rng = np.random.default_rng(seed)
        self.has_first, self.lanes = num_units is not None, lanes
        depth = num_units if self.has_first else num_features
        self.sizes = (rows, num_entities, num_features, depth, num_hidden)
        shapes = {"x": (rows, num_entities, num_features), "weight": (depth, num_hidden), "bias": (num_hidden,)}
        if self.has_first:
            shapes |= {"w1": (num_features, num_units), "b1": (num_units,)}
        lead = lambda name: (1,) * len(lanes) if name in shared else lanes  # noqa: E731
        for name, shape in (shapes | {"y_bar": (rows, num_hidden)}).items():
            shape = (*lead(name), *shape)
            numbers = rng.integers(-3, 4, shape) / 4 if exact else rng.normal(size=shape)
            setattr(self, name, numbers.astype(np.float32))
        self.mask = rng.random((*lead("mask"), rows, num_entities)) < 0.6 if has_mask else None
        self.winner = None

    def on_the_cpu(self):
        """(y, winner) and the cotangents of x, weight, bias and, with a first layer, w1 and b1, by the CPU's ops."""
        first = (self.w1, self.b1) if self.has_first else ()
        mask = np.zeros((*(1,) * len(self.lanes), 0, 0), bool) if self.mask is None else self.mask

        def native(target, results, *operands, **attributes):
            shapes = [jax.ShapeDtypeStruct((*self.lanes, *shape), dtype) for shape, dtype in results]
            return tuple(map(np.asarray, ffi.native_call(target, shapes, *map(jnp.asarray, operands), **attributes)))

        target = ENCODER_FORWARD if self.has_first else LINEAR_FORWARD
        results = self.forward_results()
        forward = native(target, results, self.x, *first, self.weight, self.bias, mask, passes=np.int64(0))
        x, weight, bias, *first_bars = self.backward_results()
        target = ENCODER_BACKWARD if self.has_first else LINEAR_BACKWARD
        results = [x, *first_bars, weight, bias]
        bars = native(target, results, self.x, *first, self.weight, mask, forward[1], self.y_bar)
        return forward, (bars[0], *bars[-2:], *bars[1:-2])

    def forward_results(self):
        shape = (self.sizes[0], self.sizes[4])
        return (shape, np.float32), (shape, np.dtype(winner_dtype(self.sizes[1])))

    def backward_results(self):
        rows, num_entities, num_features, depth, num_hidden = self.sizes
        yield (rows, num_entities, num_features), self.x.dtype
        yield (depth, num_hidden), np.float32
        yield (num_hidden,), np.float32
        if self.has_first:
            yield (num_features, depth), np.float32
            yield (depth,), np.float32

    def call(self):
        """The C struct, and arrays that it points to."""
        names = ("x", "mask", "w1", "b1", "weight", "bias", "winner", "y_bar")
        arrays = [getattr(self, name, None) for name in names]
        axes = len(self.lanes)
        leads = [np.array(() if a is None else a.shape[:axes], np.int64) for a in arrays]
        lanes = np.array(self.lanes, np.int64)
        pairs = itertools.chain(*zip(arrays, leads, strict=True))
        is_bfloat16 = self.x.dtype == ml_dtypes.bfloat16
        return pack(*self.sizes, axes, lanes, int(is_bfloat16), int(self.has_first), *pairs), (leads, lanes)

    def forward(self, kernels, *, passes=0, saves=True, by_rows=None):
        call, self.kept = self.call()
        by_rows = kernels.suits_forward_rows(call) if by_rows is None else by_rows

        def run(results, backwards):
            y, winner = (ctypes.c_void_p(r.ctypes.data) for r in results)
            self.rows_per_block = kernels.entity_forward(
                call, ctypes.c_int64(passes), y, winner if saves else None, ctypes.c_bool(by_rows), backwards
            )

        return both_orders(run, *(((*self.lanes, *shape), dtype) for shape, dtype in self.forward_results()))

    def backward(self, kernels, *, by_rows=None):
        call, self.kept = self.call()
        by_rows = kernels.suits_backward_rows(call) if by_rows is None else by_rows

        def run(results, backwards):
            pointers = [ctypes.c_void_p(r.ctypes.data) for r in results]
            pointers += [None] * (5 - len(pointers))
            self.parts = kernels.entity_backward(call, *pointers, ctypes.c_bool(by_rows), backwards)
            assert self.parts > 0, "scratch memory overrun"

        return both_orders(run, *(((*self.lanes, *shape), dtype) for shape, dtype in self.backward_results()))

    def assert_as_on_the_cpu(self, kernels, **tolerance):
        forward, bars = self.on_the_cpu()
        compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
        for by_rows in (False, True)[: 1 + kernels.suits_forward_rows(self.call()[0])]:
            y, self.winner = self.forward(kernels, by_rows=by_rows)
            compare(y, forward[0], **tolerance)
            np.testing.assert_array_equal(self.winner, forward[1])
            alone, winner = self.forward(kernels, saves=False, by_rows=by_rows)
            np.testing.assert_array_equal(alone, y)
            assert (winner.view(np.uint8) == 0xCD).all()  # untouched
        for by_rows in (False, True)[: 1 + kernels.suits_backward_rows(self.call()[0])]:
            for got, expected in zip(self.backward(kernels, by_rows=by_rows), bars, strict=True):
                compare(got.astype(np.float32), expected.astype(np.float32), **tolerance)


@pytest.mark.parametrize(
    ("size", "has_mask"),
    [  # R, N, D, P, H
        ((1, 1, 1, None, 1), False),
        ((6, 17, 4, 16, 33), True),
        ((5, 40, 13, 16, 130), False),  # three tiles of entities, two blocks of columns
        ((3, 2_100, 3, 7, 250), False),  # winners in several windows of entities
        ((11, 90, 15, 16, 128), False),  # more winners than are looked at together, and more rows than warps
        ((9, 90, 13, None, 256), True),
        ((3, 257, 2, 5, 7), True),  # winners are u16
        ((20, 7, 21, 35, 150), True),  # small tiles; features and units in several chunks; two parts of rows
        ((3, 9, 5, 20, 10), True),  # units in two chunks, features in one
        ((30, 8, 37, None, 64), False),
        ((70, 33, 16, None, 200), True),
        ((9, 3, 16, 16, 610), True),  # fewer entities at once than threads
        ((4, 0, 3, 16, 6), True),
        ((3, 5, 0, 4, 6), True),
        ((3, 5, 0, None, 6), False),
        ((3, 5, 2, 0, 6), True),
        ((3, 5, 2, 4, 0), False),
        ((0, 5, 2, 4, 6), True),
    ],
    ids=str,
)
def test_entities_as_on_the_cpu(kernels, size, has_mask):
    Entities(*size, has_mask=has_mask).assert_as_on_the_cpu(kernels)


def test_entities_numbered_by_more_than_16_bits(kernels):
    entities = Entities(1, 65_550, 1, None, 2, has_mask=False)
    entities.x[0, 65_540:] = 9
    entities.assert_as_on_the_cpu(kernels)
    assert entities.winner.dtype == np.int32 and entities.winner.max() == 65_540


@pytest.mark.parametrize("num_units", [None, 16])
def test_bfloat16_entities_as_on_the_cpu(kernels, num_units):
    entities = Entities(40, 19, 5, num_units, 70)
    entities.x = entities.x.astype(ml_dtypes.bfloat16)
    entities.assert_as_on_the_cpu(kernels)
    # Rounded once, from sums in float32: these have more bits.
    entities.y_bar *= 1.001953125
    entities.assert_as_on_the_cpu(kernels, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("num_units", [None, 16])
def test_entities_that_are_not_exact(kernels, num_units):
    # Sums of up to 2,000 terms of size 4, in another order: they reach 200, and a rounding of 6e-8 of that at each term
    # makes errors that grow like the root of the terms' number.
    Entities(24, 30, 13, num_units, 90, exact=False).assert_as_on_the_cpu(kernels, rtol=1e-5, atol=5e-4)


def with_odd_features(num_units):
    """Rows with NaN and infinities, present and absent, and one of absent entities only."""
    entities = Entities(8, 21, 3, num_units, 40)
    x, mask = entities.x, entities.mask
    mask[:, :3] = True
    x[0, [3, 6], 1], mask[0, [3, 6]] = np.nan, True  # the first NaN takes it all
    x[1, 0], mask[1, 0] = np.nan, False  # absent
    x[2] = np.nan
    mask[2] = False
    x[3, 5], mask[3, 5] = np.inf, True
    x[4, 5], mask[4, 5] = -np.inf, True
    x[5], mask[5] = -np.inf, np.arange(21) >= 2
    if num_units is None:
        entities.weight = np.abs(entities.weight) + 1  # all scores of row 5 are minus infinity: its first entity wins
    x[6, 1], mask[6, 1] = (np.inf, -np.inf, 0), True
    if num_units is not None:
        entities.w1[0] = np.abs(entities.w1[0]) + 1
    x[7, 4], mask[7, 4] = (-np.inf, 0, 0), True  # with a first layer all its units are 0
    return entities


@pytest.mark.parametrize("num_units", [None, 5, 16])
def test_nan_infinities_and_absent_entities_as_on_the_cpu(kernels, num_units):
    entities = with_odd_features(num_units)
    entities.assert_as_on_the_cpu(kernels)
    if num_units is None:
        assert (entities.winner[5] == 2).all()
    else:  # a tile of units has more than there are: those must be 0 too, though 0 times infinity is not
        assert np.isfinite(entities.forward(kernels)[0][7]).all()


def test_an_infinite_cotangent_stays_where_it_belongs(kernels):
    """What pads the features is 0, and 0 times infinity is NaN: it must not be added to the sums that come next."""
    entities = Entities(6, 17, 4, 5, 33)
    entities.y_bar[0, :4] = np.inf
    entities.assert_as_on_the_cpu(kernels)


@pytest.mark.parametrize("num_units", [None, 6])
@pytest.mark.parametrize(
    "shared",
    [
        (),
        ("w1", "b1", "weight", "bias"),
        ("w1", "b1", "weight", "bias", "mask"),
        ("x", "mask"),
        ("y_bar", "w1", "mask"),
        ("weight", "b1", "x", "y_bar"),
    ],
    ids=str,
)
def test_lanes_of_entities_as_on_the_cpu(kernels, num_units, shared):
    Entities(5, 6, 3, num_units, 20, lanes=(2, 3), shared=shared).assert_as_on_the_cpu(kernels)


def test_axes_of_one_lane(kernels):
    weights = ("w1", "b1", "weight", "bias")
    Entities(3, 4, 2, 5, 9, lanes=(2, 1, 2), shared=weights, has_mask=False).assert_as_on_the_cpu(kernels)


def test_many_rows_of_entities(kernels):
    """Lanes that share the weights become rows of one, and a block takes several turns through its rows."""
    many = Entities(2, 1, 1, None, 1, lanes=(4_099,), shared=("weight", "bias"))
    many.assert_as_on_the_cpu(kernels)
    assert many.rows_per_block > 4


def test_parts_of_rows_are_added_in_order(kernels):
    entities = Entities(1_000, 2, 1, 1, 3, exact=False)
    forward, bars = entities.on_the_cpu()
    entities.winner = forward[1]
    got = entities.backward(kernels)
    assert entities.parts == 125
    for one, other in zip(got, bars, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=5e-5)


def test_zeros_of_both_signs_are_equal(kernels):
    """A product that underflows is -0; the later 0 is not larger."""
    entities = Entities(1, 3, 4, None, 2, has_mask=False)
    entities.x[:] = np.float32([0, 0, 0, 1]) * np.float32([[[-1e-30], [1e-30], [0]]])
    entities.weight[:] = np.float32([1e-30, 2e-30])
    entities.assert_as_on_the_cpu(kernels)
    assert not entities.winner.any()


@pytest.mark.parametrize("num_units", [None, 16])
def test_winners_that_are_no_entities_pass_nothing_on(kernels, num_units):
    """On the device nobody can raise; nothing may be followed out of bounds."""
    entities = Entities(6, 17, 4, num_units, 33, has_mask=False)
    _, entities.winner = entities.forward(kernels)
    bad = np.random.default_rng(0).random(entities.winner.shape) < 0.3
    entities.y_bar[bad] = 0
    expected = entities.backward(kernels)
    entities.winner, entities.y_bar = np.where(bad, np.uint8(255), entities.winner), np.where(bad, 7, entities.y_bar)
    entities.y_bar = entities.y_bar.astype(np.float32)
    for got, want in zip(entities.backward(kernels), expected, strict=True):
        np.testing.assert_array_equal(got, want)


# --- linear_max and entity_encoder on tensor cores --------------------------------------------------------------------

PASSES = [1, 3]

# Relative to the sum of the products' sizes, for one layer. A number rounded to bfloat16 (8 bits) is off by up to 2^-8
# of it: with one pass both factors are. Three passes leave 2^-16 of each factor, and as much for low times low. The
# sums' own rounding is at least as fine as float32's: at most 2^-23 for each of the 17 terms of a product's step.
ROUNDINGS = 17 * 2.0**-23
TENSOR_ERROR = {1: 2.0**-7 + 2.0**-16 + ROUNDINGS, 3: 3 * 2.0**-16 + ROUNDINGS}


def assert_tensor_cores_as_on_the_cpu(kernels, entities, passes):
    """Both results equal those of the CPU; y also where the winners are not saved."""
    (y, winner), _ = entities.on_the_cpu()
    got = entities.forward(kernels, passes=passes)
    np.testing.assert_array_equal(got[0], y)
    np.testing.assert_array_equal(got[1], winner)
    got = entities.forward(kernels, passes=passes, saves=False)
    np.testing.assert_array_equal(got[0], y)
    assert (got[1].view(np.uint8) == 0xCD).all()  # untouched


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize(
    ("size", "has_mask"),
    [  # R, N, D, P, H
        ((1, 1, 1, None, 1), False),
        ((5, 15, 4, 16, 7), True),
        ((9, 16, 13, 16, 130), False),
        ((3, 17, 16, None, 128), True),
        ((2, 200, 13, 16, 8), True),
        ((2, 257, 16, 5, 7), True),  # winners are u16
        ((6, 8, 4, None, 33), False),
        ((6, 9, 5, None, 64), True),
        ((7, 40, 2, 3, 65), True),
        ((4, 0, 3, 16, 6), True),
        ((3, 5, 0, 4, 6), True),
        ((3, 5, 0, None, 6), False),
        ((3, 5, 2, 0, 6), True),
    ],
    ids=str,
)
def test_tensor_cores_are_exact_where_bfloat16_is(kernels, size, has_mask, passes):
    """Small multiples of 1/4 and 1/16 have no more than 8 bits; ties are common."""
    assert_tensor_cores_as_on_the_cpu(kernels, Entities(*size, has_mask=has_mask), passes)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("num_units", [None, 16])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_tensor_cores_against_float64(kernels, num_units, dtype, passes):
    entities = Entities(6, 60, 13, num_units, 90, exact=False)
    entities.x = entities.x.astype(dtype)
    y, winner = entities.forward(kernels, passes=passes)
    x, weight = entities.x.astype(np.float64), entities.weight.astype(np.float64)
    second = error = TENSOR_ERROR[passes]
    if dtype == ml_dtypes.bfloat16:  # x is off by nothing
        error = 2.0**-8 + ROUNDINGS if passes == 1 else 2.0**-16 + ROUNDINGS
    if num_units is None:
        scores, bound = x @ weight, error * np.abs(x) @ np.abs(weight)
    else:
        w1 = entities.w1.astype(np.float64)
        off = error * (np.abs(x) @ np.abs(w1) + np.abs(entities.b1))  # the ReLU makes it no larger
        units = np.maximum(x @ w1 + entities.b1, 0)
        scores, bound = units @ weight, (off + second * (units + off)) @ np.abs(weight)
    scores = np.where(entities.mask[..., None], scores, -np.inf)
    worst = np.where(entities.mask[..., None], bound, 0).max(axis=1)
    expected = scores.max(axis=1)
    slack = 2.0**-23 * (np.abs(expected) + np.abs(entities.bias))  # of the addition of the bias
    assert (np.abs(y - (expected + entities.bias)) <= worst + slack).all()
    chosen = np.take_along_axis(scores, winner[:, None].astype(int), axis=1)[:, 0]
    assert (chosen >= expected - 2 * worst).all()


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("num_units", [None, 5, 16])
def test_nan_infinities_and_absent_entities_on_tensor_cores(kernels, num_units, passes):
    assert_tensor_cores_as_on_the_cpu(kernels, with_odd_features(num_units), passes)


@pytest.mark.parametrize("passes", PASSES)
def test_what_rounds_to_an_infinite_bfloat16_counts_as_infinite(kernels, passes):
    entities = Entities(3, 9, 1, None, 5, has_mask=False)
    entities.weight[:] = 0.5
    entities.x[:] = np.float32(3.4e38)
    assert (entities.forward(kernels, passes=passes)[0] == np.inf).all()


@pytest.mark.parametrize("num_units", [None, 16])
def test_weights_that_are_not_finite_on_tensor_cores(kernels, num_units):
    """Also where entities are absent, whose place others take: 0 times infinity is NaN."""
    entities = Entities(6, 21, 3, num_units, 40)
    entities.weight[0, 3], entities.weight[1, 5], entities.weight[:, 7] = np.inf, np.nan, -np.inf
    assert_tensor_cores_as_on_the_cpu(kernels, entities, passes=1)
    if num_units is not None:
        entities = Entities(6, 21, 3, num_units, 40)
        entities.w1[0, 3], entities.w1[1, 5] = np.inf, -np.inf
        for passes in PASSES:
            assert_tensor_cores_as_on_the_cpu(kernels, entities, passes)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("shared", [(), ("w1", "b1", "weight", "bias"), ("x", "mask"), ("weight", "b1", "x")], ids=str)
def test_lanes_of_entities_on_tensor_cores(kernels, shared, passes):
    for num_units in (None, 6):
        entities = Entities(5, 6, 3, num_units, 20, lanes=(2, 3), shared=shared)
        assert_tensor_cores_as_on_the_cpu(kernels, entities, passes)


@pytest.mark.parametrize("num_features", [4, 5])
def test_bfloat16_entities_on_tensor_cores(kernels, num_features):
    entities = Entities(9, 19, num_features, 16, 40)
    entities.x = entities.x.astype(ml_dtypes.bfloat16)
    assert_tensor_cores_as_on_the_cpu(kernels, entities, passes=3)


def test_many_entities_and_rows_on_tensor_cores(kernels):
    entities = Entities(1, 65_550, 1, None, 2, has_mask=False)
    entities.x[0, 65_540:] = 9
    assert_tensor_cores_as_on_the_cpu(kernels, entities, passes=1)
    late = Entities(2, 80, 1, None, 2)
    late.mask[:, :70] = late.mask[1] = False  # several votes until one is present
    late.x[:, :70], late.weight[0] = np.where(np.arange(70) % 2, 9, -9)[:, None], (1, -1)
    assert_tensor_cores_as_on_the_cpu(kernels, late, passes=1)
    many = Entities(4_099, 2, 1, None, 1)
    assert_tensor_cores_as_on_the_cpu(kernels, many, passes=1)
    assert many.rows_per_block > 4  # a warp has several rows


def test_which_sizes_suit_tensor_cores(kernels):
    suits = lambda d, p: kernels.suits_tensor_cores(ctypes.c_int64(d), ctypes.c_int64(p))  # noqa: E731
    assert suits(16, 16) and suits(0, 0) and not suits(17, 16) and not suits(16, 17)
