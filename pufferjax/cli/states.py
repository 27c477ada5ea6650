"""`pufferjax states RUN_DIR`: what the state set of a checkpoint holds."""

import dataclasses
from pathlib import Path

from pufferjax.cli.refusals import refusals, warn

USAGE = """\
  pufferjax states RUN_DIR [--output states.png] [--step 1000000]
      what the state set of a checkpoint holds, as a picture and in numbers: where the curriculum stands
"""


def main(argv: list[str]) -> int:
    import tyro

    @dataclasses.dataclass
    class Args:
        """Draws the states that the state set of a checkpoint holds."""

        run_dir: tyro.conf.Positional[Path]
        """The folder of the run, --run-dir of `pufferjax train`."""
        output: Path = Path("states.png")
        """The picture."""
        step: int | None = None
        """Of the checkpoint. Default: the latest one."""

    args = tyro.cli(Args, args=argv, prog="pufferjax states")
    with refusals():
        from pufferjax.cli.compile_cache import use_compile_cache
        from pufferjax.runs.load import load_run
        from pufferjax.runs.paths import output_path
        from pufferjax.watch.stored_states import draw_states, read_states

        use_compile_cache()
        output_path("--output", args.output)
        config, env, _, train_state = load_run(args.run_dir, args.step, warn)
        states = read_states(env, train_state)
        step = int(train_state.epoch) * config.train.sizes(env.spec.num_agents).batch_size
        draw_states(env, states, args.output, title=f"{args.run_dir}, step {step:,}")
    print(f"step {step:,}: {len(states.rows)} states")
    if len(states.rows):
        for name, values in states.columns().items():
            print(f"{name:<24}" + "  ".join(f"{q} % {x:,.4g}" for q, x in states.quantiles(values).items()))
    print(f"picture: {args.output}")
    return 0
