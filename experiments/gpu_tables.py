"""The page of the documentation with the results of `pufferjax bench gpu`.

    python experiments/gpu_tables.py

Reads results/gpu_*.jsonl, the reports of one GPU in the order of their names, of which a later one replaces what an
earlier one has measured, and writes docs/gpu_results.md.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]

HEAD = """# Results on a GPU

Made by `python experiments/gpu_tables.py` from what `pufferjax bench gpu --json report.jsonl` wrote on the machine
named below: {sources}, in `experiments/results/`. Where several reports have an item, the last one counts, but for
training, of which all are shown.

"""


def read(paths: Iterable[Path]) -> list[Row]:
    """The rows of all reports: of one item the last that was run, else the last one; of training all that were run."""
    found: dict[tuple[str, ...], Row] = {}
    for number, path in enumerate(paths, start=1):
        rows = [json.loads(line) | {"report": number} for line in path.read_text().splitlines()]
        tests = [row for row in rows if row["phase"] == "tests"]
        if tests:  # counted together
            found = {key: row for key, row in found.items() if key[0] != "tests"}
        for row in rows:
            key = row["phase"], row["item"], *([str(number)] if row["phase"] == "training" else [])
            if key not in found or row["status"] != "skipped":
                found[key] = row
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
        f"**Machine**: {facts['device']['machine']}; {named}; `nvidia-smi`: {facts['nvidia-smi']['line']}. Copying on "
        f"the device moves {facts['copy']['gb_per_second']:,.0f} GB/s, read and written; a float32 matrix product of "
        f"XLA's runs at {facts['multiply-add']['tflops']:.1f} TFLOP/s.\n"
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
    text = table(("what is compared", "ok", "failed", "not all on CUDA", "not reached"), lines)
    lacking: dict[str, list[str]] = {}
    for row in rows:
        if row["phase"] in names and row["status"] == "missing":
            lacking.setdefault(row["error"], []).append(row["item"])
    text += "\nNot all on CUDA:\n\n" + "".join(f"- {', '.join(x)}: {error}\n" for error, x in lacking.items())
    failures = [row for row in rows if row["status"] == "failed"]
    if failures:
        text += "\nFailed:\n\n" + "".join(
            f"- {row['phase']}, {row['item']}: {str(row.get('error', '')).strip().splitlines()[-1]}\n"
            for row in failures
        )
    return text


def training(rows: list[Row]) -> str:
    found = of(rows, "training")
    ends = {(row["item"], row["report"]): row for row in found if "reached" in row}
    rates = [
        (r["report"], r["item"], f"{r['steps_per_second']:,.0f}", f"{r['epoch_ms']:.1f}", f"{r['batch']:,}")
        for r in found
        if "epoch_ms" in r
    ]
    goals = []
    for row in found:
        name, is_goal, perf = row["item"].partition(": perf ")
        if is_goal:
            ready = ends[name, row["report"]]["ready_seconds"]
            goals.append((row["report"], name.split(" to ")[0], perf, f"{row['seconds']:.1f}", f"{ready:.1f}"))
            goals[-1] += (f"{row['steps']:,}",)
    lasts = [
        (number, name.split(" to ")[0], f"{row['train_seconds']:.1f}", f"{row['steps']:,}", f"{row['unseen_perf']:.3f}")
        for (name, number), row in ends.items()
    ]
    return "\n".join(
        [
            table(("report", "training", "steps per second", "an epoch, ms", "of steps"), rates),
            "How long it takes; the seconds count from the start of the training, and begin with compilation. What is "
            "solved is counted over the last 1,000 fresh episodes of training.\n",
            table(("report", "maze", "solved", "seconds", "of these, until the first step", "steps"), goals),
            "Where it ended: at the goal, or when the time was over to which the learning rate was annealed.\n",
            table(("report", "maze", "seconds", "steps", "solved of 2,000 unseen mazes"), lasts),
        ]
    )


def kernels(rows: list[Row]) -> str:
    facts = {row["item"]: row for row in of(rows, "machine")}
    lines = []
    for row in of(rows, "kernels"):
        own = (
            {k: v for k, v in row["kernels_us"].items() if "pjx" in k}
            if isinstance(row.get("kernels_us"), dict)
            else {}
        )
        flops = 0 if "bfloat16" in row["item"] else row["flops"] or 0
        floor = max(row["bytes"] / facts["copy"]["gb_per_second"] / 1e3, flops / facts["multiply-add"]["tflops"] / 1e6)
        time = row.get("native_us", row["reference_us"])
        speedup = f"{row['reference_us'] / time:.1f}" if "native_us" in row else ""
        kernel = f"{sum(own.values()):,.1f}" if own else ""
        lines.append((row["item"], f"{time:,.1f}", kernel, f"{floor:,.1f}", f"{floor / time:.0%}", speedup))
    text = table(
        ("op", "a call, us", "of it our kernels, us", "floor, us", "floor / call", "twin as XLA compiles it / call"),
        lines,
    )
    return text + (
        "\nA call is one of many in one program, with the gaps between its kernels. The floor is the time to copy its "
        "operands and results once, or that of its float32 multiply-adds in forward, if that is longer; those of "
        "`bfloat16` do not count. Twins multiply in float32 too.\n"
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
        (name, *(f"{found[c] / 1e6:,.0f}" if c in found else "" for c in counts))
        for name, found in sorted(by_env.items())
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
    names = " and ".join(f"`{path.name}`" for path in paths)
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
