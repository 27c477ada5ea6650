"""Phase: the machine, the versions, the native targets, and the two roofs, of copying and of arithmetic."""

import contextlib
import os
import platform
import shutil
import subprocess
import time
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax import envs, xla_ops
from pufferjax.bench import timing
from pufferjax.bench.gpu.items import Context, Item, Missing, Wrong
from pufferjax.runs.machine import machine, version
from pufferjax.xla_ops import ffi

ENV_FUNCTIONS = ("reset", "step", "observe", "restore", "stagger", "clock", "random_walk")
ON_HOST = "pufferjax.state_heap."  # in training the state set is on the host
_QUERY = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"


def items(dry_run: bool) -> list[Item]:
    run = {
        "device": _device,
        "nvidia-smi": _nvidia_smi,
        "versions": _versions,
        "native modules": _native_modules,
        "targets": _targets,
        "copy": _copy,
        "multiply-add": _multiply_add,
    }
    return [Item("machine", name, function) for name, function in run.items()]


def _device(context: Context) -> dict[str, Any]:
    start = time.perf_counter()
    device = context.device
    figures = {"platform": device.platform, "kind": device.device_kind, "machine": machine()}
    with contextlib.suppress(Exception):  # not every platform tells
        figures["memory_gb"] = device.memory_stats()["bytes_limit"] / 1e9
    return figures | {"jax_start_seconds": round(time.perf_counter() - start, 2)}


def _nvidia_smi(context: Context) -> dict[str, Any]:
    if shutil.which("nvidia-smi") is None:
        raise Missing("nvidia-smi is not on the path")
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Wrong(f"nvidia-smi ended with status {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return {"line": done.stdout.strip()}


def _versions(context: Context) -> dict[str, Any]:
    packages = ("pufferjax", "jax", "jaxlib", "flax", "optax", "numpy", "jax-cuda13-plugin", "jax-cuda12-plugin")
    figures: dict[str, Any] = {name: version(name) for name in packages}
    figures["python"] = platform.python_version()
    with contextlib.suppress(Exception):  # a module of JAX's own, without a promise
        from jax._src.lib import cuda_versions

        figures["cuda_runtime"] = cuda_versions.cuda_runtime_get_version()
        figures["cuda_driver"] = cuda_versions.cuda_driver_get_version()
        figures["cuda_compute_capability"] = cuda_versions.cuda_compute_capability(0)
    figures["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")
    return figures


def _native_modules(context: Context) -> dict[str, Any]:
    errors = ffi.load_errors()
    if context.platform in errors:
        raise Wrong(f"the native module for {context.platform} cannot be loaded: {errors[context.platform]}")
    return {"instruction_set": ffi.instruction_set(), "load_errors": errors}


def promised_targets() -> dict[str, list[tuple[str, ...]]]:
    """{op or simulator: its native forms, each of several targets}: with all targets of one form it is native."""
    forms = {
        op: [tuple(targets) for targets in (xla_ops.OP_TARGETS[op], xla_ops.ALTERNATIVE_TARGETS.get(op)) if targets]
        for op in xla_ops.OP_TARGETS
    }
    for name in envs.names():
        forms[name] = [tuple(f"pufferjax.{name}.{function}" for function in ENV_FUNCTIONS)]
    return forms


def _targets(context: Context) -> dict[str, Any]:
    missing: list[str] = []
    for forms in promised_targets().values():
        lacking = [[target for target in form if not context.has_native(target)] for form in forms]
        missing += min(lacking, key=len)
    if context.platform == "cuda":
        missing = [target for target in missing if not target.startswith(ON_HOST)]
    if missing:
        raise Missing(f"{len(missing)} targets have no {context.platform} handler: {', '.join(missing)}")
    return {"missing": 0, "platform": context.platform}


def _check_worth(context: Context) -> None:
    """Gigabytes on a CPU would only tell that there is no GPU, minutes later."""
    if not context.dry_run and context.platform != "cuda":
        raise Missing("JAX has no GPU here")


def _copy(context: Context) -> dict[str, Any]:
    """GB/s of XLA's x + 1, bytes read and written."""
    _check_worth(context)
    x = jnp.arange(2**12 if context.dry_run else 2**29, dtype=jnp.float32)
    run = jax.jit(lambda x: x + 1)
    speeds = [2 * x.nbytes / t / 1e9 for t in timing.in_a_row(lambda: run(x), calls=4, repeats=8)]
    return {"bytes": 2 * x.nbytes, "gb_per_second": timing.summarize(speeds)["median"], "best": max(speeds)}


def _multiply_add(context: Context) -> dict[str, Any]:
    """TFLOP/s of float32 multiply-adds, from a large matrix product: XLA does not contract them in code of its own."""
    _check_worth(context)
    size = 64 if context.dry_run else 8192
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    run = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    speeds = [2 * size**3 / t / 1e12 for t in timing.in_a_row(lambda: run(x), calls=4, repeats=4)]
    return {"tflops": timing.summarize(speeds)["median"], "best": max(speeds)}
