"""What all tests share: quick compilation, one cache, processes with several devices, kernels built for the host."""

import ctypes
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The tests compile the same small programs again and again, in the workers of pytest-xdist and in subprocesses. JAX
# reads this when it is imported; workers inherit it from the process that made the folder, which removes it.
_OWN_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _OWN_CACHE = tempfile.mkdtemp(prefix="pufferjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _OWN_CACHE
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Most of the time of these tests goes into compiling; what XLA's own code is not optimized for, the small sizes here do
# not miss. Native handlers are compiled as always. Flags of the user come later and win.
_QUICK = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones abort on a flag that they do not know
    _QUICK += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
if _QUICK[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join([*_QUICK, os.environ.get("XLA_FLAGS", "")])

# Tracing makes many objects, few of them garbage: looking through them less often saves a twentieth of the time.
gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items):
    if os.environ.get("PUFFERJAX_NIGHTLY") != "1":
        for item in items:
            if item.get_closest_marker("nightly"):
                item.add_marker(pytest.mark.skip(reason="takes long: make nightly"))


def pytest_unconfigure():
    if _OWN_CACHE is not None:
        shutil.rmtree(_OWN_CACHE, ignore_errors=True)


DEVICES_PRELUDE = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from pufferjax import envs, xla_ops
mesh = jax.make_mesh(({count},), ("data",), axis_types=(AxisType.Auto,))
"""


@pytest.fixture(scope="session")
def run_on_devices():
    """A function: runs source text in a new process with a mesh of `count` host devices, and returns what it printed;
    its failure fails the test. The process compiles as quickly as this one, into the same cache."""

    def run(source, count=2, arguments=()):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [
            sys.executable,
            "-c",
            DEVICES_PRELUDE.format(count=count) + textwrap.dedent(source),
            *map(str, arguments),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def compile_for_host(tmp_path_factory):
    """A function: a source in tests/native to a ctypes library, under the CPU module's rule for floating point."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler: the kernels' bodies are compiled by these tests")

    def build(source):
        library = tmp_path_factory.mktemp("host") / f"{Path(source).stem}.so"
        command = [
            compiler,
            "-std=c++17",
            "-O1",
            "-ffp-contract=off",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-Werror",
        ]
        command += [f"-I{ROOT}", ROOT / "tests/native" / source, "-o", library]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))

    return build
