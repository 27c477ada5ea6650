"""Checks the pufferjax that is installed, whatever installed it: native ops, and that it learns a small maze.

Needs nothing from the checkout, but that it is not what gets imported.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jaxlib

import pufferjax
from pufferjax import envs, xla_ops

CHECKOUT = Path(__file__).resolve().parent.parent.parent
TOTAL_STEPS = 8_000_000  # under a minute on two idle cores; steps, not seconds: a busy machine learns as much
LEARNED = 0.9  # solve rate on unseen 9x9 mazes; a random agent's is below 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda-module", action="store_true", help="the CUDA module must be there, too")
    arguments = parser.parse_args()

    home = Path(pufferjax.__file__).resolve().parent
    assert home != CHECKOUT / "pufferjax", f"{home} is the checkout, not an installed wheel"
    assert (home / "py.typed").is_file(), "no py.typed: type checkers ignore the annotations"
    version = importlib.metadata.version("pufferjax")
    print(
        f"pufferjax {version}, CPython {platform.python_version()}, jax {jax.__version__}, jaxlib {jaxlib.__version__},"
        f" {platform.system()} {platform.machine()}"
    )
    backends = xla_ops.backends()
    missing = [op for op, where in backends.items() if where["cpu"] != "native"]
    assert backends and not missing, f"not native: {missing}"
    cuda = [op for op, where in backends.items() if where["cuda"] == "native"]
    assert cuda or not arguments.cuda_module, "the CUDA module could not be imported"
    print(f"native: {', '.join(backends)}; with a GPU: {', '.join(cuda) or 'none'}")
    for name in ("maze", "breakout", "g2048"):
        envs.make(name)

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pufferjax"]
        train = ["train", "maze", "--env.size", "9", "--total-steps", str(TOTAL_STEPS)]
        started = time.monotonic()
        subprocess.run([*command, *train, "--eval-episodes", "0", "--run-dir", "run"], check=True, cwd=folder)
        evaluate = [*command, "eval", "run", "--episodes", "1000", "--json"]
        done = subprocess.run(evaluate, check=True, cwd=folder, stdout=subprocess.PIPE, text=True)
        perf = json.loads(done.stdout)["perf"]
    print(f"trained and evaluated in {time.monotonic() - started:.0f} s: {perf:.3f} of unseen 9x9 mazes solved")
    assert perf >= LEARNED, f"it has not learned: {perf} < {LEARNED}"


if __name__ == "__main__":
    main()
