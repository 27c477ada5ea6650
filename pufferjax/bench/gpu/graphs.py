"""Phase: every op inside a scan, against its twin, with CUDA graphs off, as by default, and forced.

The mode is that of the process: `MODES` are the XLA_FLAGS of the children.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import envs
from pufferjax.bench.gpu.handlers import compare, make_case, name_of, native_or_twin, on
from pufferjax.bench.gpu.items import Context, Item, Missing
from pufferjax.bench.gpu.simulators import equal_bits, lacking_functions, play
from pufferjax.bench.ops import OPS

MODES = {
    "off": "--xla_gpu_enable_command_buffer=",
    "default": "",
    "forced": "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CONDITIONAL,WHILE "
    "--xla_gpu_graph_min_graph_size=1",
}
CHECKS = (
    ("gae_vtrace", (64, 257)),
    ("linear_recurrence gradient", (64, 33, 64)),
    ("mingru_layer", (1, 512, 64)),
    ("mingru_layer gradient", (32, 64, 64)),
    ("prioritized_sample", (1000, 64, 1.0)),
    ("prioritized_sample", (20_000, 512, 1.0)),
    ("linear_max gradient", (64, 50, 13, 64)),
    ("entity_encoder", (256, 16, 4, 16, 64)),
    ("entity_encoder bfloat16", (256, 16, 4, 16, 64)),
    ("entity_encoder gradient", (64, 200, 13, 16, 128)),
    ("one_hot_linear gradient", (512, 122, 5, 64)),
)
ITERATIONS = 5
CALLS = 3  # the first may record what later ones replay


def items(dry_run: bool) -> list[Item]:
    checks = CHECKS if not dry_run else [(op, OPS[op].tiny) for op in ("gae_vtrace",)]
    found = [Item("graphs", name_of(op, size), functools.partial(_op, op=op, size=size)) for op, size in checks]
    names = ("maze",) if dry_run else envs.names()
    return found + [Item("graphs", name, functools.partial(_simulator, name=name)) for name in names]


def _op(context: Context, op: str, size: tuple) -> dict[str, Any]:
    case, impl = make_case(op, size), native_or_twin(context, op)
    if impl == "reference":
        raise Missing(f"no native {op} on {context.platform}")
    with jax.default_device(context.host):
        rng = np.random.default_rng(0)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *(case.operands(rng) for _ in range(ITERATIONS)))

    def scanned(impl):
        def one(count, operands):
            return count + 1, case.run(impl, *operands)

        return lambda *operands: jax.lax.scan(one, 0, operands)[1]

    with jax.default_matmul_precision("highest"):
        expected = on(context.host, scanned("reference"), stacked)
        run, operands = jax.jit(scanned(impl)), jax.device_put(stacked, context.device)
        figures = {}
        for _ in range(CALLS):
            found = jax.device_get(run(*operands))
            for i in range(ITERATIONS):
                figures = compare(case, *(jax.tree.map(lambda x, i=i: x[i], tree) for tree in (found, expected)))
    return figures


def _simulator(context: Context, name: str) -> dict[str, Any]:
    lacking = lacking_functions(context, name)
    if {"reset", "step"} & set(lacking):
        raise Missing(f"no {context.platform} handler for {', '.join(lacking)}")
    run = play(envs.make(name), 8 if context.dry_run else 256, 4 if context.dry_run else 20, lacking)
    expected = on(context.host, run, (jax.random.key(1),))
    compiled, key = jax.jit(run), jax.device_put(jax.random.key(1), context.device)
    for _ in range(CALLS):
        equal_bits(jax.device_get(compiled(key)), expected)
    return {}
