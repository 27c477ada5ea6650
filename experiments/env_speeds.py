"""Simulator speed of every native environment, and of the same game in another JAX suite where one has it.

    pip install '.[peers]'              # Jumanji, gymnax, NAVIX; without them: --no-peers
    python experiments/env_speeds.py    # minutes; nothing else should run
    python experiments/env_speeds.py maze --no-peers    # Jumanji's maze of this size takes seconds per step

Each is a `pufferjax bench envs` in a process of its own, on all cores: random actions with observations, and the
random walk without. Writes results/env_speeds.json and .md (or --output). An environment that is there already is
measured again only if it is named.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runs import RESULTS, Results

from pufferjax import envs
from pufferjax.bench.peers import PEERS
from pufferjax.bench.timing import with_interval
from pufferjax.runs.files import write_atomically

FLAGS = ("--num-envs", "2048", "--num-steps", "256", "--repeats", "15")
SIZES = {"maze": ("--size", "35")}


def measure(env: str, with_peer: bool) -> dict:
    peer = ("--peer",) if with_peer and env in PEERS else ()
    command = [sys.executable, "-m", "pufferjax", "bench", "envs", "--env", env, *FLAGS, *SIZES.get(env, ()), *peer]
    done = subprocess.run([*command, "--json", "-"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def fastest(result: dict, what: str) -> dict:
    """Of the layouts: {"median", "low", "high", ...}."""
    return max((r["steps_per_second"] for r in result["results"] if r["what"] == what), key=lambda s: s["median"])


def table(results: Sequence[dict]) -> str:
    """Markdown; millions of steps per second."""

    def millions(speed: dict, cores: int = 1) -> str:
        return with_interval({name: speed[name] / 1e6 / cores for name in ("median", "low", "high")}, ".2f")

    titles = (
        "environment",
        "steps with observations, M/s and core",
        "random walk, M/s and core",
        "times the peer",
        "peer",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for result in results:
        speeds = " | ".join(millions(fastest(result, what), result["devices"]) for what in ("step", "random_walk"))
        peer = result.get("peer")
        other = f"{with_interval(peer['ratio'], '.3g')} | {peer['peer']}" if peer else "- | -"
        lines.append(f"| {result['env']} | {speeds} | {other} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", help="default: those that are not there yet")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "env_speeds.json")
    args = parser.parse_args()
    results = Results(args.output, order=lambda result: result["env"])
    names = args.envs or [name for name in sorted(envs.names()) if not results.matching({"env": name})]
    for env in names:
        results.add({"env": env}, measure(env, not args.no_peers))
    text = table(results.all())
    print(text)
    machines = " / ".join(sorted({result["machine"] for result in results.all()}))
    write_atomically(args.output.with_suffix(".md"), f"{machines}; 2,048 environments on all cores\n\n{text}\n")


if __name__ == "__main__":
    main()
