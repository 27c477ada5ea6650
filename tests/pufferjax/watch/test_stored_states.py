"""What `pufferjax states` tells and draws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from pufferjax import StateSet, make_init
from pufferjax.envs.maze import reference
from pufferjax.watch.stored_states import draw_states, read_states


def test_figures_are_those_of_the_state_set(tiny_run, tiny_env):
    states = read_states(tiny_env, tiny_run.train_state)
    last = tiny_run.metrics[-1]
    assert len(states.rows) == last["state_set_size"] > 5
    assert states.priorities[0] == np.float32(last["priority_max"])
    assert states.priorities[-1] == np.float32(last["priority_min"])
    assert (np.diff(states.priorities) <= 0).all()
    for name, column in {"state_age": states.ages, "state_time": states.times}.items():
        assert np.sort(column)[round((len(column) - 1) / 2)] == last[f"{name}_p50"]
    members = np.concatenate([maze.members for maze in states.mazes])
    assert sorted(members) == list(range(len(states.rows)))
    counts = [len(maze.members) for maze in states.mazes]
    assert counts == sorted(counts, reverse=True)


def test_distances_are_steps_an_agent_needs(tiny_run, tiny_env):
    states = read_states(tiny_env, tiny_run.train_state)
    distances = states.distances()
    for maze in states.mazes[:4]:
        index, (x, y) = maze.members[0], maze.xy[0]
        state = tiny_env.restore(tiny_env.reset(jax.random.key(0), 1)[1], states.rows[[index]], np.zeros(1, np.int32))
        for step in range(distances[index]):
            # Downhill to the goal.
            action = next(
                a
                for a, (dx, dy) in enumerate(reference.STEPS)
                if maze.steps_to_goal[y + dy, x + dx] == distances[index] - step - 1
            )
            x, y = x + reference.STEPS[action][0], y + reference.STEPS[action][1]
            _, state, reward, terminated, _, _ = tiny_env.step(jax.random.key(1), state, jnp.array([action], jnp.int32))
            assert bool(terminated[0]) == (step == distances[index] - 1) == (float(reward[0]) == 1)


def test_a_maze_per_episode_is_told_by_its_walls():
    from pufferjax import TrainConfig, envs

    env = envs.make("maze", size=7, num_mazes=0)
    rows = np.asarray(env.reset(jax.random.key(0), 5)[1])
    state = jax.eval_shape(make_init(env, TrainConfig()), jax.random.key(0))
    state_set = StateSet.create(8, rows.shape[1]).insert(rows[[0, 1, 2, 0]], np.arange(4, dtype=np.float32))
    state = dataclasses.replace(state, state_set=state_set, born=np.arange(8), epoch=4)
    states = read_states(env, state)
    assert [len(maze.members) for maze in states.mazes] == [2, 1, 1] and states.ages.tolist() == [0, 1, 2, 3]
    assert {maze.level for maze in states.mazes} == {0}


def image(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_the_picture_shows_where_the_states_are(tiny_run, tiny_env, tmp_path):
    states = read_states(tiny_env, tiny_run.train_state)
    draw_states(tiny_env, states, tmp_path / "states.png")
    moved = dataclasses.replace(
        states, mazes=tuple(dataclasses.replace(m, xy=np.ones_like(m.xy)) for m in states.mazes)
    )
    draw_states(tiny_env, moved, tmp_path / "moved.png")
    assert (image(tmp_path / "states.png") != image(tmp_path / "moved.png")).any(axis=2).sum() > 1000


def test_other_environments_show_their_own_pictures(tiny_run, tiny_env, tmp_path):
    other = dataclasses.replace(tiny_env, spec=dataclasses.replace(tiny_env.spec, name="other"))
    states = read_states(other, tiny_run.train_state)
    assert not states.mazes and "steps to the goal" not in states.columns()
    draw_states(other, states, tmp_path / "other.png")
    wall = np.array([38, 50, 56])  # of the maze's own picture
    assert (image(tmp_path / "other.png") == wall).all(axis=2).sum() > 10_000


def test_an_empty_state_set(tiny_run, tiny_env, tmp_path):
    empty = StateSet.create(8, tiny_env.spec.state_bytes)
    states = read_states(tiny_env, dataclasses.replace(tiny_run.train_state, state_set=empty, born=np.zeros(8, int)))
    draw_states(tiny_env, states, tmp_path / "empty.png", title="empty")
    assert len(states.rows) == 0 and (tmp_path / "empty.png").stat().st_size > 0
