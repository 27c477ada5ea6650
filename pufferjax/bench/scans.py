"""The time of a call on a device, from many calls inside one program: what Python takes to dispatch does not count."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pufferjax.xla_ops import ffi

MAX_SETS = 8
_NEVER = 113  # a number that no op here returns as its first; XLA does not know that


def operand_sets(first: tuple, rotate_bytes: float) -> list[tuple]:
    """Sets of operands, `first` and ones like it, of together about `rotate_bytes`, at least 2 and at most MAX_SETS: a
    cache that holds no more does not keep an operand from one call to the next."""
    count = min(max(2, -(-int(rotate_bytes) // max(1, num_bytes(first)))), MAX_SETS)

    def rolled(x, by):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return x if is_key or x.ndim == 0 else jnp.roll(x, by, 0)

    roll = jax.jit(lambda operands, by: jax.tree.map(lambda x: rolled(x, by), operands))
    return [first, *(roll(first, by) for by in range(1, count))]


@dataclasses.dataclass(frozen=True)
class Calls:
    """A program of many calls of an op: function(operands)."""

    function: Callable[[Any], Any]
    operands: Any
    count: int


def native_calls(run: Callable[..., Any], sets: Sequence[tuple], rounds: int) -> Calls:
    """`rounds` rounds of a call run(*operands) of a native op with each of the sets; the results of the last one.

    Without `kept_calls` XLA would make one of all calls that have equal operands, and take it out of the loop.
    """

    def program(sets):
        def one_round(_, results):
            for operands in sets:
                results = run(*operands)
            return results

        with ffi.kept_calls():
            return jax.lax.fori_loop(0, rounds, one_round, _zeros(run, sets[0]))

    return Calls(program, list(sets), rounds * len(sets))


def plain_calls(run: Callable[..., Any], operands: tuple, count: int) -> Calls:
    """`count` calls run(*operands) of an op in plain JAX; the results of the last one.

    The smallest operand of each call depends on all results of the call before, by a number that is 0 in fact, so that
    XLA neither takes a call out of the loop nor leaves a part of one out.
    """
    leaves = jax.tree.leaves(operands)
    of_floats = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
    smallest = min(of_floats, key=lambda i: leaves[i].size)

    def program(operands):
        def one(_, results):
            seen = sum(jnp.sum(x[(0,) * x.ndim] == _NEVER) for x in jax.tree.leaves(results) if x.size)
            leaves, structure = jax.tree.flatten(operands)
            leaves[smallest] = leaves[smallest] + jnp.asarray(seen, leaves[smallest].dtype)
            return run(*structure.unflatten(leaves))

        return jax.lax.fori_loop(0, count, one, _zeros(run, operands))

    return Calls(program, operands, count)


def compiled(programs: Mapping[str, Calls]) -> dict[str, Any]:
    """The compiled programs. All at the same time: XLA leaves Python's lock while it compiles."""
    lowered = {name: jax.jit(calls.function).lower(calls.operands) for name, calls in programs.items()}
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return dict(zip(lowered, threads.map(lambda program: program.compile(), lowered.values()), strict=True))


def _zeros(run, operands):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run, *operands))


def count_calls(text: str, target: str) -> int:
    """How many calls of targets that begin with `target` the text of a compiled program has."""
    return text.count(f'custom_call_target="{target}')


def num_bytes(tree: Any) -> int:
    """Of arrays, or of shapes and types."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
