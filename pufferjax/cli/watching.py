"""What `eval` and `play` share: a run loaded to be watched, and an episode of it as an animation."""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from pufferjax.cli.compile_cache import Flag
from pufferjax.cli.refusals import fail, warn


@dataclasses.dataclass
class Watching:
    """The flags of both; each says how many `episodes` and what its `gif` is for."""

    run_dir: tyro.conf.Positional[Path]
    """The folder of the run, --run-dir of `pufferjax train`."""
    seen: tyro.conf.FlagCreatePairsOff[bool] = False
    """On the levels of training instead of others."""
    greedy: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the most likely action instead of a random one."""
    seed: int = 0
    """Of levels, actions and chance, 0 to 4294967295."""
    compile_cache: Flag = None


def check_watching(args: Any) -> None:
    if args.episodes < 1:
        raise ValueError(f"--episodes must be an integer >= 1, got {args.episodes}")
    if args.gif is not None:
        from pufferjax.runs.paths import output_path

        output_path("--gif", args.gif)
    if not 0 <= args.seed < 2**32:
        raise ValueError(f"--seed must be an integer in [0, {2**32 - 1}], got {args.seed}")


def load_to_watch(args: Any) -> tuple[Any, Any, Any, Any]:
    """(config, env, policy, train_state) of args.run_dir, its parameters those to act with; on levels it was not
    trained on unless args.seen."""
    from pufferjax.core.evaluate import unseen
    from pufferjax.core.optimizers import acting_params
    from pufferjax.runs.load import load_run

    config, env, policy, train_state = load_run(args.run_dir, warn=warn)
    train_state = dataclasses.replace(train_state, params=acting_params(config.train, train_state))
    return config, env if args.seen else unseen(env), policy, train_state


def write_gif(env: Any, policy: Any, train_state: Any, args: Any) -> dict[str, Any]:
    import jax

    from pufferjax.watch import render

    try:
        return render.episode_gif(
            env, policy, train_state.params, jax.random.key(args.seed), args.gif, greedy=args.greedy
        )
    except OSError as error:
        raise fail(error) from None


def gif_line(facts: dict[str, Any]) -> str:
    return f"{facts['path']} ({'solved' if facts['solved'] else 'not solved'})"
