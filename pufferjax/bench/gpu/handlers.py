"""Phase: every handler of an op once, those that need scratch memory included, against the pure-JAX twin on the CPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import xla_ops
from pufferjax.bench.gpu.items import Context, Item, Missing, Wrong
from pufferjax.bench.ops import OPS, Case, close, public_op

# (entry of OPS, size): one of each kernel and path.
CHECKS = (
    ("gae_vtrace", (128, 1000)),
    ("linear_recurrence", (128, 64, 64)),
    ("linear_recurrence gradient", (128, 64, 64)),
    ("linear_recurrence bfloat16", (128, 64, 64)),
    ("linear_recurrence bfloat16 gradient", (128, 64, 64)),
    ("mingru_layer", (1, 4096, 128)),
    ("mingru_layer", (128, 64, 64)),
    ("mingru_layer gradient", (128, 64, 64)),
    ("mingru_layer gradient", (16, 256, 128)),
    ("prioritized_sample", (300, 16, 0.0)),
    ("prioritized_sample", (1000, 64, 1.0)),
    ("prioritized_sample", (10_000, 1024, 0.6)),
    ("prioritized_sample", (20_000, 4096, 1.0)),  # with scratch memory
    ("prioritized_sample", (20_000, 4096, 0.6)),
    ("prioritized_sample", (1000, 20_000, 0.9)),
    ("prioritized_sample", (3_000_000, 8192, 0.9)),
    ("linear_max", (256, 200, 13, 128)),
    ("linear_max bfloat16", (256, 200, 13, 128)),
    ("linear_max gradient", (256, 200, 13, 128)),
    ("entity_encoder", (256, 200, 13, 16, 128)),
    ("entity_encoder", (4096, 16, 4, 16, 128)),
    ("entity_encoder bfloat16", (256, 200, 13, 16, 128)),
    ("entity_encoder bfloat16", (4096, 16, 4, 16, 128)),
    ("entity_encoder gradient", (256, 200, 13, 16, 128)),
    ("entity_encoder gradient", (4096, 16, 4, 16, 128)),
    ("entity_encoder gradient", (64, 300, 16, 16, 256)),
    ("one_hot_linear", (1000, 122, 5, 64)),
    ("one_hot_linear gradient", (1000, 122, 5, 64)),
    ("state_heap_insert", (256, 4912)),
    ("state_heap_rescore", (256, 410)),
)
_DRY = ("gae_vtrace", "linear_recurrence bfloat16 gradient", "prioritized_sample", "entity_encoder gradient")


def items(dry_run: bool) -> list[Item]:
    checks = CHECKS if not dry_run else [(op, OPS[op].tiny) for op in _DRY]
    return [Item("handlers", name_of(op, size), functools.partial(_check, op=op, size=size)) for op, size in checks]


def name_of(op: str, size: tuple) -> str:
    return f"{op} {'x'.join(map(str, size))}"


def _check(context: Context, op: str, size: tuple) -> dict[str, Any]:
    case = make_case(op, size)
    impl = native_or_twin(context, op)
    with jax.default_device(context.host):
        operands = case.operands(np.random.default_rng(0))
    with jax.default_matmul_precision("highest"):
        found = on(context.device, lambda *x: case.run(impl, *x), operands)
        expected = on(context.host, lambda *x: case.run("reference", *x), operands)
    figures = compare(case, found, expected)
    if impl == "reference":
        raise Missing(f"no native {op} on {context.platform}; its twin there is right")
    return figures


def make_case(op: str, size: tuple) -> Case:
    return OPS[op].make(*size, **OPS[op].options)


def native_or_twin(context: Context, name: str) -> str:
    """The `impl` that an entry of OPS is run with under test: "reference" where there is no native form."""
    return xla_ops.backends()[public_op(name)][context.platform]


def on(device: jax.Device, function, operands):
    """The results of `function` under jit, all of it on `device`, as NumPy arrays."""
    with jax.default_device(device):
        return jax.device_get(jax.jit(function)(*jax.device_put(operands, device)))


def compare(case: Case, found, expected) -> dict[str, Any]:
    """Figures of how far the two are from each other; Wrong if that is too far, or where one alone is not finite."""
    off = 0.0
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if mine.shape != other.shape:
            raise Wrong(f"a result has shape {mine.shape}, that of the twin {other.shape}")
        if mine.size and (np.issubdtype(mine.dtype, np.floating) or mine.dtype == jnp.bfloat16):
            mine, other = np.asarray(mine, np.float32), np.asarray(other, np.float32)
            if not np.array_equal(np.isfinite(mine), np.isfinite(other)):
                count = int((~np.isfinite(mine)).sum())
                raise Wrong(f"{count} of {mine.size} numbers of a result are not finite, unlike those of the twin")
            off = max(off, float(np.abs(mine - other).max() / max(1e-30, np.abs(other).max())))
    if not (case.agree or close)(found, expected):
        raise Wrong(f"the results and those of the twin disagree: the largest difference is {off:.3g} of the largest")
    return {"largest_difference": off}
