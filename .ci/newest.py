"""Runs a slice of the tests on the newest CPython here, with the newest jax it can install.

    python .ci/newest.py FOLDER [PYTEST_ARGUMENT ...]

The environment is FOLDER/<version>. Looks for interpreters newer than the one that runs this, on PATH and where pyenv
keeps them. None, or none for which jaxlib has a wheel: says so and succeeds. A build or a test that fails is a failure.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version_of(python: str) -> tuple[int, int] | None:
    """(3, 13), or None for what is no release of CPython or does not run, like pyenv's shims of versions not chosen."""
    code = (
        "import sys, sysconfig, venv, ensurepip; v = sys.version_info; print(v.major, v.minor, v.releaselevel,"
        " sys.implementation.name, sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0 or done.stdout.split()[2:] != ["final", "cpython", "0"]:
        return None
    major, minor = done.stdout.split()[:2]
    return int(major), int(minor)


def newer_interpreters() -> list[tuple[tuple[int, int], str]]:
    """(version, path) of every release newer than this one, the newest first, one path each."""
    candidates = []
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidates += sorted(map(str, Path(folder or ".").glob("python3.*")))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(map(str, pyenv.glob("versions/3.*/bin/python3.*")))
    found = {}
    for path in candidates:
        name = re.fullmatch(r"python3\.(\d+)", Path(path).name)
        if not name or int(name[1]) <= sys.version_info.minor or (3, int(name[1])) in found or not shutil.which(path):
            continue
        version = version_of(path)
        if version is not None:
            found[version] = path
    return sorted(found.items(), reverse=True)


def has_jaxlib(python: str, venv: Path) -> bool:
    """Whether jaxlib can be had for `python` without compiling it; makes the environment `venv`."""
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--dry-run", "--only-binary", "jaxlib", "jaxlib"], capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr[-1000:])
    return done.returncode == 0


def main(folder: Path, pytest_arguments: list[str]) -> int:
    here = ".".join(map(str, sys.version_info[:2]))
    for version, python in newer_interpreters():
        name = ".".join(map(str, version))
        venv = folder / name
        if not has_jaxlib(python, venv):
            print(f"No jaxlib for CPython {name} ({python}), or no network: trying an older one.")
            continue
        print(f"CPython {name} ({python}) is the newest here; its environment is {venv}.", flush=True)
        installed = subprocess.run([python, str(ROOT / ".ci" / "install.py"), str(venv), "slice"])
        if installed.returncode != 0:
            return installed.returncode
        tell = "import jax, jaxlib, platform as p; print(p.python_version(), jax.__version__, jaxlib.__version__)"
        versions = subprocess.run([venv / "bin" / "python", "-c", tell], capture_output=True, text=True, check=True)
        print("CPython {}, jax {}, jaxlib {}".format(*versions.stdout.split()), flush=True)
        return subprocess.run([venv / "bin" / "python", "-m", "pytest", *pytest_arguments], cwd=ROOT).returncode
    print(f"No CPython newer than {here} with a jaxlib was found on PATH or in pyenv: nothing more to test.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
