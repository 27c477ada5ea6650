"""docs/examples/own_loop.py solves a DeepSea that it does not solve without the lines of the state set."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 4

# In a process of its own: this one compiles quickly, to code that runs slowly.
RUN = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "experiments")!r})
import own_loop
print(json.dumps([own_loop.solved(with_state_set, {SEEDS}) for with_state_set in (True, False)]))
"""


def test_the_state_set_is_what_solves_it():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    solved, without = json.loads(done.stdout)
    assert min(solved) > 0.9
    assert sorted(without)[SEEDS // 2] < 0.1  # a seed in eight meets the reward early enough by chance


def test_the_lines_are_few():
    lines = (ROOT / "docs" / "examples" / "own_loop.py").read_text().splitlines()
    assert sum("# state set" in line for line in lines) <= 30
