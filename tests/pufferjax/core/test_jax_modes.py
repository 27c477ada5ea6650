"""Training under JAX's strict settings, and what a process may do with it: shard_map, pickling."""

import copy
import pickle

import jax
import numpy as np
import pytest

import pufferjax
from pufferjax import envs

STRICT = {
    "debug_key_reuse": lambda: jax.debug_key_reuse(True),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
}


@pytest.mark.parametrize("mode", STRICT)
@pytest.mark.parametrize("native", [True, False])
def test_training_is_traced_under_strict_settings(mode, native, tiny_env, tiny_config, timed_game):
    """The warm-up, the state set and its walks, on native and JAX environments; with native calls, and their twins
    (both are traced)."""
    with STRICT[mode]():
        env = tiny_env if native else envs.from_gymnax(timed_game(8, lambda action: action), max_episode_steps=8)
        jax.jit(pufferjax.make_train(env, tiny_config())).lower(jax.random.key(0))
        state = env.stagger(jax.random.key(1), env.reset(jax.random.key(0), 4)[1])
        env.step(jax.random.key(2), state, np.zeros(4, np.int32))
        env.random_walk(jax.random.key(3), state, 8, 4, 2)


@pytest.mark.nightly
def test_walks_and_checks_in_64_bits(tiny_env, timed_game):
    with jax.enable_x64(True):
        env = envs.from_gymnax(timed_game(8, lambda action: action), max_episode_steps=8)
        envs.check_env(env, num_envs=2)
        for each in (env, tiny_env):
            outputs = each.random_walk(jax.random.key(0), each.reset(jax.random.key(0), 2)[1], 16, 4, 2)
            assert [str(x.dtype) for x in outputs] == ["uint8", "uint8", "int32", "int32"]


def test_a_run_without_jit_is_refused(tiny_env, tiny_config):
    with jax.disable_jit(), pytest.raises(ValueError, match="jax_disable_jit must be off: a run is made of compiled"):
        pufferjax.train(tiny_env, tiny_config(), devices=1, show=False)


def test_a_training_function_inside_shard_map_with_its_checks(tiny_env, tiny_config):
    mesh = jax.make_mesh((1,), ("seeds",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("seeds")
    run = jax.vmap(pufferjax.make_train(tiny_env, tiny_config()))
    mapped = jax.shard_map(lambda keys: run(keys)[1], mesh=mesh, in_specs=spec, out_specs=spec)
    metrics = jax.eval_shape(mapped, jax.random.split(jax.random.key(0), 2))
    assert metrics["loss"].shape == (2, 8)


def test_an_environment_is_pickled_by_name(tiny_env, timed_game, monkeypatch):
    again = pickle.loads(pickle.dumps(tiny_env))
    assert again.spec == tiny_env.spec and again.params == tiny_env.params
    assert copy.copy(tiny_env) is tiny_env and copy.deepcopy(tiny_env) is tiny_env
    own = envs.from_gymnax(timed_game(8, lambda action: action), max_episode_steps=8, name="own")
    with pytest.raises(TypeError, match=r"own cannot be pickled: .* let envs.register know it"):
        pickle.dumps(own)
    monkeypatch.setattr(envs, "_FACTORIES", dict(envs._FACTORIES))
    envs.register(
        "own", lambda limit=8: envs.from_gymnax(timed_game(8, lambda action: action), max_episode_steps=limit)
    )
    assert pickle.loads(pickle.dumps(envs.make("own", limit=9))).spec.max_episode_steps == 9
