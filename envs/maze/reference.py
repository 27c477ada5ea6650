"""The maze once more, slowly: plain Python integers and NumPy, written from the rules in maze.h. For tests.

Randomness is the same Philox4x32-10 stream, so levels and trajectories agree bit for bit with the native simulator.
"""

import numpy as np

from pufferjax.envs.philox import Philox

STEPS = ((0, 0), (1, 0), (0, -1), (-1, 0), (0, 1))  # stay, east, north, west, south as (dx, dy)
_MASK = 0xFFFFFFFF


def grow(size: int, random: Philox) -> np.ndarray:
    """A perfect maze bool[size, size], True for walls, indexed [y, x]."""
    walls = np.ones((size, size), bool)
    difficulty = random.uniform()
    active = [(1, 1)]
    walls[1, 1] = False
    while active:
        if random.uniform() >= difficulty:
            chosen = random.below(len(active))
            active[chosen], active[-1] = active[-1], active[chosen]
        x, y = active[-1]
        neighbours = [(x + 2 * dx, y + 2 * dy) for dx, dy in STEPS[1:]]
        unvisited = [(u, v) for u, v in neighbours if 1 <= u <= size - 2 and 1 <= v <= size - 2 and walls[v, u]]
        if not unvisited:
            active.pop()
            continue
        u, v = unvisited[random.below(len(unvisited))]
        walls[(y + v) // 2, (x + u) // 2] = False
        walls[v, u] = False
        active.append((u, v))
    return walls


def shared_level(size: int, seed: int, level: int) -> np.ndarray:
    """Level `level` of the set `seed`, bool[size, size]."""
    return grow(size, Philox(seed & _MASK, seed >> 32, level, 1))


class Mazes:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(self, num_envs: int, *, size: int, num_mazes: int, seed: int, vision: int):
        self.size, self.num_mazes, self.seed, self.vision = size, num_mazes, seed, vision
        self.goal = (size - 2, size - 2)
        self.position = [(1, 1)] * num_envs
        self.tick = [0] * num_envs
        self.level = [0] * num_envs
        self.walls = [np.zeros((size, size), bool)] * num_envs
        self._cache: dict[int, np.ndarray] = {}

    def reset(self, words: np.ndarray) -> np.ndarray:
        for env in range(len(self.tick)):
            self._begin(env, Philox(words[0], words[1], env))
        return self.observe()

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, episode_return, episode_length: as in `Env.step`."""
        num_envs = len(self.tick)
        reward, episode_return = np.zeros(num_envs, np.float32), np.zeros(num_envs, np.float32)
        terminated, truncated = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        episode_length = np.zeros(num_envs, np.int32)
        for env, action in enumerate(actions):
            dx, dy = STEPS[action]
            x, y = self.position[env][0] + dx, self.position[env][1] + dy
            if not self.walls[env][y, x]:
                self.position[env] = (x, y)
            self.tick[env] += 1
            terminated[env] = self.position[env] == self.goal
            truncated[env] = not terminated[env] and self.tick[env] >= 2 * self.size * self.size
            reward[env] = terminated[env]
            if terminated[env] or truncated[env]:
                episode_return[env], episode_length[env] = reward[env], self.tick[env]
                self._begin(env, Philox(words[0], words[1], env))
        return self.observe(), reward, terminated, truncated, episode_return, episode_length

    def observe(self) -> np.ndarray:
        half = self.vision // 2
        obs = np.zeros((len(self.tick), self.vision, self.vision), np.uint8)
        for env, (x, y) in enumerate(self.position):
            cells = self.walls[env].astype(np.uint8)
            cells[self.goal[1], self.goal[0]] = 4
            cells[y, x] = 2
            obs[env] = np.pad(cells, half)[y : y + self.vision, x : x + self.vision]
        return obs

    def _begin(self, env: int, random: Philox) -> None:
        self.position[env], self.tick[env] = (1, 1), 0
        if self.num_mazes == 0:
            self.walls[env] = grow(self.size, random)
            return
        self.level[env] = random.below(self.num_mazes)
        if self.level[env] not in self._cache:
            self._cache[self.level[env]] = shared_level(self.size, self.seed, self.level[env])
        self.walls[env] = self._cache[self.level[env]]
