"""`pufferjax envs`: the environments, their sizes and their parameters, and the suites of other packages."""

import math
import sys
from collections.abc import Sequence

from pufferjax.cli.refusals import fail, refusals

USAGE = """\
  pufferjax envs
      the environments, and the suites of environments there are
  pufferjax envs gymnax:
      the environments of a suite
"""


def _interval(low: float, high: float) -> str:
    """The values of a continuous component."""
    return f"{'[' if low > -math.inf else '('}{low:g}, {high:g}{']' if high < math.inf else ')'}"


def main(argv: list[str]) -> int:
    if argv[:1] in (["-h"], ["--help"]):
        print("usage: pufferjax envs [SUITE:]")
        return 0
    from pufferjax.envs import suites

    if len(argv) > 1 or (argv and argv[0].removesuffix(":") not in suites.SUITES):
        valid = ", ".join(f"{suite}:" for suite in suites.SUITES)
        raise fail(f"envs takes nothing, or one of {valid}; got {' '.join(argv)!r}")
    if argv:
        suite = argv[0].removesuffix(":")
        with refusals():
            names = suites.environment_names(suite)
        print("\n".join(f"{suite}:{name}" for name in names))
        return 0
    _print_table(_NATIVE, _native())
    print()
    _print_table(_SUITES, _suites())
    return 0


_NATIVE = ("environment", "observation", "actions", "agents", "state bytes", "step limit", "parameters")
_SUITES = ("suite", "installed", "what", "lists it")


def _native() -> list[tuple[str, ...]]:
    from pufferjax import envs

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
    return rows


def _suites() -> list[tuple[str, ...]]:
    from pufferjax.envs import suites

    return [
        (
            f"{name}:NAME",
            "yes" if suites.is_installed(name) else f"pip install 'pufferjax[{name}]'",
            suite.about,
            f"pufferjax envs {name}:",
        )
        for name, suite in suites.SUITES.items()
    ]


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        Console().print(table, markup=False)
        return
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
