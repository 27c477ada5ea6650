"""Native ops against their pure-JAX twins, at the sizes of training. One entry of OPS per measurement."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import xla_ops
from pufferjax.bench import scans, timing
from pufferjax.core.cores import num_cores
from pufferjax.core.state_set import StateSet
from pufferjax.xla_ops import ffi

STATE_BYTES = 48  # of a snapshot, about those of the maze
MAX_BUFFERS = 64
_GPU_COPIES = 8  # dispatched in a row
_GPU_CALLS = {"native": 128, "reference": 16}  # of one program


@dataclasses.dataclass(frozen=True)
class Case:
    """One op at one size."""

    operands: Callable[[np.random.Generator], tuple]  # fresh operands
    run: Callable[..., Any]  # run(impl, *operands)
    donated: tuple[int, ...] = ()  # operands updated in place
    agree: Callable[[Any, Any], bool] | None = None  # of the results; None: close in every element
    bytes_moved: int | None = None  # None: operands read once, results written once
    flops: int | None = None  # multiplications and additions of its matrix products; None: arithmetic is not its limit
    backward_flops: int | None = None  # as flops, of the cotangents alone


def _normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape, np.float32))


def _flags(rng, share, *shape):
    return jnp.asarray(rng.random(shape) < share)


def close(a, b, tolerance=1e-4) -> bool:
    """In every element, relative to the largest: sums in another order differ by that much."""
    pairs = (map(_wide, pair) for pair in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    sizes = ((x, y, tolerance * max(1.0, float(np.abs(y).max(initial=0)))) for x, y in pairs)
    return all(np.allclose(x, y, rtol=tolerance, atol=size) for x, y, size in sizes)


def _wide(x) -> np.ndarray:
    return np.asarray(x, np.float32) if x.dtype == jnp.bfloat16 else np.asarray(x)


# One pass over bfloat16 is off by up to 0.8 % of the sum of the products' sizes, which is a few times the result's.
roughly_close = functools.partial(close, tolerance=0.03)


def _equal(*indices):
    """Bit equality of these results; the layout of a heap is nobody's business."""
    return lambda a, b: all(np.asarray(a[i]).tobytes() == np.asarray(b[i]).tobytes() for i in indices)


def _gradient(function):
    """Forward and backward: the cotangents of all operands, the results being their own."""

    def run(*operands):
        results, pull = jax.vjp(function, *operands)
        return pull(results)

    return run


def _prioritized_sample(m, k, alpha):
    def mostly_equal(a, b):  # powers are rounded differently
        return np.mean(np.asarray(a[0]) != np.asarray(b[0])) <= (0 if alpha in (0, 1) else 0.01)

    return Case(
        operands=lambda rng: (jax.random.key(int(rng.integers(2**31))), jnp.asarray(rng.random(m, np.float32))),
        run=lambda impl, key, p: xla_ops.prioritized_sample(key, p, k, alpha, 0.5, impl=impl),
        agree=mostly_equal,
    )


def _linear_recurrence(t, b, h, *, grad=False, dtype=jnp.float32):
    def run(impl, a, x, h0, reset):
        def forward(a, x, h0):
            return xla_ops.linear_recurrence(a, x, h0, reset, impl=impl)

        return (_gradient(forward) if grad else forward)(a, x, h0)

    return Case(
        operands=lambda rng: (
            jnp.asarray(rng.random((t, b, h), np.float32), dtype),
            _normal(rng, t, b, h).astype(dtype),
            _normal(rng, b, h).astype(dtype),
            _flags(rng, 0.01, t, b),
        ),
        run=run,
        # The twin's derivative has the states that it carried, the native one those that were stored.
        agree=None if dtype == jnp.float32 else roughly_close,
    )


def _mingru_layer(t, b, h, *, grad=False):
    def run(impl, x, kernel, h0, reset):
        def forward(x, kernel, h0):
            return xla_ops.mingru_layer(x, kernel, h0, reset, impl=impl)

        return (_gradient(forward) if grad else forward)(x, kernel, h0)

    return Case(
        operands=lambda rng: (
            _normal(rng, t, b, h),
            _normal(rng, h, 3 * h) / h**0.5,
            _normal(rng, b, h),
            _flags(rng, 0.01, t, b),
        ),
        run=run,
        flops=(3 if grad else 1) * 2 * t * b * h * 3 * h,
        backward_flops=2 * 2 * t * b * h * 3 * h,
    )


def _one_hot_linear(rows, cells, codes, hidden, *, grad=False):
    def run(impl, x, weight, bias):
        def forward(weight, bias):
            return xla_ops.one_hot_linear(x, weight, bias, impl=impl)

        return (_gradient(forward) if grad else forward)(weight, bias)

    return Case(
        operands=lambda rng: (
            # About half of what an agent sees of a maze is empty.
            jnp.asarray(rng.integers(1, codes + 1, (rows, cells)) * (rng.random((rows, cells)) < 0.5), jnp.uint8),
            _normal(rng, cells, codes, hidden),
            _normal(rng, hidden),
        ),
        run=run,
    )


def _sixteenths(rng, *shape):
    """Numbers whose products and short sums are exact in float32, so that all versions choose the same maximum."""
    return jnp.asarray(rng.integers(-31, 32, shape) / 16, jnp.float32)


def _linear_max(b, n, d, h, *, grad=False, precision=None):
    def run(impl, *operands):
        forward = functools.partial(xla_ops.linear_max, precision=precision, impl=impl)
        return (_gradient(forward) if grad else forward)(*operands)

    return Case(
        operands=lambda rng: (_sixteenths(rng, b, n, d), _sixteenths(rng, d, h), _sixteenths(rng, h)),
        run=run,
        agree=roughly_close if precision else None,
        flops=None if grad else 2 * b * n * d * h,  # backward follows the winners alone
    )


def _entity_encoder(b, n, d, p, h, *, grad=False, precision=None):
    def run(impl, *operands):
        forward = functools.partial(xla_ops.entity_encoder, precision=precision, impl=impl)
        return (_gradient(forward) if grad else forward)(*operands)

    return Case(
        operands=lambda rng: tuple(_sixteenths(rng, *shape) for shape in ((b, n, d), (d, p), (p,), (p, h), (h,))),
        run=run,
        agree=roughly_close if precision else None,
        flops=None if grad else 2 * b * n * (d * p + p * h),
    )


def _gae_vtrace(t, n):
    return Case(
        operands=lambda rng: (
            _normal(rng, t, n),
            _normal(rng, t, n),
            _normal(rng, n),
            _flags(rng, 0.01, t, n),
            jnp.asarray(rng.uniform(0.5, 1.5, (t, n)), jnp.float32),
        ),
        run=lambda impl, *x: xla_ops.gae_vtrace(*x, 0.995, 0.98, impl=impl),
    )


def _filled(rng, capacity) -> StateSet:
    rows = jnp.asarray(rng.integers(0, 256, (capacity, STATE_BYTES), np.uint8))
    return StateSet.create(capacity, STATE_BYTES).insert(rows, jnp.asarray(rng.random(capacity, np.float32)))


def _heap_insert(capacity, candidates):
    """A full set; one candidate in ten scores above the average of what is held."""

    def operands(rng):
        rows = jnp.asarray(rng.integers(0, 256, (candidates, STATE_BYTES), np.uint8))
        return _filled(rng, capacity), rows, jnp.asarray(rng.uniform(-4, 1, candidates), jnp.float32)

    def run(impl, state_set, rows, scores):
        fields = [getattr(state_set, field.name) for field in dataclasses.fields(StateSet)]
        return xla_ops.state_heap_insert(*fields, rows, scores, impl=impl)

    return Case(operands, run, donated=(0,), agree=_equal(0, 1, 4), bytes_moved=candidates * (STATE_BYTES + 4))


def _heap_rescore(capacity, slots):
    def operands(rng):
        state_set = _filled(rng, capacity)
        slots_drawn = jnp.asarray(rng.integers(0, capacity, slots), jnp.int32)
        heap = (state_set.priorities, state_set.heap, state_set.heap_position)
        return heap, state_set.size, slots_drawn, jnp.asarray(rng.random(slots, np.float32))

    def run(impl, heap, size, slots, scores):
        return xla_ops.state_heap_rescore(*heap, size, slots, scores, 0.9, impl=impl)

    return Case(operands, run, donated=(0,), agree=_equal(0), bytes_moved=slots * 12)


@dataclasses.dataclass(frozen=True)
class Op:
    make: Callable[..., Case]
    sizes: tuple[tuple, ...]  # of training: a rollout step, a minibatch, a whole rollout, ...
    tiny: tuple
    legend: str
    options: dict = dataclasses.field(default_factory=dict)
    needs_gpu: bool = False  # elsewhere measured only if named: the same as another entry


# Entities as in the original's environments: few and simple, many, and as many as a byte numbers.
_ENTITIES = ((4096, 16, 4, 128), (1024, 200, 13, 128), (1024, 256, 16, 256))
_ENCODED = tuple((b, n, d, 16, h) for b, n, d, h in _ENTITIES)

OPS = {
    "prioritized_sample": Op(
        _prioritized_sample,
        ((256, 410, 1.0), (1024, 1536, 0.9), (100_000, 8192, 0.9), *((10**n, 8192, 1.0) for n in range(4, 9))),
        (64, 16, 0.9),
        "M, K, alpha",
    ),
    "linear_recurrence": Op(_linear_recurrence, ((128, 64, 64), (128, 1024, 64)), (8, 4, 8), "T, B, H"),
    "linear_recurrence gradient": Op(
        _linear_recurrence, ((128, 64, 64), (128, 1024, 64)), (8, 4, 8), "T, B, H", {"grad": True}
    ),
    "linear_recurrence bfloat16": Op(
        _linear_recurrence, ((128, 64, 64), (128, 1024, 64)), (8, 4, 8), "T, B, H", {"dtype": jnp.bfloat16}
    ),
    "linear_recurrence bfloat16 gradient": Op(
        _linear_recurrence, ((128, 64, 64), (128, 1024, 64)), (8, 4, 8), "T, B, H",
        {"grad": True, "dtype": jnp.bfloat16},
    ),
    "gae_vtrace": Op(_gae_vtrace, ((128, 64), (128, 2048), (128, 8192)), (8, 4), "T, N"),
    "state_heap_insert": Op(_heap_insert, ((256, 4912), (16_384, 4912), (16_384, 9824)), (16, 32), "M, C"),
    "state_heap_rescore": Op(_heap_rescore, ((256, 410), (16_384, 819)), (16, 8), "M, K"),
    "one_hot_linear": Op(
        _one_hot_linear, ((1024, 122, 5, 64), (8192, 122, 5, 64), (8192, 122, 5, 256)), (16, 6, 4, 8), "B, C, K, H"
    ),
    "one_hot_linear gradient": Op(
        _one_hot_linear, ((8192, 122, 5, 64), (8192, 122, 5, 256)), (16, 6, 4, 8), "B, C, K, H", {"grad": True}
    ),
    "mingru_layer": Op(_mingru_layer, ((1, 1024, 64), (128, 64, 64), (128, 64, 256)), (8, 4, 8), "T, B, H"),
    "mingru_layer gradient": Op(
        _mingru_layer, ((128, 64, 64), (128, 64, 256)), (8, 4, 8), "T, B, H", {"grad": True}
    ),
    "linear_max": Op(_linear_max, _ENTITIES, (4, 3, 2, 8), "B, N, D, H"),
    "linear_max bfloat16": Op(
        _linear_max, _ENTITIES, (4, 3, 2, 8), "B, N, D, H", {"precision": "bfloat16"}, needs_gpu=True
    ),
    "linear_max gradient": Op(_linear_max, _ENTITIES, (4, 3, 2, 8), "B, N, D, H", {"grad": True}),
    "entity_encoder": Op(_entity_encoder, _ENCODED, (4, 3, 2, 16, 8), "B, N, D, P, H"),
    "entity_encoder bfloat16": Op(
        _entity_encoder, _ENCODED, (4, 3, 2, 16, 8), "B, N, D, P, H", {"precision": "bfloat16"}, needs_gpu=True
    ),
    "entity_encoder gradient": Op(_entity_encoder, _ENCODED, (4, 3, 2, 16, 8), "B, N, D, P, H", {"grad": True}),
}  # fmt: skip


class Disagreement(RuntimeError):
    """Native op and twin gave different results; nothing was timed."""


def bench_ops(
    names: list[str],
    pairs: int,
    rotate_megabytes: float,
    tiny: bool = False,
    save: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Milliseconds of native and twin, their ratio, and the native op's GB/s and GFLOP/s, also as a share of what
    copying reaches and of what multiply-adds in registers reach.

    Every call takes the next of several sets of operands, together `rotate_megabytes`: in training, too, the operands
    of an op are not in the cache from its last call. On a GPU the calls are inside one program, since Python takes
    longer to dispatch one than the GPU to run it. An op without a native form here is skipped, its row says why.
    save(result) gets what is known so far after each row. Raises Disagreement if the results differ.
    """
    for name in names:
        if name not in OPS:
            raise ValueError(f"--ops must be among {', '.join(map(repr, OPS))}, got {name!r}")
    results: list[dict[str, Any]] = []
    copying = timing.summarize(_copy_speeds(rotate_megabytes * 1e6, pairs))
    has_gpu = jax.default_backend() == "gpu"
    result = {
        **timing.header("ops"),
        "rotate_megabytes": rotate_megabytes,
        "copying_gb_per_second": copying,
        "results": results,
    }
    for name in names or [name for name, op in OPS.items() if has_gpu or not op.needs_gpu]:
        op = OPS[name]
        for size in (op.tiny,) if tiny else op.sizes:
            row = {"op": name, "size": list(size), "legend": op.legend}
            results.append(row)
            if not is_native(name):
                row["skipped"] = f"no native {public_op(name)} on this {jax.default_backend().upper()}"
                continue
            case = op.make(*size, **op.options)
            row |= _measure(f"{name} {size}", case, pairs, rotate_megabytes * 1e6)
            row["share_of_copying"] = row["native_gb_per_second"]["median"] / copying["median"]
            if case.flops is not None and not has_gpu:
                # Measured beside the op: a shared host may take a core away for minutes.
                row["arithmetic_gflops"] = timing.summarize(_arithmetic_speeds(pairs))
                row["native_gflops"] = case.flops / row["native_ms"]["median"] / 1e6
                row["share_of_arithmetic"] = row["native_gflops"] / row["arithmetic_gflops"]["median"]
            save(result)
    return result


def public_op(name: str) -> str:
    """The op of `xla_ops` that an entry of OPS measures."""
    return name.split()[0]


def is_native(name: str) -> bool:
    """Whether that op has a native form on JAX's default backend."""
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    return xla_ops.backends()[public_op(name)].get(platform) == "native"


def _copy_speeds(num_bytes: float, repeats: int) -> list[float]:
    """GB/s, read and written, of XLA's x + 1 over that much memory: the roof of an op that only moves bytes."""
    x = jnp.zeros(max(int(num_bytes) // 4, 1), jnp.float32)
    run = jax.jit(lambda x: x + 1)
    calls = _GPU_COPIES if jax.default_backend() == "gpu" else 1
    return [2 * x.nbytes / seconds / 1e9 for seconds in timing.in_a_row(lambda: run(x), calls, repeats)]


def _arithmetic_speeds(repeats: int) -> list[float]:
    """GFLOP/s of multiply-adds in registers on all cores of this process: the roof of an op that only computes."""
    cores = num_cores()
    return [ffi.multiply_add_speed(cores) / 1e9 for _ in range(repeats)]


def _measure(label: str, case: Case, pairs: int, rotate_bytes: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    first = case.operands(rng)
    operand_bytes = _bytes(first)
    # Enough sets of operands to fill more than any cache holds.
    count = min(max(math.ceil(rotate_bytes / operand_bytes), 2), MAX_BUFFERS)
    sets = [first, *(case.operands(rng) for _ in range(count - 1))]
    compiled = {
        impl: jax.jit(lambda *x, impl=impl: case.run(impl, *x), donate_argnums=case.donated)
        for impl in ("native", "reference")
    }

    def fresh(operands):
        """A copy of what the call consumes."""
        return tuple(jax.tree.map(jnp.copy, x) if i in case.donated else x for i, x in enumerate(operands))

    outputs = {impl: jax.block_until_ready(run(*fresh(first))) for impl, run in compiled.items()}
    agree = case.agree or close
    if not agree(outputs["native"], outputs["reference"]):
        raise Disagreement(f"{label}: the native op and its twin disagree; nothing was timed")
    moved = case.bytes_moved or operand_bytes + _bytes(outputs["native"])

    def dispatched(impl):
        """Seconds per call of one round through all sets of operands."""

        def run():
            ready = jax.block_until_ready([fresh(operands) for operands in sets])
            return timing.seconds(lambda: [compiled[impl](*operands) for operands in ready]) / count

        return run

    round_of = _scanned(case, sets) if jax.default_backend() == "gpu" else dispatched
    reference, native, ratios = timing.paired(round_of("reference"), round_of("native"), pairs)
    scaled = {name: timing.summarize([1000 * t for t in times]) for name, times in
              (("native_ms", native), ("reference_ms", reference))}  # fmt: skip
    return {
        **scaled,
        "reference_over_native": timing.summarize(ratios),
        "bytes_moved": moved,
        "native_gb_per_second": timing.summarize([moved / t / 1e9 for t in native]),
        "operand_sets": count,
    }


def _scanned(case: Case, sets: list[tuple]) -> Callable[[str], Callable[[], float]]:
    """As `dispatched` in `_measure`: seconds per call of many calls in one program."""
    programs = {
        "native": scans.native_calls(
            functools.partial(case.run, "native"), sets, -(-_GPU_CALLS["native"] // len(sets))
        ),
        "reference": scans.plain_calls(functools.partial(case.run, "reference"), sets[0], _GPU_CALLS["reference"]),
    }
    compiled = scans.compiled(programs)

    def round_of(impl):
        calls = programs[impl]
        return lambda: timing.seconds(lambda: compiled[impl](calls.operands)) / calls.count

    return round_of


def _bytes(tree) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def describe(result: dict[str, Any]) -> str:
    lines = [
        result["machine"],
        f"copying: {timing.with_interval(result['copying_gb_per_second'], '.1f')} GB/s",
        f"{'op':<28} {'size':<40} {'native ms':>10} {'twin ms':>10} {'GB/s':>7} {'of copy':>7} "
        f"{'GFLOP/s':>8} {'of peak':>7}  "
        "twin / native [95 % interval]",
    ]
    for row in result["results"]:
        size = f"{row['legend']} = {', '.join(map(str, row['size']))}"
        if "skipped" in row:
            lines.append(f"{row['op']:<28} {size:<40} skipped: {row['skipped']}")
            continue
        gflops, share = row.get("native_gflops"), row.get("share_of_arithmetic")
        arithmetic = f"{'-':>8} {'-':>7}" if gflops is None else f"{gflops:>8.1f} {share:>7.1%}"
        lines.append(
            f"{row['op']:<28} {size:<40} {row['native_ms']['median']:>10.3f} {row['reference_ms']['median']:>10.3f} "
            f"{row['native_gb_per_second']['median']:>7.2f} {row['share_of_copying']:>7.1%} {arithmetic}  "
            f"{timing.with_interval(row['reference_over_native'], '.2f')}"
        )
    return "\n".join(lines)
