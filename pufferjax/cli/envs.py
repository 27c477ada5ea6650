"""`pufferjax envs`: the environments, their sizes and their parameters."""

import math
import sys

from pufferjax.cli.refusals import fail

USAGE = """\
  pufferjax envs
      the environments
"""


def _interval(low: float, high: float) -> str:
    """The values of a continuous component."""
    return f"{'[' if low > -math.inf else '('}{low:g}, {high:g}{']' if high < math.inf else ')'}"


def main(argv: list[str]) -> int:
    if argv:
        if argv[0] in ("-h", "--help"):
            print("usage: pufferjax envs")
            return 0
        raise fail(f"envs takes no arguments, got {argv[0]!r}")
    from pufferjax import envs

    columns = ("environment", "observation", "actions", "agents", "state bytes", "step limit", "parameters")
    rows = []
    for name in envs.names():
        env = envs.make(name)
        spec = env.spec
        short = {"uint8": "u8", "float32": "f32"}.get(spec.obs_dtype.name, spec.obs_dtype.name)
        rows.append(
            (
                name,
                f"{short}[{', '.join(map(str, spec.obs_shape))}]"
                + f" in {len(spec.obs_parts)} parts" * bool(spec.obs_parts),
                " x ".join([*map(str, spec.num_actions), *map(_interval, spec.action_low, spec.action_high)]),
                str(spec.num_agents),
                str(spec.state_bytes),
                str(spec.max_episode_steps or "none"),
                ", ".join(f"{key}={value}" for key, value in env.params.items()),
            )
        )
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        Console().print(table, markup=False)
    else:
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
