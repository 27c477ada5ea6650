"""NVIDIA's tools around a child: compute-sanitizer, for errors of memory and of order, and Nsight Compute."""

import collections
import csv
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pufferjax.bench.gpu.children import Group, run_group

SANITIZERS = ("memcheck", "racecheck", "synccheck")
_FOLDERS = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/nvidia/nsight-compute")
_METRICS = {
    "gpu__time_duration.sum": "us",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "percent_of_memory",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "percent_of_arithmetic",
}
_MOST_LAUNCHES = 400


def find(tool: str) -> str | None:
    """The path of a tool of CUDA, which need not be on PATH."""
    places = (shutil.which(tool), *(shutil.which(tool, path=folder) for folder in _FOLDERS))
    return next((place for place in places if place), None)


def sanitize(tool: str, group: Group, add: Callable[..., None], **options: Any) -> None:
    """Runs the items of `group` under a tool of compute-sanitizer; one row for all of them."""
    path = find("compute-sanitizer")
    if path is None:
        add("sanitizer", tool, "missing", error="compute-sanitizer was not found")
        return
    group.command = [path, "--tool", tool, "--print-limit", "30", "--error-exitcode", "86"]
    # What has no kernel of ours has nothing to check, and XLA's own loops are slow under these tools, or crash.
    group.items = [item for item in group.items if not item[1].startswith("state_heap")]
    group.start_limit, group.slowness = 180.0, 5.0
    outcomes: collections.Counter[str] = collections.Counter()
    failures = []

    def collect(phase: str, item: str, status: str, **figures: Any) -> None:
        outcomes[status] += 1
        if status == "failed":
            failures.append(f"{item}: {figures.get('error', '')}")

    output = run_group(group, collect, **options, restarts=1)
    found, errors = findings(output)
    figures: dict[str, Any] = {"items_run": outcomes["ok"], "items_not_run": outcomes["skipped"], "errors": errors}
    if found or failures or errors:
        text = "; ".join([*failures, *found])[:400] or f"{errors} errors"
        add("sanitizer", tool, "failed", **figures, error=text, output=output[-6000:])
    elif not outcomes["ok"]:
        add("sanitizer", tool, "skipped", **figures, error="no item ended in its time", output=output[-2000:])
    else:
        add("sanitizer", tool, "ok", **figures)


def findings(output: str) -> tuple[list[str], int | None]:
    """(the first line of each finding, the number of errors in the summary; None if it was ended before that)."""
    lines = [line[len("=========") :].strip() for line in output.splitlines() if line.startswith("=========")]
    summary = [int(n) for line in lines for n in re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", line)]
    pattern = re.compile(r"Invalid |Error: |Warning: |Barrier error|Program hit|Uninitialized|Potential |Race reported")
    return [line for line in lines if pattern.match(line)], summary[-1] if summary else None


def measure(group: Group, add: Callable[..., None], **options: Any) -> None:
    """Runs the items of `group` under Nsight Compute; a row for each kernel, its launches together."""
    path = find("ncu")
    if path is None:
        add("ncu", "ncu", "missing", error="ncu was not found")
        return
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        group.command = [path, "--clock-control", "none", "--csv", "--page", "raw", "--log-file", str(log)]
        group.command += ["--metrics", ",".join(_METRICS), "--launch-count", str(_MOST_LAUNCHES)]
        group.start_limit, group.slowness = 120.0, 3.0
        failures = []

        def collect(phase: str, item: str, status: str, **figures: Any) -> None:
            if status == "failed":
                failures.append(f"{item}: {figures.get('error', '')}")

        output = run_group(group, collect, **options, restarts=1)
        rows = kernel_rows(log.read_text(errors="replace").splitlines()) if log.exists() else []
    for row in rows:
        add("ncu", row.pop("kernel"), "ok", **row)
    if not rows:
        add("ncu", "ncu", "failed", error="; ".join(failures)[:400] or "it reported no kernel", output=output[-2000:])


def kernel_rows(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The median of every metric of each kernel at each size of its grid, from the CSV of `ncu --page raw`, the longest
    kernels first. Lines of ncu itself begin with "=="; the second line of the table holds the units."""
    table = csv.DictReader(line for line in lines if not line.startswith("=="))
    measured: dict[tuple[str, str], list[list[float]]] = {}
    scale = {"nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0, "msecond": 1e3, "ms": 1e3, "second": 1e6, "s": 1e6}
    factor = 1.0
    for row in table:
        try:
            values = [float(row[metric].replace(",", "")) for metric in _METRICS]
        except (ValueError, AttributeError, KeyError, TypeError):
            factor = scale.get(row.get("gpu__time_duration.sum") or "", factor)
            continue
        values[0] *= factor
        name = re.sub(r"^void |<.*|\(.*", "", row.get("Kernel Name") or "?")
        measured.setdefault((name, row.get("Grid Size") or ""), []).append(values)
    rows = []
    for (name, grid), several in measured.items():
        middle = (sorted(column)[len(column) // 2] for column in zip(*several, strict=True))
        figures = dict(zip(_METRICS.values(), middle, strict=True))
        rows.append({"kernel": f"{name} {grid}".strip(), "launches": len(several), **figures})
    return sorted(rows, key=lambda row: -row["us"])
