"""The time of a call on a device, from many calls inside one program: what Python takes to dispatch does not count."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.bench import timing

MAX_SETS = 8


def operand_sets(first: tuple, rotate_bytes: float) -> list[tuple]:
    """Sets of operands, `first` and ones like it, of together about `rotate_bytes`, at least 2 and at most MAX_SETS: a
    cache that holds no more does not keep an operand from one call to the next."""
    count = min(max(2, -(-int(rotate_bytes) // max(1, num_bytes(first)))), MAX_SETS)

    def rolled(x, by):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return x if is_key or x.ndim == 0 else jnp.roll(x, by, 0)

    return [first, *(jax.tree.map(lambda x, by=by: rolled(x, by), first) for by in range(1, count))]


def chained(run: Callable[..., Any], sets: Sequence[tuple], calls: int, rounds: int) -> Callable[[Any], Any]:
    """A function of the sets: `rounds` times `calls` calls run(*operands), with the sets by turns; its last results.

    A barrier lets no call begin before the one before it has ended, so that XLA neither merges two of them nor takes
    one out of the loop; the results of a call are what the next one waits for, so that none is left out.
    """

    def program(sets):
        def one(results, operands):
            operands, _ = jax.lax.optimization_barrier((operands, results))
            return run(*operands)

        def one_round(_, results):
            for call in range(calls):
                results = one(results, sets[call % len(sets)])
            return results

        shapes = jax.eval_shape(run, *sets[0])
        return jax.lax.fori_loop(0, rounds, one_round, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))

    return program


def seconds_per_call(
    run: Callable[..., Any], sets: Sequence[tuple], calls: int, rounds: int, repeats: int = 5, target: str | None = None
) -> list[float]:
    """Seconds per call in each of `repeats` runs of `rounds` x `calls` calls. target: of the native call that each of
    them must make; RuntimeError if XLA has merged them or taken them out of the loop."""
    compiled = jax.jit(chained(run, sets, calls, rounds)).lower(sets).compile()
    if target is not None:
        found = calls_in_loops(compiled.as_text(), target)
        if found < calls:
            raise RuntimeError(f"{found} calls of {target} are left in the loop, not {calls}: nothing was timed")
    return [t / (calls * rounds) for t in timing.in_a_row(lambda: compiled(sets), 2, repeats)]


def calls_in_loops(text: str, target: str) -> int:
    """How many calls of targets that begin with `target` a compiled program has, outside its entry computation."""
    entry = re.search(r"^ENTRY .*?^}", text, re.MULTILINE | re.DOTALL)
    called = re.compile(rf'custom_call_target="{re.escape(target)}')
    return len(called.findall(text)) - (len(called.findall(entry[0])) if entry else 0)


def num_bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))
