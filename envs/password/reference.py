"""The password once more, slowly: NumPy, written from the rules in password.h. For tests."""

import numpy as np


def secret(length: int) -> np.ndarray:
    """The word, i64[length], symbols 1 to 9."""
    x, symbols = 42, []
    for _ in range(length):
        x = (1664525 * x + 1013904223) % 2**32
        symbols.append(1 + x % 9)
    return np.array(symbols)


class Passwords:
    """N simulators in lockstep. Nothing in this game is random."""

    def __init__(self, num_envs: int, *, length: int):
        self.secret = secret(length)
        self.position = np.zeros(num_envs, np.int64)
        self.tick = np.zeros(num_envs, np.int64)

    def step(self, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`."""
        is_right = self.secret[self.position] == actions + 1
        self.tick += 1
        self.position += is_right
        ended = ~is_right | (self.position == len(self.secret))
        info = {
            "episode_return": np.where(ended, self.position - ~is_right, 0).astype(np.float32),
            "episode_length": np.where(ended, self.tick, 0).astype(np.int32),
            "score": np.where(ended, self.position, 0).astype(np.float32),
            "perf": np.where(ended, self.position.astype(np.float32) / np.float32(len(self.secret)), np.float32(0)),
        }
        self.position[ended] = self.tick[ended] = 0
        reward = np.where(is_right, 1, -1).astype(np.float32)
        return self.observe(), reward, ended, np.zeros_like(ended), info

    def observe(self) -> np.ndarray:
        is_known = np.arange(len(self.secret)) < self.position[:, None]
        return np.where(is_known, self.secret, 0).astype(np.uint8)
