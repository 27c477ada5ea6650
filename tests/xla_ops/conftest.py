"""Fixtures of the op tests: both implementations, and a process with two host devices."""

import os
import subprocess
import sys
import textwrap

import jax
import pytest

from pufferjax import xla_ops


@pytest.fixture(params=["native", "reference"])
def impl(request):
    """Runs the test for both; the test's module names the op in `OP`."""
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if request.param == "native" and xla_ops.backends()[request.module.OP].get(platform) != "native":
        pytest.skip(f"{request.module.OP} has no native build for {platform}")
    return request.param


TWO_DEVICES_PRELUDE = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from pufferjax import xla_ops
assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
"""


@pytest.fixture
def run_on_two_devices():
    """A function that runs source text in a new process with a mesh of two host devices; its failure fails the test."""

    def run(source):
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        source = TWO_DEVICES_PRELUDE + textwrap.dedent(source)
        done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]

    return run
