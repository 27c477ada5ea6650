"""2048 once more, slowly: plain Python integers and NumPy, written from the rules in g2048.h. For tests.

Randomness is the same Philox stream, so games agree bit for bit with the native simulator.
"""

import dataclasses

import numpy as np

from pufferjax.envs.philox import Philox

UP, DOWN, LEFT, RIGHT = range(4)
_POWERS = (100, 283, 520, 800, 1118, 1470, 1852, 2263, 2700, 3162, 3648)  # 100 j^1.5, j from 1


def push(line: list[int]) -> tuple[list[int], list[int]]:
    """A line moved to its beginning, and the exponents that merges made."""
    tiles, merges, moved = [x for x in line if x], [], []
    while tiles:
        tile = tiles.pop(0)
        if tiles and tiles[0] == tile:
            tile = tiles.pop(0) + 1
            merges.append(tile)
        moved.append(tile)
    return moved + [0] * (len(line) - len(moved)), merges


def move(board: np.ndarray, action: int) -> tuple[np.ndarray, list[int]]:
    """The board i64[4, 4] after a move, before a tile appears, and the exponents that merges made."""
    turned = board.T if action in (UP, DOWN) else board
    turned = turned[:, ::-1] if action in (DOWN, RIGHT) else turned
    lines = [push(line) for line in turned.tolist()]
    moved = np.array([line for line, _ in lines])
    moved = moved[:, ::-1] if action in (DOWN, RIGHT) else moved
    return (moved.T if action in (UP, DOWN) else moved), [x for _, merges in lines for x in merges]


def is_over(board: np.ndarray) -> bool:
    return bool(board.all() and (board[1:] != board[:-1]).all() and (board[:, 1:] != board[:, :-1]).all())


def merge_reward(exponent: int) -> int:
    """In units of 1e-4."""
    return 500 if exponent <= 6 else 500 + 3 * _POWERS[exponent - 7]


@dataclasses.dataclass
class Game:
    board: np.ndarray  # i64[4, 4], exponents
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
        self.games = [Game(np.zeros((4, 4), int)) for _ in range(num_envs)]

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
            if (moved != game.board).any():
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
                highest = int(game.board.max())
                if not game.is_scaffolding:
                    game.best = max(game.best, highest)
                info["episode_return"][env] = np.float32(game.reward_units) / np.float32(10_000)
                info["episode_length"][env] = game.tick
                info["score"][env] = 2**highest
                info["perf"][env] = min(1, 0.8 * 2**highest / 65536)
                self._begin(env, random)
        return self.observe(), reward, terminated, np.zeros(num_envs, bool), info

    def observe(self) -> np.ndarray:
        return np.stack([game.board for game in self.games]).astype(np.uint8)

    def _begin(self, env: int, random: Philox) -> None:
        best = self.games[env].best
        game = self.games[env] = Game(np.zeros((4, 4), int), best=best)
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
    def _place(board: np.ndarray, exponent: int, word: int) -> None:
        empty = np.flatnonzero(board.reshape(-1) == 0)
        board[np.unravel_index(empty[word * len(empty) >> 32], board.shape)] = exponent

    def _spawn(self, board: np.ndarray, random: Philox) -> None:
        word = random.next()
        self._place(board, 2 if random.below(10) == 0 else 1, word)
