"""Breakout once more, slowly: NumPy over all environments, every brick tried, written from the rules in breakout.h. For
tests.

32-bit floats in the same order of operations and the same random stream, so trajectories agree bit for bit with the
native simulator.
"""

import numpy as np

from pufferjax.envs.maze.reference import Philox

ROWS, COLUMNS = 6, 18
POINTS = np.repeat([7, 7, 4, 4, 1, 1], COLUMNS)
LEFT = np.float32(32) * np.arange(COLUMNS, dtype=np.float32)  # of the bricks in each column
TOP = np.float32(50) + np.float32(12) * np.arange(ROWS, dtype=np.float32)  # and row
WALL_LEFT_RIGHT, WALL_TOP, PADDLE = range(2 * ROWS * COLUMNS, 2 * ROWS * COLUMNS + 3)  # after both kinds of faces

ROW = np.dtype(
    [
        ("ball_x", "<f4"),
        ("ball_y", "<f4"),
        ("ball_vx", "<f4"),
        ("ball_vy", "<f4"),
        ("paddle_x", "<f4"),
        ("is_destroyed", "<u4", 4),
        ("tick", "<u4"),
        ("score", "<u2"),
        ("earned", "<u2"),
        ("ball_speed", "<u2"),
        ("lives", "i1"),
        ("hits", "u1"),
        ("is_served", "u1"),
        ("is_half", "u1"),
        ("unused", "<u2"),
    ]
)


def pack_bricks(destroyed: np.ndarray) -> np.ndarray:
    """bool[N, 108] -> u32[N, 4]."""
    bits = np.pad(destroyed, ((0, 0), (0, 128 - ROWS * COLUMNS)))
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")


def unpack_bricks(words: np.ndarray) -> np.ndarray:
    """u32[N, 4] -> bool[N, 108]."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, : ROWS * COLUMNS].astype(bool)


def polynomial(y: np.ndarray, coefficients: list[float]) -> np.ndarray:
    """Horner's rule, the highest power first, each operation rounded to f32."""
    total = np.float32(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * y + np.float32(coefficient)
    return total


def sin(x: np.ndarray) -> np.ndarray:
    return polynomial(x * x, [-1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0]) * x


def cos(x: np.ndarray) -> np.ndarray:
    return polynomial(x * x, [1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -0.5, 1.0])


class Breakouts:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(self, num_envs: int, *, frame_skip: int, max_steps: int, clip_reward: bool):
        self.frame_skip, self.max_steps, self.clip_reward = frame_skip, max_steps, clip_reward
        self.row = np.zeros(num_envs, ROW)
        self.destroyed = np.zeros((num_envs, ROWS * COLUMNS), bool)
        self._begin(np.ones(num_envs, bool))

    def load(self, rows: np.ndarray) -> None:
        """Takes over states u8[N, S]."""
        self.row = np.ascontiguousarray(rows).view(ROW)[:, 0].copy()
        self.destroyed = unpack_bricks(self.row["is_destroyed"])

    def rows(self) -> np.ndarray:
        """u8[N, S]."""
        self.row["is_destroyed"] = pack_bricks(self.destroyed)
        return self.row.view(np.uint8).reshape(len(self.row), -1)

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`; actions i32[N], or f32[N] where the game is
        continuous."""
        row, num_envs = self.row, len(self.row)
        points, terminated = np.zeros(num_envs, int), np.zeros(num_envs, bool)
        streams: dict[int, Philox] = {}

        def coin(env):
            return streams.setdefault(env, Philox(words[0], words[1], env)).below(2)

        for _ in range(self.frame_skip):
            points += self._frame(~terminated, actions, coin)
            terminated = (row["lives"] < 0) | (row["score"] >= 864)
        row["tick"] += 1
        truncated = ~terminated & (row["tick"] >= self.max_steps)
        reward = np.minimum(points, 1) if self.clip_reward else points
        row["earned"] += reward.astype(np.uint16)
        ended = terminated | truncated
        score = row["score"].astype(np.float32)
        info = {
            "episode_return": np.where(ended, row["earned"].astype(np.float32), np.float32(0)),
            "episode_length": np.where(ended, row["tick"].astype(np.int32), 0),
            "score": np.where(ended, score, np.float32(0)),
            "perf": np.where(ended, score / np.float32(864), np.float32(0)),
        }
        self._begin(ended)
        return self.observe(), reward.astype(np.float32), terminated, truncated, info

    def observe(self) -> np.ndarray:
        row = self.row
        numbers = [
            row["paddle_x"] / np.float32(576),
            np.full(len(row), np.float32(312) / np.float32(330)),
            row["ball_x"] / np.float32(576),
            row["ball_y"] / np.float32(330),
            row["ball_vx"] * np.float32(60) / np.float32(512),
            row["ball_vy"] * np.float32(60) / np.float32(512),
            row["is_served"] / np.float32(5),
            row["score"] / np.float32(864),
            row["lives"] / np.float32(5),
            self._paddle_width() / np.float32(62),
        ]
        return np.column_stack([*numbers, self.destroyed]).astype(np.float32)

    def _paddle_width(self) -> np.ndarray:
        return np.where(self.row["is_half"], np.float32(31), np.float32(62))

    def _begin(self, where: np.ndarray) -> None:
        """A new episode."""
        self.row[where] = np.zeros((), ROW)
        self.row["lives"][where] = 5
        self.destroyed[where] = False
        self._start_round(where)

    def _start_round(self, where: np.ndarray) -> None:
        for name, value in {
            "ball_x": 272, "ball_y": 135, "ball_vx": 0, "ball_vy": 0, "paddle_x": 257, "ball_speed": 256, "hits": 0,
            "is_served": 0, "is_half": 0,
        }.items():  # fmt: skip
            self.row[name][where] = value

    def _frame(self, playing: np.ndarray, actions: np.ndarray, coin) -> np.ndarray:
        """One frame of the environments that are `playing`; the points they earn, i64[N]."""
        row = self.row
        direction = actions
        if direction.dtype != np.float32:  # choices, not shares of the paddle's speed
            direction = (actions == 2).astype(np.float32) - (actions == 1).astype(np.float32)
        pushed = row["paddle_x"] + direction * (np.float32(620) / np.float32(60))
        pushed = np.minimum(np.maximum(pushed, np.float32(0)), np.float32(576) - self._paddle_width())
        row["paddle_x"] = np.where(playing & (row["is_served"] == 1), pushed, row["paddle_x"])
        for env in np.flatnonzero(playing & (row["is_served"] == 0)):
            speed = np.float32(row["ball_speed"][env]) / np.float32(60)
            side = np.float32(1 if coin(int(env)) else -1)
            row["ball_vx"][env] = side * (speed * np.float32(np.sin(np.pi / 3.25)))
            row["ball_vy"][env] = speed * np.float32(np.cos(np.pi / 3.25))
            row["is_served"][env] = 1

        time, face, first = self._contacts()
        x, y, vx, vy = (row[name].copy() for name in ("ball_x", "ball_y", "ball_vx", "ball_vy"))
        is_free = playing & np.isinf(time)
        is_paddle = playing & ~is_free & (first == PADDLE)
        is_wall = playing & ~is_free & ~is_paddle
        is_brick = is_wall & (first < WALL_LEFT_RIGHT)
        across = is_wall & ((first == WALL_LEFT_RIGHT) | (is_brick & (first >= ROWS * COLUMNS)))
        along = is_wall & ~across

        time = np.where(is_wall, time, np.float32(0))
        new_x = np.where(is_free, x + vx, np.where(across, face, np.where(along, x + vx * time, x)))
        new_y = np.where(is_free, y + vy, np.where(along, face, np.where(across, y + vy * time, y)))
        row["ball_x"] = np.where(playing, np.minimum(np.maximum(new_x, np.float32(0)), np.float32(544)), x)
        row["ball_y"] = np.where(playing, np.maximum(new_y, np.float32(0)), y)
        row["ball_vx"] = np.where(across, -vx, vx)
        row["ball_vy"] = np.where(along, -vy, vy)
        row["is_half"] |= is_wall & (first == WALL_TOP)
        self._bounce(is_paddle, x)

        points = np.zeros(len(row), int)
        for env in np.flatnonzero(is_brick):
            brick = first[env] % (ROWS * COLUMNS)
            self.destroyed[env, brick] = True
            points[env] = POINTS[brick]
            if brick < 3 * COLUMNS:
                row["ball_speed"][env] = 448
        row["score"] += points.astype(np.uint16)
        lost = playing & (row["ball_y"] >= 320)
        row["lives"] -= lost
        self._start_round(lost)
        return points

    def _bounce(self, where: np.ndarray, x: np.ndarray) -> None:
        row = self.row
        landing = (x + np.float32(16) - row["paddle_x"]) / self._paddle_width()
        angle = (landing - np.float32(0.5)) * np.float32(np.pi / 2)
        speed = row["ball_speed"].astype(np.float32) / np.float32(60)
        row["ball_vx"] = np.where(where, speed * sin(angle), row["ball_vx"])
        row["ball_vy"] = np.where(where, -(speed * cos(angle)), row["ball_vy"])
        row["hits"] = np.where(where, (row["hits"] + 1) % 4, row["hits"])
        faster = where & (row["hits"] == 0) & (row["ball_speed"] < 448)
        row["ball_speed"] += np.where(faster, 64, 0).astype(np.uint16)
        self.destroyed[where & (row["score"] == 432)] = False

    def _contacts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the balls reach first: time f32[N] (inf: nothing), the ball's x or y there f32[N], and what, i64[N]:
        brick b's upper or lower face is b, its left or right face 108 + b, then the walls and the paddle."""
        row = self.row
        x, y, vx, vy = (row[name][:, None] for name in ("ball_x", "ball_y", "ball_vx", "ball_vy"))
        paddle_x, ball = row["paddle_x"][:, None], np.float32(32)
        zero, never = np.float32(0), np.float32(np.inf)
        standing = ~self.destroyed.reshape(-1, ROWS, COLUMNS)
        with np.errstate(divide="ignore", invalid="ignore"):
            line = np.where(vy < 0, TOP + np.float32(12), TOP)  # [N, 6]
            edge = np.where(vy < 0, y, y + ball)
            reached = (line - edge) / vy
            reached = np.where((vy != 0) & (reached > 0) & (reached <= 1), reached, never)
            left = (x + vx * reached)[:, :, None]
            along_overlap = np.minimum(left + ball, LEFT + np.float32(32)) - np.maximum(left, LEFT)
            along = np.where((along_overlap > 0) & standing, reached[:, :, None], never)
            along_at = np.where(vy < 0, line, line - ball)[:, :, None]

            line = np.where(vx > 0, LEFT, LEFT + np.float32(32))  # [N, 18]
            edge = np.where(vx > 0, x + ball, x)
            reached = (line - edge) / vx
            reached = np.where((vx != 0) & (reached > 0) & (reached <= 1), reached, never)
            top = (y + vy * reached)[:, None, :]
            bottoms = TOP[:, None] + np.float32(12)
            across_overlap = np.minimum(top + ball, bottoms) - np.maximum(top, TOP[:, None])
            across = np.where((across_overlap > 0) & standing, reached[:, None, :], never)
            across_at = np.where(vx > 0, line - ball, line)[:, None, :]

            side_at = np.where(vx < 0, zero, np.float32(544))
            side = (side_at - x) / vx
            side = np.where((vx != 0) & (side >= 0) & (side <= 1), side, never)
            top_wall = (zero - y) / vy
            top_wall = np.where((vy < 0) & (top_wall >= 0) & (top_wall <= 1), top_wall, never)
            gap = np.float32(312) - (y + ball)
            paddle = gap / vy
            left = x + vx * paddle
            paddle_overlap = np.minimum(left + ball, paddle_x + self._paddle_width()[:, None]) - np.maximum(
                left, paddle_x
            )
            paddle = np.where((vy > 0) & (gap > 0) & (paddle <= 1) & (paddle_overlap > 0), paddle, never)

        def joined(along, across, *others):
            bricks = [np.broadcast_to(part, standing.shape).reshape(len(row), -1) for part in (along, across)]
            return np.concatenate([*bricks, *others], axis=1)

        wall, none = np.full_like(side, ball), np.zeros_like(side)
        times = joined(along, across, side, top_wall, paddle)
        overlaps = joined(along_overlap, across_overlap, wall, wall, paddle_overlap)
        places = joined(along_at, across_at, side_at, none, none)
        time = times.min(axis=1)
        first = np.argmax(np.where(times == time[:, None], overlaps, zero - 1), axis=1)
        return time, places[np.arange(len(row)), first].astype(np.float32), first
