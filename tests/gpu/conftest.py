"""Tests that need a GPU and the CUDA module; they skip, saying which of the two is missing. Run by `make test-gpu`."""

import functools

import jax
import pytest

from pufferjax.xla_ops import ffi


@functools.cache
def what_is_missing() -> str | None:
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        return f"no GPU that JAX can use: {str(error).splitlines()[0]}"
    if not ffi.has_native("pufferjax.gae_vtrace", "cuda"):
        return "the CUDA module is not built; see `make test-gpu`"
    return None


@pytest.fixture(autouse=True)
def gpu():
    """The GPU to run on; skips the test where there is none."""
    if reason := what_is_missing():
        pytest.skip(reason)
    return jax.devices("cuda")[0]
