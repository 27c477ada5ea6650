"""The page of the documentation with the results of `pufferjax bench gpu`.

    python experiments/gpu_tables.py

Reads results/gpu_*.jsonl, the reports of a GPU in the order of their names, of which a later one replaces what an earlier
one has measured, and writes docs/gpu_results.md.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]

HEAD = """# Results on a GPU

Made by `python experiments/gpu_tables.py` from what `pufferjax bench gpu --json report.jsonl` wrote on the machine named
below ({sources}). Where two reports have the same item, the later one counts.

"""


def read(paths: Iterable[Path]) -> list[Row]:
    """The rows of all reports; of one item the last that was run, else the last one."""
    found: dict[tuple[str, str], Row] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            key = row["phase"], row["item"]
            if key not in found or row["status"] != "skipped":
                found[key] = row | {"source": path.name}
    return list(found.values())


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(map(str, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def of(rows: list[Row], phase: str, status: str = "ok") -> list[Row]:
    return [row for row in rows if row["phase"] == phase and row["status"] == status]


def machine(rows: list[Row]) -> str:
    facts = {row["item"]: row for row in of(rows, "machine")}
    versions = facts["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "jaxlib", "flax", "optax"))
    return (
        f"**Machine**: {facts['device']['machine']}; driver and clocks: {facts['nvidia-smi']['line']}; {named}. Copying on "
        f"the device moves {facts['copy']['gb_per_second']:,.0f} GB/s, read and written; a float32 matrix product of JAX's "
        f"runs at {facts['multiply-add']['tflops']:.1f} TFLOP/s.\n"
    )


def checks(rows: list[Row]) -> str:
    names = {
        "handlers": "every handler against its twin on the CPU, paths with memory for sums included",
        "simulators": "simulators, every function, bit for bit those of the CPU",
        "tests": "`tests/gpu`",
        "graphs": "every op and simulator in a scan; CUDA graphs off, default, forced",
        "sanitizer": "compute-sanitizer over the handlers: memcheck, racecheck, synccheck",
    }
    lines = []
    for phase, what in names.items():
        counts = {status: len(of(rows, phase, status)) for status in ("ok", "failed", "missing", "skipped")}
        if phase == "tests":  # a row tells how many
            counts |= {s: sum(int(r["item"].split()[0]) for r in of(rows, phase, s)) for s in ("ok", "skipped")}
        lines.append((what, *counts.values()))
    text = table(("what is compared", "ok", "failed", "no CUDA form", "not reached"), lines)
    failures = [row for row in rows if row["status"] == "failed"]
    if failures:
        text += "\nFailed:\n\n" + "".join(
            f"- {row['phase']}, {row['item']}: {str(row.get('error', '')).strip().splitlines()[-1]}\n" for row in failures
        )
    return text


def training(rows: list[Row]) -> str:
    found = of(rows, "training")
    rates = [row for row in found if "epoch_ms" in row]
    milestones = [row for row in found if ": perf" in row["item"]]
    ends = {row["item"]: row for row in found if "reached" in row}
    text = table(
        ("training", "steps per second", "an epoch, ms", "of steps"),
        [(r["item"], f"{r['steps_per_second']:,.0f}", f"{r['epoch_ms']:.1f}", f"{r['batch']:,}") for r in rates],
    )
    goals = []
    for row in milestones:
        name, perf = row["item"].split(": perf ")
        end = ends.get(name, {})
        goals.append((name.split(" to ")[0], perf, f"{row['seconds']:.1f}" if "seconds" in row else "", f"{row['steps']:,}"))
        if float(perf) == max(float(m["item"].split()[-1]) for m in milestones if m["item"].startswith(name + ":")):
            goals[-1] = (*goals[-1], f"{end.get('unseen_perf', float('nan')):.3f}", f"{end.get('ready_seconds', 0):.1f}")
        else:
            goals[-1] = (*goals[-1], "", "")
    text += "\n" + table(
        ("maze", "solved, last 1,000 fresh episodes", "seconds since the start", "steps", "then, of unseen mazes",
         "of the seconds, until the first step"),
        goals,
    )  # fmt: skip
    return text


def kernels(rows: list[Row]) -> str:
    lines = []
    for row in of(rows, "kernels"):
        own = {k: v for k, v in row["kernels_us"].items() if "pjx" in k} if isinstance(row.get("kernels_us"), dict) else {}
        time = row.get("native_us", row["reference_us"])
        kernel = sum(own.values())
        lines.append(
            (
                row["item"],
                f"{time:,.1f}",
                f"{kernel:,.1f}" if own else "",
                f"{row['floor_us']:,.1f}",
                f"{row['floor_us'] / time:.0%}",
                f"{row['reference_us'] / time:.1f}" if "native_us" in row else "",
            )
        )
    return table(
        ("op", "a call, us", "of it our kernels, us", "floor, us", "floor / call", "twin as XLA compiles it / call"), lines
    )


def speeds(rows: list[Row]) -> str:
    counts = ("1024", "4096", "65536")
    by_env: dict[str, dict[str, float]] = {}
    walks = []
    for row in of(rows, "speeds"):
        name, _, size = row["item"].rpartition(", ")
        if size.endswith(" envs"):
            by_env.setdefault(name, {})[size.split()[0]] = row["steps_per_second"]
        else:
            walks.append((row["item"], f"{row['steps_per_second'] / 1e6:,.0f}"))
    lines = [
        (name, *(f"{found[c] / 1e6:,.0f}" if c in found else "" for c in counts)) for name, found in sorted(by_env.items())
    ]
    text = table(("million random steps per second, with observations", *(f"{int(c):,} envs" for c in counts)), lines)
    return text + ("\n" + table(("random walks", "million steps per second"), walks) if walks else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="*", help="default: experiments/results/gpu_*.jsonl")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/gpu_results.md")
    args = parser.parse_args()
    paths = args.reports or sorted((ROOT / "experiments/results").glob("gpu_*.jsonl"))
    if not paths:
        parser.error("there is no report: experiments/results/gpu_*.jsonl")
    rows = read(paths)
    names = ", ".join(f"`{path.name}`" for path in paths)
    parts = [HEAD.format(sources=names), machine(rows)]
    for title, part in (
        ("What is right", checks),
        ("Training", training),
        ("Kernels", kernels),
        ("Simulators", speeds),
    ):
        parts += [f"\n## {title}\n\n", part(rows)]
    args.output.write_text("".join(parts))


if __name__ == "__main__":
    main()
