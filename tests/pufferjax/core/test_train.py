"""The training functions: pure, reproducible, vmappable; the rules that make a sparse reward learnable."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import PPOConfig, StateSetConfig, envs, make_init, make_train, make_update, make_warmup
from pufferjax.core import ppo
from pufferjax.core.train import draw_restarts
from pufferjax.core.types import Transitions


def equal(a, b):
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return all(np.array_equal(data(x), data(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_vmap_over_seeds_is_separate_runs(tiny_env, tiny_config):
    config = tiny_config(total_steps=1024)
    train = make_train(tiny_env, config)
    keys = jax.random.split(jax.random.key(0), 2)
    states, metrics = jax.jit(jax.vmap(train))(keys)
    single = jax.jit(train)
    for i in range(2):
        state, alone = single(keys[i])
        assert metrics["loss"].shape == (2, config.sizes().num_epochs)
        # The simulator and the state set are integers until the policies differ; sums are in another order under vmap.
        for name in ("episodes", "perf", "state_set_size"):
            np.testing.assert_array_equal(metrics[name][i][:2], alone[name][:2], err_msg=name)
        np.testing.assert_allclose(metrics["entropy"][i], alone["entropy"], rtol=0.02)
        assert int(states.state_set.size[i]) == int(state.state_set.size)


def test_same_key_same_run(tiny_env, tiny_config):
    train = jax.jit(make_train(tiny_env, tiny_config(total_steps=1024)))
    assert equal(train(jax.random.key(5)), train(jax.random.key(5)))
    assert not equal(train(jax.random.key(5)), train(jax.random.key(6)))


@pytest.mark.parametrize("make", [make_warmup, make_update])
def test_the_parts_name_what_is_wrong_in_hypers(tiny_env, tiny_config, make):
    config = tiny_config()
    state = jax.eval_shape(make_init(tiny_env, config), jax.random.key(0))
    progress = () if make is make_warmup else (jnp.float32(0),)
    wrong = config.hypers()._replace(gamma=jnp.nan)
    with pytest.raises(ValueError, match=r"hypers\.gamma must be .*, got nan"):
        jax.eval_shape(lambda state: make(tiny_env, config)(state, wrong, *progress), state)
    with pytest.raises(TypeError, match=r"hypers must be a pufferjax\.Hypers, got dict"):
        jax.eval_shape(lambda state: make(tiny_env, config)(state, wrong._asdict(), *progress), state)


def test_hypers_can_be_swept(tiny_env, tiny_config):
    config = tiny_config(total_steps=1024)
    hypers = jax.tree.map(lambda x: jnp.stack([x, x]), config.hypers())
    hypers = hypers._replace(learning_rate=jnp.array([0.0, 0.01]))
    states, _ = jax.jit(jax.vmap(make_train(tiny_env, config), (None, 0)))(jax.random.key(0), hypers)
    init = make_init(tiny_env, config)(jax.random.key(0))
    first = jax.tree.map(lambda x: x[0], states.params)
    second = jax.tree.map(lambda x: x[1], states.params)
    assert equal(first, init.params) and not equal(second, init.params)


def test_nothing_is_learned_before_the_first_reward(tiny_config):
    env = envs.make("maze", size=35, num_mazes=16)  # 128 random steps do not find this goal
    for wait, moves in ((True, False), (False, True)):
        config = tiny_config(
            ppo=PPOConfig(optimizer="adam", minibatch_size=64, wait_for_reward=wait),
            state_set=StateSetConfig(fraction=0.0, interval=8, replay_span=8),
        )
        # Without the gate the entropy bonus alone moves the policy.
        state = make_init(env, config)(jax.random.key(0))
        after, metrics = jax.jit(make_update(env, config))(state, config.hypers(), jnp.float32(0))
        assert not bool(after.reward_seen) and float(metrics["loss"] != 0) == moves
        assert equal(state.params, after.params) != moves


def test_the_log_barrier_revives_actions(tiny_config):
    """Without rewards and entropy bonus nothing but the barrier moves a policy that has all but decided."""
    env = envs.make("maze", size=35, num_mazes=16)  # 128 random steps do not find this goal
    config = tiny_config(
        ppo=PPOConfig(optimizer="adam", minibatch_size=64, wait_for_reward=False, entropy_coef=0.0),
        state_set=StateSetConfig(fraction=0.0, interval=8, replay_span=8),
    )
    update = jax.jit(make_update(env, config))
    state = make_init(env, config)(jax.random.key(0))
    biases = jnp.array([0.0, 12.0, 0.0, 0.0, 0.0, 0.0])  # five actions and the value
    state.params["decoder"]["bias"] = biases
    entropies = {}
    for coef in (0.0, 0.01):
        hypers = config.hypers()._replace(log_barrier_coef=jnp.float32(coef), learning_rate=jnp.float32(0.05))
        after = state
        for _ in range(40):
            after, metrics = update(after, hypers, jnp.float32(0))
        entropies[coef] = float(metrics["entropy"])
        assert equal(state.params, after.params) == (coef == 0)
    assert entropies[0.0] < 0.01 and entropies[0.01] > 0.5


def test_warmup_fills_the_state_set_with_states_near_the_goal(tiny_config):
    env = envs.make("maze", size=9, num_mazes=64)
    config = tiny_config(
        state_set=StateSetConfig(capacity=64, interval=8, replay_span=8, warmup_envs=8, warmup_rewards=8)
    )
    state = jax.jit(make_warmup(env, config))(make_init(env, config)(jax.random.key(0)), config.hypers())
    size = int(state.state_set.size)
    assert bool(state.reward_seen) and int(state.warmup_rewards) >= 8 and size > 0
    assert float(state.warmup_steps) % (8 * 8192) == 0 and float(state.warmup_steps) > 0
    priorities = np.asarray(state.state_set.priorities[:size])
    assert (priorities > 0).all() and priorities.max() == pytest.approx(1.0)
    rows = state.state_set.snapshots[:size]
    restored = env.restore(env.reset(jax.random.key(1), size)[1], rows, jnp.arange(size, dtype=jnp.int32))
    np.testing.assert_array_equal(restored, rows)


def test_warmup_gives_up(tiny_config):
    env = envs.make("maze", size=35, num_mazes=16)
    config = tiny_config(state_set=StateSetConfig(interval=8, replay_span=8, warmup_envs=2, warmup_max_steps=20_000))
    state = jax.jit(make_warmup(env, config))(make_init(env, config)(jax.random.key(0)), config.hypers())
    assert float(state.warmup_steps) == 2 * 8192 and not bool(state.reward_seen)


def transitions(num_steps, num_envs, **changes):
    zeros = jnp.zeros((num_steps, num_envs))
    flags = jnp.zeros((num_steps, num_envs), bool)
    fields = {
        "observations": zeros, "previous_actions": zeros, "starts": flags, "actions": zeros, "log_probs": zeros,
        "values": jnp.full((num_steps, num_envs), 0.5), "rewards": zeros, "terminated": flags, "truncated": flags,
    }  # fmt: skip
    return Transitions(**{**fields, **changes})


def test_a_time_out_is_no_surprise(tiny_config):
    """The value before a time-out must not look wrong: its advantage, and so its priority, stays zero."""
    timed_out = transitions(4, 1, truncated=jnp.zeros((4, 1), bool).at[3].set(True))

    def magnitude(**settings):
        config = tiny_config(ppo=PPOConfig(minibatch_size=64, gamma=1.0, gae_lambda=1.0, **settings))
        values = timed_out.values
        advantages = ppo.advantages_of(config, config.hypers(), timed_out, jnp.array([9.0]), values, jnp.ones((4, 1)))
        return float(jnp.sum(jnp.abs(advantages)))

    assert magnitude() == 0
    assert magnitude(truncation="terminate") == pytest.approx(4 * 0.5)


def test_the_last_step_bootstraps(tiny_config):
    data = transitions(2, 1)

    def last(bootstrap):
        config = tiny_config(ppo=PPOConfig(minibatch_size=64, gamma=1.0, gae_lambda=1.0, bootstrap=bootstrap))
        return float(
            ppo.advantages_of(config, config.hypers(), data, jnp.ones(1), data.values, jnp.ones((2, 1)))[-1, 0]
        )

    assert last(True) == pytest.approx(0.5) and last(False) == 0


def test_restarted_environments_are_the_last_ones_and_never_counted_as_fresh(tiny_env, tiny_config):
    config = tiny_config(state_set=StateSetConfig(capacity=32, fraction=0.5, interval=8, replay_span=8, warmup_envs=4,
                                                  release_from=2, release_until=3))  # fmt: skip
    state = make_init(tiny_env, config)(jax.random.key(0))
    state = jax.jit(make_warmup(tiny_env, config))(state, config.hypers())
    update = jax.jit(make_update(tiny_env, config))
    for epoch in range(3):
        state, metrics = update(state, config.hypers(), jnp.float32(0))
        assert float(metrics["restarted_envs"]) == 8, epoch
    # Near-goal restarts are solved far more often than whole random episodes of 50 steps.
    assert float(metrics["restarted_episodes"]) > 0


def test_the_curriculum_lets_go(tiny_env, tiny_config):
    config = tiny_config(state_set=StateSetConfig(capacity=32, fraction=0.5, interval=8, replay_span=8, warmup_envs=4,
                                                  release_from=0.2, release_until=0.6))  # fmt: skip
    state = jax.jit(make_warmup(tiny_env, config))(make_init(tiny_env, config)(jax.random.key(0)), config.hypers())
    update = jax.jit(make_update(tiny_env, config))
    for rate, expected in ((0.0, 8), (0.2, 8), (0.4, 4), (0.6, 0), (1.0, 0)):
        at_rate = dataclasses.replace(state, recent_episodes=jnp.array([rate * 100, 100.0]))
        assert float(update(at_rate, config.hypers(), jnp.float32(0))[1]["restarted_envs"]) == expected


def one_stored_state(config, walk_fraction):
    """(env, config, train state) whose state set holds a single state, the start of a maze, with priority 1000."""
    env = envs.make("maze", size=15, num_mazes=4)  # 16 steps do not reach its goal
    config = config(
        num_envs=16,
        state_set=StateSetConfig(
            capacity=64, fraction=0.95, interval=8, replay_span=8, walk_fraction=walk_fraction, walk_steps=16
        ),
    )
    state = make_init(env, config)(jax.random.key(0))
    start = env.stagger(jax.random.key(2), env.reset(jax.random.key(1), 1)[1])  # in the midst of an episode
    state_set = state.state_set.insert(env.snapshot(start), jnp.array([1000.0]))
    # A value that differs from state to state gives every environment an advantage.
    kernel = state.params["decoder"]["kernel"]
    kernel = kernel.at[:, -1].set(jnp.linspace(-1, 1, len(kernel)))
    decoder = {**state.params["decoder"], "kernel": kernel}
    return env, config, dataclasses.replace(state, state_set=state_set, params={**state.params, "decoder": decoder})


def test_walks_end_where_a_random_agent_would_be(tiny_config):
    env, config, state = one_stored_state(tiny_config, walk_fraction=0.4)
    restarts = draw_restarts(env, config, config.hypers(), state.state_set, jax.random.key(2), state.env_state[:1])
    times, timeless = env.clock(restarts.rows)
    assert config.num_replayed == 15 and config.num_walked == 6
    np.testing.assert_array_equal(times, [0] * 9 + [1, 2, 4, 8, 16, 16])  # with their whole time before them
    moved = np.any(np.asarray(timeless) != np.asarray(timeless[0]), axis=1)
    assert not moved[:9].any() and moved[9:].any()


def test_a_walker_says_nothing_about_where_its_walk_began(tiny_config):
    for walk_fraction, priority, entered in ((0.0, 900.0, False), (1.0, 1000.0, True)):
        env, config, state = one_stored_state(tiny_config, walk_fraction)
        after, _ = jax.jit(make_update(env, config))(state, config.hypers(), jnp.float32(0))
        assert float(after.state_set.priorities[0]) <= priority  # one decay for every restart from it
        assert (float(after.state_set.priorities[0]) == 1000.0) == (walk_fraction == 1)
        # The only fresh environment offers two states, each walker one.
        assert (int(after.state_set.size) > 3) == entered


def test_the_first_episodes_to_end_are_no_solve_rate(tiny_env, tiny_config):
    config = tiny_config(state_set=StateSetConfig(capacity=32, fraction=0.5, interval=8, replay_span=8, warmup_envs=4,
                                                  release_from=0.2, release_until=0.6))  # fmt: skip
    state = jax.jit(make_warmup(tiny_env, config))(make_init(tiny_env, config)(jax.random.key(0)), config.hypers())
    update = jax.jit(make_update(tiny_env, config))
    # 8 environments x 16 steps / 50 steps x 10 epochs: had all taken their time, 25 episodes would have ended. One
    # solved at once is no rate of 1.
    after_one = dataclasses.replace(state, recent_episodes=jnp.array([1.0, 1.0]))
    assert float(update(after_one, config.hypers(), jnp.float32(0))[1]["restarted_envs"]) == 8


def test_learns_a_small_maze(tiny_config):
    """A random agent fails in a good share of its episodes of 50 steps on 5x5 mazes; a trained one seldom does."""
    env = envs.make("maze", size=5, num_mazes=64)
    config = tiny_config(
        total_steps=64 * 32 * 40, num_envs=64, horizon=32,
        ppo=PPOConfig(minibatch_size=256, replay_ratio=3.0, learning_rate=0.02, gae_lambda=0.95),
        state_set=StateSetConfig(capacity=64, interval=8, replay_span=8, warmup_envs=4),
    )  # fmt: skip
    train = jax.jit(make_train(env, config))

    def last_rate(learning_rate):
        hypers = config.hypers()._replace(learning_rate=jnp.float32(learning_rate))
        _, metrics = train(jax.random.key(0), hypers)
        return float(jnp.sum(metrics["perf"][-5:]) / jnp.sum(metrics["episodes"][-5:]))

    assert last_rate(0.0) < 0.8 and last_rate(0.02) > 0.95


@pytest.mark.parametrize("make", [make_init, make_update, make_train])
def test_what_cannot_be_trained_is_named(make, tiny_env, tiny_config):
    with pytest.raises(TypeError, match=r"env must be an environment, as pufferjax\.envs\.make.* returns it, got str"):
        make("maze", tiny_config())
    with pytest.raises(TypeError, match=r"config must be a pufferjax\.TrainConfig, got dict"):
        make(tiny_env, {})
    with jax.enable_x64(True), pytest.raises(ValueError, match="jax_enable_x64 must be off"):
        make(tiny_env, tiny_config())


def test_an_environment_is_a_static_argument(tiny_env):
    observe = jax.jit(lambda env, state: env.observe(state), static_argnums=0)
    observations, state = tiny_env.reset(jax.random.key(0), 3)
    np.testing.assert_array_equal(observe(tiny_env, state), observations)
