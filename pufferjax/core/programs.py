"""Compiled programs: made ahead, kept for whoever asks for the same again in this process.

What is kept is never a run, only what was compiled for it: `remembered` holds the latest few of each kind, so that the
level tables and executables of environments long gone do not pile up.
"""

import collections
import concurrent.futures
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from importlib.metadata import version
from typing import Any

import jax

from pufferjax.envs import Env
from pufferjax.xla_ops.threefry.lowering import lower

_lock = threading.Lock()
_remembered: dict[str, collections.OrderedDict] = {}

# XLA's own threads compile the functions of one program side by side, but only at the end: until then two programs go
# twice as fast as one.
_compilers = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="pufferjax-compile")


def compiler_options(platform: str) -> dict[str, Any]:
    """For programs of training and evaluation: half the time to compile, as fast when they run.

    On a CPU the work is in native handlers, whose code is ready; what XLA writes around them gains nothing from its
    dearest passes. A flag that the user has set in XLA_FLAGS stays as it is.
    """
    if platform != "cpu":
        return {}
    options = {"xla_backend_optimization_level": 1}
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones do not know this one
        options["xla_cpu_use_fusion_emitters"] = False
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given}


def functions_of(env: Env) -> Hashable:
    """What a program compiled for `env` depends on: equal for two environments that compute the same.

    The functions of a native simulator say which one it is and with what numbers (`same_as`); any other function is
    itself alone, so a user's environment, or a native one with a function replaced, shares nothing.
    """
    functions = (
        env.reset,
        env.step,
        env.observe,
        env.restore,
        env.stagger,
        env.random_walk,
        env.clock,
        env.action_mask,
    )
    return env.spec, *(getattr(function, "same_as", function) for function in functions)


def remembered(kind: str, key: Hashable, make: Callable[[], Any], most: int) -> Any:
    """`make()`, or what it returned when last asked for `key`; of each `kind` the `most` latest are kept.

    A key that cannot be hashed, such as a policy of the user's with a list in it, is made anew.
    """
    key = (key, jax.config.jax_default_matmul_precision)  # what else decides what is traced
    try:
        hash(key)
    except TypeError:
        return make()
    with _lock:
        kept = _remembered.setdefault(kind, collections.OrderedDict())
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
    made = make()
    with _lock:
        kept[key] = made
        while len(kept) > most:
            kept.popitem(last=False)
    return made


class Program:
    """A jitted function, compiled once for each kind of operands; `compile` begins with that before they are needed.

    A compiled function refuses operands of another layout, where jit would silently compile a second time.
    """

    def __init__(self, jitted: Callable[..., Any], devices: Sequence[jax.Device]):
        self._jitted, self._platform = jitted, devices[0].platform
        # Where results are that JAX does not place before it has compiled: with several devices it always does.
        self._place = jax.sharding.SingleDeviceSharding(devices[0]) if len(devices) == 1 else None
        self._compiled: dict[Hashable, tuple[Any, concurrent.futures.Future]] = {}

    def compile(self, *args: Any) -> concurrent.futures.Future:
        """Traces now, compiles in the background; args may be shapes with placements."""
        return self._of(args)[1]

    def results(self, *args: Any) -> Any:
        """Shapes, types and placements of what a call with `args` returns."""
        return self._of(args)[0]

    def _of(self, args):
        leaves, structure = jax.tree.flatten(args)
        kind = structure, tuple((jax.typeof(x), getattr(x, "sharding", None)) for x in leaves)
        if kind not in self._compiled:
            lowered = lower(self._jitted, *args, platform=self._platform)
            results = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    x.shape, x.dtype, sharding=getattr(x.sharding, "sharding", x.sharding) or self._place
                ),
                lowered.out_info,
            )
            self._compiled[kind] = results, _compilers.submit(lowered.compile, compiler_options(self._platform))
        return self._compiled[kind]

    def __call__(self, *args: Any) -> Any:
        return self.compile(*args).result()(*args)
