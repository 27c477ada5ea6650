"""The fixture of the op tests: both implementations."""

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
