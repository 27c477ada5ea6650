"""The phases in their order: which share the GPU, which have it alone, and how much of the time each may take."""

import collections
import concurrent.futures
import contextlib
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pufferjax.bench.gpu import graphs, tools
from pufferjax.bench.gpu.child import items_of
from pufferjax.bench.gpu.children import Group, cache_environment, run_group, stop_all
from pufferjax.bench.gpu.pytest_part import PHASE as TESTS
from pufferjax.bench.gpu.report import Report, describe

# Stages, one after the other: their phases, and their shares of the time. What is compared shares the GPU, what is
# timed has it alone; what a stage leaves of its time goes to the next one.
_STAGES = {
    "machine": (("machine",), 8),
    "compared": (("handlers", "simulators", "tests", "graphs", "sanitizer"), 32),
    "kernels": (("kernels",), 18),
    "speeds": (("speeds",), 10),
    "training": (("training",), 29),
    "ncu": (("ncu",), 3),
}
PHASES = tuple(phase for phases, _ in _STAGES.values() for phase in phases)
_TEST_PARTS = 6
_Add = Callable[..., None]
_Job = Callable[[_Add, float], None]
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
        elif (asked := os.environ.get("JAX_PLATFORMS")) and "cpu" not in asked:
            self._environment["JAX_PLATFORMS"] = (
                f"{asked},cpu"  # what the GPU is compared with, and the state set's home
            )
        self._facts: dict[str, Any] = {}

    @property
    def has_device(self) -> bool:
        return self._dry_run or self._facts.get("platform") == "gpu"

    def run(self, phases: set[str], tests: Path | None) -> None:
        """Runs the stages that have one of `phases`, and that of the machine."""
        stages = _STAGES if not self._dry_run else {"all": (PHASES, 1)}
        phases = phases | {"machine"}
        chosen = [([phase for phase in its if phase in phases], share) for its, share in stages.values()]
        chosen = [(its, share) for its, share in chosen if its]
        total, used = sum(share for _, share in chosen), 0
        for its, share in chosen:
            used += share
            self._run_stage(self._jobs(its, tests), self._start + self._seconds * used / total)
            if not self.has_device:
                return

    def _jobs(self, phases: Sequence[str], tests: Path | None) -> list[_Job]:
        """What a stage does: functions of (add, deadline), which may run side by side."""
        own = [phase for phase in phases if phase not in ("tests", "graphs", "sanitizer", "ncu")]
        groups = [self._group(phase) for phase in own]
        if "graphs" in phases:
            groups += self._graphs()
        if self._dry_run and groups:  # one child for all: most of the time of a small one goes into its start
            groups = [Group([item for group in groups for item in group.items], [x.phases[0] for x in groups])]
        if "tests" in phases:
            groups += self._tests(tests)
        jobs: list[_Job] = [functools.partial(self._run_group, group) for group in groups]
        for tool in tools.SANITIZERS if "sanitizer" in phases else ():
            run = functools.partial(tools.sanitize, tool)
            jobs.append(functools.partial(self._with_tool, run, self._group("handlers")))
        if "ncu" in phases:
            jobs.append(functools.partial(self._with_tool, tools.measure, self._group("profiled")))
        return jobs

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
            Group([], [TESTS], command, unknown_items=TESTS, order={"part": [part, parts]}, runs_child=False)
            for part in range(parts)
        ]

    def _run_stage(self, jobs: list[_Job], deadline: float) -> None:
        """Side by side, as many as there are cores for; in a dry run one after the other."""
        counts: collections.Counter[tuple[str, str]] = collections.Counter()

        def add(phase: str, item: str, status: str, **figures: Any) -> None:
            if phase == "machine":
                self._remember(item, figures)
            if phase == TESTS and status != "failed":  # hundreds: how many is enough
                counts[status, figures.get("error", "")] += 1
                return
            self._report.add(phase, item, status, **figures)

        workers = 1 if self._dry_run else max(1, min(len(jobs), os.cpu_count() or 1))
        with concurrent.futures.ThreadPoolExecutor(workers) as threads:
            try:
                for done in [threads.submit(job, add, deadline) for job in jobs]:
                    done.result()
            except BaseException:  # Ctrl-C: the threads wait for their children
                stop_all()
                raise
        for (status, reason), count in counts.items():
            self._report.add(TESTS, f"{count} tests", status, **({"error": reason} if reason else {}))

    def _run_group(self, group: Group, add: _Add, deadline: float) -> None:
        run_group(self._told(group), add, deadline=deadline, dry_run=self._dry_run, facts=self._facts)

    def _with_tool(self, run: Callable[..., None], group: Group, add: _Add, deadline: float) -> None:
        run(self._told(group), add, deadline=deadline, dry_run=self._dry_run, facts=self._facts)

    def _told(self, group: Group) -> Group:
        group.environment = {**self._environment, **group.environment}
        return group

    def _remember(self, item: str, figures: dict[str, Any]) -> None:
        """What later phases need of the machine's figures."""
        names = {"device": ("platform",), "copy": ("gb_per_second",), "multiply-add": ("tflops",)}
        self._facts |= {name: figures[name] for name in names.get(item, ()) if name in figures}
