"""`pufferjax bench gpu` without a GPU: the dry run, and what it does with children that crash, hang or run late."""

import json
import os
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax.bench import scans
from pufferjax.bench.gpu import graphs, machine, tools
from pufferjax.bench.gpu.children import Group, run_group
from pufferjax.bench.gpu.handlers import compare, make_case
from pufferjax.bench.gpu.items import Wrong
from pufferjax.bench.gpu.report import Report, describe
from pufferjax.bench.gpu.run import PHASES
from pufferjax.bench.gpu.simulators import equal_bits
from pufferjax.envs import names

WITHOUT = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("tyro", "tomli_w", "PIL", "matplotlib"):
                raise ModuleNotFoundError(f"blocked: {name}", name=name)

    sys.meta_path.insert(0, Missing())
"""
TESTS = """
    import os, pytest

    def test_good(): pass
    @pytest.mark.skip(reason="not today")
    def test_skipped(): pass
    def test_bad(): assert 1 + 1 == 3, "arithmetic"
    def test_dead(): os._exit(7)
    def test_after_it(): pass
"""


def test_dry_run(tmp_path):
    """All phases, in children that lack what a GPU machine lacks; the tests of a folder, one of which kills pytest."""
    for name, text in (("site/sitecustomize.py", WITHOUT), ("gpu/test_some.py", TESTS)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(textwrap.dedent(text))
    path = tmp_path / "report.jsonl"
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-m", "pufferjax.bench.gpu", "--dry-run", "--json", path, "--cache", cache]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [*command, "--tests", tmp_path / "gpu"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["phase"] for row in rows} == set(PHASES), done.stderr
    failed = {row["item"]: row["error"] for row in rows if row["status"] == "failed"}
    bad, dead = (f"gpu/test_some.py::test_{name}" for name in ("bad", "dead"))
    assert set(failed) == {bad, dead}, failed
    assert "arithmetic" in failed[bad] and failed[dead] == "its process ended with status 7"
    tests = {row["item"]: row.get("error") for row in rows if row["phase"] == "tests" and row["status"] != "failed"}
    assert tests == {"2 tests": None, "1 tests": "Skipped: not today"}
    by_name = {(row["phase"], row["item"]): row for row in rows}
    assert by_name["machine", "device"]["platform"] == "cpu" and by_name["machine", "targets"]["missing"] == 0
    timed = by_name["kernels", "linear_recurrence 8x4x8 backward"]
    assert timed["runs_as"] == "native" and timed["native_us"] > 0 and timed["reference_us"] > 0
    assert timed["twin_over_native"] == pytest.approx(timed["reference_us"] / timed["native_us"])
    assert by_name["training", "breakout to 0"]["reached"] and ("training", "breakout to 0: perf 0") in by_name
    assert by_name["training", "breakout"]["steps_per_second"] > 0
    assert done.returncode == 1 and f"{len(failed)} failed" in done.stdout.splitlines()[-1]


def test_a_machine_without_a_gpu_is_refused(tmp_path):
    command = [sys.executable, "-m", "pufferjax.bench.gpu", "--only", "handlers"]
    done = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 2 and "JAX has no GPU here" in done.stderr and "handlers" not in done.stdout


# A child without JAX: it does what its items are named after.
CHILD = """
import json, os, signal, sys, time
order = json.loads(os.environ["PUFFERJAX_BENCH_ORDER"])
events = open(order["events"], "w", buffering=1)
send = lambda **event: events.write(json.dumps(event) + chr(10))
for phase, name in order["items"]:
    if name == "never begun": sys.exit("no such library")
    send(begin=[phase, name], limit=0.5)
    print("at", name, flush=True)
    if name == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang": time.sleep(60)
    if name.startswith("slow"): time.sleep(0.4)
    send(row=[phase, name, "ok", {"facts": order["facts"]}])
    send(end=[phase, name])
"""


def children(items, seconds=60.0):
    rows = []

    def add(phase, item, status, **figures):
        rows.append((item, status, figures))

    group = Group([("p", item) for item in items], ["p"], [sys.executable, "-c", CHILD], runs_child=False)
    run_group(group, add, deadline=time.time() + seconds, dry_run=True, facts={"a": 1})
    return rows


def test_an_item_that_crashes_or_hangs_costs_itself_alone():
    rows = children(["one", "crash", "two", "hang", "three"])
    assert [(item, status) for item, status, _ in rows] == [
        ("one", "ok"), ("crash", "failed"), ("two", "ok"), ("hang", "failed"), ("three", "ok")
    ]  # fmt: skip
    assert rows[0][2] == {"facts": {"a": 1}}
    crash, hang = rows[1][2], rows[3][2]
    assert "SIGSEGV" in crash["error"] and crash["output"].strip().endswith("at crash")
    assert "time limit" in hang["error"]


def test_items_that_no_time_is_left_for_are_skipped():
    rows = children([f"slow {i}" for i in range(20)], seconds=2.5)
    statuses = [status for _, status, _ in rows]
    assert statuses[0] == "ok" and set(statuses) == {"ok", "skipped"} and len(rows) == 20
    assert statuses == sorted(statuses)


def test_a_child_that_cannot_start_is_one_failure():
    rows = children(["never begun", "one"])
    assert [(item, status) for item, status, _ in rows] == [("start", "failed"), ("never begun", "skipped"),
                                                            ("one", "skipped")]  # fmt: skip
    assert "status 1" in rows[0][2]["error"] and "no such library" in rows[0][2]["output"]


def test_a_child_that_knows_its_items_itself_may_leave_the_rest_to_another():
    """As pytest does, when the device no longer computes; and after a crash, but not after its own end."""
    does = """
left = [name for name in ("a", "again", "crash", "b") if name not in order["done"]]
for name in left:
    send(begin=["p", name], limit=5)
    if name == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    send(row=["p", name, "ok", {}])
    send(end=["p", name])
    if name == "again": os._exit(75)
"""
    rows = []
    group = Group([], ["p"], [sys.executable, "-c", CHILD + does], runs_child=False, unknown_items="p")
    add = lambda phase, item, status, **figures: rows.append((item, status))  # noqa: E731
    run_group(group, add, deadline=time.time() + 60, dry_run=True, facts={})
    assert rows == [("a", "ok"), ("again", "ok"), ("crash", "failed"), ("b", "ok")]


def test_rows_are_on_the_disk_at_once_and_numbers_that_json_lacks_are_null(tmp_path):
    path = tmp_path / "report.jsonl"
    path.write_text('{"older": "stays"}\n')
    report = Report(path)
    report.add("p", "a", "ok", figure=float("nan"))
    assert [json.loads(line) for line in path.read_text().splitlines()][1] == {
        "phase": "p", "item": "a", "status": "ok", "figure": None
    }  # fmt: skip
    report.add("q", "b", "failed", error="x" * 500 + "\nthe end")
    report.add("p", "c", "missing", error="no handler")
    lines = describe(report.rows).splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [["p", "ok", "a"], ["p", "missing", "c"], ["q", "failed", "b"]]
    assert lines[2].endswith("| the end") and lines[3] == "1 ok, 1 failed, 1 missing, 0 skipped"
    report.close()


def test_wrong_results_are_told(capsys):
    case = make_case("gae_vtrace", (8, 4))
    right = np.arange(6, dtype=np.float32)
    assert compare(case, right, right) == {"largest_difference": 0}
    with pytest.raises(Wrong, match="not finite"):
        compare(case, np.where(right == 3, np.nan, right), right)
    with pytest.raises(Wrong, match="disagree"):
        compare(case, right * 1.01, right)
    state = np.zeros((3, 4), np.uint8)
    equal_bits({"state": state}, {"state": state.copy()})
    with pytest.raises(Wrong, match=r"state differs from the CPU in 8.333% of its numbers; the first: \[1, 2\]"):
        equal_bits({"state": state}, {"state": np.where(np.arange(12).reshape(3, 4) == 6, 1, state)})
    with pytest.raises(Wrong, match="bits alone"):
        equal_bits({"reward": np.zeros(2, np.float32)}, {"reward": -np.zeros(2, np.float32)})


def test_every_op_and_simulator_is_promised():
    promised = machine.promised_targets()
    assert set(names()) < set(promised) and "pufferjax.maze.random_walk" in promised["maze"][0]
    assert ("pufferjax.mingru_layer.cell", "pufferjax.mingru_layer.cell.bwd") in promised["mingru_layer"]


@pytest.mark.parametrize(("op", "size"), [("gae_vtrace", (8, 4)), ("mingru_layer", (4, 3, 8))])
def test_no_call_is_left_out_of_a_timed_program(op, size):
    """XLA would make one of calls with equal operands, and take them out of the loop."""
    case = make_case(op, size)
    operands = case.operands(np.random.default_rng(0))
    native = scans.native_calls(lambda *x: case.run("native", *x), [operands] * 3, rounds=4)
    plain = scans.plain_calls(lambda *x: case.run("reference", *x), operands, 5)
    assert (native.count, plain.count) == (12, 5)
    compiled = scans.compiled({"native": native, "plain": plain})
    assert scans.count_calls(compiled["native"].as_text(), f"pufferjax.{op}") == 3
    results = [compiled[name](calls.operands) for name, calls in (("native", native), ("plain", plain))]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), *results)
    sets = scans.operand_sets(operands, 1e9)
    assert len(sets) == scans.MAX_SETS and not np.array_equal(sets[0][0], sets[1][0])


def test_every_call_of_a_twin_is_made():
    """Also of one that is a constant of the loop: XLA would take it out."""
    made = []

    def run(x):
        return jax.pure_callback(lambda x: made.append(1) or np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    calls = scans.plain_calls(run, (jnp.arange(4.0),), 5)
    np.testing.assert_array_equal(scans.compiled({"": calls})[""](calls.operands), np.arange(4.0))
    assert len(made) == 5


SANITIZER = """\
========= COMPUTE-SANITIZER
at handlers
========= Invalid __global__ write of size 4 bytes
=========     at pufferjax::Forward(Args)+0x50
========= ERROR SUMMARY: 1 error
"""


def test_what_the_tools_of_cuda_report():
    assert tools.findings(SANITIZER) == (["Invalid __global__ write of size 4 bytes"], 1)
    assert tools.findings("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n") == ([], 0)
    hazards = "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n"
    assert tools.findings("========= Error: Race reported between\n" + hazards) == (["Error: Race reported between"], 2)
    assert tools.findings("") == ([], None)
    names = '"ID","Kernel Name","Grid Size",' + ",".join(f'"{metric}"' for metric in tools._METRICS)
    rows = ['1,void pufferjax::Draw<float>(int),"(32, 1, 1)",1,200.5,50,10', '2,Draw,"(1, 1, 1)",900,1,1']
    lines = ["==PROF== Connected", names, '"","","","nsecond","%","%"', rows[1], *rows[1:]]
    (found,) = tools.kernel_rows(lines)
    assert found == {"kernel": "Draw (1, 1, 1)", "launches": 2, "us": pytest.approx(0.9), "percent_of_memory": 1.0,
                     "percent_of_arithmetic": 1.0}  # fmt: skip


@pytest.mark.parametrize("mode", ["off", "forced"])
def test_the_flags_of_the_modes_are_known_to_xla(mode):
    """An unknown flag ends the process."""
    source = "import jax; print(int(jax.numpy.arange(4).sum()))"
    environment = os.environ | {"XLA_FLAGS": graphs.MODES[mode], "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "6", done.stderr[-2000:]
