"""The CUDA kernels' arithmetic without a GPU: their bodies, compiled for the host, against the CPU ops.

A kernel's body is shared code (kernels.h, column.h); here a loop takes the turns of its blocks and threads, in both
orders. What this cannot see: the launches, and a barrier missing where uniform code is read.
"""

import ctypes
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax.xla_ops import backends, ffi
from pufferjax.xla_ops.gae_vtrace.op import TARGET as GAE
from pufferjax.xla_ops.linear_recurrence.op import TARGET as RECURRENCE
from pufferjax.xla_ops.linear_recurrence.op import TARGET_BACKWARD as RECURRENCE_BACKWARD
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
    loaded.sample_many_blocks.restype = loaded.one_block_suits.restype = ctypes.c_bool
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
    """4.3 million: more than 1,024 tiles, so that the scan over the tiles carries from one round to the next."""
    for priorities in itertools.islice(odd_priorities(capacity), 4 if capacity < 1e6 else 1):
        alphas = (1.0, 0.6) if capacity < 1e6 else (1.0,)
        assert_as_on_the_cpu(kernels, "many blocks", lanes_of(priorities, [capacity - 3] * len(alphas), alphas))
    spike = np.full(capacity, 1.5 * 2.0**-46, np.float32)
    spike[7] = 1
    assert_as_on_the_cpu(kernels, "many blocks", lanes_of(spike, [capacity], [1.0]))


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
    ("lanes", "num_steps", "flags", "group"), [(1, 1, 1, 1), (2, 15, 3, 1), (2, 16, 3, 5), (1, 17, 1, 9), (2, 50, 4, 2)]
)
@pytest.mark.parametrize("with_resets", [False, True])
def test_recurrences_have_the_bits_of_the_cpu(kernels, lanes, num_steps, flags, group, with_resets):
    rng = np.random.default_rng(num_steps)
    shape = (lanes, num_steps, flags, group)
    a, b, h_bar = rng.normal(size=(3, *shape)).astype(np.float32)
    h0 = rng.normal(size=(lanes, flags, group)).astype(np.float32)
    reset = rng.random(shape[:3]) < 0.3 if with_resets else None
    if with_resets:  # does not pass a reset, neither forwards nor backwards
        h0[0, 0, 0], reset[0, 0, 0] = np.nan, True
    sizes = pack(lanes, num_steps, flags, group)
    no_flags = np.zeros((lanes, 0), bool)

    def native(target, shapes, *operands):
        return ffi.native_call(
            target, [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes], *map(jnp.asarray, operands)
        )

    def run(results, backwards):
        kernels.recurrence_forward(sizes, pack(a, b, h0, reset, *results), backwards)

    (h,) = both_orders(run, (shape, np.float32))
    (expected,) = native(RECURRENCE, [shape], a, b, h0, no_flags if reset is None else reset)
    np.testing.assert_array_equal(h, expected)
    assert np.isfinite(h).all()

    def run_backward(results, backwards):
        kernels.recurrence_backward(sizes, pack(a, h, h0, reset, h_bar, *results), backwards)

    shapes = (shape, shape, h0.shape)
    got = both_orders(run_backward, *((s, np.float32) for s in shapes))
    expected = native(RECURRENCE_BACKWARD, shapes, a, h, h0, no_flags if reset is None else reset, h_bar)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()
