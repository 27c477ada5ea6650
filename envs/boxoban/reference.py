"""Boxoban once more, slowly: NumPy and plain Python, written from the rules in boxoban.h and levels.h. For tests.

Randomness is the same Philox4x32-10 stream, so levels and trajectories agree bit for bit with the native simulator.
"""

import dataclasses
import itertools
from collections import deque

import numpy as np

from pufferjax.envs.maze.reference import Philox

OFFSETS = (0, 10, -10, -1, 1)  # of the actions stay, down, up, left, right; cells are 10 * y + x
DIRECTIONS = OFFSETS[1:]  # direction d ^ 1 is the opposite of d, d ^ 2 turns
_MASK = 0xFFFFFFFF

ROW = np.dtype(
    [
        ("level", "<u4"),
        ("tick", "<u4"),
        ("boxes", "<u4", 4),
        ("agent", "u1"),
        ("covered", "u1"),
        ("losses", "<u2"),
        ("unused", "<u4"),
    ]
)


@dataclasses.dataclass(frozen=True)
class Level:
    walls: np.ndarray  # bool[100]
    targets: np.ndarray  # bool[100]
    boxes: np.ndarray  # bool[100], at the start
    agent: int
    solution: tuple[int, ...] = ()  # actions; empty if unknown


def pack(cells: np.ndarray) -> np.ndarray:
    """bool[..., 100] -> u32[..., 4]."""
    padding = [(0, 0)] * (cells.ndim - 1) + [(0, 28)]
    return np.packbits(np.pad(cells, padding), axis=-1, bitorder="little").view("<u4")


def unpack(words: np.ndarray) -> np.ndarray:
    """u32[..., 4] -> bool[..., 100]."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :100].astype(bool)


def is_inside(cell: int) -> bool:
    return 1 <= cell // 10 <= 8 and 1 <= cell % 10 <= 8


def parse(text: str) -> Level:
    """A level of ten lines."""
    symbols = "".join(text.splitlines())
    cells = {kind: np.array([c in kind for c in symbols]) for kind in ("#", ".+*", "$*")}
    return Level(cells["#"], cells[".+*"], cells["$*"], max(symbols.find("@"), symbols.find("+")))


def text_of(level: Level) -> str:
    """The inverse of `parse`."""

    def symbol(cell):
        if level.walls[cell]:
            return "#"
        if level.boxes[cell]:
            return "*" if level.targets[cell] else "$"
        if cell == level.agent:
            return "+" if level.targets[cell] else "@"
        return "." if level.targets[cell] else " "

    return "\n".join("".join(symbol(10 * y + x) for x in range(10)) for y in range(10))


# --- the generator ----------------------------------------------------------------------------------------------------
def carve(random: Philox) -> set[int]:
    """The floor cells of a new room."""
    wanted = 22 + random.below(19)
    x = 1 + random.below(8)
    y = 1 + random.below(8)
    cell = 10 * y + x
    floor = {cell}
    direction = random.below(4)
    while len(floor) < wanted:
        if random.below(5) < 2:
            direction = random.below(4)
        if not is_inside(cell + DIRECTIONS[direction]):
            direction = random.below(4)
            continue
        cell += DIRECTIONS[direction]
        floor.add(cell)
        if random.below(2) and is_inside(cell + DIRECTIONS[direction ^ 2]):
            floor.add(cell + DIRECTIONS[direction ^ 2])
    return floor


def distances(free: set[int], start: int) -> dict[int, int]:
    """Steps from `start` to every cell of `free` it reaches."""
    found, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for offset in DIRECTIONS:
            if cell + offset in free and cell + offset not in found:
                found[cell + offset] = found[cell] + 1
                queue.append(cell + offset)
    return found


def walk(free: set[int], start: int, end: int) -> list[int]:
    """The actions of a shortest walk."""
    steps, actions = distances(free, end), []
    while start != end:
        action = next(a for a in (1, 2, 3, 4) if steps.get(start + OFFSETS[a], steps[start]) < steps[start])
        actions.append(action)
        start += OFFSETS[action]
    return actions


def play_backwards(floor: set[int], random: Philox, num_pulls: int, max_steps: int) -> tuple[Level, int, bool]:
    """A level on this floor, with its solution; how many of its boxes are off all targets; whether at least half of the
    pulls (one taken back counts) or of the steps were made."""
    cells = sorted(floor)
    for i in range(4):
        j = i + random.below(len(cells) - i)
        cells[i], cells[j] = cells[j], cells[i]
    boxes, targets = cells[:4], set(cells[:4])
    agent, steps, last, banned = None, 0, None, None  # pulls are (box, direction)
    pushes = []  # in reverse: (the cell from which the agent pushes, action, cells that are free during the walk to it)
    undo = None  # the boxes, the agent and the steps before the last pull
    for left in range(num_pulls, 0, -1):
        free = floor - set(boxes)
        reached = dict.fromkeys(free, 0) if agent is None else distances(free, agent)
        pulls = []
        for box in range(4):
            for direction, offset in enumerate(DIRECTIONS):
                stand = boxes[box] + offset
                if (box, direction) == banned or (last is not None and (box, direction) == (last[0], last[1] ^ 1)):
                    continue
                if stand in reached and stand + offset in free and steps + reached[stand] + 1 <= max_steps:
                    pulls.append((box, direction))
        if not pulls:
            if last is None or banned is not None:
                break
            boxes, agent, steps = undo
            pushes.pop()
            last, banned = None, last
            continue
        on_targets = sum(box in targets for box in boxes)
        same_box = []
        if last is not None and left > on_targets and random.below(4) != 0:
            same_box = [pull for pull in pulls if pull[0] == last[0]]
        pulls = same_box or [pull for pull in pulls if boxes[pull[0]] in targets] or pulls
        undo = list(boxes), agent, steps
        box, direction = last = pulls[random.below(len(pulls))]
        banned = None
        stand = boxes[box] + DIRECTIONS[direction]
        steps += reached[stand] + 1
        boxes[box], agent = stand, stand + DIRECTIONS[direction]
        pushes.append((agent, 1 + (direction ^ 1), floor - set(boxes)))
    else:
        left = 0
    free = floor - set(boxes)
    reached = dict.fromkeys(free, 0) if agent is None else distances(free, agent)
    starts = [cell for cell in sorted(reached) if steps + reached[cell] <= max_steps]
    start = at = starts[random.below(len(starts))]
    solution: list[int] = []
    for cell, action, free in reversed(pushes):
        solution += [*walk(free, at, cell), action]
        at = cell + OFFSETS[action]

    def cell_set(members):
        return np.isin(np.arange(100), list(members))

    level = Level(~cell_set(floor), cell_set(targets), cell_set(boxes), start, tuple(solution))
    is_long = 2 * left <= num_pulls or 2 * steps >= max_steps
    return level, sum(box not in targets for box in boxes), is_long


def generate(seed: int, index: int, num_pulls: int, max_steps: int) -> Level:
    """Level `index` of the set `seed`, with a solution."""
    random = Philox(seed & _MASK, seed >> 32, index, 1)
    for attempt in itertools.count():
        level, displaced, is_long = play_backwards(carve(random), random, num_pulls, max_steps)
        if (is_long and displaced >= min(num_pulls, 4)) if attempt < 64 else displaced >= 1:
            return level
    raise AssertionError


# --- the simulator ----------------------------------------------------------------------------------------------------
class Boxobans:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(
        self,
        num_envs: int,
        levels: list[Level],
        *,
        max_steps: int,
        int_r_coeff: float,
        target_loss_penalty: float,
        timeout_reward: float,
    ):
        self.levels, self.max_steps = levels, max_steps
        self.coefficients = np.float32([int_r_coeff, target_loss_penalty, timeout_reward])
        self.level, self.tick, self.agent, self.losses = (np.zeros(num_envs, np.int64) for _ in range(4))
        self.boxes = np.zeros((num_envs, 100), bool)
        self.was_covered = np.zeros((num_envs, 100), bool)  # so far in the episode

    def reset(self, words: np.ndarray) -> np.ndarray:
        for env in range(len(self.tick)):
            self._begin(env, words)
        return self.observe()

    def rows(self) -> np.ndarray:
        """u8[N, S]."""
        row = np.zeros(len(self.tick), ROW)
        for name in ("level", "tick", "agent", "losses"):
            row[name] = getattr(self, name)
        row["boxes"] = pack(self.boxes)
        targets = self._cells("targets")
        row["covered"] = self.was_covered[targets].reshape(-1, 4) @ [1, 2, 4, 8]
        return row.view(np.uint8).reshape(len(row), -1)

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`."""
        coefficient, penalty, timeout_reward = self.coefficients
        envs = np.arange(len(self.tick))
        walls, targets = self._cells("walls"), self._cells("targets")
        offset = np.array(OFFSETS)[actions]
        ahead = self.agent + offset
        behind = np.clip(ahead + offset, 0, 99)  # of a wall ahead nothing is pushed
        pushes = self.boxes[envs, ahead] & (offset != 0)
        is_blocked = walls[envs, ahead] | (pushes & (walls[envs, behind] | self.boxes[envs, behind]))
        pushes &= ~is_blocked
        self.agent = np.where(is_blocked, self.agent, ahead)
        moved = envs[pushes]
        self.boxes[moved, ahead[moved]] = False
        self.boxes[moved, behind[moved]] = True
        lost = pushes & targets[envs, ahead]
        hit = pushes & targets[envs, behind] & ~self.was_covered[envs, behind]
        self.was_covered[moved, behind[moved]] |= targets[moved, behind[moved]]
        self.losses += lost
        self.tick += 1
        terminated = pushes & (self.boxes | ~targets).all(axis=1)
        truncated = ~terminated & (self.tick >= self.max_steps)
        last = np.where(terminated, np.float32(1), np.where(truncated, timeout_reward, np.float32(0)))
        reward = (np.float32(0) - penalty * lost) + coefficient * hit + last
        hits = (self.was_covered & ~self._cells("boxes")).sum(axis=1).astype(np.float32)
        ended = terminated | truncated
        info = {
            "episode_return": np.where(
                ended, coefficient * hits - penalty * self.losses.astype(np.float32) + last, np.float32(0)
            ),
            "episode_length": np.where(ended, self.tick, 0).astype(np.int32),
            "score": terminated.astype(np.float32),
            "perf": terminated.astype(np.float32),
        }
        for env in np.flatnonzero(ended):
            self._begin(int(env), words)
        return self.observe(), reward.astype(np.float32), terminated, truncated, info

    def observe(self) -> np.ndarray:
        agent = np.arange(100) == self.agent[:, None]
        planes = np.stack([agent, self._cells("walls"), self.boxes, self._cells("targets")], axis=1)
        return planes.reshape(-1, 4, 10, 10).astype(np.uint8)

    def _begin(self, env: int, words: np.ndarray) -> None:
        self.level[env] = Philox(words[0], words[1], env).below(len(self.levels))
        level = self.levels[self.level[env]]
        self.tick[env], self.losses[env], self.agent[env] = 0, 0, level.agent
        self.boxes[env] = level.boxes
        self.was_covered[env] = level.boxes & level.targets

    def _cells(self, name: str) -> np.ndarray:
        """bool[N, 100]: `walls`, `targets` or (at the start) `boxes` of the levels."""
        return np.stack([getattr(level, name) for level in self.levels])[self.level]
