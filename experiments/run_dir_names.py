"""Trains, saves, loads, resumes and evaluates in run directories of random names.

    python experiments/run_dir_names.py                        # 200 names
    python experiments/run_dir_names.py --names 12 --seed 3 --out /dev/null

A name is one to three nested folders of printable characters (no slash, which no name may hold), among them more often
than chance the ones that a shell, a pattern, a URL or a format string gives a meaning to; some hold bytes that are not
UTF-8. Everything must be as in a directory of a plain name, bit for bit but for the times. Ends with status 1 unless it
is. Writes experiments/results/run_dir_names.json.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

from kill_resume import make_run

RESULT = Path(__file__).parent / "results" / "run_dir_names.json"
SPECIAL = "[]*?\\{}!~$%#&'\"`^|<>:;=+@,. ()-\n\t"
TIMES = ("wall_seconds", "steps_per_second")
MOST_BYTES = 200  # of one folder's name; most systems allow 255


def random_name(generator: random.Random) -> str:
    """One to three folders below each other."""
    folders = []
    while len(folders) < generator.choice((1, 1, 2, 3)):
        name = "".join(_character(generator) for _ in range(generator.randint(1, 24)))
        if name not in (".", "..") and len(os.fsencode(name)) <= MOST_BYTES:
            folders.append(name)
    return "/".join(folders)


def _character(generator: random.Random) -> str:
    kind = generator.random()
    if kind < 0.4:
        return generator.choice(SPECIAL)
    if kind < 0.45:
        return chr(0xDC00 + generator.randint(0x80, 0xFF))  # a byte that is not UTF-8, as Python spells it
    while True:
        character = chr(generator.randint(0x20, 0x7E) if kind < 0.8 else generator.randint(0xA0, 0x1FFFF))
        if character != "/" and unicodedata.category(character)[0] in "LMNPSZ":
            return character


def use(run_dir: Path) -> dict:
    """Half of a run in `run_dir`, its other half resumed, loaded and evaluated: the figures of all that."""
    import dataclasses

    import jax

    import pufferjax

    env, config = make_run(epochs=8)
    options = {"seed": 3, "run_dir": run_dir, "devices": 1, "eval_episodes": 20, "show": False}
    pufferjax.train(env, dataclasses.replace(config, total_steps=256 * 4), **options)
    result = pufferjax.train(env, config, resume=True, **options)
    _, _, policy, train_state = pufferjax.load_run(run_dir)
    evaluation = pufferjax.evaluate(env, policy, train_state.params, jax.random.key(1), 20)
    metrics = [{name: x for name, x in record.items() if name not in TIMES} for record in result.metrics]
    return {
        "metrics": metrics,
        "params": [x.tolist() for x in jax.tree.leaves(jax.device_get(train_state.params))],
        "perf": [result.evaluation["perf"], evaluation["perf"]],
        "epoch": int(train_state.epoch),
        "files": sorted(path.name for path in run_dir.iterdir()),
    }


def try_names(names: list[str]) -> dict[str, str]:
    """What went wrong, by name."""
    wrong = {}
    with tempfile.TemporaryDirectory() as folder:
        expected = use(Path(folder) / "plain")
        for index, name in enumerate(names):
            try:
                if use(Path(folder) / str(index) / name) != expected:
                    wrong[name] = "not the run that it is under a plain name"
            except Exception as error:
                wrong[name] = f"{type(error).__name__}: {error}"
            if name in wrong:
                print(ascii(name), ascii(wrong[name]), flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the names")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    from pufferjax.runs.machine import machine

    generator, start = random.Random(args.seed), time.perf_counter()
    names = [random_name(generator) for _ in range(args.names)]
    wrong = try_names(names)
    result = {
        "names": len(names),
        "different": len(set(names)),
        "nested": sum("/" in name for name in names),
        "with a character of a pattern": sum(any(x in name for x in "[]*?\\") for name in names),
        "not UTF-8": sum(any("\udc80" <= x <= "\udcff" for x in name) for name in names),
        "wrong": {ascii(name): ascii(text) for name, text in wrong.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if str(args.out) != os.devnull:
        args.out.write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
