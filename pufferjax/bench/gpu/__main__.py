"""`python -m pufferjax.bench.gpu`: needs neither tyro nor tomli-w, unlike the `pufferjax` command."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pufferjax.bench.gpu.run import PHASES, bench_gpu


def main(argv: Sequence[str] | None = None, prog: str = "python -m pufferjax.bench.gpu") -> int:
    """0; 1 if an item failed, 2 for a refusal."""
    parser = argparse.ArgumentParser(prog, description="Runs and measures everything that needs a GPU.")
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="All of it, in minutes; what does not fit is skipped.")
    add("--json", type=Path, help="Append a JSON line for each item to this file, as soon as it is known.")
    add("--only", nargs="+", choices=PHASES, help="These phases alone, beside that of the machine.")
    add(
        "--tests",
        type=Path,
        help="The repository's folder tests/gpu. Default: that of the current folder, if any.",
    )
    add("--cache", type=Path, help="Keep compiled programs in this folder, for another run. Default: a temporary one.")
    add("--dry-run", action="store_true", help="Tiny sizes, on whatever device there is: shows that everything runs.")
    args = parser.parse_args(argv)
    if not args.minutes > 0:
        parser.error(f"--minutes must be above 0, got {args.minutes}")
    if args.tests is not None and not args.tests.is_dir():
        parser.error(f"--tests must be a folder, got {args.tests}")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        parser.error(f"--json must be in a folder that is there, got {args.json}")
    return bench_gpu(args.minutes, args.json, args.only, args.tests, args.cache, args.dry_run)


if __name__ == "__main__":
    sys.exit(main())
