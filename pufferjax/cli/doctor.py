"""`pufferjax doctor`: what is installed, what runs natively here, and one line of advice for each thing wrong."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from pufferjax.cli.refusals import refusals

USAGE = """\
  pufferjax doctor [--run-dir runs] [--json]
      versions, native modules, devices, disk: what this installation runs with, and what is wrong with it
"""

_PACKAGES = ("pufferjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# (package, version): a fault of it, and what pufferjax makes of it. Seen by running this project's tests on it.
_KNOWN_FAULTS = {
    ("jaxlib", "0.11.2"): "its Shardy partitioner crashes on training on several CPU devices, which goes without it",
}
_LEAST_FREE_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report. advice: None if all is well."""

    name: str
    value: str
    advice: str | None = None


def examine(run_dir: Path) -> list[Finding]:
    """Everything that `doctor` reports; runs live in `run_dir`, which need not exist."""
    devices = _devices()  # before anything else starts JAX: that decides how many there are
    return [*_versions(), devices, *_native_modules(is_on_gpu="gpu" in devices.name), *_ops(), _disk(run_dir)]


def _versions() -> list[Finding]:
    findings = [Finding("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")]
    for package in _PACKAGES:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(package, "missing", f"pip install {package}"))
            continue
        fault = _KNOWN_FAULTS.get((package, version))
        findings.append(Finding(package, version if fault is None else f"{version} ({fault})"))
    return findings


def _devices() -> Finding:
    from pufferjax.core.parallel import start_devices

    try:
        devices = start_devices()
    except RuntimeError as error:
        return Finding("devices", "none", str(error))
    kinds: dict[str, int] = {}
    for device in devices:
        kinds[device.device_kind] = kinds.get(device.device_kind, 0) + 1
    return Finding(f"devices ({devices[0].platform})", ", ".join(f"{count} x {kind}" for kind, count in kinds.items()))


def _native_modules(is_on_gpu: bool) -> list[Finding]:
    from pufferjax.xla_ops import ffi

    errors = ffi.load_errors()
    if "cpu" in errors:
        cpu = Finding(
            "native CPU code",
            f"not loaded: {errors['cpu']}",
            "ops run as their pure-JAX twins and no native environment can be made: install a wheel for this system, "
            "or `pip install .` in the repository (needs a C++17 compiler)",
        )
    else:
        level = ffi.instruction_set()
        is_slow = level == "baseline" and platform.machine() in ("x86_64", "AMD64")
        slow = "no AVX2 here, or a build that cannot choose: training is several times slower than it could be"
        cpu = Finding("native CPU code", f"loaded, instruction set {level}", slow if is_slow else None)
    if "cuda" not in errors:
        return [cpu, Finding("native CUDA code", "loaded")]
    value = "not built" if "No module named" in errors["cuda"] else f"not loaded: {errors['cuda']}"
    advice = (
        "ops run as their pure-JAX twins on this GPU, and native environments not at all: in the repository, "
        "`pip install '.[cuda]' -C cmake.define.PUFFERJAX_CUDA=ON` (needs nvcc)"
    )
    return [cpu, Finding("native CUDA code", value, advice if is_on_gpu else None)]


def _ops() -> list[Finding]:
    from pufferjax import xla_ops

    findings = []
    for name in ("cpu", "cuda"):
        native = sorted(op for op, backends in xla_ops.backends().items() if backends[name] == "native")
        twins = sorted(op for op, backends in xla_ops.backends().items() if backends[name] != "native")
        parts = [f"{label}: {', '.join(ops)}" for label, ops in (("native", native), ("pure-JAX twin", twins)) if ops]
        findings.append(Finding(f"ops on {name}", "; ".join(parts)))
    return findings


def _disk(run_dir: Path) -> Finding:
    folder = next(path for path in (run_dir.absolute(), *run_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    advice = None
    if not os.access(folder, os.W_OK):
        advice = f"{folder} cannot be written: give --run-dir a folder that can"
    elif free < _LEAST_FREE_BYTES:
        advice = f"{folder} has less than 1 GiB free: a run and its checkpoints may not fit"
    return Finding(f"disk for {run_dir}", f"{free / 2**30:.1f} GiB free", advice)


def main(argv: list[str]) -> int:
    """Exit status 0, or 1 if there is advice."""
    import tyro

    @dataclasses.dataclass
    class Args:
        """Reports versions, native modules, devices and disk, with one line of advice for each thing wrong."""

        run_dir: Path = Path("runs")
        """Where runs are to be written."""
        json: tyro.conf.FlagCreatePairsOff[bool] = False
        """Print one JSON object and nothing else."""

    args = tyro.cli(Args, args=argv, prog="pufferjax doctor")
    with refusals():
        findings = examine(args.run_dir)
    wrong = [finding.advice for finding in findings if finding.advice is not None]
    if args.json:
        report: dict[str, Any] = {finding.name: finding.value for finding in findings}
        print(json.dumps({**report, "advice": wrong}))
        return bool(wrong)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = " " if finding.advice is None else "!"
        print(f"{mark} {finding.name:<{width}}  {finding.value}")
    for advice in wrong:
        print(f"! {advice}")
    if not wrong:
        print("nothing wrong")
    return bool(wrong)
