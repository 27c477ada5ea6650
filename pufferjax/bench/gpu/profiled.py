"""The items that Nsight Compute looks at: one call of every op whose time is measured."""

import functools
from typing import Any

import jax
import numpy as np

from pufferjax.bench.gpu import kernels
from pufferjax.bench.gpu.handlers import make_case, name_of, native_or_twin
from pufferjax.bench.gpu.items import Context, Item, Missing


def items(dry_run: bool) -> list[Item]:
    timings = dict.fromkeys((op, size) for op, size, _ in kernels.TIMINGS if size[0] < 10_000_000)
    return [Item("profiled", name_of(op, size), functools.partial(_once, op=op, size=size)) for op, size in timings]


def _once(context: Context, op: str, size: tuple) -> dict[str, Any]:
    impl = native_or_twin(context, op)
    if impl == "reference":
        raise Missing(f"no native {op} on {context.platform}")
    case = make_case(op, size)
    jax.block_until_ready(jax.jit(functools.partial(case.run, impl))(*case.operands(np.random.default_rng(0))))
    return {}
