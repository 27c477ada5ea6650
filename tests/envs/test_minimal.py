"""The minimal environment against its slow reference, its rules one by one, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.minimal import reference
from pufferjax.envs.minimal.minimal import STATE, unpack

K = 8
REFUSALS = (ValueError, jax.errors.JaxRuntimeError)  # of a native call, at once or when its result is waited for
AHEAD, SAME_SPEED = 4, 2  # the actions that change nothing


def make(max_steps=100):
    return envs.make("minimal", max_steps=max_steps)


def words(key):
    return np.asarray(jax.random.bits(key, (2,), jnp.uint32))


def restored(env, records):
    """The states of records as `unpack` gives them, through restore, so only possible states are reached."""
    rows = records.view(np.uint8).reshape(len(records), STATE.itemsize)
    state = env.reset(jax.random.key(0), len(records))[1]
    return env.restore(state, rows, np.arange(len(records), dtype=np.int32))


def scene(num_envs=1):
    """Records in which nobody can pick up anything: agents in a row at rest, targets in the opposite corner."""
    records = np.zeros(num_envs, STATE)
    records["agents"]["x"], records["agents"]["y"] = 100 + 40 * np.arange(K), 100
    records["targets"]["x"], records["targets"]["y"] = 1000, 700
    records["agents"]["type"] = records["targets"]["type"] = np.arange(K) % 4
    return records


def step(env, state, actions=(AHEAD, SAME_SPEED), seed=0):
    """One step with an action per agent, or one for all; (records after it, rewards [N, 8], the whole output)."""
    actions = np.broadcast_to(np.asarray(actions, np.int32), (len(state), K, 2)).reshape(-1, 2)
    outputs = env.step(jax.random.key(seed), state, actions)
    return unpack(outputs[1]), np.asarray(outputs[2]).reshape(-1, K), outputs


# --- against the reference --------------------------------------------------------------------------------------------
def test_reference_agrees_over_a_hundred_thousand_agent_steps():
    num_envs, num_steps, max_steps = 64, 220, 90
    assert num_envs * num_steps * K >= 100_000
    env, twin = make(max_steps), reference.Minimal(num_envs, max_steps=max_steps)
    key = jax.random.key(5)
    obs, state = env.reset(key, num_envs)
    np.testing.assert_allclose(obs, twin.reset(words(key)), atol=1e-6)
    state = env.stagger(jax.random.key(6), state)
    # All within a corner, where pick-ups are frequent.
    records = unpack(state)
    for group in ("agents", "targets"):
        records[group]["x"] = 16 + records[group]["x"] // 8
        records[group]["y"] = 16 + records[group]["y"] // 8
    state = restored(env, records)
    twin.tick[:] = records["tick"]
    for axis, name in enumerate("xy"):
        twin.xy[:, :, axis] = np.concatenate([records["agents"][name], records["targets"][name]], axis=1)
    np.testing.assert_allclose(env.observe(state), twin.observe(), atol=1e-6)
    keys = jax.random.split(jax.random.key(7), num_steps)
    actions = np.random.default_rng(8).integers(0, (9, 5), (num_steps, num_envs * K, 2), np.int32)
    actions[num_steps // 2 :, :, 1] = np.maximum(actions[num_steps // 2 :, :, 1], 2)  # fast: into the edges

    @jax.jit
    def native(state, actions, keys):
        def body(state, inputs):
            action, key = inputs
            obs, state, *outputs = env.step(key, state, action)
            return state, (jax.random.bits(key, (2,), jnp.uint32), obs, state, *outputs)

        return jax.lax.scan(body, state, (actions, keys))[1]

    bits, observations, states, rewards, terminated, truncated, info = jax.tree.map(
        np.asarray, native(state, actions, keys)
    )
    unpacked = unpack(states.reshape(-1, STATE.itemsize)).reshape(num_steps, num_envs)
    for t, records in enumerate(unpacked):
        obs, reward, ended, pickups, perf, length = twin.step(bits[t], actions[t])
        np.testing.assert_array_equal(rewards[t], reward, err_msg=f"step {t}")
        np.testing.assert_array_equal(truncated[t].reshape(-1, K), np.repeat(ended[:, None], K, axis=1))
        np.testing.assert_array_equal(info["score"][t], pickups)
        np.testing.assert_array_equal(info["episode_return"][t], pickups)
        np.testing.assert_array_equal(info["episode_length"][t], length)
        np.testing.assert_allclose(info["perf"][t], perf, rtol=1e-6)
        for group, types in (("agents", twin.type[:, :K]), ("targets", twin.type[:, K:])):
            np.testing.assert_array_equal(records[group]["type"], types)
        np.testing.assert_array_equal(records["agents"]["waited"], twin.waited)
        np.testing.assert_array_equal(records["targets"]["cooldown"], twin.cooldown)
        np.testing.assert_array_equal(records["agents"]["speed"], twin.speed)
        np.testing.assert_array_equal(records["agents"]["heading"], twin.heading)
        for axis, name in enumerate("xy"):
            np.testing.assert_array_equal(records["agents"][name], twin.xy[:, :K, axis])
            np.testing.assert_array_equal(records["targets"][name], twin.xy[:, K:, axis])
        np.testing.assert_allclose(observations[t], obs, atol=1e-6)
    assert not terminated.any() and truncated.sum() > 100 * K and rewards.sum() > 500
    places = unpacked["agents"]
    assert (places["x"] == 16).any() and (places["x"] == 1064).any() and (places["y"] == 704).any()


def test_sine_and_cosine_are_accurate():
    angles = np.linspace(-np.pi, np.pi, 100_001).astype(np.float32)
    expected = np.stack([np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))], axis=1)
    np.testing.assert_allclose(reference.direction(angles), expected, rtol=0, atol=4e-7)


# --- rules ------------------------------------------------------------------------------------------------------------
def test_spec():
    spec = make(1024).spec
    assert spec.obs_shape == (66,) and spec.obs_dtype == np.float32 and spec.obs_max is None
    assert spec.num_actions == (9, 5) and spec.num_agents == K and spec.max_episode_steps == 1024
    assert spec.entities == envs.EntityLayout(num_self=2, num_entities=16, entity_size=4)
    assert tuple(map(len, spec.action_names)) == (9, 5)
    assert make(0).spec.max_episode_steps == 0 and envs.make("minimal").spec.max_episode_steps == 1024


def test_starts_are_spread_over_the_plane():
    records = unpack(make().reset(jax.random.key(0), 4000)[1])
    for group, first in (("agents", 0), ("targets", K)):
        for axis, size in (("x", 1080), ("y", 720)):
            values = records[group][axis]
            assert values.min() == 16 and values.max() == size - 1 and (values == np.floor(values)).all()
            # Uniform over size - 16 numbers: five standard errors of the mean.
            deviation = (size - 16) / 12**0.5 / values.size**0.5
            assert abs(values.mean() - (7.5 + size / 2)) < 5 * deviation
        np.testing.assert_array_equal(records[group]["type"][0], (first + np.arange(K)) % 4)


def test_moves_at_the_old_speed_along_the_new_heading():
    records = scene()
    records["agents"]["speed"], records["agents"]["heading"] = 10, 0.5
    turns, changes = np.arange(K), np.arange(K) % 5
    after, _, _ = step(make(), restored(make(), records), np.stack([turns, changes], axis=1))
    heading = 0.5 + (turns - 4) / 12
    agents, before = after["agents"][0], records["agents"][0]
    np.testing.assert_allclose(agents["heading"], heading, rtol=1e-6)
    np.testing.assert_allclose(agents["x"], before["x"] + 10 * np.cos(heading), rtol=1e-6)
    np.testing.assert_allclose(agents["y"], before["y"] + 10 * np.sin(heading), rtol=1e-6)
    np.testing.assert_array_equal(agents["speed"], 10 + changes - 2)


def test_edges_speeds_and_headings_are_limited():
    records = scene(2)
    records["agents"]["speed"] = 19
    records["agents"]["heading"] = np.array([[-3.1], [3.1]])
    records["agents"]["x"], records["agents"]["y"] = 20, 1e-3 + 16
    after, _, _ = step(make(), restored(make(), records), [[0, 4]] * 4 + [[8, 0]] * 4)
    agents = after["agents"]
    np.testing.assert_allclose(agents["heading"][0], [-3.1 - 4 / 12 + 2 * np.pi] * 4 + [-3.1 + 4 / 12] * 4, rtol=1e-6)
    np.testing.assert_allclose(agents["heading"][1], [3.1 - 4 / 12] * 4 + [3.1 + 4 / 12 - 2 * np.pi] * 4, rtol=1e-6)
    np.testing.assert_array_equal(agents["speed"], np.broadcast_to([20] * 4 + [17] * 4, (2, K)))
    assert (agents["x"] == 16).all() and (agents["y"] >= 16).all() and (agents["y"] == 16).any()
    records["agents"]["speed"] = 1
    assert (step(make(), restored(make(), records), (AHEAD, 0))[0]["agents"]["speed"] == 0).all()


@pytest.mark.parametrize("dx, dy, taken", [(32, 32, 1), (-32, 32, 1), (33, 0, 0), (0, -33, 0), (0, 0, 1)])
def test_reach_is_a_square(dx, dy, taken):
    records = scene()
    records["agents"][0, 3]["x"], records["agents"][0, 3]["y"] = 500, 400
    records["targets"][0, 7]["x"], records["targets"][0, 7]["y"] = 500 + dx, 400 + dy  # both have type 3
    after, rewards, _ = step(make(), restored(make(), records))
    np.testing.assert_array_equal(rewards[0], [0, 0, 0, taken, 0, 0, 0, 0])
    assert after["agents"][0, 3]["type"] == (0 if taken else 3)
    assert after["targets"][0, 7]["cooldown"] == (29 if taken else 0)


def test_the_first_of_two_targets_is_taken_and_only_one():
    records = scene()
    records["agents"]["type"] = 2
    records["agents"][0, 5]["x"], records["agents"][0, 5]["y"] = 500, 400
    for target in (2, 6):  # of type 2
        records["targets"][0, target]["x"], records["targets"][0, target]["y"] = 500, 400
    records["targets"][0, 3]["x"], records["targets"][0, 3]["y"] = 500, 400  # of the agent's next type
    state = restored(make(), records)
    after, rewards, _ = step(make(), state)
    assert rewards.sum() == 1 and after["targets"]["cooldown"][0].tolist() == [0, 0, 29, 0, 0, 0, 0, 0]
    after, rewards, _ = step(make(), restored(make(), after), seed=1)
    assert rewards.sum() == 1 and after["targets"]["cooldown"][0].tolist() == [0, 0, 28, 29, 0, 0, 0, 0]
    # Two agents and one target: the first in order has it.
    records["agents"]["x"], records["agents"]["y"] = 500, 400
    records["targets"][0, [2, 3]]["x"] = records["targets"]["x"][0, [2, 3]] = 1000
    _, rewards, _ = step(make(), restored(make(), records))
    np.testing.assert_array_equal(rewards[0], [1, 0, 0, 0, 0, 0, 0, 0])


def test_a_target_rests_thirty_steps():
    env, records = make(0), scene()
    records["agents"]["type"] = 0
    records["agents"]["x"], records["agents"]["y"] = 500, 400
    records["targets"][0, 0]["x"], records["targets"][0, 0]["y"] = 500, 400
    state, taken = restored(env, records), []
    for t in range(92):
        after, rewards, outputs = step(env, state, seed=2)  # the same draw in every step: it does not move
        assert after["targets"][0, 0]["x"] == 500
        state = outputs[1]
        taken += [t] * int(rewards.sum())
    assert taken == [0, 30, 60, 90]


def test_one_pick_up_in_ten_moves_the_target():
    num_envs = 4000
    records = scene(num_envs)
    records["agents"][:, 0]["x"] = records["agents"]["x"][:, 0] = 1000
    records["agents"]["y"][:, 0] = 700
    after, rewards, _ = step(make(), restored(make(), records))
    assert (rewards[:, 0] == 1).all() and rewards.sum() == num_envs
    moved = (after["targets"]["x"][:, 0] != 1000) | (after["targets"]["y"][:, 0] != 700)
    assert abs(moved.mean() - 0.1) < 5 * (0.09 / num_envs) ** 0.5
    assert (after["targets"]["x"][:, 1:] == 1000).all()


def test_observation_of_a_known_scene():
    records = scene()
    records["agents"]["heading"], records["agents"]["speed"] = -np.pi / 2, 5
    records["targets"][0, 1]["cooldown"] = records["targets"]["cooldown"][0, 1] = 15
    obs = np.asarray(make().observe(restored(make(), records))).reshape(K, 66)
    for agent in range(K):
        np.testing.assert_allclose(obs[agent, :2], [-0.25, 0.25], rtol=1e-6)
        entities = obs[agent, 2:].reshape(16, 4)
        np.testing.assert_allclose(entities[:K, 0], 40 * (np.arange(K) - agent) / 1080, rtol=1e-6)
        np.testing.assert_allclose(entities[K:, 0], (1000 - 100 - 40 * agent) / 1080, rtol=1e-6)
        np.testing.assert_allclose(entities[:, 1], [0] * K + [600 / 720] * K, rtol=1e-6)
        np.testing.assert_allclose(entities[:, 2], [0] * (K + 1) + [0.5] + [0] * 6, rtol=1e-6)
        np.testing.assert_array_equal(entities[:, 3], np.arange(16) % 4 == agent % 4)


def test_figures_of_an_episode():
    env, records = make(100), scene(2)
    records["tick"] = 98
    records["agents"]["waited"] = 59
    for group in ("agents", "targets"):
        records[group]["x"][0, :2], records[group]["y"][0, :2] = 500, 400
    records["agents"]["waited"][0, 1] = 9
    _, rewards, outputs = step(env, restored(env, records))
    info = outputs[-1]
    assert rewards.sum() == 2 and not any(np.asarray(x).any() for x in info.values())
    after, rewards, outputs = step(env, outputs[1])
    info = {name: np.asarray(x).tolist() for name, x in outputs[-1].items()}
    # Pick-ups after 60 and after 10 steps.
    assert info["score"] == info["episode_return"] == [2, 0] and info["episode_length"] == [100, 100]
    assert info["perf"] == pytest.approx([0.75, 0])
    assert np.asarray(outputs[4]).all() and not np.asarray(outputs[3]).any()
    assert (after["tick"] == 0).all() and (after["pickups"] == 0).all() and (after["agents"]["waited"] == 0).all()


def test_without_a_limit_nothing_ends_and_the_clock_stops_at_its_end():
    env, records = make(0), scene()
    records["tick"] = 2**31 - 2
    state = restored(env, records)
    for _ in range(3):
        after, _, outputs = step(env, state)
        state = outputs[1]
        assert not np.asarray(outputs[3]).any() and not np.asarray(outputs[4]).any()
    assert after["tick"] == 2**31 - 1 and env.clock(state)[0] == 2**31 - 1
    np.testing.assert_array_equal(env.stagger(jax.random.key(0), state), state)


@pytest.mark.parametrize("max_steps", [0, 40])
def test_it_keeps_the_contract(max_steps):
    envs.check_env(make(max_steps), num_envs=4, num_steps=200)


def test_picture():
    records = scene()
    records["agents"]["x"][0, 0], records["agents"]["y"][0, 0] = 303, 603
    records["targets"]["x"][0, 1], records["targets"]["y"][0, 1] = 600, 300
    env = make()
    images = []
    for cooldown in (0, 7):
        records["targets"]["cooldown"][0, 1] = cooldown
        images.append(env.render(restored(env, records)[0]))
    assert images[0].shape == (240, 360, 3) and images[0].dtype == np.uint8
    changed = np.argwhere((images[0] != images[1]).any(axis=2))
    assert (abs(changed.mean(axis=0) - (99.5, 199.5)) < 1).all()  # three px per pixel
    assert (images[0][201, 97] == [229, 57, 53]).all() and (images[0][201, 105] == 255).all()  # it looks to the right


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value, error, text",
    [
        (-1, ValueError, r"minimal: max_steps must be an integer in \[0, 2147483647\], got -1"),
        (2**31, ValueError, r"minimal: max_steps must be an integer in \[0, 2147483647\], got 2147483648"),
        (1.5, TypeError, "minimal: max_steps must be a static integer"),
    ],
)
def test_make_refuses(value, error, text):
    with pytest.raises(error, match=text):
        make(value)


@pytest.mark.parametrize(
    "group, field, value, reason",
    [
        ("agents", "x", 15.9, "an agent is outside the plane"),
        ("agents", "y", 720, "an agent is outside the plane"),
        ("agents", "x", np.nan, "an agent is outside the plane"),
        ("agents", "heading", 3.2, "a heading is outside"),
        ("agents", "heading", np.nan, "a heading is outside"),
        ("agents", "speed", 21, "a speed is not a whole number"),
        ("agents", "speed", 0.5, "a speed is not a whole number"),
        ("agents", "type", 4, "the type of an agent is out of range"),
        ("targets", "x", np.inf, "a target is where none can be"),
        ("targets", "y", 17.5, "a target is where none can be"),
        ("targets", "type", 2**32 - 1, "the type of a target is out of range"),
        ("targets", "cooldown", 30, "a cooldown is out of range"),
        (None, "tick", 100, "the clock is past the step limit"),
        (None, "promptness", 0.5, "the figures contradict each other"),
        (None, "promptness", np.nan, "the figures contradict each other"),
        (None, "unused", 1, "the reserved bytes are not zero"),
    ],
)
def test_restore_refuses_impossible_rows(group, field, value, reason):
    records = scene(2)
    if group is None:
        records[field][1] = value
    else:
        records[group][field][1, 3] = value
    with pytest.raises(REFUSALS, match=rf"rows\[1\] is not a snapshot of this simulator: {reason}"):
        restored(make(100), records).block_until_ready()


def test_garbage_never_crashes():
    env = make()
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (200, STATE.itemsize), np.uint8)
    rows[::2] = np.asarray(scene().view(np.uint8))
    rows[::2, random.integers(0, STATE.itemsize, 20)] = 255
    actions = np.zeros((200 * K, 2), np.int32)
    jax.block_until_ready(env.step(jax.random.key(0), rows, actions))
    jax.block_until_ready(env.random_walk(jax.random.key(0), rows, 50, 4, 2))
    jax.block_until_ready((env.observe(rows), env.stagger(jax.random.key(0), rows), env.clock(rows)))


def test_bad_actions_name_the_head():
    env = make()
    state = env.reset(jax.random.key(0), 2)[1]
    for head, choices in ((0, 9), (1, 5)):
        actions = np.zeros((2 * K, 2), np.int32)
        actions[9, head] = choices
        with pytest.raises(REFUSALS, match=f"is {choices}, valid are 0 to {choices - 1}"):
            jax.block_until_ready(env.step(jax.random.key(0), state, actions))
    with pytest.raises(ValueError, match=r"minimal.step: action must have shape int32\[16, 2\], got \(16,\)"):
        env.step(jax.random.key(0), state, np.zeros(16, np.int32))
