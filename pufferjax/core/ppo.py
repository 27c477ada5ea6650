"""The learner: advantages, prioritized minibatches of whole rows, clipped PPO, Muon. The only file that knows optax."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from pufferjax import xla_ops
from pufferjax.core import distributions
from pufferjax.core.config import Hypers, TrainConfig
from pufferjax.core.losses import clipped_policy_loss, clipped_value_loss, clipped_value_share, normalize
from pufferjax.core.optimizers import learning_rates
from pufferjax.core.policy import ActorCritic
from pufferjax.core.types import Transitions
from pufferjax.core.varying import vary_as


def schedule(hypers: Hypers, progress):
    """(learning_rate, entropy_coef) at `progress` in [0, 1]: constant until anneal_start, then cosine to the floor."""
    fraction = jnp.clip((progress - hypers.anneal_start) / jnp.maximum(1 - hypers.anneal_start, 1e-6), 0, 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * fraction))

    def anneal(start, floor_ratio):
        return start * (floor_ratio + (1 - floor_ratio) * cosine)

    return (
        anneal(hypers.learning_rate, hypers.min_learning_rate_ratio),
        anneal(hypers.entropy_coef, hypers.min_entropy_ratio),
    )


def advantages_of(config: TrainConfig, hypers: Hypers, transitions: Transitions, bootstrap_values, values, ratios):
    """f32[T, B] from the current `values` and `ratios` of every step."""
    terminated = transitions.terminated
    if config.ppo.truncation == "cut":
        # The value after a time-out is unknown (the observation is that of the next episode): a ratio of 0 gives the
        # step no advantage and ends the trace. As a failure it would make all states before time-outs look surprising.
        ratios = jnp.where(transitions.truncated, 0.0, ratios)
    else:
        terminated = terminated | transitions.truncated
    if not config.ppo.bootstrap:
        ratios = ratios.at[-1].set(0.0)
    return xla_ops.gae_vtrace(
        transitions.rewards,
        values,
        bootstrap_values,
        terminated,
        ratios,
        hypers.gamma,
        hypers.gae_lambda,
        hypers.rho_clip,
        hypers.c_clip,
    )


def bad_rows(transitions: Transitions):
    """(bool[B], bool[B]): rows from which nothing can be learned since a reward in them is NaN or infinite; those and
    the rows with such an observation, or with what the policy made of an earlier one."""
    observations = transitions.observations
    bad_rewards = ~jnp.all(jnp.isfinite(transitions.rewards), axis=0)
    bad = bad_rewards | ~jnp.all(jnp.isfinite(transitions.values) & jnp.isfinite(transitions.log_probs), axis=0)
    if jnp.issubdtype(observations.dtype, jnp.floating):
        # The policy may not show it: a maximum over entities drops NaN, a gate takes infinity for 1.
        others = tuple(axis for axis in range(observations.ndim) if axis != 1)
        bad |= ~jnp.all(jnp.isfinite(observations), axis=others)
    return bad_rewards, bad


def _only_good(rows, is_bad):
    """i32[K] of i32[K]: good rows in place of bad ones, if there is any: the bad ones have no priority, but without an
    exponent all rows are drawn alike."""
    good_first = jnp.argsort(is_bad, stable=True).astype(rows.dtype)
    num_good = jnp.sum(~is_bad).astype(rows.dtype)
    return jnp.where(is_bad[rows] & (num_good > 0), good_first[rows % jnp.maximum(num_good, 1)], rows)


def _is_finite(tree):
    """bool[]: whether all numbers of all arrays are."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def _mean_where(counted, values):
    """f32[] of f32[n]: the mean over those that are counted, bool[n]; NaN if none is."""
    part = jnp.sum(jnp.where(counted, values, 0.0)) / jnp.sum(counted.astype(jnp.float32))
    return jnp.where(jnp.all(counted), jnp.mean(values), part)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossMetrics:
    """Averages over the updates of an epoch that were made; f32[]."""

    loss: jax.Array
    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    kl: jax.Array  # mean of q - 1 - log q over ratios q = pi_new / pi_old
    clip_fraction: jax.Array  # of samples, those whose probability ratio q is beyond the clip
    value_clip_fraction: jax.Array  # of samples, those whose value has no gradient since it moved too far
    grad_norm: jax.Array  # before clipping
    skipped_updates: jax.Array  # minibatches without an update since it was not finite; their number


def train_on(
    config: TrainConfig,
    policy: ActorCritic,
    optimizer: optax.GradientTransformationExtraArgs,
    hypers: Hypers,
    progress,
    params,
    opt_state,
    transitions: Transitions,
    initial_recurrent,
    bootstrap_values,
    row_importance,
    is_bad,
    key,
    num_minibatches: int,
    axis_name: str | None,
):
    """All minibatches of one epoch, of rows (one agent each) drawn with replacement by trajectory priority.

    Priorities come from the advantages of the rollout. A minibatch computes the advantages of its rows from the values
    and ratios of the latest pass over each of them, and its own pass renews those. With `axis_name` every device of
    that mesh axis brings rows of its own agents to each minibatch, and gradients are averaged.

    Rows that `is_bad` (bool[B], see `bad_rows`) are not drawn while there are others, and an update that is not finite
    is not made: parameters and optimizer stay what they were.

    Returns (params, opt_state, values f32[T, B], ratios f32[T, B], LossMetrics).
    """
    learning_rate, entropy_coef = schedule(hypers, progress)
    rates = learning_rates(config, params, hypers, learning_rate)
    num_rows = config.ppo.minibatch_size // config.horizon

    def loss_of(params, batch: Transitions, recurrent, advantages, returns, old_values, weights):
        heads, values, _ = policy.apply(
            {"params": params}, batch.observations, batch.previous_actions, recurrent, batch.starts
        )
        heads = distributions.masked(heads, batch.action_masks)
        log_ratios = distributions.log_prob(heads, batch.actions) - batch.log_probs
        ratios = jnp.exp(log_ratios)
        if config.ppo.normalize_advantages:
            advantages = normalize(advantages, axis_name)
        policy_loss = clipped_policy_loss(ratios, advantages, weights, hypers.clip_eps)
        value_loss = clipped_value_loss(values, old_values, returns, hypers.value_clip_eps)
        entropy = jnp.mean(distributions.entropy(heads))
        barrier = jnp.mean(distributions.log_barrier(heads))
        loss = policy_loss + hypers.value_coef * value_loss - entropy_coef * entropy + hypers.log_barrier_coef * barrier
        metrics = {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": jnp.mean(ratios - 1 - log_ratios),
            "clip_fraction": jnp.mean((jnp.abs(ratios - 1) > hypers.clip_eps).astype(jnp.float32)),
            "value_clip_fraction": clipped_value_share(values, old_values, returns, hypers.value_clip_eps),
        }
        return loss, (values, ratios, metrics)

    def minibatch(carry, drawn):
        params, opt_state, values, ratios = carry
        rows, weights = drawn
        batch = jax.tree.map(lambda x: x[:, rows], transitions)
        old_values = values[:, rows]
        advantages = advantages_of(config, hypers, batch, bootstrap_values[rows], old_values, ratios[:, rows])
        if not config.ppo.reset_memory:
            batch = dataclasses.replace(batch, starts=jnp.zeros_like(batch.starts))
        (_, (new_values, new_ratios, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            params,
            batch,
            initial_recurrent[:, rows],
            advantages,
            advantages + old_values,
            old_values,
            weights * row_importance[rows],
        )
        if axis_name is not None:
            grads = jax.lax.pmean(grads, axis_name)
        grad_norm = optax.tree.norm(grads)
        clip = jnp.minimum(1.0, hypers.max_grad_norm / (grad_norm + 1e-6))
        grads = jax.tree.map(lambda g: g * clip, grads)
        updates, new_opt_state = optimizer.update(grads, opt_state, params, rates=rates)
        new_params = jax.tree.map(jnp.add, params, updates)
        is_made = jnp.isfinite(grad_norm) & _is_finite(new_params)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(is_made, new, old), (new_params, new_opt_state), (params, opt_state)
        )
        values = values.at[:, rows].set(new_values)
        ratios = ratios.at[:, rows].set(new_ratios)
        return (params, opt_state, values, ratios), (is_made, metrics | {"grad_norm": grad_norm})

    ratios = jnp.ones_like(transitions.values)
    advantages = advantages_of(config, hypers, transitions, bootstrap_values, transitions.values, ratios)
    magnitudes = jnp.sum(jnp.abs(advantages), axis=0)
    is_bad |= ~jnp.isfinite(magnitudes)
    rows, weights = xla_ops.prioritized_sample(
        key,
        jnp.where(is_bad, 0.0, magnitudes),
        num_minibatches * num_rows,
        hypers.priority_exponent,
        hypers.importance_exponent,
    )
    rows = _only_good(rows, is_bad)
    drawn = (rows.reshape(-1, num_rows), weights.reshape(-1, num_rows))
    carry = vary_as((params, opt_state, transitions.values, ratios), (params, transitions.values))
    (params, opt_state, values, ratios), (is_made, metrics) = jax.lax.scan(minibatch, carry, drawn)
    losses = LossMetrics(
        **{name: _mean_where(is_made, x) for name, x in metrics.items()},
        skipped_updates=jnp.sum((~is_made).astype(jnp.float32)),
    )
    return params, opt_state, values, ratios, losses
