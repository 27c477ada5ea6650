"""Training as pure functions: `make_init`, `make_update`, and `make_train`, which scans them after the warm-up.

One epoch: sample the state set -> walk on from some of it -> restore -> rollout -> train -> re-score with the trained
policy -> update the set.
The order matters: scores must come from the policy that will meet the states next, and only then enter the heap.

`make_update` is `draw_restarts`, `make_epoch` and `judge` in one; `pufferjax.core.two_programs` runs the middle one on
an accelerator and the others, which are all that touches the set, on the host.
"""

import dataclasses

import jax
import jax.numpy as jnp

from pufferjax.core import normalization, ppo
from pufferjax.core.actions import forget_previous
from pufferjax.core.config import WALK_LENGTHS, Hypers, TrainConfig, check_hypers
from pufferjax.core.diagnostics import entered_slots, state_set_metrics
from pufferjax.core.optimizers import make_optimizer
from pufferjax.core.policy import ActorCritic, as_policy, init_params
from pufferjax.core.rollout import RolloutConfig, forget, initial_memory, look, per_agent, rollout
from pufferjax.core.state_set import StateSet
from pufferjax.core.types import EpisodeSums, Memory, Offer, Restarts, TrainState
from pufferjax.core.varying import vary_as
from pufferjax.core.warmup import make_warmup
from pufferjax.envs import Env
from pufferjax.xla_ops.checks import usual_promotion

RECENT_DECAY = 0.9  # per epoch, of the sums behind the recent solve rate


def _own(key: jax.Array, axis_name: str | None) -> jax.Array:
    """The key itself, or, on the devices of a mesh axis, a different one for each."""
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def _total(x, axis_name: str | None):
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def epoch_keys(key: jax.Array, axis_name: str | None):
    """(key of the next epoch, for the state set, for the rollout, for training), of the `key` of a train state."""
    key, key_own = jax.random.split(key)
    return key, *jax.random.split(_own(key_own, axis_name), 3)


def check_trainable(env: Env, config: TrainConfig) -> None:
    """TypeError if `env` or `config` is no such thing, ValueError naming the field of a config that does not fit the
    environment, or if JAX is in 64-bit mode."""
    if not isinstance(env, Env):
        made_by = "pufferjax.envs.make(name) or pufferjax.envs.from_gymnax(env)"
        raise TypeError(f"env must be an environment, as {made_by} returns it, got {type(env).__name__}")
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a pufferjax.TrainConfig, got {type(config).__name__}")
    if jax.config.jax_enable_x64:
        raise ValueError("jax_enable_x64 must be off: training computes in 32 bits; use `with jax.enable_x64(False):`")
    config.sizes(env.spec.num_agents)
    most = config.fitted(env.spec.state_bytes).state_set.capacity
    if config.state_set.capacity > most:
        raise ValueError(
            f"state_set.capacity must be at most {most} for states of {env.spec.state_bytes} bytes, got "
            f"{config.state_set.capacity}: more takes over state_set.max_bytes = {config.state_set.max_bytes}"
        )


def make_init(env: Env, config: TrainConfig, policy: ActorCritic | None = None, axis_name: str | None = None):
    """`init(key) -> TrainState`: a fresh policy, environments with spread-out clocks, an empty state set."""
    check_trainable(env, config)
    policy = as_policy(env.spec, policy, config.policy)

    @usual_promotion()
    def init(key: jax.Array) -> TrainState:
        key, key_params, key_own = jax.random.split(key, 3)
        key_reset, key_stagger = jax.random.split(_own(key_own, axis_name))
        params = init_params(policy, key_params)
        observations, env_state = env.reset(key_reset, config.num_envs)
        return TrainState(
            params=params,
            opt_state=make_optimizer(config).init(params),
            env_state=env.stagger(key_stagger, env_state),
            observations=observations,
            memory=initial_memory(policy, len(observations)),
            reward_scale=normalization.create_reward_scale(len(observations)) if config.ppo.scale_rewards else None,
            is_fresh=jnp.zeros(config.num_envs, bool),  # staggered episodes have less time than fresh ones
            recent_episodes=jnp.zeros(2),
            state_set=StateSet.create(config.state_set.capacity, env.spec.state_bytes),
            born=jnp.zeros(config.state_set.capacity, jnp.int32),
            key=key,
            epoch=jnp.int32(0),
            reward_seen=jnp.bool_(False),
            warmup_steps=jnp.float32(0),
            warmup_rewards=jnp.int32(0),
        )

    return init


def draw_restarts(env: Env, config: TrainConfig, hypers: Hypers, state_set: StateSet, key, spare) -> Restarts:
    """From where the environments that may restart would begin.

    spare: u8[C, S] or u8[1, S], any states of `env`; they take the place of what an empty set does not hold.
    """
    num_replayed, num_walked = config.num_replayed, config.num_walked
    key, key_walk = jax.random.split(key)
    slots, importance = state_set.sample(
        key, num_replayed, hypers.state_priority_exponent, hypers.state_importance_exponent
    )
    rows = state_set.snapshots[slots]
    if config.state_set.reset_clock:
        _, rows = env.clock(rows)
    rows = jnp.where(state_set.size > 0, rows, spare)
    if num_walked:
        rows = rows.at[-num_walked:].set(_walk(env, config, key_walk, rows[-num_walked:]))
    is_held = jnp.broadcast_to(state_set.size >= config.state_set.min_states, (num_replayed,))
    return Restarts(slots, importance, rows, is_held)


def _walk(env: Env, config: TrainConfig, key, rows):
    """rows u8[W, S] after random walks: equal parts of them, in order, take the lengths of `WALK_LENGTHS`."""
    taken = 0
    for i, divisor in enumerate(WALK_LENGTHS):
        first = len(rows) * i // len(WALK_LENGTHS)  # these and all after them walk on to the next length
        steps = config.state_set.walk_steps // divisor - taken
        walked, *_ = env.random_walk(jax.random.fold_in(key, i), rows[first:], steps, interval=steps, num_snapshots=1)
        rows = rows.at[first:].set(walked)
        taken += steps
    return rows


def _restart(env: Env, config: TrainConfig, train_state: TrainState, restarts: Restarts, axis_name: str | None):
    """Restores the last environments, as many as the solve rate allows, if the set held enough.

    Returns (env_state, observations, memory, is_fresh, is_restarted bool[N], row_importance f32[N * K]).
    """
    num_envs, num_replayed = config.num_envs, config.num_replayed
    memory = train_state.memory
    num_active = jnp.round(num_replayed * _share(env, config, train_state, axis_name)).astype(jnp.int32)
    replayed_envs = jnp.arange(num_envs - num_replayed, num_envs, dtype=jnp.int32)
    is_replayed = restarts.is_held & (replayed_envs >= num_envs - num_active)
    is_restarted = jnp.zeros(num_envs, bool).at[replayed_envs].set(is_replayed)
    own_rows = env.snapshot(train_state.env_state)[replayed_envs]
    rows = jnp.where(is_replayed[:, None], restarts.rows, own_rows)
    env_state = env.restore(train_state.env_state, rows, replayed_envs)
    # Snapshots hold the simulator, not its agents: those of a restarted one begin with an empty memory.
    forgets = per_agent(is_restarted, env)
    memory = Memory(
        recurrent=forget(memory.recurrent, forgets),
        previous_actions=forget_previous(memory.previous_actions, forgets),
    )
    env_importance = jnp.ones(num_envs).at[replayed_envs].set(jnp.where(is_replayed, restarts.importance, 1.0))
    is_fresh = train_state.is_fresh & ~is_restarted
    return env_state, env.observe(env_state), memory, is_fresh, is_restarted, per_agent(env_importance, env)


def _share(env: Env, config: TrainConfig, train_state: TrainState, axis_name: str | None):
    """How much of the restarted fraction is in use, f32[] in [0, 1], from the recent solve rate of fresh episodes.

    All of it where episodes never end, or where nobody said how good they are: there is no solve rate.
    """
    if env.spec.max_episode_steps == 0 or not env.spec.has_perf:
        return jnp.float32(1)
    perf, episodes = train_state.recent_episodes
    # While the first episodes are under way only solved ones have ended, so at least as many count as would have ended
    # if each took all its time.
    fewest_per_epoch = (config.num_envs - config.num_replayed) * config.horizon / env.spec.max_episode_steps
    fewest = _total(jnp.float32(fewest_per_epoch), axis_name) / (1 - RECENT_DECAY)
    rate = perf / jnp.maximum(episodes, fewest)
    low, high = config.state_set.release_from, config.state_set.release_until
    return jnp.clip((high - rate) / max(high - low, 1e-6), 0.0, 1.0)


def _scores(config: TrainConfig, advantages):
    """(candidates f32[T / interval * F], replayed f32[C]): sum of |advantage|, f32[T, N * K], over all agents of a
    simulator and the steps after each snapshot."""
    num_fresh = config.num_envs - config.num_replayed
    magnitude = jnp.sum(jnp.abs(advantages).reshape(config.horizon, config.num_envs, -1), axis=-1)
    chunks = magnitude[:, :num_fresh].reshape(-1, config.state_set.interval, num_fresh)
    return jnp.sum(chunks, axis=1).reshape(-1), jnp.sum(magnitude[: config.state_set.replay_span, num_fresh:], axis=0)


def judge(
    config: TrainConfig, hypers: Hypers, state_set: StateSet, born, epoch, slots, offer: Offer, rows, is_current=True
) -> tuple[StateSet, StateSet, jax.Array]:
    """(rescored, state_set, born): the set after the restarted slots got their new priorities, then with what entered.

    slots: i32[C], from which the environments that may restart began. rows: u8[T / interval * F + W, S], the
    candidates: what fresh environments passed through, then where the walks of the W walkers (the last of C) had ended.
    is_current: bool[C], False where the slot has got another state since, of which the score says nothing.
    """
    first_walked = config.num_replayed - config.num_walked
    is_slot = offer.is_restarted & (jnp.arange(config.num_replayed) < first_walked) & is_current
    rescored = state_set.rescore(slots, offer.replayed_scores, hypers.state_decay, is_slot)
    is_offered = offer.is_restarted & (offer.replayed_scores > 0)
    state_set = rescored.insert(
        rows,
        jnp.concatenate([offer.candidate_scores, offer.replayed_scores[first_walked:]]),
        jnp.concatenate([offer.candidate_scores > 0, is_offered[first_walked:]]),
    )
    return rescored, state_set, jnp.where(entered_slots(rescored, state_set), epoch, born)


def make_epoch(env: Env, config: TrainConfig, policy: ActorCritic | None = None, axis_name: str | None = None):
    """`epoch(train_state, restarts, hypers, progress) -> (train_state, metrics, offer)`: an epoch but for what concerns
    the state set, whose figures the metrics lack and which stays as it is; pure.

    restarts and offer: None without a state set (`fraction` = 0). Else as for `make_update`.
    """
    policy = as_policy(env.spec, policy, config.policy)
    sizes = config.sizes(env.spec.num_agents)
    optimizer = make_optimizer(config)
    num_replayed = config.num_replayed
    rollout_config = RolloutConfig(
        config.horizon, config.state_set.interval, config.num_envs - num_replayed, config.ppo.reset_memory
    )

    @usual_promotion()
    def epoch(train_state: TrainState, restarts: Restarts | None, hypers: Hypers, progress):
        hypers = check_hypers(hypers)
        key, _, key_rollout, key_train = epoch_keys(train_state.key, axis_name)
        num_envs = config.num_envs
        is_restarted, row_importance = jnp.zeros(num_envs, bool), jnp.ones(sizes.num_rows)
        env_state, observations = train_state.env_state, train_state.observations
        memory, is_fresh = train_state.memory, train_state.is_fresh
        if num_replayed:
            env_state, observations, memory, is_fresh, is_restarted, row_importance = _restart(
                env, config, train_state, restarts, axis_name
            )
        first_recurrent = memory.recurrent
        env_state, observations, memory, is_fresh, transitions, snapshots, fresh, restarted = rollout(
            rollout_config, env, policy, train_state.params, key_rollout, env_state, observations, memory, is_fresh,
            is_restarted,
        )  # fmt: skip
        met_rewards, reward_scale = transitions.rewards, train_state.reward_scale
        if reward_scale is not None:
            reward_scale, transitions = normalization.scale_rewards(
                reward_scale, transitions, per_agent(is_restarted, env), hypers.gamma, config.ppo.reward_clip, axis_name
            )
        else:
            transitions = normalization.clip_rewards(transitions, config.ppo.reward_clip)
        _, bootstrap_values, _ = look(policy, train_state.params, observations, memory)
        bad_rewards, is_bad = ppo.bad_rows(transitions)
        is_reward = (met_rewards != 0) & jnp.isfinite(met_rewards)
        num_rewards = _total(jnp.sum(is_reward), axis_name)
        reward_seen = train_state.reward_seen | (num_rewards > 0)

        def learn(params, opt_state):
            return ppo.train_on(
                config, policy, optimizer, hypers, progress, params, opt_state, transitions, first_recurrent,
                bootstrap_values, row_importance, is_bad, key_train, sizes.num_minibatches, axis_name,
            )  # fmt: skip

        def wait(params, opt_state):
            losses = ppo.LossMetrics(*(jnp.zeros(()) for _ in dataclasses.fields(ppo.LossMetrics)))
            nothing = params, opt_state, transitions.values, jnp.ones_like(transitions.values), losses
            return vary_as(nothing, (transitions.values, params))

        can_learn = reward_seen if config.ppo.wait_for_reward else jnp.bool_(True)
        params, opt_state, values, ratios, losses = jax.lax.cond(
            can_learn & (sizes.num_minibatches > 0), learn, wait, train_state.params, train_state.opt_state
        )

        offer = None
        if num_replayed:
            advantages = ppo.advantages_of(config, hypers, transitions, bootstrap_values, values, ratios)
            # What scores NaN or infinity has no priority: it would outlast everything in the set.
            scores = (jnp.where(jnp.isfinite(x), x, 0.0) for x in _scores(config, advantages))
            offer = Offer(*scores, is_restarted[-num_replayed:], snapshots)

        params = normalization.renew_observation_statistics(
            env.spec, params, transitions.observations, is_bad, axis_name
        )
        learning_rate, entropy_coef = ppo.schedule(hypers, progress)
        sums = {
            **_episode_metrics("", fresh),
            **_episode_metrics("restarted_", restarted),
            "restarted_envs": jnp.sum(is_restarted.astype(jnp.float32)),
            "bad_rows": jnp.sum(is_bad.astype(jnp.float32)),
            "bad_reward_rows": jnp.sum(bad_rewards.astype(jnp.float32)),
        }
        means = {field.name: getattr(losses, field.name) for field in dataclasses.fields(losses)}
        if axis_name is not None:
            means = jax.lax.pmean(means, axis_name)
        sums = _total(sums, axis_name)
        metrics = {
            **sums,
            **means,
            "rewards": num_rewards.astype(jnp.float32),
            "learning_rate": learning_rate,
            "entropy_coef": entropy_coef,
        }
        if reward_scale is not None:
            metrics["reward_factor"] = normalization.deviation_factor(reward_scale.variance)
        latest_episodes = jnp.stack([sums["perf"], sums["episodes"]])
        # Episodes without a solve rate leave the recent one as it is: a NaN in it would stay for ever.
        latest_episodes = jnp.where(jnp.isfinite(sums["perf"]), latest_episodes, 0.0)
        if not env.spec.has_perf:
            metrics = {name: x for name, x in metrics.items() if name not in ("perf", "restarted_perf")}
        train_state = dataclasses.replace(
            train_state,
            params=params,
            opt_state=opt_state,
            env_state=env_state,
            observations=observations,
            memory=memory,
            reward_scale=reward_scale,
            is_fresh=is_fresh,
            recent_episodes=RECENT_DECAY * train_state.recent_episodes + latest_episodes,
            key=key,
            epoch=train_state.epoch + 1,
            reward_seen=reward_seen,
        )
        return train_state, metrics, offer

    return epoch


def make_update(env: Env, config: TrainConfig, policy: ActorCritic | None = None, axis_name: str | None = None):
    """`update(train_state, hypers, progress) -> (train_state, metrics)`: one epoch; pure.

    progress f32[] in [0, 1] drives the schedules. metrics is a dict of f32 scalars; episode figures are sums over the
    fresh episodes that ended in this epoch (those that began with a reset, in environments never restarted). Without
    perf and restarted_perf where `env.spec.has_perf` is False.
    axis_name: of a mesh axis whose devices each run `config.num_envs` environments and keep a state set of their own;
    see `pufferjax.core.parallel`.
    """
    check_trainable(env, config)
    policy = as_policy(env.spec, policy, config.policy)
    run_epoch = make_epoch(env, config, policy, axis_name)
    num_replayed = config.num_replayed

    @usual_promotion()
    def update(train_state: TrainState, hypers: Hypers, progress) -> tuple[TrainState, dict[str, jax.Array]]:
        hypers = check_hypers(hypers)
        state_set, born, epoch = train_state.state_set, train_state.born, train_state.epoch
        restarts = None
        if num_replayed:
            # The epoch splits the same key for itself.
            key = epoch_keys(jax.random.clone(train_state.key), axis_name)[1]
            spare = env.snapshot(train_state.env_state)[-num_replayed:]
            restarts = draw_restarts(env, config, hypers, state_set, key, spare)
        train_state, metrics, offer = run_epoch(train_state, restarts, hypers, progress)
        rescored = state_set
        if num_replayed:
            walked = restarts.rows[num_replayed - config.num_walked :]
            rows = jnp.concatenate([offer.snapshots.reshape(-1, env.spec.state_bytes), walked])
            rescored, state_set, born = judge(config, hypers, state_set, born, epoch, restarts.slots, offer, rows)
        metrics |= state_set_metrics(env, rescored, state_set, born, epoch, axis_name)
        return dataclasses.replace(train_state, state_set=state_set, born=born), metrics

    return update


def _episode_metrics(prefix: str, sums: EpisodeSums) -> dict[str, jax.Array]:
    return {f"{prefix}{field.name}": getattr(sums, field.name) for field in dataclasses.fields(sums)}


def make_train(env: Env, config: TrainConfig, policy: ActorCritic | None = None):
    """`train(key, hypers=None) -> (TrainState, metrics)`: a whole run as one pure function.

    jit it, vmap it over keys or hypers; metrics is a dict of f32[num_epochs]. Defaults of `hypers`: `config.hypers()`.
    The warm-up, the state set and the schedules are inside.
    """
    init = make_init(env, config, policy)
    warmup = make_warmup(env, config)
    update = make_update(env, config, policy)
    num_epochs = config.sizes(env.spec.num_agents).num_epochs

    @usual_promotion()
    def train(key: jax.Array, hypers: Hypers | None = None):
        hypers = check_hypers(config.hypers() if hypers is None else hypers)
        train_state = vary_as(init(key), (key, hypers))
        train_state = warmup(train_state, hypers)

        def epoch(train_state, index):
            train_state, metrics = update(train_state, *vary_as((hypers, index / num_epochs), (key, hypers)))
            return vary_as(train_state, (key, hypers)), metrics

        return jax.lax.scan(epoch, train_state, jnp.arange(num_epochs, dtype=jnp.float32))

    return train
