"""Every suite of environments alone: its extra in a fresh virtual environment, a run by the command line, resumed and
evaluated, then the suite's own tests.

    python .ci/suites.py FOLDER [SUITE ...]        # default: all that this Python can have

One environment after the other, FOLDER/<suite>, deleted when its suite has passed; what went on is in
FOLDER/<suite>.log.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 3

# What is trained.
CASES = {
    "gymnax": ("gymnax:Pendulum-v1", "gymnax:MountainCarContinuous-v0"),
    "jumanji": ("jumanji:Game2048-v1",),
    "xland": ("xland:MiniGrid-DoorKey-8x8",),
    "navix": ("navix:Navix-DoorKey-8x8-v0",),
    "brax": ("brax:inverted_pendulum",),
    "craftax": ("craftax:Craftax-Classic-Symbolic-v1",),
    "playground": ("playground:CartpoleBalance",),
}
OLDEST_PYTHON = {"navix": (3, 12)}


class Failed(Exception):
    pass


def run(log, *command: str, folder: Path = ROOT) -> str:
    """Its output, which also goes to the log."""
    print("$", *command, file=log, flush=True)
    # Not where the sources lie: a `pufferjax` folder there would be found before the package that was installed.
    done = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout, file=log, flush=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}\n{done.stdout[-3000:]}")
    return done.stdout


def check(suite: str, venv: Path, wheel: Path, log) -> None:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python, command = str(venv / "bin" / "python"), str(venv / "bin" / "pufferjax")
    run(log, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[{suite}]")
    tell = "import jax, platform as p; print('CPython', p.python_version(), 'jax', jax.__version__)"
    size = sum(file.lstat().st_size for file in venv.rglob("*"))
    say(f"installed, {size / 1e6:.0f} MB; {run(log, python, '-c', tell, folder=venv).strip()}")
    names = run(log, command, "envs", f"{suite}:", folder=venv).split()
    say(f"{len(names)} environments")
    for name in CASES[suite]:
        batch = "from pufferjax import presets; p = presets.load({!r}); print(p['num_envs'] * p['horizon'])"
        steps = int(run(log, python, "-c", batch.format(name), folder=venv)) * EPOCHS
        run_dir = str(venv / "run" / name.replace(":", "-"))
        short = ("--run-dir", run_dir, "--eval-episodes", "8", "--checkpoint-interval-seconds", "0")
        run(log, command, "train", name, *short, "--total-steps", str(steps), folder=venv)
        say(f"{name} trained")
        run(log, command, "train", name, *short, "--total-steps", str(2 * steps), "--resume", folder=venv)
        say(f"{name} resumed")
        result = run(log, command, "eval", run_dir, "--episodes", "8", folder=venv)
        say(f"{name} evaluated: {' '.join(result.split('episode return')[-1].split()[:1])}")
    run(log, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pytest")
    tests = run(log, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", suite,
                str(ROOT / "tests" / "envs" / "test_suites.py"), folder=venv)  # fmt: skip
    say(tests.strip().splitlines()[-1])
    shutil.rmtree(venv)


def main(folder: Path, suites: list[str]) -> int:
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "wheel.log", "w") as log:
        print("the wheel", flush=True)
        pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps"]
        run(log, *pip, "--wheel-dir", str(folder / "wheel"), str(ROOT))
    wheel = max((folder / "wheel").glob("pufferjax-*.whl"), key=os.path.getmtime)
    failed = []
    for suite in suites or CASES:
        if sys.version_info < OLDEST_PYTHON.get(suite, ()):
            print(f"{suite}: needs Python {'.'.join(map(str, OLDEST_PYTHON[suite]))}, left out", flush=True)
            continue
        print(suite, flush=True)
        with open(folder / f"{suite}.log", "w") as log:
            try:
                check(suite, folder / suite, wheel, log)
            except Failed as error:
                failed.append(suite)
                print(f"FAILED: {error}\nAll of it: {log.name}", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
