"""PPO in one file, in the style of PureJaxRL, on DeepSea. What is marked with "state set" adds it.

    python own_loop.py          # four seeds: the solved share of fresh episodes at the end of training

DeepSea (Osband et al., "Behaviour Suite for Reinforcement Learning"): a diver sinks one row per step and moves left or
right. Only SIZE moves to the right in a row lead to the reward of 1, each of them costs a little, and which of the two
actions means right differs from cell to cell. A random episode is rewarded once in 2**SIZE.

T steps of a rollout, N environments, S bytes of a simulator's state.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import pufferjax  # state set
from pufferjax import envs

SIZE = 12
NUM_ENVS, NUM_STEPS, NUM_UPDATES = 64, 24, 250
NUM_EPOCHS, NUM_MINIBATCHES = 2, 4
GAMMA, GAE_LAMBDA, CLIP, ENTROPY_COEF, VALUE_COEF, LEARNING_RATE = 0.99, 0.95, 0.2, 0.003, 0.5, 3e-3
NUM_FRESH = NUM_ENVS // 2  # environments whose episodes all begin with a reset: the others may restart elsewhere
CAPACITY, INTERVAL, DECAY, WALK_STEPS = 128, 2, 0.9, 2400  # state set
NUM_UPDATES -= WALK_STEPS // NUM_STEPS  # state set: the same number of simulator steps in all


class Diver(NamedTuple):
    row: jax.Array
    column: jax.Array


class DeepSea:
    """With gymnax's interface, which `envs.from_gymnax` gives a state that can be stored and restored."""

    num_actions = 2

    def __init__(self, size: int):
        self.size = size
        self.right = jax.random.bernoulli(jax.random.key(0), shape=(size, size)).astype(jnp.int32)

    def reset(self, key, params):
        state = Diver(jnp.int32(0), jnp.int32(0))
        return self.observe(state), state

    def observe(self, state):
        return jnp.zeros((self.size, self.size)).at[state.row, state.column].set(1.0)

    def step(self, key, state, action, params):
        goes_right = action == self.right[state.row, state.column]
        ended = state.row + 1 == self.size
        is_rewarded = ended & goes_right & (state.column == state.row)
        reward = is_rewarded - 0.01 / self.size * goes_right
        column = jnp.clip(state.column + jnp.where(goes_right, 1, -1), 0, self.size - 1)
        _, start = self.reset(key, params)
        state = jax.tree.map(lambda new, old: jnp.where(ended, new, old), start, Diver(state.row + 1, column))
        return self.observe(state), state, reward, ended, jnp.bool_(False), {}


class ActorCritic(nn.Module):
    num_actions: int

    @nn.compact
    def __call__(self, obs):
        x = obs.reshape(*obs.shape[:-2], -1)
        actor = nn.tanh(nn.Dense(32)(x))
        critic = nn.tanh(nn.Dense(32)(x))
        logits = nn.Dense(self.num_actions, kernel_init=nn.initializers.orthogonal(0.01))(actor)
        return jax.nn.log_softmax(logits), nn.Dense(1)(critic)[..., 0]


class Transition(NamedTuple):
    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    ended: jax.Array
    solved: jax.Array
    row: jax.Array  # state set: u8[S], the simulator before this step


class Runner(NamedTuple):
    params: Any
    opt_state: Any
    env_state: jax.Array  # u8[N, S]
    obs: jax.Array
    state_set: pufferjax.StateSet  # state set


def gae(rewards, values, ended, last_value):
    """Advantages f32[T, N]."""

    def back(carry, step):
        advantage, next_value = carry
        reward, value, end = step
        delta = reward + GAMMA * next_value * (1 - end) - value
        advantage = delta + GAMMA * GAE_LAMBDA * (1 - end) * advantage
        return (advantage, value), advantage

    first = (jnp.zeros_like(last_value), last_value)
    return jax.lax.scan(back, first, (rewards, values, ended), reverse=True)[1]


def make_train(env: envs.Env):
    """`train(key) -> f32[NUM_UPDATES]`: the solved share of the fresh episodes that ended during each update."""
    network = ActorCritic(env.spec.num_actions[0])
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(LEARNING_RATE, eps=1e-5))

    def rollout(params, env_state, obs, key):
        def step(carry, key):
            env_state, obs = carry
            key_action, key_env = jax.random.split(key)
            log_probs, value = network.apply(params, obs)
            action = jax.random.categorical(key_action, log_probs)
            log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
            row = env.snapshot(env_state)  # state set
            next_obs, env_state, reward, terminated, truncated, info = env.step(key_env, env_state, action)
            transition = Transition(
                obs=obs,
                action=action,
                log_prob=log_prob,
                value=value,
                reward=reward,
                ended=(terminated | truncated).astype(jnp.float32),
                solved=info["perf"],
                row=row,  # state set
            )
            return (env_state, next_obs), transition

        (env_state, obs), transitions = jax.lax.scan(step, (env_state, obs), jax.random.split(key, NUM_STEPS))
        return env_state, obs, transitions

    def loss(params, batch, advantages, targets):
        log_probs, values = network.apply(params, batch.obs)
        log_prob = jnp.take_along_axis(log_probs, batch.action[:, None], axis=1)[:, 0]
        ratio = jnp.exp(log_prob - batch.log_prob)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages).mean()
        value_loss = 0.5 * jnp.square(values - targets).mean()
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1).mean()
        return policy_loss + VALUE_COEF * value_loss - ENTROPY_COEF * entropy

    def learn(params, opt_state, batch, key):
        """NUM_EPOCHS passes over a batch whose leading axis is T * N."""

        def minibatch(carry, indices):
            params, opt_state = carry
            gradients = jax.grad(loss)(params, *jax.tree.map(lambda x: x[indices], batch))
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        orders = jax.vmap(lambda key: jax.random.permutation(key, NUM_STEPS * NUM_ENVS))(
            jax.random.split(key, NUM_EPOCHS)
        )
        return jax.lax.scan(minibatch, (params, opt_state), orders.reshape(NUM_EPOCHS * NUM_MINIBATCHES, -1))[0]

    def update(runner: Runner, key):
        key_sample, key_rollout, key_learn = jax.random.split(key, 3)
        params, env_state, obs = runner.params, runner.env_state, runner.obs
        slots, _ = runner.state_set.sample(key_sample, NUM_ENVS - NUM_FRESH)  # state set
        replayed = jnp.arange(NUM_FRESH, NUM_ENVS)  # state set
        stored = runner.state_set.snapshots[slots]  # state set
        is_held = jnp.broadcast_to(runner.state_set.size > 0, slots.shape)  # state set
        rows = jnp.where(is_held[:, None], stored, env.snapshot(env_state)[replayed])  # state set
        env_state = env.restore(env_state, rows, replayed)  # state set
        obs = env.observe(env_state)  # state set

        env_state, obs, transitions = rollout(params, env_state, obs, key_rollout)
        _, last_value = network.apply(params, obs)
        advantages = gae(transitions.reward, transitions.value, transitions.ended, last_value)
        batch = (transitions, advantages, advantages + transitions.value)
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        params, opt_state = learn(params, runner.opt_state, batch, key_learn)

        _, values = network.apply(params, transitions.obs)  # state set: scored by the policy that meets them next
        _, last_value = network.apply(params, obs)  # state set
        magnitude = jnp.abs(gae(transitions.reward, values, transitions.ended, last_value))  # state set
        replayed_scores = magnitude[:INTERVAL, NUM_FRESH:].sum(0)  # state set
        state_set = runner.state_set.rescore(slots, replayed_scores, DECAY, is_held)  # state set
        scores = magnitude[:, :NUM_FRESH].reshape(-1, INTERVAL, NUM_FRESH).sum(1)  # state set
        rows = transitions.row[::INTERVAL, :NUM_FRESH]  # state set
        state_set = state_set.insert(rows.reshape(scores.size, -1), scores.reshape(-1))  # state set

        runner = runner._replace(params=params, opt_state=opt_state, env_state=env_state, obs=obs)
        runner = runner._replace(state_set=state_set)  # state set
        ended, solved = transitions.ended[:, :NUM_FRESH].sum(), transitions.solved[:, :NUM_FRESH].sum()
        return runner, solved / jnp.maximum(ended, 1)

    def train(key):
        key_params, key_reset, key_updates = jax.random.split(key, 3)
        obs, env_state = env.reset(key_reset, NUM_ENVS)
        params = network.init(key_params, obs)
        key_walk = jax.random.fold_in(key_reset, 1)  # state set
        _, rows, counts, _ = env.random_walk(key_walk, env_state, WALK_STEPS, INTERVAL, SIZE // INTERVAL)  # state set
        age = counts[:, None] - 1 - jnp.arange(rows.shape[1])  # state set: of each snapshot before a reward, newest 0
        scores = (GAMMA * GAE_LAMBDA) ** (INTERVAL * age)  # state set: |advantage| of a value function that is 0
        state_set = pufferjax.StateSet.create(CAPACITY, env.spec.state_bytes)  # state set
        state_set = state_set.insert(rows.reshape(age.size, -1), scores.reshape(-1), age.reshape(-1) >= 0)  # state set
        runner = Runner(
            params=params,
            opt_state=optimizer.init(params),
            env_state=env_state,
            obs=obs,
            state_set=state_set,  # state set
        )
        return jax.lax.scan(update, runner, jax.random.split(key_updates, NUM_UPDATES))[1]

    return train


def solved_at_the_end(num_seeds: int = 4) -> jax.Array:
    """f32[num_seeds]: the solved share of fresh episodes over the last tenth of training."""
    env = envs.from_gymnax(DeepSea(SIZE), max_episode_steps=SIZE + 1, perf=lambda total: total > 0.5)
    solved = jax.jit(jax.vmap(make_train(env)))(jax.random.split(jax.random.key(0), num_seeds))
    return solved[:, -NUM_UPDATES // 10 :].mean(axis=1)


if __name__ == "__main__":
    print(f"DeepSea {SIZE}, {NUM_UPDATES * NUM_STEPS * NUM_ENVS:,} steps, solved:", solved_at_the_end())
