"""pufferjax.evaluate and pufferjax.render: whole fresh episodes, one per environment."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import envs
from pufferjax.core.evaluate import make_first_episodes, make_step
from pufferjax.core.policy import init_params, make_policy
from pufferjax.core.rollout import RolloutConfig, initial_memory, rollout
from pufferjax.watch.render import episode_gif

POLICY = pufferjax.PolicyConfig(hidden_size=4, num_layers=1, encoder_layers=0)
LONGEST = 20


def countdown_env():
    """State: (steps left, length). An episode lasts 1 to 20 steps, and is solved if it lasts more than 10.

    `score` is the last action.
    """
    spec = envs.EnvSpec(
        name="countdown",
        obs_shape=(1,),
        obs_dtype=np.dtype(np.uint8),
        obs_max=LONGEST,
        num_actions=(4,),
        num_agents=1,
        state_bytes=2,
        max_episode_steps=LONGEST,
        action_names=(("a", "b", "c", "d"),),
    )

    def begin(key, num_envs):
        length = jax.random.randint(key, (num_envs, 1), 1, LONGEST + 1).astype(jnp.uint8)
        return jnp.concatenate([length, length], axis=1)

    def reset(key, num_envs):
        state = begin(key, num_envs)
        return state[:, :1], state

    def step(key, state, action):
        left, length = state[:, 0] - 1, state[:, 1]
        ended = left == 0
        zero = jnp.zeros(state.shape[0])
        info = {
            "episode_return": zero,
            "episode_length": jnp.where(ended, length, 0).astype(jnp.int32),
            "score": jnp.where(ended, action, 0).astype(jnp.float32),
            "perf": jnp.where(ended & (length > LONGEST // 2), 1.0, 0.0),
        }
        state = jnp.where(ended[:, None], begin(key, state.shape[0]), jnp.stack([left, length], axis=1))
        return state[:, :1], state, zero, ended, jnp.zeros_like(ended), info

    return envs.Env(spec, {}, reset, step, None, None, None, None, lambda row: np.full((8, 8, 3), row[0], np.uint8))


def constant_policy(env, probabilities):
    """A policy that ignores everything and acts with these probabilities."""
    policy = make_policy(env.spec, POLICY)
    params = jax.tree.map(jnp.zeros_like, init_params(policy, jax.random.key(0)))
    params["decoder"]["bias"] = jnp.log(jnp.asarray([*probabilities, 1.0], jnp.float32))
    return policy, params


def test_long_episodes_count_as_much_as_short_ones():
    env = countdown_env()
    policy, params = constant_policy(env, [0.25] * 4)
    result = pufferjax.evaluate(env, policy, params, jax.random.key(1), num_episodes=20_000)
    assert result["episodes"] == 20_000
    # Uniform lengths 1..20: five standard errors. Counting what ends first would give far less.
    assert abs(result["perf"] - 0.5) < 5 * 0.5 / 20_000**0.5
    assert abs(result["episode_length"] - 10.5) < 5 * 5.77 / 20_000**0.5
    assert result["perf_stderr"] == pytest.approx(0.5 / 20_000**0.5, rel=0.01)


def test_the_log_agrees_about_a_policy_that_stays_as_it_is(tiny_env):
    """The figures of training, whose episodes run on from epoch to epoch, and those of whole first episodes."""
    env, num_envs, horizon = tiny_env, 256, 64
    policy = make_policy(env.spec, POLICY)
    params = init_params(policy, jax.random.key(0))
    collect = jax.jit(functools.partial(rollout, RolloutConfig(horizon, horizon, num_envs, True), env, policy, params))
    observations, env_state = env.reset(jax.random.key(1), num_envs)
    memory = initial_memory(policy, num_envs)
    is_fresh, sums = jnp.ones(num_envs, bool), []
    for epoch in range(30):
        env_state, observations, memory, is_fresh, _, _, fresh, _ = collect(
            jax.random.key(epoch), env_state, observations, memory, is_fresh, jnp.zeros(num_envs, bool)
        )
        sums.append([float(x) for x in (fresh.episodes, fresh.perf, fresh.episode_length)])
    # Before every environment has had time for several episodes, mostly short ones have ended.
    episodes, perf, length = np.sum(sums[4:], axis=0)
    result = pufferjax.evaluate(env, policy, params, jax.random.key(1), num_episodes=4000)
    error = 5 * result["perf_stderr"] * (1 + 4000 / episodes) ** 0.5
    assert perf / episodes == pytest.approx(result["perf"], abs=error) and error < 0.06
    assert length / episodes == pytest.approx(result["episode_length"], rel=0.04)


def test_actions_are_sampled_unless_greedy():
    env = countdown_env()
    policy, params = constant_policy(env, [0.1, 0.2, 0.1, 0.6])
    sampled = pufferjax.evaluate(env, policy, params, jax.random.key(1), num_episodes=10_000)
    assert sampled["score"] == pytest.approx(0.2 + 0.2 + 1.8, abs=0.06)
    greedy = pufferjax.evaluate(env, policy, params, jax.random.key(1), num_episodes=100, greedy=True)
    assert greedy["score"] == 3.0


@pytest.mark.parametrize("num_episodes", [1, 7, 2049])
def test_exactly_as_many_episodes_as_asked(num_episodes):
    env = countdown_env()
    policy, params = constant_policy(env, [0.25] * 4)
    result = pufferjax.evaluate(env, policy, params, jax.random.key(2), num_episodes=num_episodes)
    assert result["episodes"] == num_episodes
    assert result["episode_length"] * num_episodes == pytest.approx(round(result["episode_length"] * num_episodes))
    assert (result["perf_stderr"] is None) == (num_episodes == 1)


def test_figures_that_are_no_numbers():
    env = countdown_env()

    def step(key, state, action):
        *rest, info = env.step(key, state, action)
        return *rest, {**info, "score": jnp.where(info["episode_length"] == 7, jnp.nan, info["score"])}

    policy, params = constant_policy(env, [0.25] * 4)
    figures = pufferjax.evaluate(dataclasses.replace(env, step=step), policy, params, jax.random.key(0), 200)
    assert figures["score"] is None and 0 < figures["perf"] < 1 and figures["perf_stderr"] > 0


def test_uncounted_environments_give_zeros():
    env = countdown_env()
    policy, params = constant_policy(env, [0.25] * 4)
    play = make_first_episodes(env, policy, 6, greedy=False)
    figures = play(params, jax.random.key(3), jnp.arange(6) < 4)
    assert np.all(figures["episode_length"][:4] > 0) and np.all(figures["episode_length"][4:] == 0)


def test_against_a_plain_loop_on_the_maze(tiny_env):
    env = tiny_env
    policy = make_policy(env.spec, POLICY)
    params = init_params(policy, jax.random.key(0))
    key, num_envs = jax.random.key(4), 8
    figures = jax.jit(make_first_episodes(env, policy, num_envs, greedy=False))(params, key, jnp.ones(num_envs, bool))
    step = jax.jit(make_step(env, policy, greedy=False))
    key_reset, key_steps = jax.random.split(key)
    observations, env_state = env.reset(key_reset, num_envs)
    agents = (env_state, observations, initial_memory(policy, num_envs))
    expected: dict[int, tuple[float, int]] = {}
    for t in range(env.spec.max_episode_steps):
        agents, ended, info = step(params, jax.random.fold_in(key_steps, t), agents)
        for lane in np.flatnonzero(ended):
            expected.setdefault(int(lane), (float(info["perf"][lane]), t + 1))
    assert len(expected) == num_envs
    for lane, (perf, length) in expected.items():
        assert (figures["perf"][lane], figures["episode_length"][lane]) == (perf, length)


def test_same_key_same_figures(tiny_run, tiny_env, tiny_config):
    env, params = tiny_env, tiny_run.train_state.params
    results = [pufferjax.evaluate(env, tiny_config().policy, params, jax.random.key(key), 50) for key in (0, 0, 1)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("num_episodes", [0, -1, 1.5, True, None])
def test_bad_counts(num_episodes):
    with pytest.raises(ValueError, match="num_episodes must be an integer >= 1"):
        pufferjax.evaluate(countdown_env(), POLICY, {}, jax.random.key(0), num_episodes)


def test_unseen_levels():
    env = envs.make("maze", size=7, num_mazes=16, seed=2**63 - 1)
    other = pufferjax.unseen(env)
    assert other.params["seed"] != env.params["seed"] and 0 <= other.params["seed"] < 2**63
    assert other.params["num_mazes"] == 8192 and other.params["size"] == 7
    assert pufferjax.unseen(envs.make("maze", size=7, num_mazes=0)).params["num_mazes"] == 0
    assert pufferjax.unseen(envs.make("maze", size=7, num_mazes=10_000)).params["num_mazes"] == 10_000
    countdown = countdown_env()
    assert pufferjax.unseen(countdown) is countdown


def test_gif_of_a_solved_episode(tmp_path, tiny_env):
    from PIL import Image

    env = tiny_env
    policy = make_policy(env.spec, POLICY)
    params = init_params(policy, jax.random.key(0))
    path = tmp_path / "episode.gif"
    facts = episode_gif(env, policy, params, jax.random.key(0), path, max_frames=10)
    assert facts["solved"] and facts["perf"] == 1.0  # a random walk solves size 5 often enough
    assert facts["frames"] == min(10, facts["steps"])
    with Image.open(path) as image:
        assert image.format == "GIF" and 1 <= image.n_frames <= facts["frames"]  # equal frames are merged
        assert image.size == tuple(reversed(env.render(env.reset(jax.random.key(0), 1)[1][0]).shape[:2]))
    assert path.stat().st_size < 500_000
    assert [file.name for file in tmp_path.iterdir()] == ["episode.gif"]


def test_gif_replays_the_chosen_episode(tmp_path):
    from PIL import Image

    env = countdown_env()  # renders the steps left as a grey level
    policy, params = constant_policy(env, [0.25] * 4)
    facts = episode_gif(env, policy, params, jax.random.key(5), tmp_path / "countdown.gif")
    assert facts["solved"] and facts["steps"] > LONGEST // 2 and facts["frames"] == facts["steps"]
    with Image.open(tmp_path / "countdown.gif") as image:
        assert image.convert("RGB").getpixel((0, 0))[0] == facts["steps"]
