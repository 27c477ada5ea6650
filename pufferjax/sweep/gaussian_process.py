"""Gaussian processes in JAX: several figures of the same points, each fitted by itself, in one program.

The kernel is that of PufferLib's Protein, linear plus Matern 3/2: k(x, x') = σ² (x·x' + offset + (1 + r) exp(-r)) with
r = √3 |(x - x') / ℓ|, a length ℓ for each coordinate. Its parameters are positive by softplus, the noise has a prior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_STEPS, _STEP_SIZE = 50, 0.1
_NOISE, _NOISE_SPREAD = 0.01, 0.5  # median of the noise's variance, and the spread of its logarithm
_SMALLEST = 64  # points that a program is made for; others have a power of two of them


class Parameters(NamedTuple):
    """Before softplus."""

    scale: jax.Array  # σ², f32[]
    offset: jax.Array  # f32[]
    lengths: jax.Array  # ℓ, f32[D]
    noise: jax.Array  # variance, f32[]


class Fitted(NamedTuple):
    """What predicts: P points, of which a mask says which are there, and F figures."""

    x: jax.Array  # f32[P, D]
    parameters: Parameters  # [F, ...]
    weights: jax.Array  # K⁻¹ (y - mean), f32[F, P]
    means: jax.Array  # f32[F]


def _positive(x):
    return jax.nn.softplus(x) + 1e-4


def _raw(value):
    """Inverse of `_positive`."""
    return jnp.log(jnp.expm1(jnp.float32(value - 1e-4)))


def _kernel(parameters: Parameters, a, b):
    u, v = a / _positive(parameters.lengths), b / _positive(parameters.lengths)
    squared = jnp.sum(u**2, -1)[:, None] + jnp.sum(v**2, -1) - 2 * u @ v.T
    r = jnp.sqrt(3 * jnp.maximum(squared, 1e-6))  # the root has no derivative at 0
    matern = (1 + r) * jnp.exp(-r)
    return _positive(parameters.scale) * (a @ b.T + _positive(parameters.offset) + matern)


def _covariance(parameters, x, mask):
    """Of the points that are there; the others are independent of all, with variance 1."""
    both = mask[:, None] & mask[None]
    diagonal = jnp.where(mask, _positive(parameters.noise) + 1e-4, 1.0)
    return jnp.where(both, _kernel(parameters, x, x), 0.0) + jnp.diag(diagonal)


def _solved(covariance, y):
    """(inverse, weights inverse @ y, logarithm of the determinant)."""
    factor = jnp.linalg.cholesky(covariance)
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(y), dtype=y.dtype))
    return inverse, inverse @ y, 2 * jnp.sum(jnp.log(jnp.diag(factor)))


@jax.custom_vjp
def _unlikeliness(covariance, y):
    """Negative logarithm of the likelihood, but for a constant. Its derivative is known, and far cheaper than that of
    the steps by which it is computed."""
    return _unlikeliness_forward(covariance, y)[0]


def _unlikeliness_forward(covariance, y):
    inverse, weights, log_determinant = _solved(covariance, y)
    return 0.5 * (y @ weights + log_determinant), (inverse, weights)


def _unlikeliness_backward(saved, bar):
    inverse, weights = saved
    return bar * 0.5 * (inverse - jnp.outer(weights, weights)), bar * weights


_unlikeliness.defvjp(_unlikeliness_forward, _unlikeliness_backward)


def _loss(parameters, x, y, mask):
    """Negative logarithm of the likelihood and of the noise's prior, per point."""
    noise = jnp.log(_positive(parameters.noise))
    prior = noise + 0.5 * ((noise - np.log(_NOISE)) / _NOISE_SPREAD) ** 2
    return (_unlikeliness(_covariance(parameters, x, mask), y) + prior) / jnp.sum(mask)


@jax.jit
def _fit(x, y, mask):
    optimizer = optax.amsgrad(_STEP_SIZE)

    def one(y):
        mean = jnp.sum(jnp.where(mask, y, 0)) / jnp.sum(mask)
        centred = jnp.where(mask, y - mean, 0)
        start = Parameters(_raw(1.0), _raw(1.0), jnp.full(x.shape[1], _raw(1.0)), _raw(_NOISE))

        def step(carry, _):
            parameters, state = carry
            gradient = jax.grad(_loss)(parameters, x, centred, mask)
            # A matrix that rounding has spoiled gives no direction; the step is left out.
            gradient = jax.tree.map(lambda g: jnp.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0), gradient)
            updates, state = optimizer.update(gradient, state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        (parameters, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=_STEPS)
        return parameters, _solved(_covariance(parameters, x, mask), centred)[1], mean

    parameters, weights, means = jax.lax.map(one, y)
    return Fitted(x, parameters, weights, means)


@jax.jit
def _predict(fitted: Fitted, x):
    def one(parameters, weights, mean):
        return mean + _kernel(parameters, x, fitted.x) @ weights

    return jax.vmap(one)(fitted.parameters, fitted.weights, fitted.means)


def fit(x: np.ndarray, y: np.ndarray) -> Fitted:
    """Fits a process to each of the figures y[F, N] at the points x[N, D], both of the order of 1; N >= 1.

    A program is compiled for each power of two of points.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    size = max(_SMALLEST, 1 << (len(x) - 1).bit_length())
    padding = size - len(x)
    return _fit(np.pad(x, ((0, padding), (0, 0))), np.pad(y, ((0, 0), (0, padding))), np.arange(size) < len(x))


def predict(fitted: Fitted, x: np.ndarray) -> np.ndarray:
    """The means f32[F, Q] at the points x[Q, D]; a program is compiled for each Q."""
    return np.asarray(_predict(fitted, np.asarray(x, np.float32)))
