"""`pufferjax doctor`: true of this installation, and one line of advice for each thing wrong."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from pufferjax import cli
from pufferjax.cli import doctor
from pufferjax.xla_ops import ffi


@pytest.fixture
def report(capsys):
    """A function: (exit status, what `doctor --json` prints)."""

    def run(*flags):
        status = cli.main(["doctor", "--json", *map(str, flags)])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_a_sound_installation(report, tmp_path):
    status, facts = report("--run-dir", tmp_path / "not" / "there")
    assert status == 0 and facts["advice"] == []
    assert facts["jaxlib"] == importlib.metadata.version("jaxlib")
    assert facts["native CPU code"] == f"loaded, instruction set {ffi.instruction_set()}"
    assert facts["ops on cpu"].startswith("native: entity_encoder, gae_vtrace") and "twin" not in facts["ops on cpu"]
    assert facts["devices (cpu)"] == f"{len(jax.devices())} x cpu"
    assert facts[f"disk for {tmp_path / 'not' / 'there'}"].endswith("GiB free")


def test_the_level_is_one_that_the_cpu_has():
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    if not flags:
        pytest.skip("this system does not list its CPU's features")
    expected = "avx512" if "avx512vl" in flags else "avx2" if "avx2" in flags else "baseline"
    assert ffi.instruction_set() == expected


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda patch: patch.setattr(ffi, "_load_errors", {"cpu": "broken", "cuda": "No module named x"}), "twins"),
        (lambda patch: patch.setattr(doctor, "_LEAST_FREE_BYTES", 2**70), "less than"),
    ],
)
def test_each_thing_wrong_gets_a_line_of_advice(report, monkeypatch, change, advice):
    change(monkeypatch)
    status, facts = report()
    assert status == 1 and len(facts["advice"]) == 1 and advice in facts["advice"][0]


def test_a_fault_of_a_version_is_named(report, monkeypatch):
    version = importlib.metadata.version("jaxlib")
    monkeypatch.setitem(doctor._KNOWN_FAULTS, ("jaxlib", version), "crashes here, and is gone round")
    status, facts = report()
    assert status == 0 and facts["jaxlib"] == f"{version} (crashes here, and is gone round)"


def test_a_platform_that_is_not_there():
    done = subprocess.run(
        [sys.executable, "-m", "pufferjax", "doctor"],
        env=os.environ | {"JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "! devices" in done.stdout and "JAX_PLATFORMS is 'cuda'" in done.stdout
