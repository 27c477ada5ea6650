"""Registers, spills and shared memory of every CUDA kernel, for every architecture we build for; needs nvcc, no GPU.

    python experiments/cuda_resources.py

Compiles each CUDA source with the flags of CMakeLists.txt and reads what ptxas reports. Writes
results/cuda_resources.json (or --output). Ends with an error if a kernel spills registers to memory, or if a kernel or
an architecture is missing from the report.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jaxlib

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
FLAGS = ("-O3", "-std=c++17", "-fmad=false", "-Xcompiler=-fPIC")  # those that reach device code, as in CMakeLists.txt

KERNEL = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)a?'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def find_nvcc() -> str:
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        sys.exit("nvcc not found: put it on the PATH, or name it with --nvcc")
    return nvcc


def cuda_sources() -> list[Path]:
    return sorted([*ROOT.glob("xla_ops/*/cuda.cu"), *ROOT.glob("envs/*/cuda.cu")])


def compile_verbosely(nvcc: str, source: Path, architectures: tuple[int, ...]) -> str:
    """What ptxas says about `source`; SystemExit with the compiler's message if it does not compile."""
    include = Path(jaxlib.__file__).parent / "include"
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS, *targets, "-Xptxas=-v", f"-I{ROOT}", "-isystem", include, "-c", source]
        done = subprocess.run([*command, "-o", Path(folder) / "out.o"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{source.relative_to(ROOT)} does not compile:\n{done.stderr[-4000:]}")
    return done.stderr


def parse(report: str) -> dict[str, dict[str, dict[str, int]]]:
    """{mangled kernel: {"sm_80": {"registers", "shared_bytes", "stack_bytes", "spill_bytes"}}} of what ptxas says."""
    kernels: dict[str, dict[str, dict[str, int]]] = {}
    kernel: dict[str, int] = {}
    for line in report.splitlines():
        if found := KERNEL.search(line):
            kernel = {"registers": 0, "shared_bytes": 0, "stack_bytes": 0, "spill_bytes": 0}
            kernels.setdefault(found[1], {})[f"sm_{found[2]}"] = kernel
        elif found := SPILLS.search(line):  # of the kernel and of each function it calls
            stack, stores, loads = map(int, found.groups())
            kernel["stack_bytes"] += stack
            kernel["spill_bytes"] += stores + loads
        elif found := REGISTERS.search(line):
            shared = SHARED.search(line)
            kernel["registers"] = int(found[1])
            kernel["shared_bytes"] = int(shared[1]) if shared else 0
    return kernels


def readable(mangled: str) -> str:
    """The kernel's name without namespaces and arguments; the mangled one where there is no demangler."""
    filt = shutil.which("c++filt") or shutil.which("cu++filt")
    if not filt:
        return mangled
    name = subprocess.run([filt, mangled], capture_output=True, text=True, check=True).stdout.strip()
    return re.sub(r"\(anonymous namespace\)::|\bpjx::|^void ", "", name).partition("(")[0]


def complaints(report: dict, architectures: tuple[int, ...]) -> list[str]:
    """What is wrong with `report`, the dictionary that is written."""
    wrong = [f"{source}: no kernel reported" for source, kernels in report["kernels"].items() if not kernels]
    for source, kernels in report["kernels"].items():
        for kernel, found in kernels.items():
            for name in (f"sm_{a}" for a in architectures):
                if name not in found:
                    wrong.append(f"{source}: {kernel} is missing for {name}")
                elif found[name]["spill_bytes"]:
                    wrong.append(f"{source}: {kernel} spills {found[name]['spill_bytes']} bytes on {name}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default=None, help="path of nvcc (default: the one on the PATH)")
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, metavar="N")
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/cuda_resources.json")
    arguments = parser.parse_args()
    nvcc, architectures = arguments.nvcc or find_nvcc(), tuple(arguments.architectures)
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    report = {"nvcc": re.search(r"V[\d.]+", version)[0], "flags": " ".join(FLAGS), "kernels": {}}
    for source in cuda_sources():
        kernels = parse(compile_verbosely(nvcc, source, architectures))
        report["kernels"][str(source.relative_to(ROOT))] = {readable(k): kernels[k] for k in sorted(kernels)}
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    for source, kernels in report["kernels"].items():
        for kernel, found in kernels.items():
            registers = " ".join(f"{name}:{x['registers']}" for name, x in found.items())
            print(f"{source:36} {kernel:20} registers {registers}")
    if wrong := complaints(report, architectures):
        sys.exit("\n".join(wrong))
    print(f"no spills in {sum(map(len, report['kernels'].values()))} kernels; wrote {arguments.output}")


if __name__ == "__main__":
    main()
