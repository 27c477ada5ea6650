"""Boxoban against its slow reference, its generator and reader, its rules one by one, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.boxoban import reference
from pufferjax.envs.boxoban.reference import ROW, pack, text_of, unpack

STAY, DOWN, UP, LEFT, RIGHT = range(5)
KEY = jax.random.key(0)
REFUSAL = (ValueError, jax.errors.JaxRuntimeError)  # before or after the call has returned

ROOM = """\
##########
#        #
# $  .   #
# @  *   #
#  $   . #
#        #
#   .$   #
#        #
#        #
##########"""


def make(**params):
    return envs.make("boxoban", **{"num_levels": 8, "seed": 3, "num_pulls": 20} | params)


def words(key):
    return np.asarray(jax.random.bits(key, (2,), jnp.uint32))


@functools.cache
def generated(seed, index, num_pulls, max_steps):
    return reference.generate(seed, index, num_pulls, max_steps)


def written(folder, *levels, name="levels.txt"):
    """The path of a file of levels given as text."""
    path = folder / name
    path.write_text("".join(f"; {i}\n{level}\n\n" for i, level in enumerate(levels)))
    return str(path)


def level_of(env, row):
    """The level behind a row as `reference.Level`, its boxes and agent as they are in the row."""
    planes = np.asarray(env.observe(row[None])[0]).reshape(4, 100).astype(bool)
    return reference.Level(planes[1], planes[3], planes[2], int(planes[0].argmax()))


def play(env, text_or_state, actions):
    """Per step (row, reward, terminated, truncated, info) of one environment."""
    state, steps = text_or_state, []
    for action in actions:
        _, state, reward, terminated, truncated, info = env.step(KEY, state, np.array([action], np.int32))
        info = {name: float(value[0]) for name, value in info.items()}
        row = np.array(state).view(ROW)[0, 0]
        steps.append((row, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info))
    return steps


@pytest.fixture
def room(tmp_path):
    """An environment with `text` as its only level, and its start. A file is read once: each call writes a new one."""

    def build(text=ROOM, **params):
        env = make(levels=written(tmp_path, text, name=f"{len(list(tmp_path.iterdir()))}.txt"), **params)
        return env, env.reset(KEY, 1)[1]

    return build


# --- against the reference --------------------------------------------------------------------------------------------
def test_reference_agrees():
    num_envs, num_steps, max_steps, num_levels = 512, 200, 60, 24
    assert num_envs * num_steps >= 100_000
    seed = 2**40 + 5  # both words of the seed count
    rewards = {"int_r_coeff": 0.3, "target_loss_penalty": 0.2, "timeout_reward": -1.0}
    env = make(num_levels=num_levels, seed=seed, num_pulls=16, max_steps=max_steps, **rewards)
    levels = [generated(seed, i, 16, max_steps) for i in range(num_levels)]
    twin = reference.Boxobans(num_envs, levels, max_steps=max_steps, **rewards)
    obs, state = env.reset(KEY, num_envs)
    np.testing.assert_array_equal(obs, twin.reset(words(KEY)))
    random = np.random.default_rng(0)
    step = jax.jit(env.step)
    plans = np.zeros((num_levels, max_steps), int)
    for plan, level in zip(plans, levels, strict=True):
        plan[: len(level.solution)] = level.solution
    seen = np.zeros(4, int)
    for t in range(num_steps):
        # A third plays the solution, a third as well but for a few random moves, the others play at random.
        planned = plans[twin.level, twin.tick]
        is_random = random.random(num_envs) < np.repeat([0, 0.03, 1], [170, 171, 171])
        action = np.where(is_random, random.integers(0, 5, num_envs), planned).astype(np.int32)
        key = jax.random.fold_in(KEY, t)
        obs, state, *outputs = jax.tree.map(np.asarray, step(key, state, action))
        expected_obs, *expected = twin.step(words(key), action)
        jax.tree.map(np.testing.assert_array_equal, (obs, *outputs), (expected_obs, *expected))
        np.testing.assert_array_equal(state, twin.rows(), err_msg=f"step {t}")
        seen += [outputs[1].sum(), outputs[2].sum(), (outputs[0] == np.float32(0.3)).sum(), (twin.losses > 0).sum()]
    assert (seen > 0).all(), f"solved, out of time, targets covered, targets lost: {seen}"


# --- the generator ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("num_pulls, max_steps, num_levels", [(1, 150, 10), (5, 9, 10), (40, 150, 40), (200, 400, 8)])
def test_every_level_is_solved_by_its_reverse_solution(num_pulls, max_steps, num_levels):
    env = make(num_levels=num_levels, seed=7, num_pulls=num_pulls, max_steps=max_steps)
    rows = np.zeros(num_levels, ROW)
    levels = [generated(7, i, num_pulls, max_steps) for i in range(num_levels)]
    rows["level"] = np.arange(num_levels)
    for row, level in zip(rows, levels, strict=True):
        row["boxes"], row["agent"] = pack(level.boxes), level.agent
        row["covered"] = level.boxes[level.targets] @ [1, 2, 4, 8]
    _, state = env.reset(KEY, num_levels)
    state = env.restore(state, rows.view(np.uint8).reshape(num_levels, -1), np.arange(num_levels, dtype=np.int32))
    planes = np.asarray(env.observe(state)).reshape(num_levels, 4, 100).astype(bool)
    longest = max(len(level.solution) for level in levels)
    assert 0 < longest <= max_steps
    first_end = np.full(num_levels, -1)
    step = jax.jit(env.step)
    for t in range(longest):
        action = np.array([level.solution[t] if t < len(level.solution) else STAY for level in levels], np.int32)
        _, state, _, terminated, truncated, info = step(KEY, state, action)
        ended = np.asarray(terminated | truncated) & (first_end < 0)
        assert (np.asarray(info["perf"])[ended] == 1).all(), "out of time"
        first_end[ended] = t
    # Played backwards, the boxes may have stood on the targets once more: then it is solved before all is played.
    lengths = np.array([len(level.solution) for level in levels])
    assert (first_end >= 0).all() and (first_end < lengths).all() and (first_end + 1 == lengths).mean() > 0.8
    for level, (agent, walls, boxes, targets) in zip(levels, planes, strict=True):
        np.testing.assert_array_equal(walls, level.walls)
        assert agent.argmax() == level.agent and boxes.sum() == targets.sum() == 4
        border = np.ones((10, 10), bool)
        border[1:-1, 1:-1] = False
        assert walls.reshape(10, 10)[border].all() and not (walls & (boxes | targets)).any()
        assert 22 <= (~walls).sum() <= 41
        # None of the floor is cut off, boxes aside.
        free = set(np.flatnonzero(~walls).tolist())
        assert len(reference.distances(free, int(agent.argmax()))) == len(free)
        if num_pulls >= 40:
            assert not (boxes & targets).any()


def test_the_reference_generates_the_levels_of_the_simulator():
    seed = 2**62 + 1
    env = make(num_levels=12, seed=seed, num_pulls=30)
    rows = np.asarray(env.reset(KEY, 64)[1])
    for row in rows:
        expected = generated(seed, int(row.view(ROW)[0]["level"]), 30, 150)
        assert text_of(level_of(env, row)) == text_of(expected)


def test_more_pulls_make_longer_solutions_and_another_seed_other_levels():
    lengths = [np.mean([len(generated(7, i, pulls, 150).solution) for i in range(20)]) for pulls in (1, 5, 40)]
    assert lengths[0] < lengths[1] / 2 and lengths[1] < lengths[2] / 2
    assert text_of(generated(7, 0, 5, 150)) != text_of(generated(7 + 2**32, 0, 5, 150))


def test_level_choice_is_uniform():
    env = make(num_levels=8)
    counts = np.bincount(np.asarray(env.reset(KEY, 16_000)[1]).view(ROW)[:, 0]["level"], minlength=8)
    assert len(counts) == 8 and ((counts - 2000) ** 2 / 2000).sum() < 7 + 5 * np.sqrt(14)  # chi square, 7 degrees


# --- the text format --------------------------------------------------------------------------------------------------
def test_levels_are_read_from_a_file_and_from_a_folder(tmp_path):
    texts = [ROOM, ROOM.replace("@", " ").replace(".", "+", 1), ROOM.replace("# @  ", "#  @ ")]
    (tmp_path / "set").mkdir()
    written(tmp_path / "set", *texts[1:], name="001.txt")
    written(tmp_path / "set", texts[0].replace("\n", "\r\n"), name="000.txt")
    (tmp_path / "set" / "notes.md").write_text("not a level")
    for path, expected in ((tmp_path / "set", texts), (tmp_path / "set" / "001.txt", texts[1:])):
        env = make(levels=path)
        assert env.params["levels"] == str(path)
        rows = np.asarray(env.reset(KEY, 64)[1])
        for row in rows:
            assert text_of(level_of(env, row)) == expected[row.view(ROW)[0]["level"]]
        assert set(rows.view(ROW)[:, 0]["level"].tolist()) == set(range(len(expected)))


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    written(tmp_path, ROOM)
    monkeypatch.chdir(tmp_path)
    assert make(levels="levels.txt").params["levels"] == str(tmp_path / "levels.txt")


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda t: t.replace("$", " ", 1), "3 boxes, must be 4"),
        (lambda t: t.replace(".", " ", 1), "3 targets, must be 4"),
        (lambda t: t.replace("#        #", "#   .    #", 1), "5 targets, must be 4"),
        (lambda t: t.replace("#        #", "#   $    #", 1), "5 boxes, must be 4"),
        (lambda t: t.replace("@", " "), "0 agents, must be 1"),
        (lambda t: t.replace("#        #", "#   @    #", 1), "2 agents, must be 1"),
        (lambda t: t.replace("@", "x"), "row 4 has the unknown character 'x'"),
        (lambda t: t.replace("#        #\n", "", 1), "it has 9 rows, must have 10"),
        (lambda t: t + "\n##########", "it has 11 rows, must have 10"),
        (lambda t: t.replace("#        #", "#       #", 1), "row 2 has 9 cells, must have 10"),
        (lambda t: t.replace("#        #", "#         ", 1), "the border must be walls, row 2 is open"),
        (lambda t: t.replace("$", " ").replace(".", "*"), "it is already solved"),
    ],
)
def test_a_bad_level_is_named(tmp_path, change, reason):
    path = written(tmp_path, ROOM, change(ROOM))
    with pytest.raises(ValueError, match=rf"boxoban: levels: {path}, level 1 \(line 14\): {reason}"):
        make(levels=path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"levels: .*/none.txt cannot be read or is empty"):
        make(levels=str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match=r"levels: the folder .* has no .txt files"):
        make(levels=str(tmp_path))
    (tmp_path / "header.txt").write_text("; 0\n\n")
    with pytest.raises(ValueError, match=r"header.txt holds no level"):
        make(levels=str(tmp_path / "header.txt"))


# --- rules ------------------------------------------------------------------------------------------------------------
def test_spec_and_contract(tmp_path):
    spec = envs.make("boxoban").spec
    assert spec.obs_shape == (4, 10, 10) and spec.obs_dtype == np.uint8 and spec.obs_max == 1
    assert spec.num_actions == (5,) and spec.num_agents == 1 and spec.state_bytes == ROW.itemsize == 32
    assert spec.action_names == (("stay", "down", "up", "left", "right"),) and spec.max_episode_steps == 150
    envs.check_env(make(num_levels=50, max_steps=20, timeout_reward=-1.0), num_envs=4)


def test_egocentric_planes_are_rolled_until_the_agent_is_in_the_middle():
    plain, egocentric = make(num_levels=50), make(num_levels=50, egocentric=True)
    _, state = plain.reset(KEY, 100)
    obs = np.asarray(plain.observe(state))
    for seen, planes, row in zip(np.asarray(egocentric.observe(state)), obs, np.asarray(state), strict=True):
        y, x = divmod(int(row.view(ROW)[0]["agent"]), 10)
        np.testing.assert_array_equal(seen, np.roll(planes, (5 - y, 5 - x), axis=(1, 2)))
        assert seen[0, 5, 5] == 1
    np.testing.assert_array_equal(egocentric.render(state[0]), plain.render(state[0]))


def test_moves_pushes_and_what_blocks_them(room):
    env, state = room()
    # The agent at (2, 3) has the box (2, 2) above, and two walls' worth of room around.
    for actions, agent, boxes in [
        ([STAY], 32, ()),
        ([DOWN], 42, ()),
        ([LEFT], 31, ()),
        ([RIGHT], 33, ()),
        ([UP], 22, (12,)),  # pushes
        ([UP, UP], 22, (12,)),  # the wall behind the box blocks
        ([LEFT, LEFT], 31, ()),  # a wall
        ([DOWN, RIGHT], 43, (44,)),
        ([RIGHT, RIGHT, RIGHT], 35, (36,)),  # off the target (5, 3)
    ]:
        last = play(env, state, actions)[-1][0]
        assert last["agent"] == agent and last["tick"] == len(actions)
        assert set(boxes) <= set(np.flatnonzero(unpack(last["boxes"])).tolist())
        assert unpack(last["boxes"]).sum() == 4
    two = ROOM.replace("# @  *   #", "#  @*$   #").replace("$", " ", 1)  # two boxes in a row do not move
    env, state = room(two)
    assert play(env, state, [RIGHT])[-1][0]["agent"] == 33


def test_rewards_of_covering_and_losing_targets(room):
    pushes = [RIGHT, RIGHT, RIGHT, UP, RIGHT, RIGHT, DOWN, LEFT]  # the box off its target and, from behind, on it again
    env, state = room(int_r_coeff=0.5, target_loss_penalty=0.125)
    steps = play(env, state, pushes)
    # It started there, so neither is its return a first time.
    assert [reward for _, reward, *_ in steps] == [0, 0, -0.125, 0, 0, 0, 0, 0]
    assert steps[-1][0]["covered"] == 0b0010 and steps[-1][0]["losses"] == 1
    # The box at (5, 6), one push from the target (4, 6), there and off it and there again.
    around = [DOWN, DOWN, DOWN, DOWN, RIGHT, RIGHT, RIGHT, RIGHT, UP, LEFT]
    steps = play(env, state, [*around, LEFT])
    rewards = [reward for _, reward, *_ in steps]
    assert rewards == [0] * 9 + [0.5, -0.125] and steps[-1][0]["covered"] == 0b1010
    env, state = room(int_r_coeff=0.0)
    assert all(reward == 0 for _, reward, *_ in play(env, state, [*around, LEFT]))


NEARLY = """\
##########
#* * *   #
#        #
# . $@   #
#        #
#        #
#        #
#        #
#        #
##########"""


def test_the_last_box_ends_the_episode(room):
    env, state = room(NEARLY)
    first, second = play(env, state, [LEFT, LEFT])
    assert first[1:4] == (0, False, False)
    _, reward, terminated, truncated, info = second
    assert reward == 1.25 and terminated and not truncated
    assert info == {"episode_return": 1.25, "episode_length": 2, "score": 1, "perf": 1}
    env, state = room(NEARLY, int_r_coeff=0.0, max_steps=2, timeout_reward=-1.0)  # on the last tick: solved
    _, reward, terminated, truncated, info = play(env, state, [LEFT, LEFT])[-1]
    assert (reward, terminated, truncated, info["episode_return"]) == (1, True, False, 1)


@pytest.mark.parametrize("timeout_reward", [0.0, -1.0])
def test_time_out(room, timeout_reward):
    env, state = room(NEARLY, max_steps=3, timeout_reward=timeout_reward)
    steps = play(env, state, [STAY, STAY, STAY])
    assert [step[1] for step in steps] == [0, 0, timeout_reward] and [step[3] for step in steps] == [False, False, True]
    assert not steps[-1][2] and steps[-1][0]["tick"] == 0
    assert steps[-1][4] == {"episode_return": timeout_reward, "episode_length": 3, "score": 0, "perf": 0}


def test_render_tells_everything_apart(room):
    env, state = room(ROOM.replace("@", "+").replace(".", " ", 1))
    image = env.render(state[0])
    side = len(image) // 10
    assert image.shape == (10 * side, 10 * side, 3)
    at = lambda x, y: tuple(image[y * side + side // 2, x * side + side // 2])  # noqa: E731
    kinds = {at(0, 0), at(1, 1), at(2, 2), at(2, 3), at(5, 3), at(7, 4)}  # wall, floor, box, agent and box on targets
    assert len(kinds) == 6 and at(4, 6) == at(7, 4)
    env, state = room()
    assert tuple(env.render(state[0])[3 * side + 1, 2 * side + 1]) not in kinds  # the agent on the floor


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"num_levels": 0}, ValueError, r"num_levels must be an integer in \[1, 1048576\], got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer in"),
        ({"num_pulls": 0}, ValueError, r"num_pulls must be an integer in \[1, 1000\], got 0"),
        ({"num_pulls": "20"}, TypeError, "num_pulls must be a static integer"),
        ({"max_steps": 65536}, ValueError, r"max_steps must be an integer in \[1, 65535\], got 65536"),
        ({"int_r_coeff": -0.1}, ValueError, r"int_r_coeff must be a finite number in \[0, 1000\], got -0.1"),
        ({"target_loss_penalty": float("nan")}, ValueError, "target_loss_penalty must be a finite number"),
        ({"timeout_reward": "no"}, TypeError, "timeout_reward must be a finite number"),
        ({"egocentric": 1}, TypeError, "egocentric must be True or False, got 1"),
        ({"levels": 3}, TypeError, "levels must be a path, got 3"),
        ({"size": 10}, ValueError, "boxoban has no argument 'size'; valid are num_levels, seed, num_pulls, levels"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("boxoban", **params)


def cells(*members):
    return pack(np.isin(np.arange(128), members)[:100]) if max(members) < 100 else np.uint32([0, 0, 0, 1 << 4])


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"level": 1}, "level is out of range"),
        ({"agent": 5}, "the agent is outside the grid"),
        ({"agent": 255}, "the agent is outside the grid"),
        ({"agent": 36}, "the agent is in a wall"),
        ({"agent": 22}, "the agent is in a box"),
        ({"boxes": cells(22, 35, 43, 36)}, "a box is in a wall"),
        ({"boxes": cells(22, 35, 43, 9)}, "a box is in a wall"),
        ({"boxes": cells(100)}, "a box is outside the grid"),
        ({"boxes": cells(22, 35, 43)}, "there are not four boxes"),
        ({"boxes": cells(22, 35, 43, 11, 12)}, "there are not four boxes"),
        ({"boxes": cells(25, 35, 47, 64)}, "the level is already solved"),
        ({"covered": 0}, "the targets covered so far contradict the boxes"),
        ({"covered": 16}, "the targets covered so far contradict the boxes"),
        ({"tick": 150}, "the clock is past the step limit"),
        ({"unused": 1}, "the reserved bytes are not zero"),
    ],
)
def test_restore_refuses_impossible_rows(room, fields, reason):
    env, state = room(ROOM.replace("*   #", "*#  #"))
    row = np.array(state).view(ROW)
    for name, value in fields.items():
        row[name] = value
    with pytest.raises(REFUSAL, match=rf"rows\[0\] is not a snapshot of this simulator: {reason}"):
        env.restore(state, row.view(np.uint8), np.zeros(1, np.int32)).block_until_ready()


def test_garbage_never_crashes(survive):
    random = np.random.default_rng(0)
    rows = []
    for trial in range(200):
        garbage = random.integers(0, 256, (1, 32), dtype=np.uint8)
        if trial % 2:  # a level and an agent on the grid with everything else garbage
            garbage.view(ROW)["level"], garbage.view(ROW)["agent"] = random.integers(7), 10 * random.integers(1, 9) + 4
        rows.append(garbage)
    assert survive(make(num_levels=7), rows) == 300
