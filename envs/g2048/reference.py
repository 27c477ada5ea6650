"""2048 once more, slowly: plain Python integers, written from the rules in g2048.h. For tests.

Randomness is the same Philox stream, so games agree bit for bit with the native simulator.
"""

import dataclasses
import functools

import numpy as np

from pufferjax.envs.philox import Philox

UP, DOWN, LEFT, RIGHT = range(4)
_POWERS = (100, 283, 520, 800, 1118, 1470, 1852, 2263, 2700, 3162, 3648)  # 100 j^1.5, j from 1


# The cells of each line, from the side that an action moves it to.
_LINES = (
    [[0 + i, 4 + i, 8 + i, 12 + i] for i in range(4)],
    [[12 + i, 8 + i, 4 + i, 0 + i] for i in range(4)],
    [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(4)],
    [[4 * i + 3, 4 * i + 2, 4 * i + 1, 4 * i] for i in range(4)],
)
_NEIGHBOURS = [(i, i + 4) for i in range(12)] + [(i, i + 1) for i in range(16) if i % 4 < 3]


@functools.cache
def push(line: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """A line moved to its beginning, and the exponents that merges made."""
    tiles, merges, moved = [x for x in line if x], [], []
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile = tiles.pop(0) + 1
            merges.append(tile)
        moved.append(tile)
    return moved + [0] * (len(line) - len(moved)), merges


def move(board: list[int], action: int) -> tuple[list[int], list[int]]:
    """The 16 cells after a move, before a tile appears, and the exponents that merges made."""
    after, all_merges = [0] * 16, []
    for cells in _LINES[action]:
        moved, merges = push(tuple(board[cell] for cell in cells))
        for cell, exponent in zip(cells, moved, strict=True):
            after[cell] = exponent
        all_merges += merges
    return after, all_merges


def is_over(board: list[int]) -> bool:
    return 0 not in board and all(board[a] != board[b] for a, b in _NEIGHBOURS)


def merge_reward(exponent: int) -> int:
    """In units of 1e-4."""
    return 500 if exponent <= 6 else 500 + 3 * _POWERS[exponent - 7]


@dataclasses.dataclass
class Game:
    board: list[int]  # exponents, row-major
    tick: int = 0
    score: int = 0
    reward_units: int = 0  # of 1e-4
    best: int = 0
    has_moved: bool = False
    is_scaffolding: bool = False


class Games:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(self, num_envs: int, *, scaffolding: float):
        self.scaffolding = scaffolding
        self.games = [Game([0] * 16) for _ in range(num_envs)]

    def reset(self, words: np.ndarray) -> np.ndarray:
        for env in range(len(self.games)):
            self._begin(env, Philox(words[0], words[1], env))
        return self.observe()

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`."""
        num_envs = len(self.games)
        reward, terminated = np.zeros(num_envs, np.float32), np.zeros(num_envs, bool)
        info = {name: np.zeros(num_envs, np.float32) for name in ("episode_return", "score", "perf")}
        info["episode_length"] = np.zeros(num_envs, np.int32)
        for env, action in enumerate(actions.tolist()):
            game, random = self.games[env], Philox(words[0], words[1], env)
            moved, merges = move(game.board, action)
            units, over = -500, False
            if moved != game.board:
                units = sum(merge_reward(exponent) for exponent in merges)
                game.board, game.has_moved = moved, True
                game.score += sum(2**exponent for exponent in merges)
                self._spawn(game.board, random)
                over = is_over(game.board)
                units -= 10_000 * over
            game.tick += 1
            game.reward_units += units
            reward[env] = np.float32(units) / np.float32(10_000)
            limit = max(1000 * max(1, game.best - 8), game.score / 4) if game.has_moved else 1000
            terminated[env] = over or game.tick >= limit
            if terminated[env]:
                highest = max(game.board)
                if not game.is_scaffolding:
                    game.best = max(game.best, highest)
                info["episode_return"][env] = np.float32(game.reward_units) / np.float32(10_000)
                info["episode_length"][env] = game.tick
                info["score"][env] = 2**highest
                info["perf"][env] = min(1, 0.8 * 2**highest / 65536)
                self._begin(env, random)
        return self.observe(), reward, terminated, np.zeros(num_envs, bool), info

    def observe(self) -> np.ndarray:
        return np.array([game.board for game in self.games], np.uint8).reshape(-1, 4, 4)

    def _begin(self, env: int, random: Philox) -> None:
        best = self.games[env].best
        game = self.games[env] = Game([0] * 16, best=best)
        game.is_scaffolding = self.scaffolding > 0 and random.uniform() < self.scaffolding
        if not game.is_scaffolding:
            self._spawn(game.board, random)
            self._spawn(game.board, random)
            return
        if best < 14:
            tiles = [max(12 + random.below(5), best)]
        else:
            b = 15 if best >= 16 else 14
            tiles = [[b], [b + 1], [b, b - 1], [b + 1, b]][random.below(4)]
        for tile in tiles:
            self._place(game.board, tile, random.next())

    @staticmethod
    def _place(board: list[int], exponent: int, word: int) -> None:
        empty = [cell for cell in range(16) if not board[cell]]
        board[empty[word * len(empty) >> 32]] = exponent

    def _spawn(self, board: list[int], random: Philox) -> None:
        word = random.next()
        self._place(board, 2 if random.below(10) == 0 else 1, word)
