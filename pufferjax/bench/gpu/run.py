"""The phases in their order: which share the GPU, which have it alone, and how much of the time each may take."""

import collections
import concurrent.futures
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pufferjax.bench.gpu import graphs
from pufferjax.bench.gpu.child import items_of
from pufferjax.bench.gpu.children import Group, cache_environment, run_group
from pufferjax.bench.gpu.pytest_part import PHASE as TESTS
from pufferjax.bench.gpu.report import Report, describe

PHASES = ("machine", "handlers", "simulators", "tests", "graphs")
# Of all the time, until when: what is compared shares the GPU, what is timed has it alone.
_UNTIL = {"machine": 0.12, "compared": 1.0}
_TEST_PARTS = 6
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def bench_gpu(
    minutes: float, json: Path | None, only: list[str] | None, tests: Path | None, cache: Path | None, dry_run: bool
) -> int:
    """Runs the phases and prints the table. 0; 1 if an item failed, 2 where there is no GPU to run them on."""
    with contextlib.ExitStack() as stack:
        if cache is None:
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pufferjax-bench-")))
        report = stack.enter_context(contextlib.closing(Report(json)))
        bench = _Bench(minutes * 60, report, cache, dry_run)
        bench.run(set(PHASES if only is None else only), tests or _tests_here())
    print(describe(report.rows))
    if not bench.has_device:
        print("pufferjax: error: JAX has no GPU here; --dry-run needs none", file=sys.stderr)
        return 2
    return 1 if report.count("failed") else 0


def _tests_here() -> Path | None:
    folder = Path("tests/gpu")
    return folder if folder.is_dir() else None


class _Bench:
    def __init__(self, seconds: float, report: Report, cache: Path, dry_run: bool):
        self._start, self._seconds = time.time(), seconds
        self._report, self._dry_run = report, dry_run
        self._environment = cache_environment(cache)
        if dry_run:
            self._environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{_QUICK} {os.environ.get('XLA_FLAGS', '')}"}
        self._facts: dict[str, Any] = {}

    @property
    def has_device(self) -> bool:
        return self._dry_run or self._facts.get("platform") == "gpu"

    def run(self, phases: set[str], tests: Path | None) -> None:
        self._run([self._group("machine")], "machine")
        if not self.has_device:
            return
        groups = [self._group(phase) for phase in ("handlers", "simulators") if phase in phases]
        if "graphs" in phases:
            groups += self._graphs()
        if "tests" in phases:
            groups += self._tests(tests)
        self._run(groups, "compared")

    def _group(self, phase: str, **options: Any) -> Group:
        items = [(item.phase, item.name) for item in items_of(phase, self._dry_run)]
        return Group(items, [phase], **options)

    def _graphs(self) -> list[Group]:
        """One group for each mode; the flags are those of a GPU."""
        if self._dry_run:
            return [self._group("graphs")]
        given = os.environ.get("XLA_FLAGS", "")
        return [
            self._group("graphs", suffix=f", graphs {mode}", environment={"XLA_FLAGS": f"{given} {flags}".strip()})
            for mode, flags in graphs.MODES.items()
        ]

    def _tests(self, folder: Path | None) -> list[Group]:
        if folder is None:
            self._report.add(TESTS, "tests/gpu", "skipped", error="no folder tests/gpu here, and no --tests")
            return []
        parts = 1 if self._dry_run else _TEST_PARTS
        # -P: the folder that has the tests may hold pufferjax's sources, which would hide the installed package.
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
        command += ["--import-mode=importlib", "-p", "pufferjax.bench.gpu.pytest_part", str(folder.absolute())]
        return [
            Group([], [TESTS], command=command, unknown_items=TESTS, order={"part": [part, parts]})
            for part in range(parts)
        ]

    def _run(self, groups: list[Group], stage: str) -> None:
        """Side by side, as many as there are cores for."""
        if not groups:
            return
        deadline = self._start + self._seconds * _UNTIL[stage]
        counts: collections.Counter[tuple[str, str]] = collections.Counter()

        def add(phase: str, item: str, status: str, **figures: Any) -> None:
            if phase == "machine":
                self._remember(item, figures)
            if phase == TESTS and status != "failed":  # hundreds: how many is enough
                counts[status, figures.get("error", "")] += 1
                return
            self._report.add(phase, item, status, **figures)

        workers = max(1, min(len(groups), (os.cpu_count() or 1) if not self._dry_run else 1))
        with concurrent.futures.ThreadPoolExecutor(workers) as threads:
            for done in [threads.submit(self._run_group, group, add, deadline) for group in groups]:
                done.result()
        for (status, reason), count in counts.items():
            self._report.add(TESTS, f"{count} tests", status, **({"error": reason} if reason else {}))

    def _run_group(self, group: Group, add: Callable[..., None], deadline: float) -> str:
        group.environment = {**self._environment, **group.environment}
        return run_group(group, add, deadline=deadline, dry_run=self._dry_run, facts=self._facts)

    def _remember(self, item: str, figures: dict[str, Any]) -> None:
        """What later phases need of the machine's figures."""
        names = {"device": ("platform",), "copy": ("gb_per_second",), "multiply-add": ("tflops",)}
        self._facts |= {name: figures[name] for name in names.get(item, ()) if name in figures}
