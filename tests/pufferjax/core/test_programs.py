"""What is compiled once per process, and what must not be shared."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import pufferjax
from pufferjax import envs
from pufferjax.core.epochs import OneProgram
from pufferjax.core.policy import init_params, make_policy
from pufferjax.core.programs import Program, compiler_options, functions_of, remembered


@pytest.fixture
def compilations():
    """A list that grows by one for every program compiled or loaded from the cache."""
    seen = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_training_twice_compiles_once(tiny_config, compilations):
    def train(seed, **changes):
        env = envs.make("maze", size=5, num_mazes=64)
        return pufferjax.train(
            env, tiny_config(**changes), seed=seed, eval_episodes=20, devices=1, show=False
        ).metrics  # fmt: skip

    def figures(metrics):
        return [{k: v for k, v in m.items() if k not in ("wall_seconds", "steps_per_second")} for m in metrics]

    first = train(1)
    compilations.clear()
    other, again = train(2), train(1)
    assert not compilations
    assert figures(again) == figures(first) != figures(other)
    train(1, horizon=32)
    assert compilations


def test_a_start_compiles_each_of_its_programs_once(tiny_env, tiny_config):
    """What is compiled ahead, from shapes, is what is then called."""
    epochs, hypers = OneProgram(tiny_env, tiny_config(), jax.devices()[:1]), tiny_config().hypers()
    epochs.begin(epochs.warmup(epochs.init(jax.random.key(0)), hypers), hypers)
    epochs.advance(jnp.float32(0))()
    programs = [x for x in vars(epochs).values() if isinstance(x, Program)]
    assert [len(x._compiled) for x in programs] == [1, 1, 1, 1]


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert compiler_options("cpu")["xla_backend_optimization_level"] == 1
    assert compiler_options("cuda") == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2 --xla_cpu_use_fusion_emitters=true")
    assert compiler_options("cpu") == {}


def test_evaluating_twice_compiles_once(tiny_env, compilations):
    policy = make_policy(tiny_env.spec, pufferjax.PolicyConfig(hidden_size=8, num_layers=1))
    params = init_params(policy, jax.random.key(0))

    def evaluate(**options):
        env = pufferjax.unseen(envs.make("maze", size=5, num_mazes=64))
        figures = pufferjax.evaluate(env, policy, params, jax.random.key(1), 20, **options)
        return {name: x for name, x in figures.items() if name != "seconds"}

    first = evaluate()
    compilations.clear()
    assert evaluate() == first and not compilations
    assert evaluate(greedy=True) != first and compilations


def test_only_environments_that_compute_the_same_are_equal():
    make = envs.make
    env = make("maze", size=5, num_mazes=64)
    assert functions_of(env) == functions_of(make("maze", size=5, num_mazes=64))
    assert functions_of(env) != functions_of(make("maze", size=5, num_mazes=64, seed=1))
    other = dataclasses.replace(env, step=lambda *args: env.step(*args))
    assert functions_of(env) != functions_of(other) != functions_of(dataclasses.replace(other, step=lambda *a: None))


def test_little_is_kept():
    made = [remembered("test", number % 5, object, most=3) for number in (0, 1, 0, 2, 3, 0, 1)]
    assert made[0] is made[2] is made[5] and made[1] is not made[6]
    assert remembered("test", [], object, most=3) is not remembered("test", [], object, most=3)
