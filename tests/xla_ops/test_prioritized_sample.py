"""prioritized_sample: exactness, the rules for odd priorities, and native against twin."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pufferjax.xla_ops import backends, prioritized_sample

NATIVE = pytest.param(
    "native",
    marks=pytest.mark.skipif(
        backends()["prioritized_sample"]["cpu"] != "native" or jax.default_backend() != "cpu", reason="no native op"
    ),
)
IMPLS = [NATIVE, "reference"]
KEY = jax.random.key(7)


def probabilities(priorities, alpha, size=None):
    """The specification, in float64."""
    p = np.asarray(priorities)[:size].astype(np.float64)
    weight = np.zeros_like(p)
    positive = np.isfinite(p) & (p > 0)
    weight[positive] = (p[positive] / p[positive].max()) ** alpha if positive.any() else 0
    if alpha == 0 or not positive.any():
        weight[:] = 1
    return weight / weight.sum()


def chi_square(indices, expected):
    """p-value of the counts; entries that are expected less than 5 times are pooled."""
    counts = np.bincount(indices, minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    expected = expected * len(indices)
    small = expected < 5
    pooled = expected[small].sum() > 0
    observed = np.append(counts[~small], counts[small].sum() if pooled else [])
    return stats.chisquare(observed, np.append(expected[~small], expected[small].sum() if pooled else [])).pvalue


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("capacity", [2, 63, 1000])
def test_draws_follow_the_distribution(impl, alpha, capacity):
    priorities = np.random.default_rng(capacity).exponential(size=capacity).astype(np.float32)
    indices, importance = prioritized_sample(KEY, priorities, 200_000, alpha, 0.7, impl=impl)
    expected = probabilities(priorities, alpha)
    assert indices.dtype == jnp.int32 and importance.dtype == jnp.float32
    assert chi_square(np.asarray(indices), expected) > 1e-4
    np.testing.assert_allclose(importance, (capacity * expected[np.asarray(indices)]) ** -0.7, rtol=2e-5)


@NATIVE.marks[0]
def test_draws_follow_the_distribution_in_blocks():
    """More than 65,536 entries: the draw walks inside a block. Entries are grouped for the count."""
    priorities = np.random.default_rng(0).exponential(size=100_001).astype(np.float32)
    priorities[5000:30_000] = 0
    indices, _ = prioritized_sample(KEY, priorities, 400_000, impl="native")
    expected = np.add.reduceat(probabilities(priorities, 1.0), np.arange(0, 100_001, 100))
    assert (priorities[np.asarray(indices)] > 0).all()
    assert chi_square(np.asarray(indices) // 100, expected) > 1e-4


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_only_positive_finite_priorities_are_drawn(impl, alpha):
    odd = np.array([0, -0.0, -1, np.nan, -np.nan, np.inf, -np.inf, -1e-40], np.float32)
    priorities = np.concatenate([odd, [1e-3], odd, [2e-3], odd]).astype(np.float32)
    indices, importance = prioritized_sample(KEY, priorities, 10_000, alpha, 1.0, impl=impl)
    assert set(np.unique(indices)) == {8, 17}
    assert np.isfinite(importance).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_denormals_weigh_what_they_are(impl, alpha):
    denormal = np.array([1, 2, 3, 4, 1000, 0], np.uint32).view(np.float32)
    indices, _ = prioritized_sample(KEY, denormal, 100_000, alpha, impl=impl)
    expected = np.array([1, 2, 3, 4, 1000, 0.0]) ** alpha
    assert chi_square(np.asarray(indices), expected / expected.sum()) > 1e-4
    # Across the border: the largest denormal and the smallest normal number are neighbours.
    mixed = np.array([0x007FFFFF, 0x00800000, 0x00400000], np.uint32).view(np.float32)
    indices, _ = prioritized_sample(KEY, mixed, 100_000, alpha, impl=impl)
    expected = np.array([1, 1, 0.5]) ** alpha
    assert chi_square(np.asarray(indices), expected / expected.sum()) > 1e-4
    # Beside an ordinary number they can be drawn in principle, and never are.
    mixed = np.array([1e-40, 1.0, 1e-40], np.float32)
    assert (prioritized_sample(KEY, mixed, 1000, alpha, impl=impl)[0] == 1).mean() == 1


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", [0.0, 1.0, 0.6])
@pytest.mark.parametrize("value", [0.0, np.nan, -1.0])
def test_all_weights_zero_is_uniform(impl, alpha, value):
    priorities = jnp.full((37,), value, jnp.float32)
    indices, importance = prioritized_sample(KEY, priorities, 50_000, alpha, 0.9, size=20, impl=impl)
    assert chi_square(np.asarray(indices), np.full(20, 1 / 20)) > 1e-4
    assert (importance == 1).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_alpha_zero_draws_zero_priorities_too(impl):
    priorities = jnp.array([0.0, 5.0, jnp.nan, jnp.inf])
    indices, importance = prioritized_sample(KEY, priorities, 20_000, 0.0, 0.5, impl=impl)
    assert chi_square(np.asarray(indices), np.full(4, 0.25)) > 1e-4
    assert (importance == 1).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("value", [0.0, 3.0, 1e-42, 3e38, np.inf])
def test_a_single_entry(impl, value):
    indices, importance = prioritized_sample(KEY, jnp.array([value], jnp.float32), 9, 1.0, 1.0, impl=impl)
    assert (indices == 0).all() and (importance == 1).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_a_spike_among_a_million(impl, alpha):
    spike = 777_777
    priorities = np.zeros(1_000_000, np.float32)
    priorities[spike] = 1e-30
    indices, importance = prioritized_sample(KEY, priorities, 1000, alpha, 1.0, impl=impl)
    assert (indices == spike).all()
    np.testing.assert_allclose(importance, 1e-6, rtol=1e-5)
    # The rest together holds half of the probability, each about a millionth of the spike.
    priorities[:] = 1.5e-6 ** (1 / alpha)
    priorities[spike] = 1.5 ** (1 / alpha)
    indices, _ = prioritized_sample(KEY, priorities, 40_000, alpha, impl=impl)
    assert stats.binomtest(int((indices == spike).sum()), 40_000, 0.5).pvalue > 1e-4


def with_words(monkeypatch, *words):
    """Replaces the random bits by these 64-bit words, to reach the ends of the distribution."""
    pairs = jnp.array([[word >> 32, word & 0xFFFFFFFF] for word in words], jnp.uint32)
    module = sys.modules["pufferjax.xla_ops.prioritized_sample.op"]  # as an attribute, the function hides its folder
    monkeypatch.setattr(module, "random_words", lambda *_: pairs)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("capacity", [5, 300_000])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_ends_of_the_distribution(monkeypatch, impl, capacity, alpha):
    """The smallest random number meets leading zeros, the largest trailing ones; half is the border of two equals."""
    with_words(monkeypatch, 0, 2**63 - 1, 2**63, 2**64 - 1)
    priorities = np.zeros(capacity, np.float32)
    first, second = capacity // 3, capacity - 2
    priorities[[first, second]] = 0.1
    indices, _ = prioritized_sample(KEY, priorities, 4, alpha, impl=impl)
    np.testing.assert_array_equal(indices, [first, first, second, second])
    indices, _ = prioritized_sample(KEY, priorities, 4, 0.0, size=4, impl=impl)
    np.testing.assert_array_equal(indices, [0, 1, 2, 3])


@pytest.mark.parametrize("impl", IMPLS)
def test_a_spike_does_not_round_the_rest_away(monkeypatch, impl):
    """Beside a 1, 65,536 entries of 1.5 * 2^-46: with 45 bits, safe for any priorities, they would be 2^-44."""
    with_words(monkeypatch, 0, 2**64 - 1)
    priorities = np.full(65_537, 1.5 * 2.0**-46, np.float32)
    priorities[0] = 1
    indices, importance = prioritized_sample(KEY, priorities, 2, 1.0, 1.0, impl=impl)
    np.testing.assert_array_equal(indices, [0, 65_536])
    np.testing.assert_allclose(importance, 1 / (65_537 * probabilities(priorities, 1.0)[[0, -1]]), rtol=1e-5)


@NATIVE.marks[0]
def test_thirty_million_equal_weights():
    capacity = 30_000_000
    indices, importance = prioritized_sample(KEY, jnp.full((capacity,), 0.1), 100_000, 1.0, 1.0, impl="native")
    indices = np.asarray(indices).astype(np.int64)
    assert indices.min() >= 0 and indices.max() < capacity and indices.max() > capacity * 0.999
    assert stats.kstest(indices / capacity, "uniform").pvalue > 1e-4
    beyond = indices[indices > 2**24]  # where a float32 no longer tells neighbours apart
    assert 0.48 < (beyond % 2).mean() < 0.52
    np.testing.assert_allclose(importance, 1, rtol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_entries_beyond_size_have_no_influence(impl, alpha):
    priorities = jax.random.uniform(KEY, (100,))
    sample = jax.jit(lambda p, size: prioritized_sample(KEY, p, 500, alpha, 0.4, size, impl=impl))
    for size in (1, 2, 63, 99, 100):
        expected = prioritized_sample(KEY, priorities[:size], 500, alpha, 0.4, impl=impl)
        for rest in (0.0, 1e30, np.nan):
            got = sample(priorities.at[size:].set(rest), jnp.int32(size))
            np.testing.assert_array_equal(got[0], expected[0])
            np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("impl", IMPLS)
def test_nothing_to_draw(impl):
    priorities = jnp.ones(3)
    for size in (0, np.int64(0), jnp.int32(0)):
        indices, importance = prioritized_sample(KEY, priorities, 4, 1.0, 1.0, size, impl=impl)
        np.testing.assert_array_equal(indices, 0)
        np.testing.assert_array_equal(importance, 1)
    indices, importance = prioritized_sample(KEY, priorities, 0, impl=impl)
    assert indices.shape == importance.shape == (0,)
    assert indices.dtype == jnp.int32 and importance.dtype == jnp.float32


@pytest.mark.parametrize("impl", IMPLS)
def test_traced_scalars_change_nothing(impl):
    priorities = jax.random.uniform(KEY, (50,))
    traced = jax.jit(lambda a, b, n: prioritized_sample(KEY, priorities, 64, a, b, n, impl=impl))
    for alpha, beta, size in [(0.0, 0.0, 50), (1.0, 1.0, 17), (0.6, 0.4, 33)]:
        expected = prioritized_sample(KEY, priorities, 64, alpha, beta, size, impl=impl)
        got = traced(alpha, beta, size)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize("impl", [None, *IMPLS])
def test_same_key_same_draws(impl):
    keys = jax.random.split(KEY, 5)
    priorities = jax.random.uniform(KEY, (5, 40))
    sizes = jnp.array([40, 1, 7, 0, 33])
    alphas = jnp.array([0.0, 1.0, 0.5, 1.0, 2.0])

    def sample(key, p, size, alpha):
        return prioritized_sample(key, p, 16, alpha, 0.5, size, impl=impl)

    separate = [sample(*x) for x in zip(keys, priorities, sizes, alphas, strict=True)]
    again = [jax.jit(sample)(*x) for x in zip(keys, priorities, sizes, alphas, strict=True)]
    mapped = jax.vmap(sample)(keys, priorities, sizes, alphas)
    scanned = jax.lax.scan(lambda c, x: (c, sample(*x)), 0, (keys, priorities, sizes, alphas))[1]
    for i in range(5):
        for other in (again[i], [x[i] for x in mapped], [x[i] for x in scanned]):
            np.testing.assert_array_equal(other[0], separate[i][0])
            np.testing.assert_allclose(other[1], separate[i][1], rtol=1e-6)
    shared = jax.vmap(lambda key: sample(key, priorities[0], 40, 1.0))(keys)  # one operand is not mapped
    for i in range(5):
        np.testing.assert_array_equal(shared[0][i], sample(keys[i], priorities[0], 40, 1.0)[0])
    nested = jax.vmap(jax.vmap(sample, (0, None, None, None)), (None, 0, 0, 0))(keys, priorities, sizes, alphas)
    np.testing.assert_array_equal(nested[0][2, 4], sample(keys[4], priorities[2], sizes[2], alphas[2])[0])


def test_raw_keys_are_keys_too():
    raw = jax.random.PRNGKey(7)
    priorities = jnp.arange(9.0)
    np.testing.assert_array_equal(prioritized_sample(raw, priorities, 9)[0], prioritized_sample(KEY, priorities, 9)[0])


def assert_same_draws(priorities, alpha, size=None, num_samples=300):
    key = jax.random.key(len(priorities))
    native = prioritized_sample(key, priorities, num_samples, alpha, 1.0, size, impl="native")
    twin = prioritized_sample(key, priorities, num_samples, alpha, 1.0, size, impl="reference")
    np.testing.assert_array_equal(native[0], twin[0])
    np.testing.assert_allclose(native[1], twin[1], rtol=1e-6)


@NATIVE.marks[0]
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("capacity", [1, 2, 3, 64, 65, 4097, 65_537, 300_000])
def test_native_and_twin_agree_on_every_bit(capacity, alpha):
    rng = np.random.default_rng(capacity)
    spread = np.exp(rng.normal(size=capacity) * 12).astype(np.float32)  # over tens of orders of magnitude
    assert_same_draws(spread, alpha)
    assert_same_draws(rng.integers(0, 2**32, capacity, np.uint32).view(np.float32), alpha)  # any bits at all
    assert_same_draws(rng.integers(0, 2**23, capacity, np.uint32).view(np.float32), alpha)  # denormals
    assert_same_draws(np.ones(capacity, np.float32), alpha, size=capacity // 2 + 1)
    spike = np.full(capacity, 1e-9, np.float32)
    spike[capacity // 3] = 1
    assert_same_draws(spike, alpha)


@NATIVE.marks[0]
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=12, max_size=12),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 12),
)
def test_native_and_twin_agree_on_any_floats(priorities, alpha, size):
    assert_same_draws(np.array(priorities, np.float32), alpha, size)


@NATIVE.marks[0]
@pytest.mark.parametrize("capacity", [5000, 70_000, 2**20 + 70])  # the last is walked in blocks
def test_native_and_twin_nearly_agree_on_powers(capacity):
    priorities = np.random.default_rng(1).exponential(size=capacity).astype(np.float32)
    for alpha in (1e-3, 0.6, 3.0, 40.0):
        native = prioritized_sample(KEY, priorities, 20_000, alpha, 1.0, impl="native")
        twin = prioritized_sample(KEY, priorities, 20_000, alpha, 1.0, impl="reference")
        same = np.asarray(native[0] == twin[0])
        assert same.mean() > 0.999
        np.testing.assert_allclose(native[1][same], twin[1][same], rtol=1e-4)


@pytest.mark.parametrize("impl", IMPLS)
def test_no_gradient(impl):
    def total(p, alpha, beta):
        return prioritized_sample(KEY, p, 5, alpha, beta, impl=impl)[1].sum()

    for gradient in jax.grad(total, (0, 1, 2))(jnp.arange(1.0, 6.0), 0.5, 0.5):
        assert not gradient.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": 0}, TypeError, "key must be a JAX random key"),
        ({"key": jax.random.split(KEY, 2)}, ValueError, "key must be one key"),
        ({"priorities": jnp.ones((2, 2))}, ValueError, "priorities must have shape"),
        ({"priorities": jnp.ones(3, jnp.int32)}, TypeError, "priorities must be float32"),
        ({"priorities": jnp.ones(0)}, ValueError, "priorities must have at least one entry"),
        ({"priorities": None}, TypeError, "priorities must be an array"),
        ({"num_samples": -1}, ValueError, "num_samples must be an integer in"),
        ({"num_samples": 1.5}, TypeError, "num_samples must be a static integer"),
        ({"alpha": -1}, ValueError, "alpha must be a finite number"),
        ({"alpha": np.nan}, ValueError, "alpha must be a finite number"),
        ({"alpha": "x"}, TypeError, "alpha must be a finite number"),
        ({"beta": np.inf}, ValueError, "beta must be a finite number"),
        ({"size": 4}, ValueError, r"size must be an integer in \[0, 3\], got 4"),
        ({"size": -1}, ValueError, r"size must be an integer in \[0, 3\], got -1"),
        ({"size": jnp.int32(4)}, ValueError, r"size must be an integer in \[0, 3\], got 4"),
        ({"size": 1.0}, TypeError, "size must be an integer"),
        ({"size": True}, TypeError, "size must be an integer"),
        ({"size": jnp.ones(1, jnp.int32)}, ValueError, "size must be a scalar"),
        ({"impl": "fast"}, ValueError, "impl must be"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"key": KEY, "priorities": jnp.ones(3), "num_samples": 2} | change
    with pytest.raises(error, match=message) as caught:
        prioritized_sample(**arguments)
    assert "impl" in change or str(caught.value).startswith("prioritized_sample: ")


@NATIVE.marks[0]
@pytest.mark.parametrize(("name", "value"), [("size", 4), ("size", -1), ("alpha", -1.0), ("alpha", np.nan)])
def test_bad_traced_arguments_native(name, value):
    sample = jax.jit(lambda x: prioritized_sample(KEY, jnp.ones(3), 2, impl="native", **{name: x}))
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=f"prioritized_sample: {name} must be"):
        jax.block_until_ready(sample(value))


def test_bad_traced_arguments_reference():
    sample = jax.jit(lambda n, a: prioritized_sample(KEY, jnp.ones(3), 9, a, size=n, impl="reference")[0])
    np.testing.assert_array_equal(sample(99, 1.0), sample(3, 1.0))
    np.testing.assert_array_equal(sample(-5, 1.0), 0)
    np.testing.assert_array_equal(sample(3, np.nan), sample(3, 0.0))


TWO_DEVICES = """
import functools
from pufferjax.xla_ops import prioritized_sample
keys = jax.random.split(jax.random.key(0), 2)
priorities = jax.random.uniform(jax.random.key(1), (2, 50))
for impl in (None, "reference"):
    sample = functools.partial(prioritized_sample, num_samples=8, alpha=1.0, beta=0.5, impl=impl)
    expected = [sample(keys[i], priorities[i], size=30) for i in range(2)]

    def share(key, p, size):
        def step(carry, _):
            return carry, sample(key[0], p[0], size=size)
        drawn = jax.lax.scan(step, 0, None, length=1)[1]
        return drawn

    sharded = jax.jit(jax.shard_map(share, mesh=mesh, in_specs=(P("data"), P("data"), P()), out_specs=P("data")))
    indices, importance = sharded(keys, priorities, jnp.int32(30))
    for i in range(2):
        np.testing.assert_array_equal(indices[i], expected[i][0])
        np.testing.assert_allclose(importance[i], expected[i][1], rtol=1e-6)
    # Each device its own draws from replicated priorities.
    own = jax.jit(jax.shard_map(lambda key, p: sample(key[0], p)[0][None], mesh=mesh,
                                in_specs=(P("data"), P()), out_specs=P("data")))(keys, priorities[0])
    for i in range(2):
        np.testing.assert_array_equal(own[i], sample(keys[i], priorities[0])[0])
"""


def test_two_devices(run_on_devices):
    run_on_devices(TWO_DEVICES)
