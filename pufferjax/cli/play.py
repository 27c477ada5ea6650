"""`pufferjax play RUN_DIR`: the policy of a run at work, in the terminal."""

import dataclasses
import math
import sys
from pathlib import Path

from pufferjax.cli.compile_cache import use_compile_cache
from pufferjax.cli.refusals import refusals
from pufferjax.cli.watching import Watching, check_watching, gif_line, load_to_watch, write_gif

USAGE = """\
  pufferjax play RUN_DIR [--episodes 3] [--fps 15] [--seen] [--greedy] [--seed 0] [--gif out.gif]
      watch its policy in the terminal
"""


def main(argv: list[str]) -> int:
    import tyro

    @dataclasses.dataclass
    class Args(Watching):
        """Shows the policy of a run at work, in the terminal."""

        episodes: int = 3
        """Episodes to show, >= 1."""
        fps: float = 15.0
        """Steps shown per second."""
        gif: Path | None = None
        """Instead of showing episodes, write one, a solved one if there is any, as an animation."""

    args = tyro.cli(Args, args=argv, prog="pufferjax play")
    with refusals():
        check_watching(args)
        use_compile_cache(args.compile_cache)
        if not 0 < args.fps < math.inf:
            raise ValueError(f"--fps must be a number > 0, got {args.fps}")
        if args.gif is None and not sys.stdout.isatty():
            raise ValueError("play draws on a terminal, and stdout is none; --gif PATH writes an animation instead")
        _, env, policy, train_state = load_to_watch(args)
    if args.gif is not None:
        print(f"gif: {gif_line(write_gif(env, policy, train_state, args))}")
        return 0
    import jax
    from rich.console import Console

    from pufferjax.watch.play import play

    played = play(
        env, policy, train_state.params, jax.random.key(args.seed), Console(),
        episodes=args.episodes, fps=args.fps, greedy=args.greedy,
    )  # fmt: skip
    for number, figures in enumerate(played, start=1):
        perf = "" if figures["perf"] is None else f"perf {figures['perf']:g}, "
        print(f"episode {number}: {perf}return {figures['episode_return']:g}, {figures['episode_length']:.0f} steps")
    return 0
