"""Installs a wheel where no compiler is and checks it there.

    python tests/packaging/check_wheel.py WHEEL

A new virtual environment in a temporary folder, PATH with nothing but its programs, dependencies from PyPI as wheels
only, and then check_installed.py, run by that environment's Python outside the checkout.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROGRAMS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cmake", "ninja", "make", "nvcc", "ld")
PAGE = tuple(f"pufferjax/constellation/page/{name}" for name in ("index.html", "app.css", "app.js", "data_flow.svg"))
SOURCES = (".cc", ".cu", ".cuh", ".h", "CMakeLists.txt")


def check_contents(wheel: Path) -> bool:
    """Whether the CUDA module is among its files."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        stripped = [name for name in names if name.endswith(SOURCES)]
        assert not stripped, f"sources in the wheel: {stripped[:5]}"
        for part in ("pufferjax/py.typed", "pufferjax/presets/maze.toml", "pufferjax/envs/__init__.py", *PAGE):
            assert part in names, f"{part} is not in the wheel"
        assert any(name.startswith("pufferjax/xla_ops/_cpu.") for name in names), "no native module in the wheel"
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(names)} files; the native modules, unpacked:")
        for info in archive.infolist():
            if ".so" in info.filename:
                print(f"  {info.filename} {info.file_size / 1e6:.1f} MB")
        return any(name.startswith("pufferjax/xla_ops/_cuda.") for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    arguments = parser.parse_args()
    wheel = arguments.wheel.resolve()
    has_cuda = check_contents(wheel)

    with tempfile.TemporaryDirectory(prefix="pufferjax-wheel-") as folder:
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        bare |= {"PATH": f"{folder}/venv/bin", "CC": "/nonexistent", "CXX": "/nonexistent"}
        found = [program for program in PROGRAMS if shutil.which(program, path=bare["PATH"])]
        assert not found, found
        python = f"{folder}/venv/bin/python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        subprocess.run([*pip, str(wheel)], check=True, env=bare, cwd=folder)
        check = Path(__file__).with_name("check_installed.py").resolve()
        options = ["--cuda-module"] if has_cuda else []
        subprocess.run([python, str(check), *options], check=True, env=bare, cwd=folder)


if __name__ == "__main__":
    main()
