"""Every CUDA op on a GPU: against its twin there, and the sampler bit for bit against the CPU."""

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
        "gae_vtrace",
        "linear_recurrence",
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
def test_recurrence_and_its_gradients_match_the_twin(gpu, shape, reset_rank):
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, shape).astype(np.float32)
    b, h_bar = rng.normal(size=(2, *shape)).astype(np.float32)
    reset = None if reset_rank is None else rng.random(shape[:reset_rank]) < 0.2

    def run(a, b, h0, h_bar, reset, impl):
        h, backward = jax.vjp(lambda *x: xla_ops.linear_recurrence(*x, reset, impl=impl), a, b, h0)
        return h, backward(h_bar)

    native, twin = both(gpu, run, a, b, b[0] * 0.5, h_bar, reset)
    assert_close(native, twin)


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
