"""check_env accepts the maze and finds each of many ways to break the contract."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs


def make(**params):
    return envs.make("maze", **{"size": 5, "num_mazes": 7, "seed": 1, "vision": 5} | params)


@pytest.mark.parametrize(
    "params, num_envs",
    [({}, 8), ({"num_mazes": 0, "size": 7, "vision": 3}, 5), ({"size": 15, "num_mazes": 8192, "vision": 11}, 4)],
)
def test_the_maze_keeps_the_contract(params, num_envs):
    envs.check_env(make(**params), num_envs=num_envs, key=jax.random.key(3))


def changed_step(change):
    """A copy of the maze whose step's outputs go through `change(old_state, outputs) -> outputs` (dicts by name)."""
    env = make()
    names = ("obs", "state", "reward", "terminated", "truncated", "info")

    def step(key, state, action):
        outputs = change(jnp.asarray(state), dict(zip(names, env.step(key, state, action), strict=True)))
        return tuple(outputs[name] for name in names)

    return dataclasses.replace(env, step=step)


def nondeterministic():
    calls = itertools.count()
    return changed_step(lambda _, o: {**o, "reward": o["reward"] + 1e-3 * next(calls)})


def hidden_clock():
    ticks = itertools.count()
    return changed_step(lambda _, o: {**o, "truncated": o["truncated"] | (next(ticks) % 50 == 5)})


def clock_kept_by_restore():
    env = make()

    def restore(state, rows, env_ids):
        return env.restore(state, rows, env_ids).at[:, 4:8].set(jnp.asarray(state)[:, 4:8])

    return dataclasses.replace(env, restore=restore)


def observation_of_the_old_episode():
    env = make()

    def change(old, o):
        ended = (o["terminated"] | o["truncated"])[:, None, None]
        return {**o, "obs": jnp.where(ended, env.observe(old), o["obs"])}

    return changed_step(change)


def both_flags():
    return changed_step(lambda _, o: {**o, "truncated": o["truncated"] | o["terminated"]})


def wrong_dtype():
    return changed_step(lambda _, o: {**o, "reward": o["reward"].astype(jnp.bfloat16)})


def wrong_shape():
    return changed_step(lambda _, o: {**o, "terminated": o["terminated"][:, None]})


def missing_info():
    return changed_step(lambda _, o: {**o, "info": {k: v for k, v in o["info"].items() if k != "score"}})


def info_always():
    def change(_, o):
        return {**o, "info": {**o["info"], "episode_length": jnp.maximum(o["info"]["episode_length"], 1)}}

    return changed_step(change)


def reward_not_finite():
    return changed_step(lambda _, o: {**o, "reward": jnp.where(o["terminated"], jnp.inf, o["reward"])})


def time_out_early():
    def change(old, o):
        early = (old[:, 4] == 30) & ~o["terminated"]
        length = jnp.where(early, 31, o["info"]["episode_length"])
        return {**o, "truncated": o["truncated"] | early, "info": {**o["info"], "episode_length": length}}

    return changed_step(change)


def observation_too_large():
    env = make()
    return dataclasses.replace(env, spec=dataclasses.replace(env.spec, obs_max=1))


def episodes_that_should_never_end():
    env = make()
    return dataclasses.replace(env, spec=dataclasses.replace(env.spec, max_episode_steps=0))


def entities_that_do_not_fill_the_observation():
    env = make()
    layout = envs.EntityLayout(num_self=1, num_entities=5, entity_size=5)
    return dataclasses.replace(env, spec=dataclasses.replace(env.spec, entities=layout))


def in_parts(*parts):
    """chain_mdp, which observes one byte, said to observe these (name, offset, shape, max)."""
    env = envs.make("chain_mdp")
    made = tuple(envs.ObservationPart(*part[:3], np.dtype(np.uint8), part[3]) for part in parts)
    return lambda: dataclasses.replace(env, spec=dataclasses.replace(env.spec, obs_parts=made))


def batch_matters():
    return changed_step(lambda _, o: {**o, "reward": o["reward"] + o["reward"].shape[0]})


def one_call_per_lane():
    env = make()

    def reset(key, num_envs):
        return jax.custom_batching.sequential_vmap(lambda k: env.reset(k, num_envs))(key)

    return dataclasses.replace(env, reset=reset)


def clips_actions():
    env = make()
    step = env.step
    return dataclasses.replace(
        env, step=lambda key, state, action: step(key, state, jnp.clip(jnp.asarray(action), 0, 4))
    )


def restore_takes_any_size():
    env = make()
    return dataclasses.replace(env, restore=lambda s, rows, ids: env.restore(s, jnp.asarray(rows)[:, :16], ids))


def stagger_does_nothing():
    return dataclasses.replace(make(), stagger=lambda key, state: state)


def stagger_leaves_the_game():
    return dataclasses.replace(make(), stagger=lambda key, state: jnp.asarray(state).at[:, 4].set(200))


def clock_of_the_run():
    """A clock that goes on when an episode ends."""
    env = make()

    def step(key, state, action):
        tick = env.clock(state)[0]
        obs, state, reward, terminated, truncated, info = env.step(key, state, action)
        late = jnp.where(terminated | truncated, (tick + 1) % 50, state[:, 4]).astype(jnp.uint8)
        length = jnp.where(terminated | truncated, tick + 1, 0)
        return obs, state.at[:, 4].set(late), reward, terminated, truncated, info | {"episode_length": length}

    return dataclasses.replace(env, step=step)


def clock_off_by_one():
    env = make()
    return dataclasses.replace(env, clock=lambda state: (env.clock(state)[0] + 1, env.clock(state)[1]))


def timeless_rows_with_a_time():
    env = make()
    return dataclasses.replace(env, clock=lambda state: (env.clock(state)[0], state))


def walk_counts_too_much():
    env = make()

    def random_walk(key, state, num_steps, interval, num_snapshots):
        state, snapshots, counts, rewarded = env.random_walk(key, state, num_steps, interval, num_snapshots)
        return state, snapshots, counts + num_snapshots, rewarded

    return dataclasses.replace(env, random_walk=random_walk)


def picture_in_floats():
    env = make()
    return dataclasses.replace(env, render=lambda row: env.render(row).astype(np.float32))


@pytest.mark.parametrize(
    "broken, text",
    [
        (nondeterministic, "determinism.*reward differs first at"),
        (hidden_clock, "determinism.*truncated differs"),
        (clock_kept_by_restore, "snapshot and restore: rows restored into the state it became come back changed"),
        (observation_of_the_old_episode, r"every step: obs is not observe\(\) of the returned state"),
        (both_flags, "every step: an agent is both terminated and truncated"),
        (wrong_dtype, r"step: reward must be float32\(8,\), is bfloat16"),
        (wrong_shape, r"step: terminated must be bool\(8,\), is bool\(8, 1\)"),
        (missing_info, "step: info lacks score"),
        (info_always, r"every step: info\['episode_length'\] is not zero although no episode ended"),
        (reward_not_finite, "every step: a reward is not finite"),
        (time_out_early, "every step: truncated before max_episode_steps"),
        (observation_too_large, "every step: an observation is above obs_max = 1, first in step 0"),
        (episodes_that_should_never_end, "every step: an episode ended although max_episode_steps is 0"),
        (entities_that_do_not_fill_the_observation, r"spec: EntityLayout\(.*\) has 26 numbers, obs \(5, 5\)"),
        (in_parts(("x", 1, (1,), 2)), "spec.obs_parts: 'x' begins at 1, the parts before it end at 0"),
        (in_parts(("x", 0, (2,), 2)), r"spec.obs_parts: the parts have 2 numbers, obs_shape is \(1,\)"),
        (in_parts(("x", 0, (), 2), ("x", 1, (0,), 2)), "spec.obs_parts: names must differ, are \\['x', 'x'\\]"),
        (in_parts(("x", 0, (1,), 255)), "spec.obs_parts: max of 'x' is 255, obs_max"),
        (in_parts(("x", 0, (1,), 1)), "every step: part 'x' of an observation is no integer from 0 to 1"),
        (batch_matters, "batch-size independence: the first 4 of 8, step 0: reward differs"),
        (one_call_per_lane, "vmap of single-env calls: reset makes"),
        (clips_actions, "step refuses bad actions and states: action -1 of 5 in head 0 was accepted"),
        (restore_takes_any_size, "restore refuses what is not a snapshot: rows of 17 bytes was accepted"),
        (stagger_does_nothing, "stagger: all 8 episodes time out together, in step 49"),
        (stagger_leaves_the_game, "stagger: restore refuses the staggered state.*the clock is past the step limit"),
        (clock_of_the_run, r"every step: what clock\(state\) gives is not the number of steps since the episode began"),
        (clock_off_by_one, r"every step: what clock\(state\) gives is not the number of steps since the episode began"),
        (timeless_rows_with_a_time, "clock: times of timeless rows: differs first"),
        (walk_counts_too_much, "random_walk: counts are .*, valid are 0 to 3"),
        (picture_in_floats, r"render: must give u8\[H, W, 3\], gives float32"),
    ],
)
def test_it_finds(broken, text):
    with pytest.raises(envs.EnvCheckError, match=text):
        envs.check_env(broken(), key=jax.random.key(0))


def test_it_is_an_assertion():
    assert issubclass(envs.EnvCheckError, AssertionError)
    with pytest.raises(ValueError, match="num_envs must be at least 2, got 1"):
        envs.check_env(make(), num_envs=1)
