"""Makes the virtual environment VENV and installs this repository editable into it, saying what takes the time.

    python .ci/install.py VENV [EXTRA ...]
    python .ci/install.py --packages VENV EXTRA ...      # only what these extras name, into a VENV that is there

On failure the end of pip's output is printed; all of it is in VENV/install.log.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILED = re.compile(r"\[\s*(\d+)/(\d+)\] (?:Building|Linking)|\[\s*(\d+)%\] (?:Building|Linking)")  # ninja's, make's
PAUSE = 15  # seconds between lines of progress


def run(arguments: list[str], log, on_line=lambda line: None) -> None:
    process = subprocess.Popen(arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = []
    for line in process.stdout:
        lines.append(line)
        log.write(line)
        log.flush()
        on_line(line)
    if process.wait() != 0:
        sys.exit("".join(lines[-60:]) + f"\nThis failed: {' '.join(arguments)}\nAll of its output: {log.name}")


def show_compiled():
    """A function of pip's lines that prints, now and then, how much is compiled."""
    shown = time.monotonic()

    def on_line(line):
        nonlocal shown
        found = COMPILED.search(line)
        if found and time.monotonic() - shown > PAUSE:
            shown = time.monotonic()
            done, total, percent = found.groups()
            print(f"      {percent} %" if percent else f"      {done} of {total}", flush=True)

    return on_line


def requirements_of(extras: list[str]) -> tuple[list[str], list[str]]:
    """(what the project needs, what the extras need)."""
    import tomllib  # not at the top: an older Python shall reach the message at the end

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"], [r for extra in extras for r in project["optional-dependencies"][extra]]


def pip_of(venv: Path) -> list[str]:
    # Python compiles what it imports; to compile all of every package takes as long as to unpack it.
    return [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]


def install_packages(venv: Path, extras: list[str]) -> None:
    """Without the project itself: to install it again would compile it again."""
    print(f"installing the packages of {', '.join(extras)}", flush=True)
    with open(venv / "install.log", "a") as log:
        run([*pip_of(venv), *requirements_of(extras)[1]], log)


def install(venv: Path, extras: list[str]) -> None:
    needed, more = requirements_of(extras)
    requirements, pip = needed + more, pip_of(venv)
    started = time.monotonic()

    def say(text):
        print(f"{time.monotonic() - started:4.0f} s  {text}", flush=True)

    say(f"[1/3] virtual environment {venv}, CPython {sys.version.split()[0]}")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    with open(venv / "install.log", "w") as log:
        say("[2/3] JAX and the other packages, some 250 MB where pip has not met them before (half a minute to two)")
        run([*pip, *requirements], log)
        sources = len([*ROOT.glob("xla_ops/*/*.cc"), *ROOT.glob("envs/*/*.cc")])
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        say(f"[3/3] compiling {sources} C++ files on {cores} cores (minutes the first time, later only changes)")
        run([*pip, "--verbose", "--no-deps", "--editable", "."], log, show_compiled())
    say("installed")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  (make may have been given an older one)
        sys.exit(f"pufferjax needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.12")
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(__doc__)
    if arguments[0] == "--packages":
        install_packages(Path(arguments[1]), arguments[2:])
    else:
        install(Path(arguments[0]), arguments[1:])
