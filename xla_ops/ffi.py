"""Native modules, their targets, and the choice between a native op and its pure-JAX twin.

The only file that touches `jax.ffi`. An op calls `native_call` inside its native branch and `select` to choose:

    ffi.select("pufferjax.gae_vtrace", native_branch, reference_branch, *operands)
"""

import concurrent.futures
import contextlib
import contextvars
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pufferjax.xla_ops.checks import usual_promotion

# Platform name in `jax.lax.platform_dependent` -> (module, platform name in `register_ffi_target`).
_MODULES = {"cpu": ("_cpu", "cpu"), "cuda": ("_cuda", "CUDA")}

# The environment variable that caps the vector instructions of the CPU's native code in this process, and its values in
# rising order: SSE2 or NEON; AVX2 with FMA (x86-64-v3); AVX-512 (x86-64-v4).
MAX_ISA = "PUFFERJAX_MAX_ISA"
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")

_modules: dict[str, Any] = {}
_user_modules: list[Any] = []  # on the CPU, beside _cpu
_targets: dict[str, frozenset[str]] = {}
_load_errors: dict[str, str] = {}
_are_kept = contextvars.ContextVar("_are_kept", default=False)


def _load() -> None:
    for platform, (module_name, ffi_platform) in _MODULES.items():
        name = f"pufferjax.xla_ops.{module_name}"
        _targets[platform] = frozenset()
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            _load_errors[platform] = str(error)
            if not (isinstance(error, ModuleNotFoundError) and error.name == name):
                warnings.warn(
                    f"pufferjax's native module {module_name} is there but cannot be loaded: {error}. Its ops run as "
                    "their pure-JAX twins, many times slower; `pufferjax doctor` says what to do",
                    RuntimeWarning,
                    stacklevel=2,
                )
            continue
        registrations = module.registrations()
        for target, capsule in registrations.items():
            jax.ffi.register_ffi_target(target, capsule, platform=ffi_platform)
        _modules[platform] = module
        _targets[platform] = frozenset(registrations)


_load()


def limit_instruction_set(level: str) -> None:
    """Runs the CPU's native code at no level of vector instructions above `level` from now on, in this process.

    `level`: "baseline", "avx2" or "avx512"; one that the machine does not have means the highest it has. Only for
    tests and measurements that compare levels: a level is normally set by PUFFERJAX_MAX_ISA, read on import, and
    results of matrix products differ between levels in their last bits.
    """
    if level not in INSTRUCTION_SETS:
        raise ValueError(f"limit_instruction_set: level must be one of {', '.join(INSTRUCTION_SETS)}, got {level!r}")
    for module in filter(None, [_modules.get("cpu"), *_user_modules]):
        module.limit_instruction_set(level)


def _read_limit() -> None:
    level = os.environ.get(MAX_ISA)
    if not level:
        return
    if level not in INSTRUCTION_SETS:
        raise ValueError(f"{MAX_ISA} must be one of {', '.join(INSTRUCTION_SETS)}, got {level!r}")
    limit_instruction_set(level)


_read_limit()


def register_module(module: Any) -> None:
    """Makes the handlers and simulators of a native CPU module of your own known, for this process.

    `module` is built like `_cpu`, from xla_ops/common/bindings.cc and sources of yours (docs/new_env.md shows how).
    Raises ValueError for a target that is registered already.
    """
    registrations = module.registrations()
    taken = sorted(_targets["cpu"] & set(registrations))
    if taken:
        raise ValueError(f"register_module: the target {taken[0]} is registered already; choose another name")
    for target, capsule in registrations.items():
        jax.ffi.register_ffi_target(target, capsule, platform="cpu")
    if "cpu" in _modules:
        module.limit_instruction_set(_modules["cpu"].instruction_set())
    _user_modules.append(module)
    _targets["cpu"] |= frozenset(registrations)


def has_native(target: str, platform: str) -> bool:
    """Whether `target` (say "pufferjax.gae_vtrace") has a native handler on `platform` ("cpu" or "cuda")."""
    return target in _targets.get(platform, frozenset())


def backends() -> dict[str, dict[str, str]]:
    """What each op runs as: `{op: {"cpu": "native" | "reference", "cuda": "native" | "reference"}}`."""
    from pufferjax.xla_ops import ALTERNATIVE_TARGETS, OP_TARGETS

    def backend(op, platform):
        forms = filter(None, (OP_TARGETS[op], ALTERNATIVE_TARGETS.get(op)))
        return "native" if any(all(has_native(target, platform) for target in form) for form in forms) else "reference"

    return {op: {platform: backend(op, platform) for platform in _MODULES} for op in OP_TARGETS}


def load_errors() -> dict[str, str]:
    """Why a native module could not be imported, by platform ("cpu", "cuda"); empty if all are there."""
    return dict(_load_errors)


def instruction_set() -> str | None:
    """The level of vector instructions that the CPU's native code runs with here: "avx512", "avx2" or "baseline" (SSE2
    on x86-64, NEON on aarch64). None without the native module. PUFFERJAX_MAX_ISA caps it."""
    return _modules["cpu"].instruction_set() if "cpu" in _modules else None


def multiply_add_speed(num_threads: int, seconds: float = 0.2) -> float:
    """Floating-point operations per second that `num_threads` threads together reach with multiply-adds in registers,
    at the level of `instruction_set()`: the roof of native matrix products. RuntimeError without the native module."""
    if "cpu" not in _modules:
        raise RuntimeError(f"multiply_add_speed needs the native module _cpu: {_load_errors['cpu']}")
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        return sum(threads.map(_modules["cpu"].multiply_add_speed, [seconds] * num_threads))


def describe_env(name: str, params: Sequence[int]) -> dict[str, Any]:
    """Static numbers of a native simulator (observation shape, state bytes, ...), from its own header.

    Raises RuntimeError if the CPU module is missing, ValueError (from the simulator) if it refuses `params`.
    """
    for module in _user_modules:
        with contextlib.suppress(KeyError):  # not one of its simulators
            return module.describe(name, list(params))
    if "cpu" not in _modules:
        raise RuntimeError(
            "pufferjax's native module _cpu could not be imported, and simulators have no pure-JAX twin: "
            f"{_load_errors['cpu']}. Build it with `pip install .` from the repository (a C++17 compiler is needed)."
        )
    return _modules["cpu"].describe(name, list(params))


def limit_threads(limit: int) -> None:
    """At most `limit` >= 1 threads for each CPU handler from now on, in this process.

    Host devices share XLA's pool: with a device per core, one thread per handler is what keeps every core busy.
    """
    for module in (*_user_modules, *filter(None, [_modules.get("cpu")])):
        module.limit_threads(limit)


@contextlib.contextmanager
def kept_calls() -> Iterator[None]:
    """Custom calls traced inside stay as many as they are, also those with equal operands or unused results: they are
    said to have side effects. For measurements."""
    token = _are_kept.set(True)
    try:
        yield
    finally:
        _are_kept.reset(token)


def native_call(
    target: str,
    results: Sequence[jax.ShapeDtypeStruct],
    *operands: jax.Array,
    aliases: Mapping[int, int] | None = None,
    vmap_method: str = "broadcast_all",
    **attributes: Any,
) -> list[jax.Array]:
    """One custom call. Handlers accept any leading axes (a vmapped call brings them), equal on every operand.

    With `vmap_method="expand_dims"` an operand that vmap does not map, say a weight, has size 1 on that axis instead of
    a copy per lane; the handler must accept that.
    `aliases` maps operand index -> result index for buffers that are updated in place. Attributes must be NumPy
    scalars or arrays: they are compiled into the program.
    """
    varying = frozenset().union(*map(varying_axes, operands))
    operands = vary_together(operands)
    call = jax.ffi.ffi_call(
        target,
        list(results),
        has_side_effect=_are_kept.get(),
        vmap_method=vmap_method,
        input_output_aliases=dict(aliases) if aliases else None,
    )
    attributes = {k: v if isinstance(v, np.ndarray) else np.asarray(v)[()] for k, v in attributes.items()}
    return [_vary_over(x, varying) for x in call(*operands, **attributes)]


def vary_together(operands: Any) -> Any:
    """`operands` (a pytree), each varying over every mesh axis of an enclosing shard_map that one of them varies over.

    The carries of a twin's scan and the results of a native call must agree in this. An op with a custom_vjp calls it
    before that function, so that the transpose sums the cotangent of an operand that was the same on all devices.
    """
    varying = frozenset().union(*map(varying_axes, jax.tree.leaves(operands)))
    return jax.tree.map(lambda x: _vary_over(x, varying), operands)


def varying_axes(x: Any) -> frozenset[str]:
    """Axes of the mesh of an enclosing shard_map that `x` varies over."""
    aval = jax.typeof(x)
    if hasattr(aval, "manual_axis_type"):
        return frozenset(aval.manual_axis_type.varying)
    return frozenset(getattr(aval, "vma", ()))  # the name in other versions of JAX


def _vary_over(x: Any, axes: frozenset[str]) -> Any:
    missing = tuple(axes - varying_axes(x)) if axes else ()
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def check_impl(impl: Any) -> None:
    """ValueError naming `impl` unless it is one of the valid choices."""
    if impl is not None and not (isinstance(impl, str) and impl in ("native", "reference")):
        raise ValueError(f'impl must be "native", "reference" or None, got {impl!r}')


@usual_promotion()
def select(
    target: str,
    native: Callable[..., Any],
    reference: Callable[..., Any],
    *operands: Any,
    impl: str | None = None,
    alternative: tuple[str, Callable[..., Any]] | None = None,
) -> Any:
    """Runs `native(*operands)` on the platforms that have `target`, `reference(*operands)` on all others.

    The choice falls when the program is lowered for its platform; only the chosen branch is compiled.
    `alternative` is a second pair of target and native branch, for platforms that lack the first.
    `impl` forces one of them: "native" (RuntimeError if no platform has it) or "reference".
    """
    check_impl(impl)
    operands = vary_together(operands)
    branches = {}
    for platform in _MODULES:
        if has_native(target, platform):
            branches[platform] = native
        elif alternative is not None and has_native(alternative[0], platform):
            branches[platform] = alternative[1]
    if impl == "reference" or (impl is None and not branches):
        return reference(*operands)
    if impl is None:
        return jax.lax.platform_dependent(*operands, **branches, default=reference)
    if not branches:
        raise RuntimeError(f'impl="native": no native module has {target}; load errors: {_load_errors}')
    if len(set(branches.values())) == 1:
        return next(iter(branches.values()))(*operands)
    return jax.lax.platform_dependent(*operands, **branches)
