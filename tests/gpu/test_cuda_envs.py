"""Every simulator on a GPU has the bits of the same simulator on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs import actions as env_actions

pytestmark = pytest.mark.gpu

CPU = jax.devices("cpu")[0]
CASES = [
    ("maze", {"size": 5, "num_mazes": 0}),
    ("maze", {"size": 9, "num_mazes": 16, "seed": 7}),
    ("maze", {"size": 35, "num_mazes": 64, "vision": 31}),
    ("maze", {"size": 127, "num_mazes": 3, "vision": 3}),
    ("maze", {"size": 127, "num_mazes": 0, "vision": 13}),
    ("boxoban", {"num_levels": 32, "max_steps": 30}),
    (
        "boxoban",
        {"num_levels": 9, "num_pulls": 4, "target_loss_penalty": 0.1, "timeout_reward": -1, "egocentric": True},
    ),
    ("breakout", {}),
    ("breakout", {"frame_skip": 1, "max_steps": 60, "clip_reward": False}),
    ("breakout", {"frame_skip": 64}),
    ("breakout", {"max_steps": 60, "continuous": True}),
    ("chain_mdp", {"num_states": 3}),
    ("chain_mdp", {"num_states": 256}),
    ("four_rooms", {"size": 5}),
    ("four_rooms", {}),
    ("four_rooms", {"size": 49}),
    ("g2048", {}),
    ("g2048", {"scaffolding": 0.5}),
    ("minigrid", {"task": "DoorKey-8x8"}),
    ("minigrid", {"task": "MultiRoom-N7-S8", "max_steps": 40}),
    ("minigrid", {"task": "KeyCorridorS3R3", "max_steps": 40, "see_through_walls": True}),
    ("minigrid", {"task": "ObstructedMaze-Full", "max_steps": 40}),
    ("minimal", {"max_steps": 40}),
    ("minimal", {"max_steps": 0}),
    ("password", {"length": 1}),
    ("password", {"length": 512}),
]
NUM_ENVS, NUM_STEPS, NUM_LANES, NUM_LANE_ENVS = 333, 100, 3, 5
ENV_IDS = np.array([3, 330, 3, 0, 5, 3, 0], np.int32)  # the last of several counts


@pytest.fixture(params=CASES, ids=str)
def env(request):
    name, params = request.param
    return envs.make(name, **params)


def random_actions(env, key, num_envs):
    if env.spec.action_low:
        return env_actions.random_actions(env.spec, key, (num_envs * env.spec.num_agents,))
    heads = jax.random.split(key, len(env.spec.num_actions))
    shape = (num_envs * env.spec.num_agents,)
    actions = [jax.random.randint(k, shape, 0, n, jnp.int32) for k, n in zip(heads, env.spec.num_actions, strict=True)]
    return actions[0] if len(actions) == 1 else jnp.stack(actions, axis=-1)


def play(env, key):
    """What every function of the simulator gives, in one program: {what: results}."""
    key_reset, key_stagger, key_steps, key_lanes, key_walk = jax.random.split(key, 5)
    first_obs, first = env.reset(key_reset, NUM_ENVS)
    staggered = env.stagger(key_stagger, first)

    def step(state, key):
        key_action, key_step = jax.random.split(key)
        obs, state, *rest = env.step(key_step, state, random_actions(env, key_action, NUM_ENVS))
        return state, (state, obs, *rest)

    last, steps = jax.lax.scan(step, staggered, jax.random.split(key_steps, NUM_STEPS))
    key_lanes, key_lane_steps = jax.random.split(key_lanes)
    lanes_obs, lanes = jax.vmap(lambda k: env.reset(k, NUM_LANE_ENVS))(jax.random.split(key_lanes, NUM_LANES))

    def step_lane(key, state):
        return env.step(key, state, random_actions(env, key, NUM_LANE_ENVS))

    return {
        "reset": (first_obs, first),
        "stagger": staggered,
        "step": steps,
        "observe": env.observe(last),
        "clock": env.clock(last),
        "restore": env.restore(last, first[10:17], ENV_IDS),
        # XLA gives a slice as a view into the states: in place, rows would be overwritten before they are read.
        "restore of its own rows": env.restore(last, last[: NUM_ENVS // 2], np.arange(NUM_ENVS // 2) * 7 % NUM_ENVS),
        "reset of lanes": (lanes_obs, lanes),
        "random_walk": env.random_walk(key_walk, last, 301, 4, 3),
        "random_walk of lanes": jax.vmap(lambda k, s: env.random_walk(k, s, 50, 1, 2))(
            jax.random.split(key_walk, NUM_LANES), lanes
        ),
        "step of lanes": jax.vmap(step_lane)(jax.random.split(key_lane_steps, NUM_LANES), lanes),
    }


def assert_same(got, expected):
    def compare(path, one, other):
        np.testing.assert_array_equal(one, other, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, got, expected)


def test_every_function_has_the_bits_of_the_cpu(gpu, env):
    play_env = jax.jit(lambda key: play(env, key))
    got, expected = (
        jax.tree.map(np.asarray, play_env(jax.device_put(jax.random.key(0), device))) for device in (gpu, CPU)
    )
    assert_same(got, expected)
    _, _, _, terminated, truncated, _ = got["step"]
    assert (terminated | truncated).any() == (env.spec.max_episode_steps > 0)  # restarts were compared too


def test_bad_values_are_visible_and_harmless(gpu, env):
    """A GPU cannot raise: the reward is NaN, the observation of what is no state zeros, and nothing else changes."""
    num_envs, agents = 4, env.spec.num_agents
    _, state = env.reset(jax.random.key(0), num_envs)
    state = np.array(state)
    has_bad_states = env.spec.name != "minimal"  # where any bytes are safe
    if has_bad_states:
        state[2] = 255
    actions = np.zeros_like(random_actions(env, jax.random.key(1), num_envs)).reshape(num_envs, agents, -1)
    actions[1, -1, -1], actions[3, 0, 0] = (1.5, np.nan) if env.spec.action_low else (env.spec.num_actions[-1], -1)
    actions = actions.reshape(random_actions(env, jax.random.key(1), num_envs).shape)
    state, actions = jax.device_put((state, actions), gpu)
    obs, after, reward, terminated, truncated, _ = jax.jit(env.step)(jax.random.key(2), state, actions)
    bad = np.array([False, True, has_bad_states, True])
    np.testing.assert_array_equal(np.isnan(reward), np.repeat(bad, agents))
    np.testing.assert_array_equal(np.asarray(after)[bad], np.asarray(state)[bad])
    assert not np.asarray(terminated | truncated)[np.repeat(bad, agents)].any()
    seen = np.asarray(jax.jit(env.observe)(state)).reshape(num_envs, -1)
    assert has_bad_states != seen[2].any()
    assert has_bad_states != np.asarray(obs).reshape(num_envs, -1)[2].any()
    # Rows that the simulator cannot have produced, and environments that are not there, are left out.
    rows = np.asarray(state)[[2, 0, 0]]
    rows[0] = 255
    restored = jax.jit(env.restore)(state, *jax.device_put((rows, np.array([0, -1, num_envs], np.int32)), gpu))
    np.testing.assert_array_equal(restored, state)
    if has_bad_states:
        after, _, counts, rewarded = jax.jit(lambda s: env.random_walk(jax.random.key(0), s, 8, 1, 2))(state)
        assert rewarded[2] == -1 and counts[2] == 0
        np.testing.assert_array_equal(after[2], state[2])
