"""One episode as an animated GIF."""

import io
import os

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.core.config import PolicyConfig
from pufferjax.core.evaluate import as_policy, make_first_episodes, make_step
from pufferjax.core.policy import ActorCritic
from pufferjax.core.rollout import initial_memory
from pufferjax.envs import Env
from pufferjax.runs.files import write_atomically
from pufferjax.runs.paths import output_path

_NUM_ENVS = 32  # played to find a solved episode
_MILLISECONDS = 50  # per frame
_LAST_MILLISECONDS = 1500


def episode_gif(
    env: Env,
    policy: ActorCritic | PolicyConfig,
    params,
    key: jax.Array,
    path: str | os.PathLike,
    *,
    greedy: bool = False,
    max_frames: int = 200,
) -> dict:
    """Plays fresh episodes and writes the first solved one (the last one, if none is) to `path`, steps skipped evenly.

    Returns a dict: path, perf (None if `env.spec.has_perf` is False), solved, steps, frames.

    Raises OSError if `path` cannot be written, ValueError if the
    episodes of `env` never end.
    """
    path = output_path("path", path)
    policy = as_policy(env, policy)
    play = jax.jit(make_first_episodes(env, policy, _NUM_ENVS, greedy))
    figures = jax.device_get(play(params, key, jnp.ones(_NUM_ENVS, bool)))
    solved = np.flatnonzero(figures["perf"] > 0)
    chosen = int(solved[0]) if solved.size else _NUM_ENVS - 1
    steps = int(figures["episode_length"][chosen])
    rows = _replay(env, policy, params, key, chosen, steps, greedy)
    shown = np.unique(np.linspace(0, steps - 1, min(max_frames, steps)).astype(int))
    content = _encode([np.asarray(env.render(rows[i])) for i in shown])
    write_atomically(path, content)
    return {
        "path": str(path),
        "perf": float(figures["perf"][chosen]) if env.spec.has_perf else None,
        "solved": bool(solved.size),
        "steps": steps,
        "frames": len(shown),
    }


def _replay(env, policy, params, key, chosen, steps, greedy):
    """u8[steps, S]: the states of environment `chosen` before each step of its first episode, as `play` went."""
    step = make_step(env, policy, greedy)

    def replay(params, key):
        key_reset, key_steps = jax.random.split(key)
        observations, env_state = env.reset(key_reset, _NUM_ENVS)

        def body(agents, t):
            row = env.snapshot(agents[0])[chosen]
            agents, _, _ = step(params, jax.random.fold_in(key_steps, t), agents)
            return agents, row

        agents = (env_state, observations, initial_memory(policy, len(observations)))
        return jax.lax.scan(body, agents, jnp.arange(steps, dtype=jnp.int32))[1]

    return jax.device_get(jax.jit(replay)(params, key))


def _encode(frames: list[np.ndarray]) -> bytes:
    """The bytes of a GIF over one palette, so that a frame stores only what changed."""
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    # The first and the last frame hold every colour of the levels here; others take the nearest.
    both = Image.fromarray(np.concatenate([frames[0], frames[-1]]))
    palette = both.quantize(colors=64, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [_MILLISECONDS] * (len(images) - 1) + [_LAST_MILLISECONDS]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return buffer.getvalue()
