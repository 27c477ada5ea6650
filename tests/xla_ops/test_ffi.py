"""Loading the native modules, and what a program for a GPU calls, without one."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import xla_ops
from pufferjax.xla_ops import ffi


@pytest.fixture
def with_cuda(monkeypatch):
    """As if the CUDA module were built: programs for a GPU are lowered to its calls, and never run."""
    targets = {
        target for form in (*xla_ops.OP_TARGETS.values(), *xla_ops.ALTERNATIVE_TARGETS.values()) for target in form
    }
    scratch = {target.removesuffix(".scratch") for target in targets if target.endswith(".scratch")}
    on_cpu_only = {"pufferjax.mingru_layer", "pufferjax.mingru_layer.fwd", "pufferjax.mingru_layer.bwd", *scratch}
    monkeypatch.setitem(ffi._targets, "cuda", frozenset(targets - on_cpu_only))


def program_for_a_gpu(function, *operands):
    return jax.jit(function).trace(*operands).lower(lowering_platforms=("cuda",)).as_text()


def test_a_module_that_is_built_and_cannot_be_loaded_is_loud(tmp_path):
    (tmp_path / "broken.py").write_text(
        "import importlib, importlib.util, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pufferjax.xla_ops._cuda':\n"
        "            return importlib.util.spec_from_file_location(name, sys.argv[1])\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from pufferjax.xla_ops import ffi\n"
        "print(ffi.load_errors()['cuda'])\n"
    )
    module = tmp_path / "_cuda.abi3.so"
    module.write_bytes(b"not a shared library")
    done = subprocess.run(
        [sys.executable, "-W", "always", tmp_path / "broken.py", module], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "RuntimeWarning: pufferjax's native module _cuda is there but cannot be loaded" in done.stderr
    assert str(module) in done.stdout and str(module) in done.stderr


def test_a_module_that_is_not_built_is_no_news():
    if "cuda" not in ffi.load_errors():
        pytest.skip("the CUDA module is built here")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import pufferjax.xla_ops"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr


def test_memory_for_sums_comes_with_the_call(with_cuda):
    """XLA's allocator refuses what the kernels need, and a call that allocates cannot be captured in a CUDA graph."""
    key = jax.random.key(0)
    for capacity, scratch in [(16_384, 0), (16_385, 24 + 5 * 65 * 8)]:
        text = program_for_a_gpu(lambda p: xla_ops.prioritized_sample(key, p, 10), jnp.ones(capacity))
        assert re.search(rf"@pufferjax.prioritized_sample.scratch\(.*tensor<{scratch}xui8>", text)
    rows, n, d, p, h = 80, 5, 4, 16, 32
    x, w1, b1 = np.ones((rows, n, d), np.float32), np.ones((d, p), np.float32), np.ones(p, np.float32)
    w2, b2 = np.ones((p, h), np.float32), np.ones(h, np.float32)
    gradient = jax.grad(lambda *v: xla_ops.entity_encoder(*v).sum(), (0, 1, 2, 3, 4))
    floats = rows // 8 * (d * p + p + p * h + h)
    text = program_for_a_gpu(gradient, x, w1, b1, w2, b2)
    assert re.search(rf"@pufferjax.entity_encoder.bwd.scratch\(.*tensor<{floats}xf32>", text)


@pytest.mark.parametrize(("precision", "expected"), [(None, "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")])
def test_products_on_a_gpu_are_as_exact_as_asked(with_cuda, precision, expected):
    x, kernel, h0 = np.ones((3, 2, 4), np.float32), np.ones((4, 12), np.float32), np.ones((2, 4), np.float32)

    def loss(x, kernel, h0):
        return xla_ops.mingru_layer(x, kernel, h0, precision=precision)[0].sum()

    text = program_for_a_gpu(jax.value_and_grad(loss, (0, 1, 2)), x, kernel, h0)
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3 and "pufferjax.mingru_layer.cell.bwd" in text
    for line in products:
        assert f"[{expected}, {expected}]" in line or (expected == "DEFAULT" and "HIGH" not in line), line
