"""`make demo`, with runs that take seconds: what it leaves, what it prints, and that Ctrl-C loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

# Eight epochs of 5x5 mazes.
TINY = """
import demo, sys
demo.STEPS = {steps}
demo.LEARNER = (
    "--env.size", 5, "--env.num-mazes", 64, "--total-steps", demo.STEPS, "--num-envs", 16, "--horizon", 16,
    "--policy.hidden-size", 8, "--policy.num-layers", 1, "--ppo.optimizer", "adam", "--ppo.minibatch-size", 64,
    "--state-set.capacity", 32, "--state-set.interval", 8, "--state-set.warmup-envs", 4,
    "--state-set.warmup-rewards", 4, "--eval-episodes", 20, "--devices", 1,
)
sys.exit(demo.demo(seed=0, record=False))
"""


@pytest.fixture
def start(load, tmp_path):
    """A function: the demo of so many steps as a process, in `tmp_path`."""
    folder = os.path.dirname(load("demo").__file__)

    def run(steps):
        return subprocess.Popen(
            [sys.executable, "-c", TINY.format(steps=steps)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def test_both_runs_their_curves_and_what_to_type_next(start, tmp_path):
    process = start(2048)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    (folder,) = (tmp_path / "runs").iterdir()
    assert {"with", "without", "curves.png", "solve.gif"} <= {path.name for path in folder.iterdir()}
    summaries = [json.loads((folder / name / "summary.json").read_text()) for name in ("with", "without")]
    assert [summary["steps"] for summary in summaries] == [2048, 2048]  # by steps, whatever the machine
    assert [summary["warmup_steps"] > 0 for summary in summaries] == [True, False]
    for summary, arm in zip(summaries, ("state set", "no state set"), strict=True):
        assert f"  {arm:<14}{summary['evaluation']['perf']:6.1%}" in out
    for word in ("play", "states", "train maze --env.size 35", f"{folder.relative_to(tmp_path)}/with"):
        assert word in out


@pytest.mark.nightly
def test_ctrl_c_stops_both_with_a_checkpoint(start, tmp_path):
    process = start(16 * 16 * 10**6)
    deadline = time.time() + 300

    def begun():  # a run has a checkpoint to write once an epoch of it has ended
        return [path for path in tmp_path.glob("runs/*/with*/metrics.jsonl") if path.stat().st_size]

    while len(begun()) < 2 and process.poll() is None:
        assert time.time() < deadline
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err, out + err
    assert len(list(tmp_path.glob("runs/*/with*/checkpoints/*/SHA256SUMS"))) == 2
