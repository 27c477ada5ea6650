"""Four rooms once more, slowly: NumPy, written from the rules in four_rooms.h. For tests.

Randomness is the same Philox stream, so episodes agree bit for bit with the native simulator.
"""

import numpy as np

from pufferjax.envs.philox import Philox

AHEAD = ((1, 0), (0, 1), (-1, 0), (0, -1))  # of the headings east, south, west, north as (dx, dy)
VIEW = 7
EMPTY, WALL, GOAL = (1, 0, 0), (2, 5, 0), (8, 1, 0)


def sight(is_open: np.ndarray) -> np.ndarray:
    """bool[N, 7, 7], [i, j]: which cells of the views are seen; is_open bool[N, 7, 7]: which let sight through."""
    seen = np.zeros_like(is_open)
    seen[:, VIEW // 2, VIEW - 1] = True
    for j in reversed(range(VIEW)):
        for order, step in ((range(VIEW - 1), 1), (reversed(range(1, VIEW)), -1)):
            for i in order:
                spreads = seen[:, i, j] & is_open[:, i, j]
                seen[:, i + step, j] |= spreads
                if j > 0:
                    seen[:, i + step, j - 1] |= spreads
                    seen[:, i, j - 1] |= spreads
    return seen


class FourRooms:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(self, num_envs: int, *, size: int):
        self.size = size
        self.tick = np.zeros(num_envs, np.int64)
        self.agent = [(0, 0)] * num_envs
        self.heading = [0] * num_envs
        self.goal = [(0, 0)] * num_envs
        self.walls = np.ones((num_envs, size, size), bool)  # [x, y]
        # The same as 0 empty, 1 wall, 2 goal, with VIEW cells of wall around it.
        self.framed = np.ones((num_envs, size + 2 * VIEW, size + 2 * VIEW), np.uint8)

    def reset(self, words: np.ndarray) -> np.ndarray:
        for env in range(len(self.tick)):
            self._begin(env, Philox(words[0], words[1], env))
        return self.observe()

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`."""
        num_envs, limit = len(self.tick), 4 * self.size
        reward, length = np.zeros(num_envs, np.float32), np.zeros(num_envs, np.int32)
        terminated, truncated = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        self.tick += 1
        for env, action in enumerate(actions.tolist()):
            if action == 2:
                (x, y), (dx, dy) = self.agent[env], AHEAD[self.heading[env]]
                if not self.walls[env, x + dx, y + dy]:
                    self.agent[env] = (x + dx, y + dy)
                    terminated[env] = self.agent[env] == self.goal[env]
            elif action < 2:
                self.heading[env] = (self.heading[env] + (1 if action else -1)) % 4
            truncated[env] = not terminated[env] and self.tick[env] >= limit
            if terminated[env]:
                reward[env] = 1 - 0.9 * (self.tick[env] / limit)
            if terminated[env] or truncated[env]:
                length[env] = self.tick[env]
                self._begin(env, Philox(words[0], words[1], env))
        perf = terminated.astype(np.float32)
        info = {"episode_return": reward, "episode_length": length, "score": reward, "perf": perf}
        return self.observe(), reward, terminated, truncated, info

    def observe(self) -> np.ndarray:
        views = np.stack([self._view(env) for env in range(len(self.tick))])
        cells = np.array([EMPTY, WALL, GOAL], np.uint8)[views]
        return np.where(sight(views != 1)[..., None], cells, np.uint8(0))

    def _view(self, env: int) -> np.ndarray:
        """[i, j]: 0 empty, 1 wall, 2 goal; turned so that the agent looks at column j = 0 from (3, 6)."""
        (x, y), (dx, dy) = self.agent[env], AHEAD[self.heading[env]]
        half = VIEW // 2
        # The corner of the square that has the agent in the middle of one side and lies ahead of it.
        left, top = x + VIEW - half + half * dx, y + VIEW - half + half * dy
        # [x, y] looking north is the view itself; every turn of the agent to the right turns the rest.
        return np.rot90(self.framed[env, left : left + VIEW, top : top + VIEW], -(self.heading[env] + 1))

    def _begin(self, env: int, random: Philox) -> None:
        half = self.size // 2
        side = half - 1
        gaps = [1 + (i % 2) * half + random.below(side) for i in range(4)]
        walls = np.zeros((self.size, self.size), bool)
        walls[[0, half, -1]] = walls[:, [0, half, -1]] = True
        walls[half, gaps[:2]] = walls[gaps[2:], half] = False
        rooms = [
            (1 + right * half + x, 1 + lower * half + y)
            for lower in (0, 1) for right in (0, 1) for y in range(side) for x in range(side)
        ]  # fmt: skip
        cells = [*rooms, (half, gaps[0]), (half, gaps[1]), (gaps[2], half), (gaps[3], half)]
        agent = random.below(len(cells))
        self.agent[env] = cells.pop(agent)
        self.goal[env] = cells[random.below(len(cells))]
        self.heading[env] = random.below(4)
        self.walls[env] = walls
        self.framed[env] = np.pad(walls.astype(np.uint8), VIEW, constant_values=1)
        self.framed[env, self.goal[env][0] + VIEW, self.goal[env][1] + VIEW] = 2
        self.tick[env] = 0
