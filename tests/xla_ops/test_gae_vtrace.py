import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import xla_ops
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.gae_vtrace.op import TARGET
from pufferjax.xla_ops.gae_vtrace.reference import gae_vtrace_reference

OP = "gae_vtrace"

# float32 against float64: a handful of roundings (6e-8 each) per step on values of size up to 30, damped by gamma times
# lambda < 1, so about 1 / (1 - 0.95) = 20 steps of them add up.
TOLERANCE = {"rtol": 1e-5, "atol": 5e-5}


def brute_force(rewards, values, bootstrap, terminated, ratios, gamma, gae_lambda, rho_clip=1.0, c_clip=1.0):
    """One element after the other in float64, from the docstring's formula."""
    rewards, values, bootstrap, ratios = (np.asarray(x, np.float64) for x in (rewards, values, bootstrap, ratios))
    num_steps, num_envs = rewards.shape
    advantages = np.zeros_like(rewards)
    for n in range(num_envs):
        following = 0.0
        for t in reversed(range(num_steps)):
            next_value = bootstrap[n] if t == num_steps - 1 else values[t + 1, n]
            if terminated[t, n]:
                next_value = following = 0.0
            rho, c = min(ratios[t, n], rho_clip), min(ratios[t, n], c_clip)
            delta = rho * (rewards[t, n] + gamma * next_value - values[t, n])
            following = advantages[t, n] = delta + gamma * gae_lambda * c * following
    return advantages


def rollout(num_steps, num_envs, seed=0):
    """rewards, values, bootstrap_value, terminated, ratios."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    return (
        jnp.asarray(rng.normal(size=shape), jnp.float32),
        jnp.asarray(rng.normal(size=shape), jnp.float32),
        jnp.asarray(rng.normal(size=num_envs), jnp.float32),
        jnp.asarray(rng.random(shape) < 0.1),
        jnp.asarray(np.exp(rng.normal(size=shape)), jnp.float32),
    )


@pytest.mark.parametrize(
    "sizes",
    [(1, 1), (1, 257), (3, 17), (17, 33), (33, 3), (257, 1), (64, 2731), (5, 0)],  # 2,731: several threads
)
@pytest.mark.parametrize("clips", [(1.0, 1.0), (2.1, 0.7)])
def test_matches_brute_force(impl, sizes, clips):
    data = rollout(*sizes)
    got = jax.jit(lambda *x: xla_ops.gae_vtrace(*x, 0.99, 0.95, *clips, impl=impl))(*data)
    assert got.shape == sizes and got.dtype == jnp.float32
    np.testing.assert_allclose(got, brute_force(*map(np.asarray, data), 0.99, 0.95, *clips), **TOLERANCE)


def test_infinite_clips_do_not_clip(impl):
    data = rollout(17, 33)
    got = xla_ops.gae_vtrace(*data, 0.99, 0.95, float("inf"), np.float32("inf"), impl=impl)
    np.testing.assert_array_equal(got, xla_ops.gae_vtrace(*data, 0.99, 0.95, 1e30, 1e30, impl=impl))


def test_worked_example(impl):
    # gamma = lambda = 1/2, one environment of three steps, by hand from the end:
    # delta_2 = 4 + 1/2 * 8 - 2 = 6,                          A_2 = 6
    # delta_1 = 2 + 1/2 * 2 - 1 = 2,                          A_1 = 2 + 1/4 * 6 = 3.5
    # delta_0 = 1/2 * (1 + 1/2 * 1 - 4) = -1.25 (ratio 1/2),  A_0 = -1.25 + 1/4 * 1/2 * 3.5 = -0.8125
    column = lambda *x: jnp.array(x)[:, None]  # noqa: E731
    got = xla_ops.gae_vtrace(
        column(1.0, 2.0, 4.0),
        column(4.0, 1.0, 2.0),
        jnp.array([8.0]),
        column(False, False, False),
        column(0.5, 3.0, 1.0),
        0.5,
        0.5,
        impl=impl,
    )
    np.testing.assert_array_equal(got[:, 0], [-0.8125, 3.5, 6.0])


def test_unit_ratios_give_plain_gae(impl):
    rewards, values, bootstrap, _, _ = rollout(6, 2)
    got = xla_ops.gae_vtrace(rewards, values, bootstrap, jnp.zeros((6, 2), bool), jnp.ones((6, 2)), 0.9, 1.0, impl=impl)
    # With lambda = 1 the sum telescopes: discounted rewards and the bootstrap, minus the value.
    powers = 0.9 ** np.arange(7)
    for t in range(6):
        tail = np.concatenate([np.asarray(rewards)[t:], np.asarray(bootstrap)[None]])
        np.testing.assert_allclose(got[t], powers[: 7 - t] @ tail - np.asarray(values)[t], **TOLERANCE)


def test_bootstrap_value_reaches_the_last_step_only_through_gamma(impl):
    rewards, values, bootstrap, terminated, _ = rollout(4, 3)
    f = lambda b: xla_ops.gae_vtrace(  # noqa: E731
        rewards,
        values,
        b,
        terminated.at[-1].set(jnp.array([False, True, False])),
        jnp.ones((4, 3)),
        0.9,
        0.0,
        impl=impl,
    )
    change = f(bootstrap + 10.0) - f(bootstrap)
    np.testing.assert_allclose(change[-1], [9.0, 0.0, 9.0], atol=1e-5)  # terminated: not bootstrapped
    np.testing.assert_array_equal(change[:-1], 0.0)


def test_ratio_zero_gives_zero_and_cuts_the_trace(impl):
    rewards, values, bootstrap, terminated, ratios = rollout(6, 3)
    terminated = jnp.zeros_like(terminated)
    f = lambda rewards: xla_ops.gae_vtrace(  # noqa: E731
        rewards, values, bootstrap, terminated, ratios.at[3].set(0.0), 0.99, 0.95, impl=impl
    )
    first, second = f(rewards), f(rewards.at[4:].add(100.0))
    np.testing.assert_array_equal(first[3], 0.0)
    np.testing.assert_array_equal(first[:4], second[:4])
    assert (np.abs(second[4:] - first[4:]) > 1).all()


def test_nan_behind_terminated_is_ignored(impl):
    rewards, values, bootstrap, terminated, ratios = rollout(5, 2)
    terminated = jnp.zeros_like(terminated).at[2].set(True).at[4].set(True)
    poisoned = values.at[3].set(jnp.nan)
    got = xla_ops.gae_vtrace(rewards, poisoned, jnp.full(2, jnp.nan), terminated, ratios, 0.99, 0.95, impl=impl)
    want = xla_ops.gae_vtrace(rewards, values, bootstrap, terminated, ratios, 0.99, 0.95, impl=impl)
    np.testing.assert_array_equal(got[:3], want[:3])
    assert np.isnan(got[3]).all()  # its own value is NaN
    np.testing.assert_array_equal(got[4], want[4])  # terminated: the NaN bootstrap value is not looked at


def test_nan_ratio_is_not_hidden(impl):
    data = list(rollout(3, 2))
    data[4] = data[4].at[1, 0].set(jnp.nan)
    got = xla_ops.gae_vtrace(*data, 0.99, 0.95, impl=impl)
    assert np.isnan(got[1, 0]) and np.isfinite(got[:, 1]).all()


def test_result_is_a_constant(impl):
    rewards, values, bootstrap, terminated, ratios = rollout(4, 3)

    def loss(rewards, values, bootstrap, ratios, gamma, gae_lambda, rho_clip, c_clip):
        return jnp.sum(
            xla_ops.gae_vtrace(
                rewards, values, bootstrap, terminated, ratios, gamma, gae_lambda, rho_clip, c_clip, impl=impl
            )
        )

    scalars = tuple(jnp.float32(x) for x in (0.9, 0.95, 1.0, 1.0))
    for cotangent in jax.grad(loss, tuple(range(8)))(rewards, values, bootstrap, ratios, *scalars):
        np.testing.assert_array_equal(cotangent, 0.0)


def test_vmap_over_data_and_hyper_parameters(impl):
    lanes = [rollout(5, 3, seed=seed) for seed in range(3)]
    gammas = jnp.array([0.5, 0.9, 1.0])
    stacked = [jnp.stack(x) for x in zip(*lanes, strict=True)]
    f = lambda *x: xla_ops.gae_vtrace(*x, impl=impl)  # noqa: E731
    got = jax.jit(jax.vmap(f, (0,) * 6 + (None, None, 0)))(*stacked, gammas, 0.95, 1.0, 2 * gammas)
    shared = jax.jit(jax.vmap(f, (None,) * 5 + (0, None)))(*lanes[0], gammas, 0.95)
    ends = jax.vmap(f, (2, 2, 1, 2, 2, None, None), 2)(
        *(jnp.stack(x, -1) for x in zip(*lanes, strict=True)), jnp.float32(0.9), 0.95
    )
    for i, lane in enumerate(lanes):
        lane, gamma = list(map(np.asarray, lane)), float(gammas[i])
        np.testing.assert_allclose(got[i], brute_force(*lane, gamma, 0.95, 1.0, 2 * gamma), **TOLERANCE)
        np.testing.assert_allclose(ends[..., i], brute_force(*lane, 0.9, 0.95), **TOLERANCE)
        first = list(map(np.asarray, lanes[0]))
        np.testing.assert_allclose(shared[i], brute_force(*first, gamma, 0.95), **TOLERANCE)


def test_inside_a_scan(impl):
    rewards, values, bootstrap, terminated, ratios = rollout(4, 3)

    def body(values, _):
        advantages = xla_ops.gae_vtrace(rewards, values, bootstrap, terminated, ratios, 0.9, 0.95, impl=impl)
        return values + 0.1 * advantages, advantages

    got = jax.jit(lambda v: jax.lax.scan(body, v, None, length=3))(values)[1]
    current = np.asarray(values, np.float64)
    for i in range(3):
        want = brute_force(*map(np.asarray, (rewards, current, bootstrap, terminated, ratios)), 0.9, 0.95)
        np.testing.assert_allclose(got[i], want, **TOLERANCE)
        current = current + 0.1 * want


def test_list_arguments_and_numpy_defaults():
    data = [np.asarray(x) for x in rollout(2, 2)]
    want = gae_vtrace_reference(*map(jnp.asarray, data), 0.5, 0.5, 1.0, 1.0)
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in data]  # NumPy's default float
    np.testing.assert_allclose(xla_ops.gae_vtrace(*wide, 0.5, 0.5), want, rtol=1e-6)
    np.testing.assert_allclose(xla_ops.gae_vtrace(*(x.tolist() for x in data), 0.5, 0.5), want, rtol=1e-6)


def test_two_devices(run_on_devices):
    run_on_devices("""
        rng = np.random.default_rng(0)
        rewards, values = (jnp.asarray(rng.normal(size=(5, 4)), jnp.float32) for _ in range(2))
        terminated, ratios = jnp.asarray(rng.random((5, 4)) < 0.2), jnp.ones((5, 4))
        rows = P(None, "data")

        def run(rewards, values, bootstrap, terminated, ratios, impl):
            def body(values, _):
                bootstrap_value = jnp.broadcast_to(bootstrap, values.shape[1:])  # does not vary over the mesh
                a = xla_ops.gae_vtrace(rewards, values, bootstrap_value, terminated, ratios, 0.9, 0.95, impl=impl)
                return values + a, a
            return jax.lax.scan(body, values, None, length=2)[1]

        for impl in (None, "reference"):
            want = run(rewards, values, jnp.float32(0.5), terminated, ratios, impl)
            f = jax.shard_map(
                lambda *x: run(*x, impl),
                mesh=mesh, in_specs=(rows, rows, P(), rows, rows), out_specs=P(None, None, "data"),
            )
            got = jax.jit(f)(rewards, values, jnp.float32(0.5), terminated, ratios)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    """)


BAD = [
    ("rewards", {"rewards": jnp.zeros((3,))}, ValueError),
    ("rewards", {"rewards": jnp.zeros((0, 2))}, ValueError),
    ("rewards", {"rewards": jnp.zeros((3, 2), jnp.int32)}, TypeError),
    ("rewards", {"rewards": None}, TypeError),
    ("rewards", {"rewards": "nonsense"}, TypeError),
    ("rewards", {"rewards": [[1.0, 2.0], [3.0]]}, TypeError),
    ("values", {"values": jnp.zeros((2, 3))}, ValueError),
    ("values", {"values": jnp.zeros((3, 2), jnp.bfloat16)}, TypeError),
    ("bootstrap_value", {"bootstrap_value": jnp.zeros((3,))}, ValueError),
    ("bootstrap_value", {"bootstrap_value": jnp.zeros((1, 2))}, ValueError),
    ("terminated", {"terminated": jnp.zeros((3, 2))}, TypeError),
    ("terminated", {"terminated": jnp.zeros((3,), bool)}, ValueError),
    ("ratios", {"ratios": object()}, TypeError),
    ("ratios", {"ratios": jnp.zeros((3, 1))}, ValueError),
    ("gamma", {"gamma": 1.01}, ValueError),
    ("gamma", {"gamma": -0.1}, ValueError),
    ("gamma", {"gamma": float("nan")}, ValueError),
    ("gamma", {"gamma": "high"}, TypeError),
    ("gamma", {"gamma": "0.5"}, TypeError),
    ("gamma", {"gamma": None}, TypeError),
    ("gamma", {"gamma": np.array([0.9])}, ValueError),
    ("gae_lambda", {"gae_lambda": 2}, ValueError),
    ("gae_lambda", {"gae_lambda": jnp.zeros((2,))}, ValueError),
    ("rho_clip", {"rho_clip": -1.0}, ValueError),
    ("c_clip", {"c_clip": float("nan")}, ValueError),
    ("c_clip", {"c_clip": -float("inf")}, ValueError),
    ("gae_lambda", {"gae_lambda": float("inf")}, ValueError),
    ("impl", {"impl": "cuda"}, ValueError),
]


@pytest.mark.parametrize(("name", "change", "error"), BAD)
def test_bad_arguments_are_named(name, change, error):
    table = jnp.zeros((3, 2))
    good = {
        "rewards": table,
        "values": table,
        "bootstrap_value": jnp.zeros(2),
        "terminated": table > 0,
        "ratios": table,
        "gamma": 0.9,
        "gae_lambda": 0.9,
    }
    with pytest.raises(error, match=rf"\b{name} must"):
        xla_ops.gae_vtrace(**(good | change))


def test_traced_scalar_of_wrong_shape_is_named():
    data = rollout(3, 2)
    with pytest.raises(ValueError, match=r"gamma must be a scalar, got shape \(2,\)"):
        jax.jit(lambda gamma: xla_ops.gae_vtrace(*data, gamma, 0.9))(jnp.zeros(2))


def test_handler_refuses_sizes_that_do_not_fit():
    if not ffi.has_native(TARGET, jax.default_backend()):
        pytest.skip("no native build")
    *data, ratios = rollout(3, 2)
    scalars = [jnp.float32(x) for x in (0.9, 0.9, 1.0, 1.0)]
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="ratios has 4 elements, expected 6"):
        jax.block_until_ready(
            ffi.native_call(TARGET, [jax.ShapeDtypeStruct((3, 2), jnp.float32)], *data, ratios[:2], *scalars)
        )
