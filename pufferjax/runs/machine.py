"""What a result was computed with: the machine, and the versions of packages."""

import contextlib
import importlib.metadata
import platform
from pathlib import Path

import jax

from pufferjax.core.cores import num_cores
from pufferjax.xla_ops import ffi


def machine() -> str:
    """The machine in one line: the cores that this process may use, and the vector instructions of its native code."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    devices = jax.devices()
    kind = "" if devices[0].platform == "cpu" else f", {len(devices)} x {devices[0].device_kind}"
    system = f"{platform.system()} {platform.machine()}"
    level = ffi.instruction_set() or "no native code"
    return f"{system}, {num_cores()} x {model} ({level}){kind}, Python {platform.python_version()}"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
