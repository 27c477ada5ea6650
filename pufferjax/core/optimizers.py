"""The optimizers of training, and the step size of every parameter: pure functions around Optax.

muon            Muon (optax.contrib.muon) for hidden matrices, Adam for everything else
aurora          the same, but the update of a matrix with more outputs than inputs also has rows of equal norm
adam            Adam for everything
schedule_free   Adam without momentum, averaged (Defazio et al. 2024, "The Road Less Scheduled"; optax.contrib)
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pufferjax.core.config import Hypers, TrainConfig
from pufferjax.core.policy import muon_labels
from pufferjax.core.types import TrainState

_AURORA_ROUNDS = 2
# x (2 - 1.5 x^2 + 0.5 x^4) has slope 0 at its fixed point 1: it leads to the polar factor itself, where Muon's own
# coefficients only come near it, in fewer steps. Twelve steps reach it from singular values above a thousandth.
_POLAR_COEFFICIENTS, _POLAR_STEPS = (2.0, -1.5, 0.5), 12


def make_optimizer(config: TrainConfig) -> optax.GradientTransformationExtraArgs:
    """`update(grads, state, params, rates=...)` gives what is to be added to the parameters; rates: see
    `learning_rates`."""
    momentum = config.ppo.momentum
    if config.ppo.optimizer == "schedule_free":
        # Its average weights all steps alike: it replaces both a schedule and a momentum.
        return optax.contrib.schedule_free(_at_rates(optax.adam(1.0, b1=0.0)), 1.0, b1=momentum)
    adam = optax.adam(1.0, b1=momentum)
    if config.ppo.optimizer == "adam":
        return _at_rates(adam)
    parts = {"muon": optax.contrib.muon(1.0, beta=momentum), "adam": adam}
    if config.ppo.optimizer == "aurora":
        parts["aurora"] = optax.chain(optax.trace(momentum, nesterov=True), scale_by_aurora(), optax.scale(-1.0))
        return _at_rates(optax.partition(parts, _aurora_labels))
    return _at_rates(optax.partition(parts, muon_labels))


def learning_rates(config: TrainConfig, params, hypers: Hypers, learning_rate):
    """The learning rate of each parameter, as a pytree: of Adam's beside Muon a share, and with a base width that of
    Adam's matrices that read features smaller in a wider network."""
    rates = dict.fromkeys(("muon", "adam"), learning_rate)
    is_adam = config.ppo.optimizer in ("adam", "schedule_free")
    if not is_adam:
        rates["adam"] = learning_rate * hypers.other_learning_rate_ratio

    def rate(path, label, leaf):
        reads_features = label == "muon" or _names(path)[0] == "decoder"
        if config.ppo.base_width and leaf.ndim == 2 and reads_features and (is_adam or label == "adam"):
            return rates[label] * (config.ppo.base_width / leaf.shape[0])
        return rates[label]

    return jax.tree_util.tree_map_with_path(rate, muon_labels(params), params)


def acting_params(config: TrainConfig, train_state: TrainState) -> Any:
    """What is to be played and evaluated after training: the parameters, or the average that `schedule_free` keeps,
    beside which those of training are."""
    if config.ppo.optimizer != "schedule_free":
        return train_state.params
    return optax.contrib.schedule_free_eval_params(train_state.opt_state, train_state.params)


def scale_by_aurora() -> optax.GradientTransformation:
    """Updates f32[in, out], out > in, as semi-orthogonal as Muon's whose columns (what an output learns) are equally
    long too, times sqrt(out / in) as Muon's are.

    Dewulf et al. 2026, "Aurora" (arXiv 2606.27715): polar factors of the matrix with its outputs scaled, the scales
    corrected in each of two rounds by the square root of how much too short an output's squared norm was.
    """
    polar = optax.contrib.scale_by_muon(ns_coeffs=_POLAR_COEFFICIENTS, ns_steps=_POLAR_STEPS, beta=0.0, nesterov=False)

    def polar_factor(x):
        return polar.update(x, polar.init(x))[0]

    def balanced(x):
        num_inputs, num_outputs = x.shape
        scales = jnp.ones(num_outputs, x.dtype)
        for _ in range(_AURORA_ROUNDS):
            norms = jnp.sum(jnp.square(polar_factor(x * scales)), axis=0)
            # An output without a gradient stays without a step.
            scales *= jnp.where(norms > 1e-12, jnp.sqrt(num_inputs / num_outputs / jnp.maximum(norms, 1e-12)), 1.0)
        return polar_factor(x * scales) * (num_outputs / num_inputs) ** 0.5

    return optax.stateless(lambda updates, params: jax.tree.map(balanced, updates))


def _aurora_labels(params):
    def label(label, leaf):
        return "aurora" if label == "muon" and leaf.shape[1] > leaf.shape[0] else label

    return jax.tree.map(label, muon_labels(params), params)


def _at_rates(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """A unit-step optimizer as one whose steps are times `rates`, a pytree as the parameters. Its state is its own."""

    def update(grads, state, params=None, *, rates):
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(lambda u, rate: rate * u, updates, rates), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _names(path) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")
