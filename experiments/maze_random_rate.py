"""How rarely a uniformly random agent solves the maze: steps per solve, with its Poisson interval.

    python experiments/maze_random_rate.py                                     # half a minute on two idle cores
    python experiments/maze_random_rate.py --sizes 35 --steps 2e10

Writes experiments/results/maze_random_rate.json.
"""

import argparse
import json
import pathlib
import time

import jax
from scipy.stats import chi2

from pufferjax import envs
from pufferjax.runs.machine import machine

NUM_ENVS, NUM_MAZES, LEVEL_SEED = 4096, 8192, 42
RESULT = pathlib.Path(__file__).parent / "results" / "maze_random_rate.json"


def measure(size: int, num_steps: int, seed: int) -> dict:
    """Walks at least `num_steps` env-steps over the level set and counts the solves."""
    env = envs.make("maze", size=size, num_mazes=NUM_MAZES, seed=LEVEL_SEED)
    per_call = min(-(-num_steps // NUM_ENVS), 20_000)  # so that a call takes a second or so
    key_reset, key_stagger, key_walk = jax.random.split(jax.random.key(seed), 3)
    state = env.stagger(key_stagger, env.reset(key_reset, NUM_ENVS)[1])
    walk = jax.jit(lambda key, state: env.random_walk(key, state, per_call, per_call, 1), donate_argnums=1)
    steps = solves = calls = 0
    start = time.perf_counter()
    while steps < num_steps:
        state, _, _, rewarded = walk(jax.random.fold_in(key_walk, calls), state)
        solves += int(rewarded.sum())
        calls += 1
        steps += per_call * NUM_ENVS
    seconds = time.perf_counter() - start
    # The exact interval for the mean of a Poisson count.
    low = chi2.ppf(0.025, 2 * solves) / 2 if solves else 0.0
    high = chi2.ppf(0.975, 2 * solves + 2) / 2
    return {
        "size": size,
        "steps": steps,
        "solves": solves,
        "steps_per_solve": steps / solves if solves else None,
        "steps_per_solve_95": [steps / high, steps / low if solves else None],
        "seed": seed,
        "steps_per_second": steps / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 21, 35])
    parser.add_argument("--steps", type=float, nargs="+", default=[2e8, 2e9, 5e9], help="env-steps, one per size")
    parser.add_argument("--seed", type=int, default=0, help="of the walks")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    args = parser.parse_args()
    if len(args.steps) != len(args.sizes):
        parser.error(f"--steps needs one number per size, got {len(args.steps)} for {len(args.sizes)} sizes")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "num_mazes": NUM_MAZES, "level_seed": LEVEL_SEED, "results": []}
    for size, steps in zip(args.sizes, args.steps, strict=True):
        report["results"].append(measure(size, int(steps), args.seed))
        print(json.dumps(report["results"][-1]), flush=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
