"""Runs in directories of random names: a few of them here, 200 with PUFFERJAX_NIGHTLY=1."""

import os
import random

NAMES = 200 if os.environ.get("PUFFERJAX_NIGHTLY") == "1" else 2


def test_runs_in_directories_of_random_names(load):
    script = load("run_dir_names")
    generator = random.Random(1)
    names = [script.random_name(generator) for _ in range(1000)]
    assert len(set(names)) > 990 and any("/" in name for name in names)
    assert all(any(x in "".join(names) for x in pattern) for pattern in ("[", "]", "*", "?", "\\", ":", "~"))
    hard = ["gs:/\\[!a]*?{}", "~/$HOME '\udcff\n%41"]
    assert script.try_names(hard + names[: NAMES - 2]) == {}
