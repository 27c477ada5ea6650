"""Kills a run with SIGKILL again and again, resumes it each time, and compares it with one that was left alone.

    python experiments/kill_resume.py                            # 200 kills
    python experiments/kill_resume.py --kills 20 --devices 2 --out /dev/null

A checkpoint is written after every epoch, so that about every other moment lies inside a write. Half of the kills come
at a random moment of the process, start-up included; half within a second (`--within`) after its first new checkpoint.
Ends with status 1 unless metrics (but for times) and final train state are equal bit for bit, no checkpoint was ever
lost and none was ever found damaged. Writes experiments/results/kill_resume.json.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "kill_resume.json"
NEVER = 1e9  # seconds
LOG_INTERVAL = 3  # epochs: most checkpoints fall between two lines of metrics


def make_run(epochs: int):
    """The environment and the configuration of the run: a small one, of some milliseconds an epoch."""
    import pufferjax

    config = pufferjax.TrainConfig(
        total_steps=256 * epochs,
        num_envs=16,
        horizon=16,
        policy=pufferjax.PolicyConfig(hidden_size=8, num_layers=1, encoder_layers=0),
        ppo=pufferjax.PPOConfig(optimizer="adam", minibatch_size=64),
        state_set=pufferjax.StateSetConfig(
            capacity=32, interval=8, warmup_envs=4, warmup_rewards=4, release_from=2, release_until=3
        ),
    )
    return pufferjax.envs.make("maze", size=5, num_mazes=64), config


def prepare(epochs: int, devices: int) -> None:
    """What most of a process's life would be spent with, done once, for the processes forked from this one to inherit:
    imports, and the traces of JAX's own functions. JAX starts its devices and threads only in them."""
    import jax
    import orbax.checkpoint  # noqa: F401

    from pufferjax.core.parallel import local_config
    from pufferjax.core.train import make_init, make_update

    env, config = make_run(epochs)
    share = local_config(config, devices)
    train_state = jax.eval_shape(make_init(env, share), jax.eval_shape(lambda: jax.random.key(0)))
    progress = jax.ShapeDtypeStruct((), "float32")
    jax.eval_shape(make_update(env, share), train_state, jax.eval_shape(config.hypers), progress)
    # Fails if JAX has started after all: a process forked from its threads would wait for them for ever.
    jax.config.update("jax_num_cpu_devices", devices)
    gc.freeze()


def train(run_dir: Path, epochs: int, devices: int, checkpoint_interval_seconds: float, log: Path) -> None:
    """A whole run, or the rest of one, in a process of its own."""
    import pufferjax

    env, config = make_run(epochs)
    with open(log, "a") as file, contextlib.redirect_stdout(file):
        pufferjax.train(
            env,
            config,
            seed=3,
            run_dir=run_dir,
            resume=(run_dir / "config.toml").exists(),
            eval_episodes=0,
            log_interval=LOG_INTERVAL,
            devices=devices,
            checkpoint_interval_seconds=checkpoint_interval_seconds,
        )


def latest(run_dir: Path) -> int:
    """The step of the latest checkpoint; -1 without one."""
    from pufferjax.runs.checkpoint import checkpoint_steps

    return max(checkpoint_steps(run_dir), default=-1)


def wait_for_progress(process, run_dir: Path, since: int) -> None:
    while latest(run_dir) <= since and process.is_alive():
        time.sleep(0.01)


def kill_and_resume(run_dir: Path, start, kills: int, within: float, seed: int) -> dict:
    """Kills `kills` processes that `start` started, and lets the last one finish. What the kills hit."""
    moments = random.Random(seed)
    hits = {"start-up": 0, "training": 0, "inside a write": 0}
    lost = 0
    for kill in range(kills):
        before, began = latest(run_dir), time.monotonic()
        process = start(0.0)
        if kill == 0 or kill % 2:
            wait_for_progress(process, run_dir, before)
            start_seconds = time.monotonic() - began
            process.join(moments.uniform(0, within))
        else:
            process.join(moments.uniform(0, start_seconds + within))
        if not process.is_alive():
            raise RuntimeError(f"the run ended after {kill} kills with status {process.exitcode}")
        process.kill()
        process.join()
        after = latest(run_dir)
        lost += after < before
        is_partial = any((run_dir / "checkpoints").glob("*.partial"))
        hits["inside a write" if is_partial else "training" if after > before else "start-up"] += 1
    process = start(NEVER)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the last process ended with status {process.exitcode}")
    return {"kills": kills, **hits, "lost_checkpoints": lost}


def outcome(run_dir: Path) -> tuple[list[dict], list[bytes]]:
    """Metrics but for the times, and the bytes of the final train state."""
    import jax
    import numpy as np

    from pufferjax.runs.load import load_run
    from pufferjax.runs.metrics import read_metrics

    records = read_metrics(run_dir / "metrics.jsonl")
    times = ("wall_seconds", "steps_per_second")
    records = [{name: x for name, x in record.items() if name not in times} for record in records]
    leaves = jax.tree.leaves(load_run(run_dir)[-1])
    is_key = jax.dtypes.prng_key
    leaves = [jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, is_key) else x for x in leaves]
    return records, [np.asarray(x).tobytes() for x in leaves]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--epochs", type=int, help="of the run; default: 30 per kill")
    parser.add_argument("--within", type=float, default=1.0, help="seconds after a checkpoint; default: %(default)s")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    epochs = args.epochs or 30 * args.kills
    processes = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = Path(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        prepare(epochs, args.devices)
        log = folder / "log.txt"

        def start(run_dir, interval):
            process = processes.Process(target=train, args=(run_dir, epochs, args.devices, interval, log))
            process.start()
            return process

        began = time.monotonic()
        alone = start(folder / "alone", NEVER)
        alone.join()
        killed = folder / "killed"
        result = kill_and_resume(killed, lambda interval: start(killed, interval), args.kills, args.within, args.seed)
        records, state = outcome(killed)
        expected_records, expected_state = outcome(folder / "alone")
        result |= {
            "warnings": log.read_text().count("warning:"),
            "epochs": epochs,
            "devices": args.devices,
            "same_metrics": records == expected_records and len(records) == -(-epochs // LOG_INTERVAL),
            "same_train_state": state == expected_state,
            "seconds": round(time.monotonic() - began, 1),
        }
    print(json.dumps(result, indent=2))
    if args.out != Path(os.devnull):
        from pufferjax.runs.files import write_atomically
        from pufferjax.runs.machine import machine

        write_atomically(args.out, json.dumps({**result, "machine": machine()}, indent=2) + "\n")
    is_good = result["same_metrics"] and result["same_train_state"]
    return 0 if is_good and not result["lost_checkpoints"] and not result["warnings"] else 1


if __name__ == "__main__":
    sys.exit(main())
