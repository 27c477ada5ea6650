"""The PPO of docs/examples/own_loop.py with and without its lines of the state set, at equal simulator steps.

    python experiments/own_loop.py --seeds 8

Without: the same file after every line that holds "# state set" has been taken out. "no walk": with the state set, but
the random walk before training takes 2 steps instead of 2,400, and training all the others. The last two arms have the
usual entropy coefficient of 0.01: with that of the file, chosen after a look at both, fewer plain runs meet the reward.
solved: share of the fresh episodes of the last tenth of training, one number per seed. Results:
experiments/results/own_loop.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "examples" / "own_loop.py"
RESULT = Path(__file__).resolve().parent / "results" / "own_loop.json"

NO_WALK = ("DECAY, WALK_STEPS = 128, 2, 0.9, 2400", "DECAY, WALK_STEPS = 128, 2, 0.9, 2")
MORE_ENTROPY = ("0.99, 0.95, 0.2, 0.003, 0.5, 3e-3", "0.99, 0.95, 0.2, 0.01, 0.5, 3e-3")
ARMS = {
    "state set": (True, ()),
    "state set, no walk": (True, (NO_WALK,)),
    "no state set": (False, ()),
    "state set, entropy 0.01": (True, (MORE_ENTROPY,)),
    "no state set, entropy 0.01": (False, (MORE_ENTROPY,)),
}


def source(with_state_set: bool) -> str:
    lines = SCRIPT.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if with_state_set or "# state set" not in line)


def solved(with_state_set: bool, num_seeds: int, changes=()) -> list[float]:
    code = source(with_state_set)
    for old, new in changes:
        if code.count(old) != 1:
            raise ValueError(f"{SCRIPT.name} no longer has one line with {old!r}")
        code = code.replace(old, new)
    namespace = {"__name__": "own_loop"}
    exec(compile(code, SCRIPT.name, "exec"), namespace)
    return np.asarray(namespace["solved_at_the_end"](num_seeds), float).round(4).tolist()


def main() -> None:
    from pufferjax.runs.machine import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    seeds = parser.parse_args().seeds
    shares = {}
    for arm, (with_state_set, changes) in ARMS.items():
        shares[arm] = solved(with_state_set, seeds, changes)
        print(f"{arm:<27}", *(f"{x:.2f}" for x in shares[arm]), flush=True)
    RESULT.write_text(json.dumps({"machine": machine(), "seeds": seeds, "solved": shares}, indent=2) + "\n")


if __name__ == "__main__":
    main()
