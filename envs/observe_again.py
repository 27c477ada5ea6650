"""Whether the observations of a JAX environment can be made again from its states, so that rows need not hold them.

Found by trying: what a function of the environment's own makes of a state must be, bit by bit, what the reset or the
step that led to it showed.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_METHODS = ("get_obs", "observation", "observe")
_LANES, _STEPS = 16, 64  # of the trial
_LIMIT_INTERVAL = 16  # steps between the time-outs of a lane
# The steps are tried once: what takes time is to compile them. And the two programs are optimized differently, so that
# numbers that depend on it, on whether a product and a sum are rounded once or twice, are found out.
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def observe_function(env: Any, params: Any, state: Any, obs: Any) -> tuple[Callable[[Any], Any] | None, str]:
    """(function of the environment's that makes an observation like `obs` of a state, "") or (None, why there is none).

    state, obs: shapes. It is one of the methods get_obs, observation or observe that takes a state, and nothing else
    but `params`.
    """
    reasons = []
    for method in _METHODS:
        function = getattr(env, method, None)
        if not callable(function):
            continue
        try:
            arguments = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            continue
        others = arguments[1:]
        required = [x.name for x in others if x.default is x.empty and x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]
        if not arguments or set(required) - {"params"}:
            reasons.append(f"{method} takes more than a state")
            continue
        keywords = {"params": params} if any(x.name == "params" for x in others) else {}

        def observe(state, function=function, keywords=keywords):
            return function(state, **keywords)

        try:
            made = jax.eval_shape(observe, state)
        except Exception as error:  # it may be meant for anything
            reasons.append(f"{method} fails on a state: {type(error).__name__}: {error}")
            continue
        if jax.tree.map(np.shape, made) != jax.tree.map(np.shape, obs):
            reasons.append(f"{method} makes something of another shape")
            continue
        return observe, ""
    return None, "; ".join(reasons) or f"it has none of the methods {', '.join(_METHODS)}"


def is_made_again(
    reset: Callable[[Any], tuple[Any, Any]],
    step: Callable[[Any, Any, Any, Any], tuple[Any, Any]],
    observe: Callable[[Any], Any],
    draw_actions: Callable[[np.random.Generator, tuple[int, ...]], Any],
) -> bool:
    """Whether `observe` makes again what was shown, on some hundred steps from fresh episodes with random actions and
    some at the time limit.

    reset(key) -> (obs, row); step(key, row, action, times_out bool[]) -> (obs, row), which starts a new episode by
    itself, with times_out from a state moved to its last step; observe(row) -> obs: of one environment.
    draw_actions(rng, shape) -> actions with leading axes `shape`.
    """
    rng = np.random.default_rng(0)
    num_words = jax.random.key_data(jax.random.key(0)).size
    words = rng.integers(2**32, size=(_STEPS + 1, _LANES, num_words), dtype=np.uint32)
    actions = draw_actions(rng, (_STEPS, _LANES))
    times_out = (np.arange(_STEPS)[:, None] + np.arange(_LANES) + 1) % _LIMIT_INTERVAL == 0

    def at(t):
        return jax.tree.map(lambda x: x[t], actions)

    def keyed(function):
        return lambda words, *operands: jax.vmap(function)(jax.vmap(jax.random.wrap_key_data)(words), *operands)

    with jax.ensure_compile_time_eval():  # the caller may be traced, the trial is not
        shown, rows = _run_quickly(keyed(reset), words[0])
        observe_all = jax.jit(jax.vmap(observe))
        step_all = _quick(keyed(step), words[1], rows, at(0), times_out[0])
        if not _same(shown, observe_all(rows)):
            return False
        for t in range(_STEPS):
            shown, rows = step_all(words[t + 1], rows, at(t), times_out[t])
            if not _same(shown, observe_all(rows)):
                return False
    return True


def _run_quickly(function: Callable[..., Any], *operands: Any) -> Any:
    return _quick(function, *operands)(*operands)


def _quick(function: Callable[..., Any], *operands: Any) -> Callable[..., Any]:
    """`function`, compiled without optimization where this version of XLA knows how."""
    try:
        return jax.jit(function).lower(*operands).compile(compiler_options=_QUICK)
    except jax.errors.JaxRuntimeError:
        return jax.jit(function)


def _same(first: Any, second: Any) -> bool:
    """Bit equality of two arrays."""
    first, second = np.asarray(first), np.asarray(second)
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()
