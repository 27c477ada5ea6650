"""Generalised advantage estimation with V-trace clipping of the importance ratios."""

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_scalar
from pufferjax.xla_ops.gae_vtrace.reference import gae_vtrace_reference

TARGET = "pufferjax.gae_vtrace"


def gae_vtrace(
    rewards, values, bootstrap_value, terminated, ratios, gamma, gae_lambda, rho_clip=1.0, c_clip=1.0, *, impl=None
) -> jax.Array:
    """Advantages f32[T, N] of a rollout of T steps in N environments.

        delta_t = min(w_t, rho_clip) (r_t + gamma n_t V_{t+1} - V_t),   n_t = 1 - terminated_t,   V_T = bootstrap_value
        A_t     = delta_t + gamma gae_lambda min(w_t, c_clip) n_t A_{t+1},   A_T = 0

    With all ratios w = 1 and clips >= 1 this is GAE (Schulman et al. 2016); the clipped ratios are those of V-trace
    (Espeholt et al. 2018), here with a trace parameter. A ratio of 0 gives A_t = 0 and cuts the trace: that is how
    a step that ended in a time-out, whose true successor value is unknown, is kept out.

    Args:
      rewards: f32[T, N], the outcome of action a_t, T >= 1.
      values: f32[T, N], V(s_t).
      bootstrap_value: f32[N], V of the state after the last step.
      terminated: bool[T, N], whether a_t ended the episode for good; V_{t+1} and A_{t+1} are then not looked at,
        not even if they are NaN.
      ratios: f32[T, N], w_t = pi_new(a_t) / pi_old(a_t).
      gamma, gae_lambda: scalars in [0, 1]; may be traced.
      rho_clip, c_clip: scalars >= 0, infinity for no clipping; may be traced.
      impl: "native", "reference" or None (native where there is one).

    The result is a constant for differentiation: no gradient flows to any argument.
    Raises TypeError or ValueError naming the argument.
    """
    op = "gae_vtrace"
    rewards = check_array(op, "rewards", rewards, ("T", "N"), jnp.float32)
    num_steps, num_envs = rewards.shape
    if num_steps == 0:
        raise ValueError(f"{op}: rewards must have at least one step, got shape {rewards.shape}")
    shape = (num_steps, num_envs)
    operands = (
        rewards,
        check_array(op, "values", values, shape, jnp.float32),
        check_array(op, "bootstrap_value", bootstrap_value, (num_envs,), jnp.float32),
        check_array(op, "terminated", terminated, shape, jnp.bool_),
        check_array(op, "ratios", ratios, shape, jnp.float32),
        check_scalar(op, "gamma", gamma, 0, 1),
        check_scalar(op, "gae_lambda", gae_lambda, 0, 1),
        check_scalar(op, "rho_clip", rho_clip, 0, infinite=True),
        check_scalar(op, "c_clip", c_clip, 0, infinite=True),
    )
    operands = jax.lax.stop_gradient(operands)

    def native(*operands):
        return ffi.native_call(TARGET, [jax.ShapeDtypeStruct(shape, jnp.float32)], *operands)[0]

    return ffi.select(TARGET, native, gae_vtrace_reference, *operands, impl=impl)
