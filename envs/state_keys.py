"""Which PRNG keys in the state of a JAX environment are mere randomness, read off the programs of its reset and step.

A state may hold a key for two reasons. As a stream: every step splits it, uses one part and stores the other, and any
other key in its place would do. As an identity: a level, or whatever else is shown or stored, is made from it again and
again, and with another key it would be another level. Only a stream may be drawn anew, so a key counts as one only if
every step stores a new one, made by splitting or folding, from which nothing else that the step returns was made.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import numpy as np

from pufferjax.envs.rows import is_key, leaf_name

_MAKES_KEYS = ("random_split", "random_fold_in", "random_seed")
_TAKES_PARTS = ("slice", "dynamic_slice", "gather", "dynamic_index_in_dim")  # the rest of the keys is elsewhere
_REARRANGES = ("squeeze", "reshape", "broadcast_in_dim", "concatenate", "transpose", "rev", "expand_dims", "copy")
_IS_THE_SAME = ("random_wrap", "random_unwrap", "optimization_barrier", "stop_gradient")
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass(frozen=True)
class _Value:
    """What is known of an intermediate value. Equal expressions have equal numbers."""

    number: int
    same: frozenset[int]  # numbers of the values that it may be or contains
    made_of: frozenset[int]  # numbers of the keys it was computed from, itself included
    is_new: bool  # a key made here by splitting or folding


def stream_keys(
    reset: Callable[[Any], tuple[Any, Any]], step: Callable[[Any, Any], tuple[Any, Any]], state: Any
) -> frozenset[str]:
    """Names of the leaves of `state` whose keys are evidently streams.

    reset(key) -> (anything, state); step(key, state) -> (anything, state): of one environment. state: its shapes.
    """
    paths_and_leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    names = [leaf_name(path) for path, _ in paths_and_leaves]
    candidates = {i for i, (_, leaf) in enumerate(paths_and_leaves) if is_key(leaf.dtype)}
    if not candidates:
        return frozenset()
    key = jax.random.key(0)
    results = []
    for function, operands in ((reset, (key,)), (step, (key, state))):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*operands)
        values = _Reader().read(closed.jaxpr, None)
        first = len(jax.tree.leaves(shapes[0]))
        results.append((values[:first], values[first:]))
    candidates = {i for i in candidates if results[1][1][i].is_new}
    while True:
        seen = [
            frozenset().union(*(x.made_of for x in others + [x for i, x in enumerate(leaves) if i not in candidates]))
            for others, leaves in results
        ]
        left = {
            i for i in candidates if not any(leaves[i].same & s for (_, leaves), s in zip(results, seen, strict=True))
        }
        if left == candidates:
            return frozenset(names[i] for i in left)
        candidates = left


class _Reader:
    """Reads a program once, from its operands to its results."""

    def __init__(self):
        self._numbers: dict[Any, int] = {}
        self._fresh = itertools.count(-1, -1)  # of what is like nothing else

    def read(self, jaxpr: Any, operands: list[_Value] | None) -> list[_Value]:
        """The values of its results; operands: None if they are the program's own."""
        known: dict[Any, _Value] = {}
        if operands is None:
            operands = [self._value(next(self._fresh), var.aval) for var in jaxpr.invars]
        for var, value in zip(jaxpr.invars, operands, strict=True):
            known[var] = value
        for var in jaxpr.constvars:
            known[var] = self._value(next(self._fresh), var.aval)

        def value_of(atom):
            if isinstance(atom, jax.extend.core.Literal):
                return self._value(self._number("literal", str(atom.aval), str(atom.val)), atom.aval)
            return known[atom]

        for eqn in jaxpr.eqns:
            for var, value in zip(eqn.outvars, self._apply(eqn, [value_of(x) for x in eqn.invars]), strict=True):
                known[var] = value
        return [value_of(x) for x in jaxpr.outvars]

    def _apply(self, eqn: Any, operands: list[_Value]) -> list[_Value]:
        name, avals = eqn.primitive.name, [var.aval for var in eqn.outvars]
        if name == "cond":
            branches = [self.read(branch.jaxpr, operands[1:]) for branch in eqn.params["branches"]]
            return [self._either(operands[0], list(cases)) for cases in zip(*branches, strict=True)]
        if name == "select_n":
            return [self._either(operands[0], operands[1:])]
        if name in _IS_THE_SAME and len(operands) == len(avals):
            # The words of a key stand for it; a key made of other numbers is one from here on.
            return [self._value(x.number, aval, [x], x.same, x.is_new) for x, aval in zip(operands, avals, strict=True)]
        inner = next((eqn.params[p] for p in _CALLS if p in eqn.params), None)
        inner = getattr(inner, "jaxpr", inner)
        if name not in ("scan", "while") and inner is not None and len(inner.invars) == len(operands):
            return self.read(inner, operands)
        if list(jax.extend.core.jaxprs_in_params(eqn.params)):  # a loop: what goes on in it is not followed
            return [self._value(next(self._fresh), aval, operands) for aval in avals]
        params = str(sorted((k, str(v)) for k, v in eqn.params.items()))
        number = self._number(name, params, *(x.number for x in operands))
        keys = [x for x in operands if x.made_of]
        is_new = name in _MAKES_KEYS
        is_new |= name in (*_TAKES_PARTS, *_REARRANGES) and bool(keys) and all(x.is_new for x in keys)
        contained = frozenset().union(*(x.same for x in operands)) if name in _REARRANGES else frozenset()
        return [
            self._value(number if i == 0 else self._number(number, i), aval, operands, contained, is_new)
            for i, aval in enumerate(avals)
        ]

    def _either(self, which: _Value, cases: list[_Value]) -> _Value:
        """One of the `cases`."""
        return _Value(
            self._number("either", which.number, *(x.number for x in cases)),
            frozenset().union(*(x.same for x in cases)),
            frozenset().union(which.made_of, *(x.made_of for x in cases)),
            all(x.is_new for x in cases),
        )

    def _value(self, number, aval, operands=(), contained=frozenset(), is_new=False) -> _Value:
        made_of = frozenset().union(*(x.made_of for x in operands))
        if is_key(getattr(aval, "dtype", np.float32)):
            made_of |= {number}
        return _Value(number, contained | {number}, made_of, is_new)

    def _number(self, *expression: Any) -> int:
        return self._numbers.setdefault(expression, len(self._numbers))
