"""The chain once more, slowly: NumPy, written from the rules in chain_mdp.h. For tests."""

import numpy as np


class Chains:
    """N simulators in lockstep. Nothing in this game is random."""

    def __init__(self, num_envs: int, *, num_states: int):
        self.last = num_states - 1
        self.limit = num_states + 9
        self.position = np.ones(num_envs, np.int64)
        self.tick = np.zeros(num_envs, np.int64)
        self.thousandths = np.zeros(num_envs, np.int64)

    def step(self, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`."""
        self.position = np.clip(self.position + np.where(actions == 1, 1, -1), 0, self.last)
        thousandths = np.select([self.position == 0, self.position == self.last], [1, 1000], 0)
        self.thousandths += thousandths
        self.tick += 1
        ended = self.tick >= self.limit
        total = np.where(ended, self.thousandths, 0).astype(np.float32) / np.float32(1000)
        info = {
            "episode_return": total,
            "episode_length": np.where(ended, self.tick, 0).astype(np.int32),
            "score": total,
            "perf": (ended & (self.position == self.last)).astype(np.float32),
        }
        self.position[ended] = 1
        self.tick[ended] = self.thousandths[ended] = 0
        reward = thousandths.astype(np.float32) / np.float32(1000)
        return self.observe(), reward, np.zeros_like(ended), ended, info

    def observe(self) -> np.ndarray:
        return self.position.astype(np.uint8)[:, None]
