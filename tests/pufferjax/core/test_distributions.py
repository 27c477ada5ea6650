"""Gaussian and masked heads against scipy and NumPy in float64, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pufferjax.core import distributions
from pufferjax.core.distributions import Gaussian, Masked


def gaussians(count=2):
    rng = np.random.default_rng(0)
    return [Gaussian(rng.normal(size=(6, 3)) * 2, rng.normal(size=(6, 3)) * 0.7) for _ in range(count)]


def f32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def differences(function, x, step=1e-6):
    """The gradient of the sum of a NumPy function of f64 `x`, by central differences."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        found[index] = (np.sum(function(ahead)) - np.sum(function(behind))) / (2 * step)
    return found


def test_gaussian_functions_are_those_of_scipy():
    p, q = gaussians()
    actions = np.random.default_rng(1).normal(size=(6, 3)) * 3

    def log_prob(mean, log_std):
        return stats.norm.logpdf(actions, mean, np.exp(log_std)).sum(-1)

    def entropy(log_std):
        return stats.norm.entropy(0, np.exp(log_std)).sum(-1)

    def kl(mean, log_std):  # of p with these and q, by the moments of both
        variance = np.exp(2 * log_std) / np.exp(2 * q.log_std)
        return 0.5 * (variance - 1 - np.log(variance) + (mean - q.mean) ** 2 / np.exp(2 * q.log_std)).sum(-1)

    heads, others = (f32(p),), (f32(q),)
    np.testing.assert_allclose(distributions.log_prob(heads, f32(actions)), log_prob(*p), rtol=2e-5)
    np.testing.assert_allclose(distributions.entropy(heads), entropy(p.log_std), rtol=2e-5)
    np.testing.assert_allclose(distributions.kl_divergence(heads, others), kl(*p), rtol=2e-5)
    np.testing.assert_allclose(distributions.kl_divergence(heads, heads), 0, atol=1e-5)
    np.testing.assert_array_equal(distributions.log_barrier(heads), np.zeros(6))
    np.testing.assert_array_equal(distributions.mode(heads), heads[0].mean)

    for function, reference in (
        (lambda h: distributions.log_prob(h, f32(actions)), log_prob),
        (distributions.entropy, lambda mean, log_std: entropy(log_std) + 0 * mean.sum(-1)),
        (lambda h: distributions.kl_divergence(h, others), kl),
    ):
        (found,) = jax.grad(lambda h, function=function: jnp.sum(function(h)))(heads)
        of_mean = differences(lambda x, f=reference: f(x, p.log_std), p.mean)
        of_log_std = differences(lambda x, f=reference: f(p.mean, x), p.log_std)
        np.testing.assert_allclose(found.mean, of_mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.log_std, of_log_std, rtol=1e-3, atol=1e-4)


def test_gaussian_samples_are_not_clipped_and_follow_mean_and_deviation():
    heads = (Gaussian(jnp.full((50_000, 2), jnp.array([0.5, -3.0])), jnp.full((50_000, 2), jnp.log(2.0))),)
    x = distributions.sample(heads, jax.random.normal(jax.random.key(0), (50_000, 2)))
    assert stats.kstest(np.asarray(x[:, 0]), stats.norm(0.5, 2).cdf).pvalue > 1e-3
    assert stats.kstest(np.asarray(x[:, 1]), stats.norm(-3, 2).cdf).pvalue > 1e-3


def masked_case():
    """Logits of two heads, masks side by side, and the float64 log-probabilities with -inf where nothing is allowed."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 3))
    masks = rng.random((5, 7)) < 0.5
    masks[:, 1] = masks[:, 6] = True
    masks[0] = [False, True, False, False, True, True, True]  # a single choice; all of them
    parts = masks[:, :4], masks[:, 4:]
    log_probs = []
    for x, mask in zip(logits, parts, strict=True):
        weights = np.where(mask, np.exp(x), 0)
        with np.errstate(divide="ignore"):
            log_probs.append(np.log(weights / weights.sum(-1, keepdims=True)))
    return logits, masks, parts, log_probs


def test_masked_functions_are_those_of_the_choices_that_are_allowed():
    logits, masks, parts, log_probs = masked_case()
    heads = distributions.masked(f32(logits), jnp.asarray(masks))
    actions = np.stack([np.argmax(lp, axis=-1) for lp in log_probs], axis=-1)
    np.testing.assert_array_equal(distributions.mode(heads), actions)
    chosen = sum(np.take_along_axis(lp, actions[:, i : i + 1], -1)[:, 0] for i, lp in enumerate(log_probs))
    np.testing.assert_allclose(distributions.log_prob(heads, jnp.asarray(actions)), chosen, rtol=1e-4, atol=1e-6)

    def entropy(lp, mask):
        return -np.sum(np.exp(lp) * np.where(mask, lp, 0), axis=-1)

    def barrier(lp, mask):
        return -np.sum(np.where(mask, lp, 0), axis=-1) / mask.sum(-1) - np.log(mask.sum(-1))

    for function, reference in ((distributions.entropy, entropy), (distributions.log_barrier, barrier)):
        expected = sum(reference(lp, mask) for lp, mask in zip(log_probs, parts, strict=True))
        np.testing.assert_allclose(function(heads), expected, rtol=1e-4, atol=1e-5)
    assert distributions.log_prob(heads, jnp.zeros((5, 2), jnp.int32))[0] == -np.inf  # the first is not allowed there

    # KL to what allows more, and to what does not allow all of it.
    whole = f32(logits)
    expected = 0
    for x, lp, mask in zip(logits, log_probs, parts, strict=True):
        free = x - np.log(np.exp(x).sum(-1, keepdims=True))
        expected += np.sum(np.where(mask, np.exp(lp) * (np.where(mask, lp, 0) - free), 0), axis=-1)
    np.testing.assert_allclose(distributions.kl_divergence(heads, whole), expected, rtol=1e-4, atol=1e-5)
    assert distributions.kl_divergence(whole, heads)[1] == np.inf


def test_masked_gradients_are_finite_and_those_of_the_choices_that_are_allowed():
    logits, masks, parts, _ = masked_case()
    actions = jnp.full((5, 2), jnp.array([1, 2]))  # allowed everywhere

    def reference(kind, head):
        def of(x):
            weights = np.where(parts[head], np.exp(x), 0)
            p = weights / weights.sum(-1, keepdims=True)
            lp = np.where(parts[head], np.log(np.where(parts[head], p, 1)), 0)
            return {
                "log_prob": lp[:, [1, 2][head]],
                "entropy": -(p * lp).sum(-1),
                "barrier": -lp.sum(-1) / parts[head].sum(-1),
            }[kind]

        return of

    for kind, function in (
        ("log_prob", lambda h: distributions.log_prob(h, actions)),
        ("entropy", distributions.entropy),
        ("barrier", distributions.log_barrier),
    ):
        found = jax.grad(lambda x, f=function: jnp.sum(f(distributions.masked(x, jnp.asarray(masks)))))(f32(logits))
        for head, x in enumerate(logits):
            expected = differences(reference(kind, head), x)
            np.testing.assert_allclose(found[head], expected, rtol=1e-3, atol=1e-5, err_msg=f"{kind} of head {head}")
            assert (np.asarray(found[head])[~parts[head]] == 0).all()
    kl = jax.grad(lambda x: jnp.sum(distributions.kl_divergence(distributions.masked(x, jnp.asarray(masks)), x)))
    assert all(np.isfinite(x).all() for x in kl(f32(logits)))


def test_masked_samples_are_allowed_at_every_uniform():
    """Also where a sum of the same probabilities rounds to more than the total."""
    rng = np.random.default_rng(3)
    count, n = 4000, 37
    logits = (jnp.asarray(rng.normal(size=(count, n)) * 4, jnp.float32),)
    masks = rng.random((count, n)) < 0.3
    masks[:, 7] = True
    heads = distributions.masked(logits, jnp.asarray(masks))
    last = float(np.nextafter(np.float32(1), np.float32(0)))
    for uniforms in (
        jnp.zeros((count, 1)),
        jnp.full((count, 1), last),
        jnp.ones((count, 1)),  # no such uniform: a threshold that rounding has brought to the sum over the allowed ones
        jax.random.uniform(jax.random.key(0), (count, 1)),
    ):
        actions = np.asarray(distributions.sample(heads, uniforms))[:, 0]
        assert masks[np.arange(count), actions].all()
    one = distributions.masked((jnp.zeros((20_000, 4)),), jnp.tile(jnp.array([False, True, False, True]), (20_000, 1)))
    found = np.bincount(np.asarray(distributions.sample(one, jax.random.uniform(jax.random.key(1), (20_000, 1))))[:, 0])
    np.testing.assert_allclose(found / 20_000, [0, 0.5, 0, 0.5], atol=0.011)


def test_a_mask_that_allows_nothing_is_an_error_or_the_uniform_choice():
    logits = (jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([[4.0, 1.0, 0.0]] * 2))
    masks = jnp.array([[True, True, True, False, False], [True, False, False, False, False]])
    with pytest.raises(ValueError, match=r"masked: masks\[1\] allow no choice of head 1"):
        distributions.masked(logits, masks)
    with pytest.raises(ValueError, match="masks must have 5 entries, one for every choice, got 4"):
        distributions.masked(logits, masks[:, :4])

    @jax.jit
    def traced(logits, masks):
        def of(logits):
            heads = distributions.masked(logits, masks)
            parts = distributions.log_prob(heads, jnp.zeros((2, 2), jnp.int32)), distributions.entropy(heads)
            return jnp.sum(parts[0] + parts[1] + distributions.log_barrier(heads)), parts

        return jax.value_and_grad(of, has_aux=True)(logits)

    (_, (log_prob, entropy)), gradient = traced(logits, masks)
    assert log_prob[1] == pytest.approx(-np.log(3)) and entropy[1] == pytest.approx(np.log(3))
    assert all(np.isfinite(x).all() for x in gradient) and (gradient[1][1] == 0).all()


def test_heads_of_both_kinds_are_summed():
    gaussian = f32(gaussians(1)[0])
    logits = jnp.asarray(np.random.default_rng(5).normal(size=(6, 4)), jnp.float32)
    heads = (logits, gaussian)
    noise = jnp.full((6, 1), 0.3), jnp.ones((6, 3))
    choices, numbers = actions = distributions.sample(heads, noise)
    np.testing.assert_array_equal(choices, distributions.sample((logits,), noise[0]))
    np.testing.assert_array_equal(numbers, distributions.sample((gaussian,), noise[1]))
    np.testing.assert_allclose(
        distributions.log_prob(heads, actions),
        distributions.log_prob((logits,), choices) + distributions.log_prob((gaussian,), numbers),
        rtol=1e-6,
    )
    for function in (distributions.entropy, distributions.log_barrier):
        np.testing.assert_allclose(function(heads), function((logits,)) + function((gaussian,)), rtol=1e-6)
    assert [x.shape for x in distributions.mode(heads)] == [(6, 1), (6, 3)]
    assert isinstance(distributions.masked(heads, jnp.ones((6, 4), bool))[0], Masked)
