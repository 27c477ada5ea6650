"""What a result was computed with: the machine, and the versions of packages."""

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

import jax


def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    devices = jax.devices()
    kind = "" if devices[0].platform == "cpu" else f", {len(devices)} x {devices[0].device_kind}"
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {os.cpu_count()} x {model}{kind}, Python {platform.python_version()}"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
