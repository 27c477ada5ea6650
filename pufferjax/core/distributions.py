"""Factored distributions over what an agent does: a tuple of heads, independent of each other. Pure functions.

A head of n choices is its logits, f32[..., n], or `Masked` logits; C numbers are one `Gaussian`, the last of the heads.
Actions are i32[..., A] of A heads of choices, f32[..., C] of a Gaussian alone, and a tuple of both of all together.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.actions import is_concrete

_LOG_2_PI = math.log(2 * math.pi)


class Gaussian(NamedTuple):
    """Independent normal numbers. Nothing is bounded here: see `pufferjax.core.actions`."""

    mean: jax.Array  # f32[..., C]
    log_std: jax.Array  # f32[..., C]


class Masked(NamedTuple):
    """Logits of a head some of whose choices are not allowed; see `masked`."""

    logits: jax.Array  # f32[..., n], -inf where not allowed
    is_allowed: jax.Array  # bool[..., n], somewhere true

    @property
    def log_probs(self) -> jax.Array:
        """f32[..., n]: -inf where not allowed."""
        return jax.nn.log_softmax(self.logits, axis=-1)

    def total(self, x) -> jax.Array:
        """Sum over the allowed choices. No gradient meets the -inf of the others."""
        return jnp.sum(jnp.where(self.is_allowed, x, 0.0), axis=-1)


def masked(heads, masks) -> tuple:
    """`heads` whose choices are those that `masks` allow: bool[..., choices], those of all heads side by side. None:
    all of them.

    A head that allows nothing is an error where the masks are concrete (ValueError), and in a traced program the
    uniform distribution over all of its choices.
    """
    if masks is None:
        return heads
    sizes = [x.shape[-1] for x in heads if not isinstance(x, Gaussian)]
    if masks.shape[-1] != sum(sizes):
        raise ValueError(f"masked: masks must have {sum(sizes)} entries, one for every choice, got {masks.shape[-1]}")
    results, first = [], 0
    for index, x in enumerate(heads):
        if isinstance(x, Gaussian):
            results.append(x)
            continue
        mask = masks[..., first : first + x.shape[-1]]
        first += x.shape[-1]
        is_any = jnp.any(mask, axis=-1, keepdims=True)
        if is_concrete(is_any) and not np.all(is_any):
            place = tuple(int(i) for i in np.argwhere(~np.asarray(is_any)[..., 0])[0])
            raise ValueError(f"masked: masks{list(place) if place else ''} allow no choice of head {index}")
        results.append(Masked(jnp.where(mask, x, jnp.where(is_any, -jnp.inf, 0.0)), mask | ~is_any))
    return tuple(results)


def _split(heads, of_actions) -> tuple[tuple, Any, Gaussian | None, Any]:
    """(heads of choices, what belongs to them, the Gaussian or None, what belongs to it)."""
    if not heads or not isinstance(heads[-1], Gaussian):
        return tuple(heads), of_actions, None, None
    if len(heads) == 1:
        return (), None, heads[-1], of_actions
    return tuple(heads[:-1]), of_actions[0], heads[-1], of_actions[1]


def _joined(choices, numbers):
    choices = jnp.stack(choices, axis=-1) if choices else None
    if numbers is None:
        return choices
    return numbers if choices is None else (choices, numbers)


def sample(heads, noise):
    """Actions, of noise in their form: choices by inverting each head's cumulative distribution at f32[..., A] in
    [0, 1), numbers as mean + std * f32[..., C], which is standard normal."""
    choices, uniforms, gaussian, normals = _split(heads, noise)
    actions = []
    for head, x in enumerate(choices):
        logits = x.logits if isinstance(x, Masked) else x
        cumulative = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1)
        # Scaled by the total, so that rounding in the sum can never leave the last action's range.
        threshold = uniforms[..., head, None] * cumulative[..., -1:]
        if isinstance(x, Masked):
            # Sums of the same numbers may round differently: which of the allowed choices it is, is counted.
            ranks = jnp.cumsum(x.is_allowed, axis=-1, dtype=jnp.int32)
            rank = jnp.sum((cumulative <= threshold) & x.is_allowed, axis=-1, keepdims=True, dtype=jnp.int32)
            rank = jnp.minimum(rank + 1, ranks[..., -1:])
            actions.append(jnp.argmax(ranks == rank, axis=-1).astype(jnp.int32))
        else:
            actions.append(jnp.sum(cumulative[..., :-1] <= threshold, axis=-1, dtype=jnp.int32))
    numbers = None if gaussian is None else gaussian.mean + jnp.exp(gaussian.log_std) * normals
    return _joined(actions, numbers)


def mode(heads):
    """The likeliest actions."""
    choices, _, gaussian, _ = _split(heads, (None, None))
    actions = [jnp.argmax(x.logits if isinstance(x, Masked) else x, axis=-1).astype(jnp.int32) for x in choices]
    return _joined(actions, None if gaussian is None else gaussian.mean)


def log_prob(heads, actions) -> jax.Array:
    """f32[...]: log-probability of actions (of numbers: of their density), summed over heads; -inf for a choice that is
    not allowed."""
    total = 0.0
    choices, chosen, gaussian, numbers = _split(heads, actions)
    for head, x in enumerate(choices):
        if isinstance(x, Masked):
            is_chosen = chosen[..., head, None] == jnp.arange(x.logits.shape[-1])
            total += jnp.sum(jnp.where(is_chosen, x.log_probs, 0.0), axis=-1)
        else:
            is_chosen = jax.nn.one_hot(chosen[..., head], x.shape[-1], dtype=x.dtype)
            total += jnp.sum(is_chosen * jax.nn.log_softmax(x, axis=-1), axis=-1)
    if gaussian is not None:
        deviations = (numbers - gaussian.mean) * jnp.exp(-gaussian.log_std)
        total -= jnp.sum(0.5 * jnp.square(deviations) + gaussian.log_std + 0.5 * _LOG_2_PI, axis=-1)
    return total


def entropy(heads) -> jax.Array:
    """f32[...]: entropy in nats, summed over heads; that of numbers is differential, in their own units, and may be
    negative."""
    total = 0.0
    for x in heads:
        if isinstance(x, Gaussian):
            total += jnp.sum(x.log_std + 0.5 * (1 + _LOG_2_PI), axis=-1)
        elif isinstance(x, Masked):
            log_probs = x.log_probs
            total -= x.total(jnp.exp(log_probs) * jnp.where(x.is_allowed, log_probs, 0.0))
        else:
            log_probs = jax.nn.log_softmax(x, axis=-1)
            total -= jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return total


def kl_divergence(heads, others) -> jax.Array:
    """f32[...]: KL(heads || others) in nats, summed over heads; infinite where `others` forbid what `heads` allow."""
    total = 0.0
    for p, q in zip(heads, others, strict=True):
        if isinstance(p, Gaussian):
            shift = (p.mean - q.mean) * jnp.exp(-q.log_std)
            ratio = jnp.exp(2 * (p.log_std - q.log_std))
            total += jnp.sum(0.5 * (ratio + jnp.square(shift) - 1) + q.log_std - p.log_std, axis=-1)
            continue
        p = p if isinstance(p, Masked) else Masked(p, jnp.ones(p.shape, bool))
        log_probs, others_log_probs = p.log_probs, q.log_probs if isinstance(q, Masked) else jax.nn.log_softmax(q)
        difference = jnp.where(p.is_allowed, log_probs, 0.0) - jnp.where(p.is_allowed, others_log_probs, 0.0)
        total += p.total(jnp.exp(log_probs) * difference)
    return total


def log_barrier(heads) -> jax.Array:
    """f32[...]: KL(uniform || policy) in nats, summed over heads of choices; uniform over those that are allowed.

    Its gradient by a logit is the probability of the action less the uniform one. Unlike that of the entropy it does
    not vanish with the probability: no action dies out (Agarwal et al. 2021, "On the theory of policy gradient methods:
    optimality, approximation, and distribution shift"). A Gaussian adds nothing: there is no uniform distribution of
    unbounded numbers, and it gives none of them up.
    """
    total = 0.0
    for x in heads:
        if isinstance(x, Gaussian):
            continue
        if isinstance(x, Masked):
            count = jnp.sum(x.is_allowed, axis=-1).astype(x.logits.dtype)
            total -= x.total(x.log_probs) / count + jnp.log(count)
        else:
            total -= jnp.mean(jax.nn.log_softmax(x, axis=-1), axis=-1) + jnp.log(x.shape[-1])
    if isinstance(total, float):  # numbers alone
        return jnp.zeros(heads[-1].mean.shape[:-1], heads[-1].mean.dtype)
    return total
