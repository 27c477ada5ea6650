"""Losses and distributions against worked numbers and NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax.core import distributions
from pufferjax.core.losses import clipped_policy_loss, clipped_value_loss, clipped_value_share, normalize


def test_policy_loss_clips_only_what_would_be_gained():
    ratios = jnp.array([1.5, 1.5, 0.5, 0.5])
    advantages = jnp.array([1.0, -1.0, 1.0, -1.0])
    # Gains are cut at 1 +- 0.2; losses count in full.
    expected = np.mean([-1.2, 1.5, -0.5, 0.8])
    assert clipped_policy_loss(ratios, advantages, jnp.ones(4), 0.2) == pytest.approx(expected)


def test_policy_loss_weights_samples():
    weights = jnp.array([2.0, 0.0])
    assert clipped_policy_loss(jnp.ones(2), jnp.array([1.0, 5.0]), weights, 0.2) == pytest.approx(-1.0)


def test_policy_gradient_vanishes_outside_the_clip():
    gradient = jax.grad(lambda q: clipped_policy_loss(q, jnp.ones(2), jnp.ones(2), 0.2))(jnp.array([1.5, 1.1]))
    np.testing.assert_allclose(gradient, [0.0, -0.5])


def test_value_loss_takes_the_worse_of_clipped_and_free():
    values, old, returns = jnp.array([2.0, 0.1]), jnp.array([0.0, 0.0]), jnp.array([2.0, 1.0])
    # First: clipped to 0.2, error 1.8 although the value is right. Second: inside the clip.
    assert clipped_value_loss(values, old, returns, 0.2) == pytest.approx(0.5 * (1.8**2 + 0.9**2) / 2)


def test_value_share_counts_samples_whose_loss_is_the_clipped_one():
    rng = np.random.default_rng(0)
    values, old, returns = rng.normal(size=(3, 64, 16)).astype(np.float32) * np.float32([[[1.0]], [[1.0]], [[3.0]]])
    # Half of them within the clip, where rounding decides which of two equal losses is the larger.
    values[:, ::2] *= 0.1
    old[:, ::2] = values[:, ::2] + rng.uniform(-0.19, 0.19, old[:, ::2].shape)
    returns[:, ::2] = values[:, ::2] + 1e-3 * returns[:, ::2]
    num_clipped = 0
    for v, v_old, r in zip(*(x.astype(np.float64).ravel() for x in (values, old, returns)), strict=True):
        clipped = v if abs(v - v_old) <= 0.2 else v_old + 0.2 * np.sign(v - v_old)
        num_clipped += (clipped - r) ** 2 > (v - r) ** 2
    share = clipped_value_share(*map(jnp.asarray, (values, old, returns)), 0.2)
    assert 200 < num_clipped < 400 and share == num_clipped / values.size
    # Which are those without a gradient.
    gradient = jax.grad(clipped_value_loss)(*map(jnp.asarray, (values, old, returns)), 0.2)
    assert np.mean(np.asarray(gradient) == 0) == share


def test_normalize():
    x = normalize(jnp.array([[1.0, 2.0], [3.0, 6.0]]))
    assert float(jnp.mean(x)) == pytest.approx(0, abs=1e-6)
    assert float(jnp.std(x)) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(normalize(jnp.full((2, 2), 3.0)), 0)


def test_samples_follow_the_logits():
    logits = (jnp.log(jnp.array([0.1, 0.2, 0.7])), jnp.log(jnp.array([0.5, 0.5])))
    num = 20_000
    uniforms = jax.random.uniform(jax.random.key(0), (num, 2))
    actions = distributions.sample(tuple(jnp.broadcast_to(x, (num, x.shape[0])) for x in logits), uniforms)
    assert actions.shape == (num, 2)
    # Three standard errors of a frequency are at most 3 * 0.5 / sqrt(20000) = 0.011.
    np.testing.assert_allclose(np.bincount(actions[:, 0], minlength=3) / num, [0.1, 0.2, 0.7], atol=0.011)
    np.testing.assert_allclose(np.bincount(actions[:, 1], minlength=2) / num, [0.5, 0.5], atol=0.011)


def test_the_ends_of_the_unit_interval_are_actions():
    logits = (jnp.array([[0.0, -jnp.inf, 0.0], [3.0, 2.0, 1.0]]),)
    last = float(np.nextafter(np.float32(1), np.float32(0)))
    np.testing.assert_array_equal(distributions.sample(logits, jnp.full((2, 1), last))[:, 0], [2, 2])
    np.testing.assert_array_equal(distributions.sample(logits, jnp.zeros((2, 1)))[:, 0], [0, 0])
    # An action of probability zero is stepped over.
    np.testing.assert_array_equal(distributions.sample(logits, jnp.full((2, 1), 0.5))[0], [2])


def test_log_prob_and_entropy_sum_over_heads():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    actions = np.stack([rng.integers(3, size=4), rng.integers(2, size=4)], axis=-1)
    log_probs = [x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in logits]
    expected = sum(lp[np.arange(4), actions[:, i]] for i, lp in enumerate(log_probs))
    arrays = tuple(jnp.asarray(x, jnp.float32) for x in logits)
    np.testing.assert_allclose(distributions.log_prob(arrays, jnp.asarray(actions)), expected, rtol=1e-5)
    expected = -sum((np.exp(lp) * lp).sum(-1) for lp in log_probs)
    np.testing.assert_allclose(distributions.entropy(arrays), expected, rtol=1e-5)


def test_log_barrier_holds_on_to_actions_that_have_died_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3)) * 3, rng.normal(size=(4, 2))
    logits[0][0] = 0, -40, 3  # probabilities of about .05, 2e-19, .95
    log_probs = [x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in logits]
    expected = sum((np.log(1 / lp.shape[-1]) - lp).mean(-1) for lp in log_probs)
    arrays = tuple(jnp.asarray(x, jnp.float32) for x in logits)
    np.testing.assert_allclose(distributions.log_barrier(arrays), expected, rtol=1e-5)
    barrier, entropy = (
        jax.grad(lambda x, f=f: jnp.sum(f(x)))(arrays) for f in (distributions.log_barrier, distributions.entropy)
    )
    for got, lp in zip(barrier, log_probs, strict=True):
        np.testing.assert_allclose(got, np.exp(lp) - 1 / lp.shape[-1], rtol=1e-4, atol=1e-6)
    assert barrier[0][0, 1] == pytest.approx(-1 / 3) and abs(entropy[0][0, 1]) < 1e-15
    np.testing.assert_allclose(distributions.log_barrier((jnp.full((2, 5), 7.0),)), 0, atol=1e-6)
