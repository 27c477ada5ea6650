"""Thousands of generated bad calls of every public function: each must raise TypeError or ValueError by name.

Every argument has a kind; a kind knows how to spoil a good value. Nothing is run: refusal comes before tracing.
"""

import dataclasses
import inspect
import os
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import StateSet, envs, xla_ops

ROUNDS = 20 if os.environ.get("PUFFERJAX_NIGHTLY") == "1" else 1
SPOILED_PER_ARGUMENT = 16

T, N, H = 4, 3, 2
ENV = envs.make("maze", size=5, num_mazes=4)
KEY = jax.random.key(0)
S = ENV.spec.state_bytes
_, STATE = ENV.reset(KEY, N)
SET = StateSet.create(4, S).insert(STATE, jnp.arange(1.0, N + 1))
NAN, INF = float("nan"), float("inf")
DTYPES = [np.dtype(x) for x in ("float32", "int32", "uint8", "bool", "uint32", "int8", "complex64", "float16")]
NEITHER = [None, "text", b"bytes", object(), {}, {"a": 1}, {1.0}, len, ..., NotImplemented, complex(1, 2)]


# --- kinds: spoil(rng) gives a value that no such argument may have ---------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Array:
    good: typing.Any
    optional: bool = False
    free: tuple[int, ...] = ()  # axes of any size
    any_rank: bool = False

    def spoil(self, rng):
        good = jnp.asarray(self.good)
        shape, dtype = list(good.shape), good.dtype
        choice = rng.integers(6)
        if choice == 0:  # another dtype
            return jnp.zeros(shape, rng.choice([x for x in DTYPES if x != dtype]))
        if choice == 1 and len(self.free) < len(shape):  # another size
            shape[rng.choice([i for i in range(len(shape)) if i not in self.free])] += int(rng.choice([1, 2, 7]))
            return jnp.zeros(shape, dtype)
        if choice == 2 and not self.any_rank:
            return jnp.zeros([1, *shape] if rng.random() < 0.5 else shape[1:], dtype)
        if choice == 3:
            return [x for x in NEITHER if not (self.optional and x is None)][rng.integers(len(NEITHER) - self.optional)]
        if choice == 4:  # what NumPy calls an array
            return [np.array(["a"] * 3), np.array([None, {}]), np.array([[1], [1, 2]], object),
                    jax.random.split(KEY, 2), [[1.0], [1.0, 2.0]], [[["x"]]]][rng.integers(6)]  # fmt: skip
        return jax.ShapeDtypeStruct(good.shape, jnp.complex64)


@dataclasses.dataclass(frozen=True)
class Scalar:
    good: float
    low: float = -INF
    high: float = INF
    infinite: bool = False  # whether infinity is good

    def spoil(self, rng):
        values = [] if self.infinite else [INF, jnp.float32(INF)]
        values += [NAN, -INF, np.float32(NAN), jnp.float32(NAN), "0.5", b"0.5", [], [0.5],
                  (0.5, 0.5), jnp.zeros(2), np.zeros((1, 1)), 10**400, 1e39, jnp.complex64(1j), KEY,
                  *NEITHER]  # fmt: skip
        values += [self.low - 1, self.low - 1e-3, jnp.float32(self.low - 1)] if np.isfinite(self.low) else []
        values += [self.high + 1, self.high + 1e-3, jnp.float32(self.high + 1)] if np.isfinite(self.high) else []
        return values[rng.integers(len(values))]


@dataclasses.dataclass(frozen=True)
class Index:
    """An integer that may be traced; None is its default."""

    good: int
    low: int
    high: int

    def spoil(self, rng):
        values = [self.low - 1, -5, self.high + 1, 2**40, -(2**70), 10**400, 1.5, 1.0, NAN, INF, True, "1", [1], (),
                  jnp.float32(1), jnp.zeros(2, jnp.int32), np.zeros(1, int), np.bool_(True), KEY,
                  *(x for x in NEITHER if x is not None)]  # fmt: skip
        return values[rng.integers(len(values))]


@dataclasses.dataclass(frozen=True)
class Count:
    """A static integer."""

    good: int
    low: int
    high: int = 2**31 - 1

    def spoil(self, rng):
        values = [self.low - 1, self.low - 100, self.high + 1, 2**70, -(2**70), 10**400, 1.5, 2.0, NAN, INF, True, "3",
                  [3], (3,), jnp.float32(3), jnp.zeros(2, jnp.int32), np.float64(3), np.bool_(True), KEY,
                  *NEITHER]  # fmt: skip
        return values[rng.integers(len(values))]


@dataclasses.dataclass(frozen=True)
class Key:
    good: typing.Any = dataclasses.field(default_factory=lambda: KEY)

    def spoil(self, rng):
        values = [0, 42, 1.5, [0, 0], (1, 2), jnp.zeros(2), jnp.zeros(3, jnp.uint32), jnp.zeros((2, 2), jnp.uint32),
                  jnp.uint32(1), jax.random.split(KEY, 3), np.zeros(2, int), jax.random.key, *NEITHER]  # fmt: skip
        return values[rng.integers(len(values))]


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few texts."""

    good: typing.Any
    optional: bool = False

    def spoil(self, rng):
        values = ["", "cuda", "NATIVE", "native ", "MAZE", 1, 0, True, 1.5, NAN, [], ["native"], ("adam",), b"native",
                  np.array(["muon", "adam"]), jnp.zeros(2),
                  *(x for x in NEITHER if not (x is None and self.optional))]  # fmt: skip
        return values[rng.integers(len(values))]


@dataclasses.dataclass(frozen=True)
class Bool:
    good: bool

    def spoil(self, rng):
        values = [0, 1, 0.0, "True", [], NAN, np.array([True]), jnp.bool_(True), *NEITHER]
        return values[rng.integers(len(values))]


@dataclasses.dataclass(frozen=True)
class PlainFloat:
    """A number in a configuration: static, finite, an f32."""

    good: float
    low: float = 0
    high: float = INF

    def spoil(self, rng):
        values = [self.low - 1, self.low - 1e-3, -INF, INF, NAN, 1e39, 10**400, "0.5", [], [0.5], True, False,
                  jnp.float32(0.5), np.array([0.5]), *NEITHER]  # fmt: skip
        values += [self.high + 1, self.high + 1e-3] if np.isfinite(self.high) else []
        return values[rng.integers(len(values))]


IMPL = Choice(None, optional=True)
floats = jnp.zeros
ANY_STATES = Array(STATE, free=(0,))
_heap = {
    "priorities": Array(SET.priorities),
    "heap": Array(SET.heap),
    "heap_position": Array(SET.heap_position),
    "size": Index(N, 0, 4),
}
_scored = {"scores": Array(floats(N)), "mask": Array(jnp.ones(N, bool), optional=True)}
_slots = Array(jnp.zeros(N, jnp.int32))

CALLS = {
    "xla_ops.prioritized_sample": (xla_ops.prioritized_sample, {
        "key": Key(), "priorities": Array(jnp.ones(5), free=(0,)), "num_samples": Count(3, 0), "alpha": Scalar(1.0, 0),
        "beta": Scalar(0.5, 0), "size": Index(5, 0, 5), "impl": IMPL}),
    "xla_ops.linear_recurrence": (xla_ops.linear_recurrence, {
        "a": Array(floats((T, N, H))), "b": Array(floats((T, N, H))), "h0": Array(floats((N, H))),
        "reset": Array(jnp.zeros((T, N), bool), optional=True), "impl": IMPL}),
    "xla_ops.mingru_layer": (xla_ops.mingru_layer, {
        "x": Array(floats((T, N, H)), free=(0,)), "kernel": Array(floats((H, 3 * H))), "h0": Array(floats((N, H))),
        "reset": Array(jnp.zeros((T, N), bool), optional=True), "precision": IMPL, "impl": IMPL}),
    "xla_ops.one_hot_linear": (xla_ops.one_hot_linear, {
        "x": Array(jnp.zeros((N, 4), jnp.uint8), free=(0,), any_rank=True),
        "weight": Array(floats((4, 3, H)), free=(1,)), "bias": Array(floats(H)), "impl": IMPL}),
    "xla_ops.linear_max": (xla_ops.linear_max, {
        "x": Array(floats((N, 5, 4))), "weight": Array(floats((4, H))), "bias": Array(floats(H)),
        "mask": Array(jnp.ones((N, 5), bool), optional=True), "precision": IMPL, "impl": IMPL}),
    "xla_ops.entity_encoder": (xla_ops.entity_encoder, {
        "x": Array(floats((N, 5, 4))), "w1": Array(floats((4, 6))), "b1": Array(floats(6)),
        "w2": Array(floats((6, H))), "b2": Array(floats(H)), "mask": Array(jnp.ones((N, 5), bool), optional=True),
        "precision": IMPL, "impl": IMPL}),
    "xla_ops.gae_vtrace": (xla_ops.gae_vtrace, {
        "rewards": Array(floats((T, N))), "values": Array(floats((T, N))), "bootstrap_value": Array(floats(N)),
        "terminated": Array(jnp.zeros((T, N), bool)), "ratios": Array(floats((T, N))), "gamma": Scalar(0.9, 0, 1),
        "gae_lambda": Scalar(0.9, 0, 1), "rho_clip": Scalar(1.0, 0, infinite=True),
        "c_clip": Scalar(1.0, 0, infinite=True), "impl": IMPL}),
    "xla_ops.state_heap_rescore": (xla_ops.state_heap_rescore, {
        **_heap, "slots": _slots, "decay": Scalar(0.5, 0, 1), **_scored, "impl": IMPL}),
    "xla_ops.state_heap_insert": (xla_ops.state_heap_insert, {
        "snapshots": Array(SET.snapshots), **_heap, "rows": Array(STATE), **_scored, "impl": IMPL}),
    "envs.make": (envs.make, {
        "name": Choice("maze"), "size": Count(5, 5, 127), "num_mazes": Count(4, 0, 2**20),
        "seed": Count(0, 0, 2**63 - 1), "vision": Count(5, 3, 31)}),
    "env.reset": (ENV.reset, {"key": Key(), "num_envs": Count(3, 1)}),
    "env.step": (ENV.step, {"key": Key(), "state": Array(STATE), "action": Array(jnp.zeros(N, jnp.int32))}),
    "env.observe": (ENV.observe, {"state": ANY_STATES}),
    "env.snapshot": (ENV.snapshot, {"state": ANY_STATES}),
    "env.restore": (ENV.restore, {
        "state": ANY_STATES, "rows": Array(STATE[:2]), "env_ids": Array(jnp.zeros(2, jnp.int32))}),
    "env.stagger": (ENV.stagger, {"key": Key(), "state": ANY_STATES}),
    "env.random_walk": (ENV.random_walk, {
        "key": Key(), "state": ANY_STATES, "num_steps": Count(8, 1), "interval": Count(2, 1),
        "num_snapshots": Count(2, 1)}),
    "env.render": (ENV.render, {"row": Array(STATE[0])}),
    "StateSet.create": (StateSet.create, {"capacity": Count(4, 1), "state_bytes": Count(4, 1)}),
    "StateSet.sample": (SET.sample, {
        "key": Key(), "num_samples": Count(2, 0), "alpha": Scalar(1.0, 0), "beta": Scalar(0.0, 0)}),
    "StateSet.rescore": (SET.rescore, {"slots": _slots, "decay": Scalar(0.5, 0, 1), **_scored}),
    "StateSet.insert": (SET.insert, {"rows": Array(STATE), **_scored}),
}  # fmt: skip

SECTIONS = {"policy": pufferjax.PolicyConfig, "ppo": pufferjax.PPOConfig, "state_set": pufferjax.StateSetConfig}
UNIT = {"min_learning_rate_ratio", "anneal_start", "min_entropy_ratio", "gamma", "gae_lambda", "momentum", "fraction",
        "decay"}  # fmt: skip
SIGNED = {"initial_log_std": (-10, 5)}
LEAST = {
    "walk_steps": 0,
    "num_layers": 0,
    "encoder_layers": 0,
    "warmup_rewards": 0,
    "warmup_max_steps": 0,
    "base_width": 0,
}


def config_cases():
    """(name, function, argument as the message has it, keyword, kind), from the fields themselves."""
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            yield f"{kind.__name__}.{field.name}", kind, f"{section}.{field.name}", field.name, kind_of(field)
    for field in dataclasses.fields(pufferjax.TrainConfig):
        spoiler = Choice(None) if field.name in SECTIONS else kind_of(field)
        yield f"TrainConfig.{field.name}", pufferjax.TrainConfig, field.name, field.name, spoiler
    for name in pufferjax.Hypers._fields:

        def traced(**value):
            train = pufferjax.make_train(ENV, TINY_CONFIG)
            jax.eval_shape(lambda key: train(key, TINY_CONFIG.hypers()._replace(**value)), KEY)

        yield f"Hypers.{name}", traced, f"hypers.{name}", name, HyperScalar(0.5)


@dataclasses.dataclass(frozen=True)
class HyperScalar:
    good: float

    def spoil(self, rng):
        values = [NAN, INF, jnp.float32(NAN), "0.5", [], [0.5], jnp.zeros(2), np.zeros((1, 1)), jnp.complex64(1j), KEY,
                  *NEITHER]  # fmt: skip
        return values[rng.integers(len(values))]


TINY_CONFIG = pufferjax.TrainConfig(
    total_steps=64, num_envs=4, horizon=16, ppo=pufferjax.PPOConfig(minibatch_size=16),
    state_set=pufferjax.StateSetConfig(fraction=0.5),
)  # fmt: skip


def kind_of(field):
    if typing.get_origin(field.type) is typing.Literal:
        return Choice(field.default)
    if field.type is bool:
        return Bool(field.default)
    if field.type is int:
        high = 2**63 - 1 if field.name in ("total_steps", "warmup_max_steps", "max_bytes") else 2**31 - 1
        return Count(field.default, LEAST.get(field.name, 1), high)
    low, high = SIGNED.get(field.name, (0, 1 if field.name in UNIT else INF))
    return PlainFloat(field.default, low, high)


CASES = [
    (f"{name}({argument})", function, argument, argument, kind)
    for name, (function, kinds) in CALLS.items()
    for argument, kind in kinds.items()
] + list(config_cases())


def check(function, arguments, named, value):
    """None, or what is wrong with how the call was refused."""
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        names = [named.split(".")[-1]]
        if hasattr(value, "shape"):  # two arrays that do not fit each other: either may be named
            names += [name for name, x in arguments.items() if hasattr(x, "shape")]
        ok = any(re.search(rf"\b{name}\b", str(error)) for name in names)
        return None if ok else f"does not name {names[0]}: {error!s:.200}"
    except Exception as error:
        return f"{type(error).__name__}: {error!s:.200}"
    return "was accepted"


def spoiled(case, rng):
    """A keyword dict of good values but for one."""
    name, _, _, keyword, kind = case
    call = CALLS.get(name.split("(")[0])
    good = {argument: x.good for argument, x in call[1].items()} if call else {}
    return good | {keyword: kind.spoil(rng)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_bad_calls_are_refused_by_name(case):
    name, function, named, keyword, _ = case
    wrong = []
    for seed in range(SPOILED_PER_ARGUMENT * ROUNDS):
        arguments = spoiled(case, np.random.default_rng([seed, *name.encode()]))
        complaint = check(function, arguments, named, arguments[keyword])
        if complaint:
            wrong.append(f"{keyword}={arguments[keyword]!r:.80}: {complaint}")
    assert not wrong, f"{name}\n" + "\n".join(sorted(set(wrong)))


def test_good_calls_are_accepted():
    for name, (function, kinds) in CALLS.items():
        assert function(**{argument: kind.good for argument, kind in kinds.items()}) is not None, name


def test_there_are_enough_and_nothing_public_is_left_out():
    assert len(CASES) * SPOILED_PER_ARGUMENT >= 2000
    public = {name for name in xla_ops.__all__ if name != "backends"}
    for name in public:
        assert set(inspect.signature(getattr(xla_ops, name)).parameters) == set(CALLS[f"xla_ops.{name}"][1]), name
    for name in ("create", "sample", "rescore", "insert"):
        parameters = set(inspect.signature(getattr(StateSet, name)).parameters) - {"self"}
        assert parameters == set(CALLS[f"StateSet.{name}"][1]), name
