"""The cores that this process may use."""

import os
import subprocess
import sys

import pytest

from pufferjax.core import cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files of control groups; the quota found in them."""

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cores._quota(tmp_path / "root", tmp_path / "own")

    return write


def test_quota_of_version_2_is_the_least_of_the_group_and_those_above(groups):
    files = {"cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n", "a/b/cpu.max": "400000 100000\n"}
    assert groups("0::/a/b\n", files) == 1.5


def test_quota_of_version_1(groups):
    files = {"cpu/job/cpu.cfs_quota_us": "50000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}
    assert groups("4:cpu,cpuacct:/job\n3:memory:/job\n", files) == 0.5


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense\n", "0 0\n"])
def test_no_limit(groups, text):
    assert groups("0::/\n", {"cpu.max": text}) is None


def test_a_container_whose_path_is_not_mounted_has_the_root_as_its_group(groups):
    assert groups("0::/docker/abc\n", {"cpu.max": "100000 100000\n"}) == 1.0


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (1.5, 2), (0.2, 1), (64.0, 8)])
def test_cores_are_those_of_affinity_and_quota(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    assert cores.num_cores() == expected


@pytest.mark.parametrize(
    "environment", [{"JAX_NUM_CPU_DEVICES": "3"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}]
)
def test_what_the_user_said_of_host_devices_holds(environment):
    code = "from pufferjax.core.parallel import start_devices; print(len(start_devices()))"
    clean = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment | {"JAX_PLATFORMS": "cpu"}
    )
    assert run.stdout.strip() == "3", run.stderr
