"""The PPO of docs/examples/own_loop.py with and without its lines of the state set, at equal simulator steps.

    python experiments/own_loop.py --seeds 8

Without: the same file after every line that holds "# state set" has been taken out. solved: share of the fresh episodes
of the last tenth of training, one number per seed. Results: experiments/results/own_loop.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "examples" / "own_loop.py"
RESULT = Path(__file__).resolve().parent / "results" / "own_loop.json"


def source(with_state_set: bool) -> str:
    lines = SCRIPT.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if with_state_set or "# state set" not in line)


def solved(with_state_set: bool, num_seeds: int) -> list[float]:
    namespace = {"__name__": "own_loop"}
    exec(compile(source(with_state_set), SCRIPT.name, "exec"), namespace)
    return np.asarray(namespace["solved_at_the_end"](num_seeds), float).round(4).tolist()


def main() -> None:
    from pufferjax.runs.machine import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    seeds = parser.parse_args().seeds
    arms = {"state set": solved(True, seeds), "no state set": solved(False, seeds)}
    for arm, shares in arms.items():
        print(f"{arm:<14}", *(f"{x:.2f}" for x in shares))
    RESULT.write_text(json.dumps({"machine": machine(), "seeds": seeds, "solved": arms}, indent=2) + "\n")


if __name__ == "__main__":
    main()
