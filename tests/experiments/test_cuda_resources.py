"""cuda_resources.py: what it reads from ptxas, and that it finds a spill, a missing architecture, a missing kernel."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN3pjx4DrawEl' for 'sm_80'
ptxas info    : Function properties for _ZN3pjx4DrawEl
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 36 registers, used 0 barriers, 456 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN3pjx4SumsEl' for 'sm_80'
ptxas info    : Function properties for _ZN3pjx4SumsEl
    48 bytes stack frame, 44 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 48 bytes cumulative stack size, 21504 bytes smem, 449 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN3pjx4DrawEl' for 'sm_100a'
ptxas info    : Function properties for _ZN3pjx4DrawEl
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("cuda_resources", ROOT / "experiments/cuda_resources.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reads_what_ptxas_says(script):
    assert script.parse(REPORT) == {
        "_ZN3pjx4DrawEl": {
            "sm_80": {"registers": 36, "shared_bytes": 0, "stack_bytes": 0, "spill_bytes": 0},
            "sm_100": {"registers": 40, "shared_bytes": 0, "stack_bytes": 16, "spill_bytes": 0},
        },
        "_ZN3pjx4SumsEl": {"sm_80": {"registers": 255, "shared_bytes": 21504, "stack_bytes": 48, "spill_bytes": 84}},
    }


def test_complains(script):
    kernels = {"a.cu": script.parse(REPORT), "b.cu": {}}
    assert script.complaints({"kernels": kernels}, (80, 100)) == [
        "b.cu: no kernel reported",
        "a.cu: _ZN3pjx4SumsEl spills 84 bytes on sm_80",
        "a.cu: _ZN3pjx4SumsEl is missing for sm_100",
    ]


def test_committed_results_cover_every_source_and_architecture(script):
    report = json.loads((ROOT / "experiments/results/cuda_resources.json").read_text())
    assert set(report["kernels"]) == {str(path.relative_to(ROOT)) for path in script.cuda_sources()}
    # None on sm_90, which has been run. Elsewhere four kernels miss a few registers: docs/gpu.md says so.
    spills = script.complaints(report, script.ARCHITECTURES)
    assert len(spills) == 11 and all(" spills " in spill and "sm_90" not in spill for spill in spills)
    found = [x["spill_bytes"] for kernels in report["kernels"].values() for k in kernels.values() for x in k.values()]
    assert max(found) == 124
