"""A policy at work in the terminal: the simulator's picture in half-block characters. Not pure: it draws and sleeps."""

import functools
import math
import time

import jax
import numpy as np
from rich.color import Color
from rich.console import Console, Group
from rich.live import Live
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from pufferjax.core.config import PolicyConfig
from pufferjax.core.evaluate import as_policy, make_step
from pufferjax.core.policy import ActorCritic
from pufferjax.core.rollout import initial_memory
from pufferjax.envs import Env

_UPPER_HALF = "▀"
_MIN_PAUSE = 0.5  # seconds between episodes


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """u8[h, w, 3]: the picture u8[H, W, 3] in at most `width` x `height` pixels, its proportions kept.

    Equal squares, as of a grid drawn large, count as one pixel each; what fits then is drawn as large as it goes in
    whole steps, so that a grid stays sharp; what does not is averaged.
    """
    image = _without_enlargement(image)
    rows, columns = image.shape[:2]
    scale = min(width // columns, height // rows)
    if scale >= 1:
        return np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    from PIL import Image

    shrink = min(width / columns, height / rows)
    size = max(1, int(columns * shrink)), max(1, int(rows * shrink))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _without_enlargement(image: np.ndarray) -> np.ndarray:
    common = math.gcd(*image.shape[:2])
    for side in range(common, 1, -1):
        if common % side == 0:
            small = image[::side, ::side]
            if np.array_equal(np.repeat(np.repeat(small, side, axis=0), side, axis=1), image):
                return small
    return image


def half_blocks(image: np.ndarray) -> Segments:
    """u8[h, w, 3] as text of w columns and h / 2 lines: each character is two pixels, one above the other."""
    segments = []
    for y in range(0, len(image), 2):
        top, bottom = image[y].tolist(), image[y + 1].tolist() if y + 1 < len(image) else None
        styles = [_style(tuple(top[x]), None if bottom is None else tuple(bottom[x])) for x in range(len(top))]
        start = 0
        for x in range(1, len(styles) + 1):  # one segment for each run of equal characters
            if x == len(styles) or styles[x] is not styles[start]:
                segments.append(Segment(_UPPER_HALF * (x - start), styles[start]))
                start = x
        segments.append(Segment.line())
    return Segments(segments)


@functools.lru_cache(maxsize=4096)
def _style(top: tuple[int, ...], bottom: tuple[int, ...] | None) -> Style:
    background = None if bottom is None else Color.from_rgb(*bottom)
    return Style(color=Color.from_rgb(*top), bgcolor=background)


def play(
    env: Env,
    policy: ActorCritic | PolicyConfig,
    params,
    key: jax.Array,
    console: Console,
    *,
    episodes: int = 3,
    fps: float = 15.0,
    greedy: bool = False,
) -> list[dict[str, float]]:
    """Shows whole fresh episodes on `console`, a terminal, at `fps` steps per second, one after the other.

    Returns for each a dict: perf (None if `env.spec.has_perf` is False), score, episode_return, episode_length.
    """
    policy = as_policy(env, policy)
    step = jax.jit(make_step(env, policy, greedy))
    key_reset, key_steps = jax.random.split(key)
    observations, env_state = env.reset(key_reset, 1)
    agents = (env_state, observations, initial_memory(policy, 1))
    played: list[dict[str, float]] = []
    total = 0  # steps
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for episode in range(1, episodes + 1):
            ended, t = False, 0
            while not ended:
                due = time.perf_counter() + 1 / fps
                image = np.asarray(env.render(np.asarray(env.snapshot(agents[0])[0])))
                title = Text(f"{env.spec.name}  episode {episode} of {episodes}  step {t}  Ctrl-C ends", no_wrap=True)
                width, height = console.size
                live.update(Group(title, half_blocks(fit(image, width, 2 * (height - 1)))), refresh=True)
                agents, ended, info = step(params, jax.random.fold_in(key_steps, total), agents)
                ended, t, total = bool(ended[0]), t + 1, total + 1
                time.sleep(max(0.0, due - time.perf_counter()))
            played.append(
                {
                    name: float(info[name][0]) if name != "perf" or env.spec.has_perf else None
                    for name in ("perf", "score", "episode_return", "episode_length")
                }
            )
            time.sleep(min(_MIN_PAUSE, 5 / fps))
    return played
