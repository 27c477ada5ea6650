"""Every native op at every level of vector instructions that this machine has, against its twin."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs, xla_ops
from pufferjax.xla_ops import ffi

HIGHEST = ffi.instruction_set()
LEVELS = ffi.INSTRUCTION_SETS[: ffi.INSTRUCTION_SETS.index(HIGHEST) + 1] if HIGHEST else ()

pytestmark = pytest.mark.skipif(HIGHEST is None, reason="needs the native CPU module")


def normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape, np.float32))


def mingru(rng, t, b, h, impl):
    flags = jnp.asarray(rng.random((t, b)) < 0.2)

    def run(x, kernel, h0):
        results, pull = jax.vjp(lambda *a: xla_ops.mingru_layer(*a, flags, impl=impl), x, kernel, h0)
        return results, pull(results)

    return run, (normal(rng, t, b, h), normal(rng, h, 3 * h) / h**0.5, normal(rng, b, h))


def recurrence(rng, t, b, h, impl):
    flags = jnp.asarray(rng.random((t, b)) < 0.2)

    def run(a, x, h0):
        results, pull = jax.vjp(lambda *operands: xla_ops.linear_recurrence(*operands, flags, impl=impl), a, x, h0)
        return results, pull(results)

    return run, (jnp.asarray(rng.random((t, b, h), np.float32)), normal(rng, t, b, h), normal(rng, b, h))


def one_hot(rng, rows, cells, hidden, impl):
    codes = jnp.asarray(rng.integers(0, 4, (rows, cells)), jnp.uint8)

    def run(weight, bias):
        y, pull = jax.vjp(lambda *a: xla_ops.one_hot_linear(codes, *a, impl=impl), weight, bias)
        return y, pull(jnp.sin(y))

    return run, (normal(rng, cells, 3, hidden), normal(rng, hidden))


def entities(rng, rows, count, hidden, impl):
    def run(x, w1, b1, w2, b2):
        y, pull = jax.vjp(lambda *a: xla_ops.entity_encoder(*a, impl=impl), x, w1, b1, w2, b2)
        return y, pull(jnp.sin(y))

    return run, (
        normal(rng, rows, count, 5),
        normal(rng, 5, 16),
        normal(rng, 16),
        normal(rng, 16, hidden),
        normal(rng, hidden),
    )


# Whole vectors of every level, none, one unit more than one of them, and rows that fill no tile.
SIZES = [
    (mingru, (3, 5, 1)),
    (mingru, (2, 7, 17)),
    (mingru, (5, 3, 31)),
    (mingru, (4, 66, 64)),
    (mingru, (1, 9, 72)),
    (mingru, (2, 33, 130)),
    (recurrence, (4, 3, 17)),
    (one_hot, (3, 1, 1)),
    (one_hot, (7, 19, 33)),
    (one_hot, (5, 121, 64)),
    (entities, (3, 1, 1)),
    (entities, (5, 11, 35)),
    (entities, (2, 130, 64)),
]


@pytest.fixture
def at_level():
    yield ffi.limit_instruction_set
    ffi.limit_instruction_set(HIGHEST)


@pytest.mark.parametrize(("op", "size"), SIZES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_ops_agree_with_their_twins_at_every_level(op, size, at_level):
    native, operands = op(np.random.default_rng(1), *size, "native")
    reference, _ = op(np.random.default_rng(1), *size, "reference")
    expected = jax.jit(reference)(*operands)
    compiled = jax.jit(native)
    for level in LEVELS:
        at_level(level)
        for got, want in zip(jax.tree.leaves(compiled(*operands)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4, err_msg=level)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0, 2.5])
@pytest.mark.parametrize("size", [1, 13, 1000, 70_000])
def test_draws_have_the_same_bits_at_every_level(size, alpha, at_level):
    priorities = np.random.default_rng(2).random(size, np.float32) ** 8
    priorities[: size // 3] = np.resize(np.float32([0, -1, np.nan, np.inf, 1e-40, 3e-45, 1e-30, 3e38]), size // 3)
    draw = jax.jit(lambda p: xla_ops.prioritized_sample(jax.random.key(3), p, 257, alpha, 0.5, impl="native"))
    results = []
    for level in LEVELS:
        at_level(level)
        results.append([np.asarray(x).tobytes() for x in draw(priorities)])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("name", ["maze", "breakout"])  # those with code of their own for a level
def test_simulators_have_the_same_bits_at_every_level(name, at_level):
    env = envs.make(name)

    def play(key):
        def step(rows, key):
            actions = jax.random.randint(key, (64,), 0, env.spec.num_actions[0])
            results = env.step(key, rows, actions)
            return results[1], results

        observations, first = env.reset(key, 64)
        return jax.lax.scan(step, first, jax.random.split(key, 50)), observations

    compiled = jax.jit(play)
    results = []
    for level in LEVELS:
        at_level(level)
        results.append([np.asarray(x).tobytes() for x in jax.tree.leaves(compiled(jax.random.key(4)))])
    assert all(result == results[0] for result in results)


def test_the_environment_variable_caps_the_level():
    code = "from pufferjax.xla_ops import ffi; print(ffi.instruction_set())"

    def run(level):
        environment = os.environ | {ffi.MAX_ISA: level}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)

    assert run("baseline").stdout.strip() == "baseline"
    assert run("avx512").stdout.strip() == HIGHEST
    refused = run("sse")
    assert refused.returncode != 0
    assert "PUFFERJAX_MAX_ISA must be one of baseline, avx2, avx512, got 'sse'" in refused.stderr


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ValueError, match="level must be one of baseline, avx2, avx512, got 'neon'"):
        ffi.limit_instruction_set("neon")


def test_the_peak_is_that_of_a_machine():
    speed = ffi.multiply_add_speed(1, seconds=0.02)
    assert 1e8 < speed < 1e12  # of one core: no processor is outside
