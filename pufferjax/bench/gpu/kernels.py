"""Phase: the time of every op on the GPU, from many calls inside one program, beside its floor and its twin's.

The floor is the longer of two times: that of the bytes which must be moved, at the speed of copying, and that of the
multiply-adds, at their measured rate (float32; products over bfloat16 have another unit, so theirs do not count).
"""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pufferjax.bench import scans, timing
from pufferjax.bench.gpu.handlers import make_case, name_of, native_or_twin
from pufferjax.bench.gpu.items import Context, Item
from pufferjax.bench.ops import OPS, public_op
from pufferjax.xla_ops import ffi

# (entry of OPS, size, what of it): "forward" or a "gradient" entry as they are; "backward": its cotangents alone.
TIMINGS = (
    ("entity_encoder", (1024, 200, 13, 16, 128), ""),
    ("entity_encoder bfloat16", (1024, 200, 13, 16, 128), ""),
    ("entity_encoder gradient", (1024, 200, 13, 16, 128), ""),
    ("entity_encoder", (1024, 200, 13, 16, 128), "backward"),
    ("entity_encoder", (65_536, 16, 4, 16, 128), ""),
    ("entity_encoder bfloat16", (65_536, 16, 4, 16, 128), ""),
    ("entity_encoder", (65_536, 16, 4, 16, 128), "backward"),
    ("prioritized_sample", (10_000, 8192, 1.0), ""),
    ("prioritized_sample", (10_000, 8192, 0.6), ""),
    ("prioritized_sample", (100_000_000, 8192, 1.0), ""),
    ("linear_recurrence", (128, 2048, 128), ""),
    ("linear_recurrence", (128, 2048, 128), "backward"),
    ("mingru_layer", (1, 4096, 128), ""),
    ("mingru_layer", (128, 2048, 128), ""),
    ("mingru_layer", (128, 2048, 128), "backward"),
    ("mingru_layer", (128, 64, 64), ""),
    ("mingru_layer", (128, 64, 64), "backward"),
    ("one_hot_linear", (8192, 122, 5, 64), ""),
    ("one_hot_linear", (8192, 122, 5, 64), "backward"),
    ("one_hot_linear", (65_536, 122, 5, 64), ""),
    ("one_hot_linear", (65_536, 122, 5, 64), "backward"),
    ("gae_vtrace", (128, 1024), ""),
    ("gae_vtrace", (128, 8192), ""),
    ("linear_max", (1024, 200, 13, 128), ""),
    ("linear_max", (1024, 200, 13, 128), "backward"),
    ("linear_max bfloat16", (1024, 200, 13, 128), ""),
    ("prioritized_sample", (1_000_000, 8192, 1.0), ""),
    ("prioritized_sample", (100_000_000, 8192, 0.6), ""),
    ("linear_recurrence bfloat16", (128, 2048, 128), ""),
)
_ASSUMED = {"gb_per_second": 3000.0, "tflops": 60.0}  # where the machine's are not measured
_ROTATED_BYTES = 128e6  # more than twice the second-level cache of an H100
_PROGRAM_SECONDS = 4e-3  # aimed at, if an op takes three times its floor
_MOST_TWIN_CALLS = 24  # a twin may take a hundred times as long


def items(dry_run: bool) -> list[Item]:
    timings = TIMINGS
    if dry_run:
        timings = [(op, OPS[op].tiny, what) for op, what in (("gae_vtrace", ""), ("linear_recurrence", "backward"))]
    return [
        Item("kernels", f"{name_of(op, size)} {what}".strip(), functools.partial(_time, op=op, size=size, what=what))
        for op, size, what in timings
    ]


def _time(context: Context, op: str, size: tuple, what: str) -> dict[str, Any]:
    case, impl = make_case(op, size), native_or_twin(context, op)
    with jax.default_device(context.device):
        operands = case.operands(np.random.default_rng(0))

        def part(impl):
            run = functools.partial(case.run, impl)
            return _backward(run, operands) if what == "backward" else (run, operands)

        run, its_operands = part(impl)
        moved = scans.num_bytes(its_operands) + scans.num_bytes(jax.eval_shape(run, *its_operands))
        flops = case.backward_flops if what == "backward" else case.flops
        floor = _floor(context, moved, flops)
        calls = 8 if context.dry_run else min(400, max(8, int(_PROGRAM_SECONDS / max(3 * floor, 5e-6))))
        programs = {"reference": scans.plain_calls(*part("reference"), min(calls, _MOST_TWIN_CALLS))}
        figures = {"runs_as": impl, "floor_us": 1e6 * floor, "bytes": moved, "flops": flops}
        if impl == "native":
            sets = scans.operand_sets(its_operands, 0 if context.dry_run else _ROTATED_BYTES)
            programs["native"] = scans.native_calls(run, sets, -(-calls // len(sets)))
            figures["operand_sets"] = len(sets)
        compiled = scans.compiled(programs)
        if impl == "native":
            found = scans.count_calls(compiled[impl].as_text(), f"pufferjax.{public_op(op)}")
            if found < len(sets):
                raise RuntimeError(f"{found} calls are left of {len(sets)}: nothing was timed")
        for each, program in programs.items():
            times = timing.in_a_row(functools.partial(compiled[each], program.operands), 2, 5)
            figures[f"{each}_us"] = 1e6 * float(np.median(times)) / program.count
            figures[f"{each}_us_least"] = 1e6 * min(times) / program.count
        figures["share_of_floor"] = figures["floor_us"] / figures[f"{impl}_us"]
        if impl == "native":
            figures["twin_over_native"] = figures["reference_us"] / figures["native_us"]
        program = programs[impl]
        figures["kernels_us"] = _kernels(functools.partial(compiled[impl], program.operands), program.count)
        return figures


def _backward(run, operands):
    """(a function of the pull-back and the cotangents, these): the residuals are then operands like others."""
    differentiable = [i for i, x in enumerate(operands) if np.issubdtype(x.dtype, np.inexact) or x.dtype == "bfloat16"]

    def of_these(*some):
        full = list(operands)
        for i, x in zip(differentiable, some, strict=True):
            full[i] = x
        return run(*full)

    with ffi.kept_calls():  # the calls of the pull-back are traced here
        results, pull = jax.jit(lambda *some: jax.vjp(of_these, *some))(*(operands[i] for i in differentiable))
    return (lambda pull, cotangents: pull(cotangents)), (pull, results)


def _floor(context: Context, moved: int, flops: int | None) -> float:
    roof = {**_ASSUMED, **{name: context.facts[name] for name in _ASSUMED if name in context.facts}}
    return max(moved / roof["gb_per_second"] / 1e9, (flops or 0) / roof["tflops"] / 1e12)


def _kernels(run: Callable[[], Any], calls: int, most: int = 6) -> dict[str, float] | str:
    """Microseconds per call that each kernel of run() takes on the device, the longest first; or why there is no
    telling."""
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                jax.block_until_ready(run())
            (path,) = Path(folder).rglob("*.xplane.pb")
            found = jax.profiler.ProfileData.from_file(str(path))
            totals: dict[str, float] = {}
            lines = []
            for plane in found.planes:
                if not plane.name.startswith("/device:GPU"):
                    continue
                for line in plane.lines:
                    lines.append(line.name)
                    if not line.name.startswith("Stream"):
                        continue
                    for event in line.events:
                        totals[event.name] = totals.get(event.name, 0.0) + event.duration_ns
    except Exception as error:  # a tool of its own, which a container may forbid
        return f"no profile: {type(error).__name__}: {error}"[:300]
    if not totals:
        return f"no kernel in the profile, whose lines are {lines}"[:300]
    longest = sorted(totals.items(), key=lambda entry: -entry[1])[:most]
    seconds = round(time.perf_counter() - start, 2)
    return {name[:80]: round(total / calls / 1000, 3) for name, total in longest} | {"profile_seconds": seconds}
