"""The minimal environment once more, slowly: NumPy over all simulators, written from the rules in minimal.h. For tests.

Randomness is the same Philox stream, and sine and cosine are the polynomials of envs/common/sine.h: what is drawn, and
where agents are, agree bit for bit with the native simulator.
"""

import math

import numpy as np

from pufferjax.envs.maze.reference import Philox

WIDTH, HEIGHT, MARGIN, REACH, COOLDOWN = 1080, 720, 16, 32, 30
_PI = np.float32(np.pi)
_F32 = np.float32


def _polynomial(y: np.ndarray, *coefficients: float) -> np.ndarray:
    total = np.full_like(y, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * y + _F32(coefficient)
    return total


def direction(angle: np.ndarray) -> np.ndarray:
    """Cosine and sine f32[N, 2] of angles in [-pi, pi]."""
    size = abs(angle)
    is_backwards = size > _PI / 2
    x = np.where(is_backwards, _PI - size, size).astype(_F32)
    y = x * x
    cos = _polynomial(y, *(_F32((-1) ** k) / _F32(math.factorial(2 * k)) for k in range(6, -1, -1)))
    sin = x * _polynomial(y, *(_F32((-1) ** k) / _F32(math.factorial(2 * k + 1)) for k in range(5, -1, -1)))
    return np.stack([np.where(is_backwards, -cos, cos), np.where(angle < 0, -sin, sin)], axis=1)


class Minimal:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(self, num_envs: int, *, max_steps: int):
        self.max_steps = max_steps
        self.xy = np.zeros((num_envs, 16, 2), np.float32)  # of the 8 agents, then of the 8 targets
        self.type = np.zeros((num_envs, 16), int)
        self.heading, self.speed = np.zeros((2, num_envs, 8), np.float32)
        self.waited, self.cooldown = np.zeros((2, num_envs, 8), int)
        self.tick, self.pickups = np.zeros((2, num_envs), int)
        self.promptness = np.zeros(num_envs, np.float32)

    def reset(self, words: np.ndarray) -> np.ndarray:
        for env in range(len(self.tick)):
            self._begin(env, Philox(words[0], words[1], env))
        return self.observe()

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward f32[N*8], truncated bool[N], and of the episodes that ended: pick-ups, perf, length, each [N]."""
        num_envs = len(self.tick)
        actions = np.asarray(actions).reshape(num_envs, 8, 2)
        streams = {}
        reward = np.zeros((num_envs, 8), np.float32)
        for agent in range(8):
            self._move(agent, actions[:, agent, 0], actions[:, agent, 1])
            self.waited[:, agent] += 1
            near = (abs(self.xy[:, 8:] - self.xy[:, agent, None]) <= REACH).all(axis=2)
            takes = near & (self.cooldown == 0) & (self.type[:, 8:] == self.type[:, agent, None])
            for env in np.flatnonzero(takes.any(axis=1)):
                stream = streams.setdefault(env, Philox(words[0], words[1], env))
                self._pick_up(env, agent, int(takes[env].argmax()), stream)
                reward[env, agent] = 1
        self.cooldown = np.maximum(self.cooldown - 1, 0)
        self.tick += 1
        truncated = self.tick == self.max_steps
        perf = np.where(truncated, self.promptness / np.maximum(self.pickups, 1).astype(_F32), 0).astype(_F32)
        ended = np.where(truncated, self.pickups, 0), perf, np.where(truncated, self.tick, 0)
        for env in np.flatnonzero(truncated):
            self._begin(env, streams.get(env) or Philox(words[0], words[1], env))
        return self.observe(), reward.reshape(-1), truncated, *ended

    def observe(self) -> np.ndarray:
        """f32[N*8, 66]."""
        num_envs = len(self.tick)
        way = (self.xy[:, None] - self.xy[:, :8, None]) / np.array([WIDTH, HEIGHT], np.float32)  # [N, 8, 16, 2]
        cooldown = np.concatenate([np.zeros((num_envs, 8)), self.cooldown / COOLDOWN], axis=1)
        cooldown = np.broadcast_to(cooldown[:, None], (num_envs, 8, 16))
        is_same = self.type[:, None] == self.type[:, :8, None]
        entities = np.concatenate([way, cooldown[..., None], is_same[..., None]], axis=-1)
        own = np.stack([self.heading / (2 * np.pi), self.speed / 20], axis=-1)
        obs = np.concatenate([own, entities.reshape(num_envs, 8, 64)], axis=-1)
        return obs.reshape(num_envs * 8, 66).astype(np.float32)

    def _move(self, agent: int, turn: np.ndarray, speedup: np.ndarray) -> None:
        heading = self.heading[:, agent] + (turn - 4).astype(_F32) / _F32(12)
        heading = np.where(heading > _PI, heading - 2 * _PI, np.where(heading < -_PI, heading + 2 * _PI, heading))
        speed = self.speed[:, agent].copy()
        way = direction(heading)
        limit = np.array([WIDTH - MARGIN, HEIGHT - MARGIN], np.float32)
        self.xy[:, agent] = np.clip(self.xy[:, agent] + speed[:, None] * way, _F32(MARGIN), limit)
        self.heading[:, agent] = heading
        self.speed[:, agent] = np.clip(speed + (speedup - 2).astype(_F32), 0, 20)

    def _pick_up(self, env: int, agent: int, target: int, stream: Philox) -> None:
        self.pickups[env] += 1
        self.promptness[env] += min(_F32(30) / _F32(self.waited[env, agent]), _F32(1))
        self.waited[env, agent] = 0
        self.type[env, agent] = (self.type[env, agent] + 1) % 4
        self.cooldown[env, target] = COOLDOWN
        if stream.below(10) == 0:
            self.xy[env, 8 + target] = self._place(stream)

    def _begin(self, env: int, stream: Philox) -> None:
        self.xy[env] = [self._place(stream) for _ in range(16)]
        self.type[env] = np.arange(16) % 4
        for array in (self.heading, self.speed, self.waited, self.cooldown, self.tick, self.pickups, self.promptness):
            array[env] = 0

    @staticmethod
    def _place(stream: Philox) -> tuple[int, int]:
        return MARGIN + stream.below(WIDTH - MARGIN), MARGIN + stream.below(HEIGHT - MARGIN)
