"""Where an epoch's time goes: its pieces, jitted and timed alone at the size and on the devices of a real epoch.

Pieces alone are not the pieces inside one program (XLA fuses across them, and they compete for the cache), so the
remainders are printed, negative ones too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pufferjax.bench import timing
from pufferjax.bench.train import Run, run_header
from pufferjax.core import ppo
from pufferjax.core.actions import draw_noise
from pufferjax.core.config import TrainConfig
from pufferjax.core.optimizers import make_optimizer
from pufferjax.core.parallel import AXIS, limit_op_threads, local_config
from pufferjax.core.policy import MinGRU, init_params, make_policy
from pufferjax.core.rollout import RolloutConfig, act, initial_memory, remember, rollout
from pufferjax.core.state_set import StateSet
from pufferjax.envs import Env
from pufferjax.envs.actions import random_actions


class _Everywhere:
    """Times a function of one device's share on all devices at once, each with a copy of the operands."""

    def __init__(self, devices, repeats: int):
        mesh = Mesh(np.asarray(devices), (AXIS,))
        self._mesh, self._count, self._repeats = mesh, len(devices), repeats
        self._sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def milliseconds(self, function, *operands) -> float:
        split = PartitionSpec(AXIS)

        def local(operands):
            return jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], operands)))

        run = jax.jit(jax.shard_map(local, mesh=self._mesh, in_specs=(split,), out_specs=split, check_vma=False))
        copies = jax.tree.map(
            lambda x: jax.device_put(jnp.broadcast_to(x[None], (self._count, *x.shape)), self._sharding), operands
        )
        return timing.milliseconds(timing.repeated(lambda: run(copies), self._repeats))


def bench_profile(env: Env, config: TrainConfig, repeats: int, devices) -> dict[str, Any]:
    """Milliseconds of an epoch and of its pieces."""
    limit_op_threads(len(devices))
    run = Run(env, config, devices)
    run.epoch()
    epoch = timing.milliseconds([run.epoch() for _ in range(repeats)])
    pieces = _pieces(env, local_config(run.config, len(devices)), _Everywhere(devices, repeats))
    remainders = {
        "rollout: the rest": pieces["rollout"] - pieces["rollout: env steps"] - pieces["rollout: policy"],
        "training: the rest": pieces["training"]
        - sum(pieces[f"training: {x}"] for x in ("policy forward and backward", "optimizer")),
        "epoch: the rest": epoch - sum(pieces[x] for x in ("rollout", "training", "state set")),
    }
    return {**run_header("profile", env, config, devices), "milliseconds": {"epoch": epoch, **pieces, **remainders}}


def _pieces(env: Env, config: TrainConfig, everywhere: _Everywhere) -> dict[str, float]:
    time = everywhere.milliseconds
    policy = make_policy(env.spec, config.policy)
    key = jax.random.key(0)
    params = init_params(policy, key)
    sizes = config.sizes(env.spec.num_agents)
    num_envs, num_agents, horizon, hidden = config.num_envs, sizes.num_rows, config.horizon, config.policy.hidden_size
    num_minibatches, num_rows = sizes.num_minibatches, config.ppo.minibatch_size // config.horizon
    observations, env_state = env.reset(key, num_envs)
    env_state = env.stagger(key, env_state)
    memory = initial_memory(policy, num_agents)
    seed = jnp.arange(2, dtype=jnp.uint32)  # a raw key can be copied to devices like any array
    result: dict[str, float] = {}

    # --- rollout
    def env_steps(key, env_state):
        actions = random_actions(env.spec, key, (horizon, num_agents))

        def step(env_state, action):
            _, env_state, reward, *_ = env.step(key, env_state, action)
            return env_state, reward

        return jax.lax.scan(step, env_state, actions)

    def policy_steps(key, params, observations, memory):
        noise = draw_noise(env.spec, key, (horizon, num_agents))

        def step(memory, noise):
            actions, log_probs, values, recurrent = act(policy, params, observations, memory, noise)
            return remember(env, recurrent, actions, jnp.zeros(num_agents, bool)), (log_probs, values)

        return jax.lax.scan(step, memory, noise)

    rollout_config = RolloutConfig(
        horizon, config.state_set.interval, num_envs - config.num_replayed, config.ppo.reset_memory
    )

    def whole_rollout(key, params, env_state, observations, memory):
        flags = jnp.zeros(num_envs, bool)
        return rollout(rollout_config, env, policy, params, key, env_state, observations, memory, flags, flags)

    result["rollout"] = time(whole_rollout, seed, params, env_state, observations, memory)
    result["rollout: env steps"] = time(env_steps, seed, env_state)
    result["rollout: policy"] = time(policy_steps, seed, params, observations, memory)

    # --- training
    *_, transitions, snapshots, _, _ = jax.jit(whole_rollout)(seed, params, env_state, observations, memory)
    optimizer = make_optimizer(config)
    opt_state, hypers = optimizer.init(params), config.hypers()
    zeros, ones = jnp.zeros(num_agents), jnp.ones(num_agents)

    def train(key, params, opt_state, transitions, recurrent, hypers):
        return ppo.train_on(
            config, policy, optimizer, hypers, jnp.float32(0.5), params, opt_state, transitions, recurrent, zeros,
            ones, zeros > 0, key, num_minibatches, None,
        )  # fmt: skip

    batch = jax.tree.map(lambda x: x[:, :num_rows], (transitions, memory.recurrent))

    def per_minibatch(body, carry):
        """`body` as often as an epoch has minibatches; each pass depends on the one before."""
        return jax.lax.scan(lambda carry, _: (body(carry), None), carry, length=num_minibatches)[0]

    def passes(params, batch):
        transitions, recurrent = batch

        def loss(params):
            heads, values, _ = policy.apply(
                {"params": params}, transitions.observations, transitions.previous_actions, recurrent,
                transitions.starts,
            )  # fmt: skip
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((heads, values)))

        return per_minibatch(lambda p: jax.tree.map(lambda x, g: x - 1e-9 * g, p, jax.grad(loss)(p)), params)

    def steps(params, opt_state):
        rates = jax.tree.map(lambda _: jnp.float32(1e-9), params)

        def body(carry):
            params, opt_state = carry
            updates, opt_state = optimizer.update(params, opt_state, params, rates=rates)
            return jax.tree.map(jnp.add, params, updates), opt_state

        return per_minibatch(body, (params, opt_state))

    layer = MinGRU(hidden)
    x = jax.random.normal(key, (horizon, num_rows, hidden))
    starts, row = batch[0].starts, jnp.zeros((num_rows, hidden))
    layer_params = layer.init(key, x, row, starts)

    def layers(layer_params, x):
        def loss(layer_params, x):
            for _ in range(config.policy.num_layers):
                x = layer.apply(layer_params, x, row, starts)[0]
            return jnp.sum(jnp.sin(x))

        def body(carry):
            grads = jax.grad(loss, argnums=(0, 1))(*carry)
            return jax.tree.map(lambda x, g: x - 1e-9 * g, carry, grads)

        return per_minibatch(body, (layer_params, x))

    result["training"] = time(train, seed, params, opt_state, transitions, memory.recurrent, hypers)
    result["training: policy forward and backward"] = time(passes, params, batch)
    if config.policy.num_layers:
        result["training: of that, recurrent layers"] = time(layers, layer_params, x)
    result["training: optimizer"] = time(steps, params, opt_state)

    # --- state set
    result["state set"] = 0.0
    if config.num_replayed:
        state_set = StateSet.create(config.state_set.capacity, env.spec.state_bytes)
        scores = jax.random.uniform(key, (snapshots.shape[0] * snapshots.shape[1],))
        state_set = state_set.insert(snapshots.reshape(-1, env.spec.state_bytes), scores)
        replayed = jnp.arange(num_envs - config.num_replayed, num_envs, dtype=jnp.int32)

        def restore(key, state_set, env_state):
            slots, _ = state_set.sample(key, config.num_replayed)
            env_state = env.restore(env_state, state_set.snapshots[slots], replayed)
            return slots, env.observe(env_state)

        def update(key, state_set, snapshots, slots, scores):
            # Most candidates score below what is held, as in training.
            scores = 0.5 * scores + 0.01 * jax.random.uniform(key, ())
            state_set = state_set.rescore(slots, scores[: len(slots)], 0.9)
            return state_set.insert(snapshots.reshape(-1, env.spec.state_bytes), scores)

        slots, _ = jax.jit(restore)(seed, state_set, env_state)
        result["state set: sample, restore, observe"] = time(restore, seed, state_set, env_state)
        result["state set: rescore, insert"] = time(update, seed, state_set, snapshots, slots, scores)
        result["state set"] = sum(result[x] for x in result if x.startswith("state set: "))
    return result


def describe(result: dict[str, Any]) -> str:
    pieces = result["milliseconds"]
    lines = [result["machine"], f"{'piece':<46} {'ms':>9}  share of the epoch"]
    for name in ["epoch", *sorted(x for x in pieces if x != "epoch")]:
        lines.append(f"{name:<46} {pieces[name]:>9.2f}  {pieces[name] / pieces['epoch']:>6.1%}")
    return "\n".join(lines)
