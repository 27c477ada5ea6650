"""Fixtures of all tests: kernel bodies compiled for the host."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
