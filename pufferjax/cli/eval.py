"""`pufferjax eval RUN_DIR`: what the policy of a run achieves over whole fresh episodes."""

import dataclasses
from pathlib import Path
from typing import Any

from pufferjax.cli.compile_cache import use_compile_cache
from pufferjax.cli.refusals import refusals
from pufferjax.cli.watching import Watching, check_watching, gif_line, load_to_watch, write_gif

USAGE = """\
  pufferjax eval RUN_DIR [--episodes 2000] [--json] [--seen] [--greedy] [--seed 0] [--gif out.gif]
      solve rate of a run over fresh episodes, on levels it was not trained on unless --seen
"""


def main(argv: list[str]) -> int:
    import tyro

    @dataclasses.dataclass
    class Args(Watching):
        """Solve rate of a run over whole fresh episodes."""

        episodes: int = 2000
        """Whole fresh episodes, one per simulator; >= 1."""
        json: tyro.conf.FlagCreatePairsOff[bool] = False
        """Print one JSON object and nothing else."""
        gif: Path | None = None
        """Also write one episode, a solved one if there is any, as an animation."""

    args = tyro.cli(Args, args=argv, prog="pufferjax eval")
    with refusals():
        check_watching(args)
        use_compile_cache(args.compile_cache)
        import jax

        from pufferjax.core.evaluate import check_has_episodes, evaluate
        from pufferjax.runs.json_text import json_text

        config, env, policy, train_state = load_to_watch(args)
        check_has_episodes(env)
    result = evaluate(env, policy, train_state.params, jax.random.key(args.seed), args.episodes, greedy=args.greedy)
    result = {
        "env": env.spec.name,
        "levels": "seen" if args.seen else "unseen",
        "step": int(train_state.epoch) * config.train.sizes(env.spec.num_agents).batch_size,
        **result,
    }
    if args.gif is not None:
        result["gif"] = write_gif(env, policy, train_state, args)
    if args.json:
        print(json_text(result))
    else:
        _print_result(result)
    return 0


def _print_result(result: dict[str, Any]) -> None:
    from pufferjax.runs.dashboard import number

    error = "" if result["perf_stderr"] is None else f" +- {result['perf_stderr']:.4f} (standard error)"
    print(f"{result['env']}, {result['levels']} levels, {result['episodes']} fresh episodes, {result['seconds']:.1f} s")
    if result["perf"] is not None:
        print(f"perf            {number(result['perf'], '.4f')}{error}")
    print(f"score           {number(result['score'], '.4f')}")
    print(f"episode return  {number(result['episode_return'], '.4f')}")
    print(f"episode length  {number(result['episode_length'], '.1f')}")
    if "gif" in result:
        print(f"gif             {gif_line(result['gif'])}")
