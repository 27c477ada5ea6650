"""MiniGrid against the Python package it comes from: its boards, played by both; its levels, from the same choices and
from its own.

A slice; with PUFFERJAX_NIGHTLY=1 100,000 actions of each family, and more levels of every task.
"""

import math
import os
import zlib
from collections import Counter

import jax
import numpy as np
import pytest
from scipy.stats import chi2_contingency

pytest.importorskip("minigrid", reason="the package minigrid is not installed: pip install minigrid (extra `test`)")

import gymnasium
from minigrid.core.constants import COLOR_TO_IDX, IDX_TO_COLOR
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall
from minigrid.envs import MultiRoomEnv

from pufferjax import envs
from pufferjax.envs.minigrid import reference
from pufferjax.envs.minigrid.minigrid import (
    BALL,
    BOX,
    CLOSED,
    FAMILIES,
    FREE,
    GOAL,
    KEY,
    LAVA,
    LOCKED,
    OPEN,
    TASKS,
    WALL,
    WITH_KEY,
    layout,
)
from pufferjax.envs.philox import Philox

NIGHTLY = os.environ.get("PUFFERJAX_NIGHTLY") == "1"
# What the package has no name for, though published results do.
UNNAMED = ("MultiRoom-N7-S4", "MultiRoom-N7-S8", "MultiRoom-N10-S4", "MultiRoom-N10-S10", "MultiRoom-N12-S10")
SLOW = ("MultiRoom-N10-S10", "MultiRoom-N12-S10")  # to draw, with the package
# One of each family, and the hardest kinds.
SLICE = (
    "Empty-Random-6x6", "DoorKey-6x6", "MultiRoom-N4-S5", "MultiRoom-N7-S8", "KeyCorridorS3R3", "KeyCorridorS4R3",
    "Unlock", "UnlockPickup", "BlockedUnlockPickup", "ObstructedMaze-1Dlhb", "ObstructedMaze-2Dlhb",
    "ObstructedMaze-Full-v1", "LavaCrossingS9N2", "SimpleCrossingS11N5", "RedBlueDoors-6x6",
)  # fmt: skip
PLAYED = tuple(task for task in TASKS if task not in SLOW) if NIGHTLY else SLICE
ACTIONS_OF_A_FAMILY = 100_000 if NIGHTLY else 960
COMPARED = tuple(TASKS) if NIGHTLY else ("KeyCorridorS4R3", "ObstructedMaze-2Q")
THEIR_LEVELS, OUR_LEVELS = (1000, 4000) if NIGHTLY else (100, 1000)


def make(task, **kwargs):
    """The package's environment of this name."""
    if task in UNNAMED:
        _, size, _, _, count, _ = TASKS[task]
        return MultiRoomEnv(minNumRooms=count, maxNumRooms=count, maxRoomSize=size, **kwargs)
    name = f"MiniGrid-{task}" if task.endswith("-v1") else f"MiniGrid-{task}-v0"
    return gymnasium.make(name, disable_env_checker=True, **kwargs).unwrapped


def code(thing):
    """The byte of a cell that holds `thing`, an object of the package or None."""
    if thing is None:
        return FREE
    colour = COLOR_TO_IDX[thing.color]
    match thing:
        case Wall():
            return WALL
        case Goal():
            return GOAL
        case Lava():
            return LAVA
        case Door():
            return (OPEN if thing.is_open else LOCKED if thing.is_locked else CLOSED) + colour
        case Key():
            return KEY + colour
        case Ball():
            return BALL + colour
        case Box():
            assert thing.contains is None or isinstance(thing.contains, Key)
            return BOX + colour + (WITH_KEY * (1 + COLOR_TO_IDX[thing.contains.color]) if thing.contains else 0)
    raise AssertionError(thing)


def row(env, task):
    """u8[S]: the state of one of the package's environments."""
    record = np.zeros((), layout(task))
    record["tick"] = env.step_count
    record["x"], record["y"] = env.agent_pos
    record["heading"] = env.agent_dir
    record["carrying"] = 0 if env.carrying is None else code(env.carrying)
    record["target"] = code(env.obj) if hasattr(env, "obj") else 0
    record["cells"] = np.reshape([code(thing) for thing in env.grid.grid], (env.height, env.width))
    return np.frombuffer(record.tobytes(), np.uint8)


def begin(env, random):
    """A new episode; of two in three the agent is put before a door or a thing, perhaps with a key in its hand, and one
    in three soon runs out of time: some doors are open: so that random actions meet
    every rule, and ends."""
    env.reset(seed=int(random.integers(2**31)))
    if random.random() < 1 / 3:
        env.step_count = int(max(0, env.max_steps - random.integers(1, 40)))
    cells = [(x, y) for x in range(env.width) for y in range(env.height)]
    things = [cell for cell in cells if not isinstance(env.grid.get(*cell), Wall | None)]
    for cell in things:
        thing = env.grid.get(*cell)
        if isinstance(thing, Door) and env.mission != "open the door" and random.random() < 0.3:
            thing.is_open, thing.is_locked = thing is not getattr(env, "blue_door", None), False
    if not things or random.random() < 1 / 3:
        return
    x, y = things[random.integers(len(things))]
    heading = int(random.integers(4))
    at = (x - (1, 0, -1, 0)[heading], y - (0, 1, 0, -1)[heading])
    if not (0 < at[0] < env.width - 1 and 0 < at[1] < env.height - 1):
        return
    under = env.grid.get(*at)
    if under is None or (isinstance(under, Door) and under.is_open):
        env.agent_pos, env.agent_dir = np.array(at), heading
        thing = env.grid.get(x, y)
        if isinstance(thing, Door) and random.random() < 0.7:
            env.carrying = Key(thing.color if random.random() < 0.8 else IDX_TO_COLOR[int(random.integers(6))])


def play(task, num_actions, **kwargs):
    """Random actions on 16 of the package's boards and on ours; counts what happened."""
    num_envs = 16
    random = np.random.default_rng(zlib.crc32(task.encode()))
    theirs, ours = [make(task, **kwargs) for _ in range(num_envs)], envs.make("minigrid", task=task, **kwargs)
    assert ours.spec.max_episode_steps == theirs[0].max_steps
    for env in theirs:
        begin(env, random)
    step, key = jax.jit(ours.step), jax.random.key(0)
    _, state = ours.reset(key, num_envs)
    state = ours.restore(state, np.stack([row(env, task) for env in theirs]), np.arange(num_envs, dtype=np.int32))
    np.testing.assert_array_equal(ours.observe(state), [env.gen_obs()["image"] for env in theirs])
    met = Counter()
    probabilities = np.array([0.12, 0.12, 0.32, 0.14, 0.08, 0.2, 0.02])
    for t in range(math.ceil(num_actions / num_envs)):
        actions = random.choice(7, num_envs, p=probabilities).astype(np.int32)
        obs, state, reward, terminated, truncated, _ = step(key, state, actions)
        obs, reward, terminated, truncated, rows = map(np.array, (obs, reward, terminated, truncated, state))
        ended = []
        for i, env in enumerate(theirs):
            their_obs, their_reward, ends, is_late, _ = env.step(int(actions[i]))
            # Where both come at once, the package says both.
            assert (np.float32(their_reward), ends, is_late and not ends) == (reward[i], terminated[i], truncated[i])
            met.update({"actions": 1, "solved": their_reward > 0, "lost": ends and their_reward == 0, "late": is_late})
            if ends or is_late or random.random() < 0.05:
                begin(env, random)
                rows[i] = row(env, task)
                ended.append(i)
            else:
                assert (obs[i] == their_obs["image"]).all(), (task, t, i)
                if t % 4 == 0:
                    np.testing.assert_array_equal(rows[i], row(env, task))
        if ended:
            state = ours.restore(state, rows[ended], np.array(ended, np.int32))
    return met


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_package_agrees(family):
    tasks = [task for task in PLAYED if TASKS[task].family == family]
    met = sum((play(task, ACTIONS_OF_A_FAMILY / len(tasks)) for task in tasks), Counter())
    print(f"{family}: {dict(met)}")
    assert met["actions"] >= ACTIONS_OF_A_FAMILY and met["solved"] and met["late"]
    assert bool(met["lost"]) == (family in ("Crossing", "RedBlueDoors"))


def test_the_package_agrees_with_other_settings():
    met = play("KeyCorridorS3R3", 320, max_steps=7)
    assert met["late"] > 20
    # What the package's class does not take as an argument.
    theirs, ours = (
        make("DoorKey-8x8", see_through_walls=True),
        envs.make("minigrid", task="DoorKey-8x8", see_through_walls=True),
    )
    for seed in range(5):
        theirs.reset(seed=seed)
        np.testing.assert_array_equal(ours.observe(row(theirs, "DoorKey-8x8")[None])[0], theirs.gen_obs()["image"])


# --- levels
class Chooses:
    """Stands for the package's random numbers in `env`: its choices are those of our stream (key, index)."""

    def __init__(self, env, words, index):
        self.philox = Philox(words[0], words[1], index)
        self.below, self.env, self.width = self.philox.below, env, env.width
        self.entries = 0
        env.np_random = self
        if isinstance(env, MultiRoomEnv):
            # Rooms are placed by another stream, of which several choices are one draw.
            self.choices, self.below = None, lambda n: self.choices.below(n)
            self.rand_elem, env._rand_elem = env._rand_elem, self.element

    def element(self, values):
        values = list(values)
        if isinstance(values[0], str):  # colours: the rooms have their places
            self.below = self.philox.below
        else:
            self.choices.draw()
        return self.rand_elem(values)

    def integers(self, low, high):
        if isinstance(self.env, MultiRoomEnv):
            if self.choices is None:  # how many rooms
                self.choices = reference.Choices(self.philox.next() << 32 | self.philox.next())
                return low
            if (low, high) == (0, self.width - 2):  # x and y of where an attempt begins
                if self.entries % 2 == 0:
                    self.choices.draw()
                self.entries += 1
        return low + self.below(high - low)

    def choice(self, values):
        return values[self.below(len(values))]

    def shuffle(self, values):
        """Only of what is used afterwards: as many as there are crossings."""
        chosen = [values.pop(self.below(len(values))) for _ in range(self.env.num_crossings)]
        values[:0] = chosen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("task", TASKS)
def test_the_package_makes_the_same_levels_of_the_same_choices(task):
    num_levels = 1 if task in SLOW else 200 if NIGHTLY else 4
    key, env = jax.random.key(zlib.crc32(task.encode())), make(task)
    ours = np.asarray(envs.make("minigrid", task=task).reset(key, num_levels)[1])
    words = np.asarray(jax.random.bits(key, (2,), "uint32"))
    for i in range(num_levels):
        env = make(task)
        Chooses(env, words, i)
        env.reset()
        np.testing.assert_array_equal(row(env, task), ours[i])


def features(record):
    """What a board is like, by name; each of few values."""
    cells, x, y = record["cells"], int(record["x"]), int(record["y"])
    kinds, colours = cells & 0xF8, cells % 8
    doors = (kinds == CLOSED) | (kinds == LOCKED)
    boxes = kinds >= BOX
    things = doors | (kinds == KEY) | (kinds == BALL) | boxes
    dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[record["heading"]]
    is_wall = cells == WALL
    thick = is_wall[1:, 1:] & is_wall[:-1, 1:] & is_wall[1:, :-1] & is_wall[:-1, :-1]  # rooms that touch
    found = {
        "thick walls": int(thick.sum()),
        "heading": int(record["heading"]),
        "target": int(record["target"]),
        "ahead": int(kinds[y + dy, x + dx]),
        "walls": int((cells == WALL).sum()) // 4,
        "closed and locked": (int((kinds == CLOSED).sum()), int((kinds == LOCKED).sum())),
        "balls, keys, boxes": (int((kinds == BALL).sum()), int((kinds == KEY).sum()), int(boxes.sum())),
        "colours of doors": tuple(colours[doors].tolist()[:2]),
        "keys in boxes": tuple(sorted((kinds[boxes] - BOX).tolist())[:2]),
        "colours of balls": tuple(sorted(colours[kinds == BALL].tolist())[:2]),
        "keys fit": sorted(colours[kinds == LOCKED].tolist()) == sorted(colours[kinds == KEY].tolist()),
        "beside a door": int(np.isin(kinds[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2], (CLOSED, LOCKED)).sum()),
    }
    for name, mask in (("goal", cells == GOAL), ("thing", things), ("target", cells == record["target"])):
        where = np.argwhere(mask)
        if len(where):
            found[f"to the {name}"] = int(np.abs(where - (y, x)).sum(axis=1).min())
    # The room of the agent: how far one comes to either side.
    for name, line, at in (("across", cells[y], x), ("down", cells[:, x], y)):
        blocked = np.flatnonzero(line < FREE)
        found[f"room {name}"] = int(blocked[blocked > at].min() - blocked[blocked < at].max())
    return found


def p_value(theirs, ours):
    """That two samples come from one distribution; values that are rare count as one."""
    theirs, ours = Counter(theirs), Counter(ours)
    least = 8 * (1 + sum(ours.values()) / sum(theirs.values()))
    common = [value for value in theirs | ours if theirs[value] + ours[value] >= least]
    table = [
        [of[value] for value in common] + [sum(n for v, n in of.items() if v not in common)] for of in (theirs, ours)
    ]
    table = np.array(table)[:, np.sum(table, axis=0) > 0]
    return chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("task", COMPARED)
def test_levels_are_distributed_as_those_of_the_package(task):
    env = make(task)
    theirs = []
    for seed in range(THEIR_LEVELS // 10 if task in SLOW else THEIR_LEVELS):
        env.reset(seed=seed)
        theirs.append(row(env, task))
    theirs = np.stack(theirs).view(layout(task))[:, 0]
    ours = np.asarray(envs.make("minigrid", task=task).reset(jax.random.key(1), OUR_LEVELS)[1]).view(layout(task))[:, 0]
    of_theirs, of_ours = (list(map(features, records)) for records in (theirs, ours))
    results = {}
    for name in {name for found in of_theirs + of_ours for name in found}:
        results[name] = p_value(*([found.get(name) for found in of] for of in (of_theirs, of_ours)))
    # Each kind of thing and each colour, cell by cell; and the agent.
    for kind in (WALL, FREE, CLOSED, LOCKED, KEY, BALL, BOX, GOAL, LAVA):
        masks = [(r["cells"] & 0xF8 == kind) | ((kind == BOX) & (r["cells"] >= BOX)) for r in (theirs, ours)]
        results[f"places of {kind}"] = p_of_counts(*masks)
    at = [
        (np.indices(r["cells"].shape[1:])[:, None] == np.stack([r["y"], r["x"]])[:, :, None, None]).all(0)
        for r in (theirs, ours)
    ]
    results["places of the agent"] = p_of_counts(*at)
    print(f"{task}: {len(theirs)} and {len(ours)} levels, smallest p {min(results.values()):.5f} of {len(results)}")
    assert min(results.values()) > 1e-5, {name: p for name, p in results.items() if p < 1e-3}


def p_of_counts(theirs, ours):
    """That in every cell, bool[levels, height, width], they are as frequent: the smallest of the cells' p, times how
    many there are."""
    counts = [mask.reshape(len(mask), -1).sum(axis=0) for mask in (theirs, ours)]
    sizes = [len(theirs), len(ours)]
    share = (counts[0] + counts[1]) / sum(sizes)
    varies = (sizes[0] * share >= 5) & (sizes[0] * (1 - share) >= 5)
    ps = [
        chi2_contingency([[a, sizes[0] - a], [b, sizes[1] - b]]).pvalue
        for a, b in zip(counts[0][varies], counts[1][varies], strict=True)
    ]
    # A cell that never varies in one of them must not in the other.
    never = (share > 0) & (share < 1) & ~varies
    assert not (never & ((counts[0] == sizes[0]) & (counts[1] == 0))).any()
    return min([1.0, *(p * len(ps) for p in ps)])
