"""How many cores of the CPU this process may use."""

import contextlib
import math
import os
from pathlib import Path


def num_cores() -> int:
    """The cores that the affinity mask and the control group's quota leave to this process, at least 1. A quota of a
    core and a half counts as two: threads that wait for each other use what one alone would leave."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Cores that the control group of this process and those above it allow; None: no limit, or no Linux."""
    limits = []
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2
                folder = root
                names = ("cpu.max",)
            elif "cpu" in controllers.split(","):
                folder = root / "cpu"
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            else:
                continue
            below = Path(path.strip("/"))
            # In a container the path may not be there; its own group is then the root.
            for group in (folder, *(folder / part for part in reversed((below, *below.parents)) if part != Path("."))):
                limits.append(_limit(group, names))
    found = [limit for limit in limits if limit is not None]
    return min(found, default=None)


def _limit(group: Path, names: tuple[str, ...]) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = " ".join((group / name).read_text(encoding="utf-8") for name in names).split()
        if quota != "max" and float(quota) > 0 and float(period) > 0:
            return float(quota) / float(period)
    return None
