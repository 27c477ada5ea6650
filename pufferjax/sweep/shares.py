"""The devices of a machine shared out to trials that run at the same time."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pufferjax.sweep.child import start_child


class Share(NamedTuple):
    """What one trial has: cores, and GPUs where there are any."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; none where JAX is told to leave them alone."""
    if os.environ.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("cuda", "gpu"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def make_shares(devices_per_trial: int | None) -> list[Share]:
    """One for each trial that can run at once with so many devices, GPUs or else cores; None: all are one trial's.

    ValueError if the machine has fewer.
    """
    cores, gpus = _cores(), _gpus()
    devices: Sequence = gpus or cores
    if devices_per_trial is None:
        return [Share(tuple(cores), tuple(gpus) or None)]
    if not 1 <= devices_per_trial <= len(devices):
        kind = "GPUs" if gpus else "cores"
        raise ValueError(
            f"--devices-per-trial must be an integer in [1, {len(devices)}], the {kind} of this machine, got "
            f"{devices_per_trial}"
        )
    count = len(devices) // devices_per_trial
    each = max(1, len(cores) // count)
    return [
        Share(
            tuple(cores[i * each % len(cores) :][:each]),
            tuple(gpus[i * devices_per_trial :][:devices_per_trial]) if gpus else None,
        )
        for i in range(count)
    ]


def take(share: Share) -> None:
    """This process and what it starts have no more than its share from now on."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share.cores)
    if share.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)


@contextlib.contextmanager
def helpers(shares: Sequence[Share], arguments: Sequence[str], logs: Path) -> Iterator[None]:
    """`pufferjax ARGUMENTS`, a process for each share, while entered; each ends with this process, which waits."""
    processes = []
    try:
        for i, share in enumerate(shares, start=1):
            environment = dict(os.environ)
            if share.gpus is not None:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
            process = start_child(arguments, logs / f"worker-{i}.log", environment)
            processes.append(process)
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, share.cores)
        yield
    finally:
        for process in processes:
            process.stdin.close()  # asks it to stop
        for process in processes:
            process.wait()
