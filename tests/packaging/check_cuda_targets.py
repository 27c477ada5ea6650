"""Imports a built CUDA module and compares what it registers with what the sources promise. Needs no GPU.

    python tests/packaging/check_cuda_targets.py build/cuda

A module with an undefined symbol links, but cannot be imported; one from which a source was left out can, and what is
missing would run as something else on a GPU, or not at all.
"""

import argparse
import importlib.util
import itertools
from pathlib import Path

from pufferjax import envs, xla_ops
from pufferjax.xla_ops import ffi

ENV_FUNCTIONS = ("reset", "step", "observe", "restore", "stagger", "clock", "random_walk")
# Simulators whose levels are copied to a device before anything is executed there.
WITH_LEVELS = ("maze", "boxoban")
WITHOUT_KERNELS = ("state_heap_insert", "state_heap_rescore")  # ops of the heap, which lives on the host


def promised() -> set[str]:
    targets = {f"pufferjax.{env}.{function}" for env, function in itertools.product(envs.names(), ENV_FUNCTIONS)}
    for op in set(xla_ops.OP_TARGETS) - set(WITHOUT_KERNELS):
        targets.update(xla_ops.ALTERNATIVE_TARGETS.get(op, xla_ops.OP_TARGETS[op]))
    return targets


def check(module_file: Path) -> None:
    spec = importlib.util.spec_from_file_location("_cuda", module_file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    registrations = module.registrations()
    registered = set(registrations)
    if missing := sorted(promised() - registered):
        raise SystemExit(f"{module_file} lacks {', '.join(missing)}")
    # A handler of its own on the GPU is one that the CPU has too, or a form that only GPUs use.
    known = promised() | {target for target in registered if ffi.has_native(target, "cpu")}
    if unknown := sorted(registered - known):
        raise SystemExit(f"{module_file} registers {', '.join(unknown)}, which no op or simulator names")
    for env, function in itertools.product(WITH_LEVELS, ENV_FUNCTIONS):
        stages = registrations[f"pufferjax.{env}.{function}"]
        if not isinstance(stages, dict) or set(stages) != {"initialize", "execute"}:
            raise SystemExit(f"{module_file}: nothing copies the levels of {env} before {function}")
    if stale := [op for op in WITHOUT_KERNELS if registered & set(xla_ops.OP_TARGETS[op])]:
        raise SystemExit(f"{', '.join(stale)} has kernels: strike it off WITHOUT_KERNELS")
    print(f"{module_file}: imported; {len(registered)} targets, none of those promised is missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="the folder that holds _cuda.*.so")
    build = parser.parse_args().build
    modules = sorted(build.glob("_cuda.*.so"))
    if len(modules) != 1:
        raise SystemExit(f"there must be one _cuda.*.so in {build}, found {len(modules)}")
    check(modules[0])


if __name__ == "__main__":
    main()
