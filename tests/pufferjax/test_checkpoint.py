"""pufferjax.checkpoint: the whole TrainState, there and back."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import run
from pufferjax.checkpoint import CheckpointError, checkpoint_steps, load_checkpoint, save_checkpoint


def plain(tree):
    is_key = jax.dtypes.prng_key
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, is_key) else x), tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), a) == jax.tree.map(lambda x: (x.shape, x.dtype), b)


def test_the_whole_train_state_returns(tiny_run, tiny_env, tiny_config):
    config, env, policy, train_state = run.load_run(tiny_run.run_dir)
    assert_same(train_state, tiny_run.train_state)
    assert int(train_state.epoch) == 8
    assert config.train == tiny_config() and env.params == tiny_env.params
    assert policy.spec == env.spec


def test_a_loaded_state_trains_on(tiny_run, tiny_env, tiny_config):
    *_, train_state = run.load_run(tiny_run.run_dir)
    config = tiny_config()
    update = jax.jit(pufferjax.make_update(tiny_env, config), donate_argnums=0)
    hypers = config.hypers()
    continued, metrics = update(jax.tree.map(jnp.copy, tiny_run.train_state), hypers, jnp.float32(0.5))
    resumed, resumed_metrics = update(train_state, hypers, jnp.float32(0.5))
    assert_same(continued, resumed)
    assert_same(metrics, resumed_metrics)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_and_every_dtype(tmp_path, impl):
    tree = {
        "key": jax.random.key(5, impl=impl),
        "bytes": jnp.arange(256, dtype=jnp.uint8),
        "flag": jnp.bool_(True),
        "count": jnp.int32(-7),
        "float": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-40], jnp.float32),
    }
    save_checkpoint(tmp_path, 12, tree)
    loaded = load_checkpoint(tmp_path, tree)
    assert_same(loaded, tree)
    np.testing.assert_array_equal(jax.random.bits(loaded["key"], (3,)), jax.random.bits(tree["key"], (3,)))


def test_the_latest_step_is_loaded_and_unfinished_folders_are_not(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, {"x": jnp.float32(step)})
    (tmp_path / "checkpoints" / "200.orbax-checkpoint-tmp").mkdir()
    assert checkpoint_steps(tmp_path) == [9, 10, 100]
    assert float(load_checkpoint(tmp_path, {"x": jnp.float32(0)})["x"]) == 100
    assert float(load_checkpoint(tmp_path, {"x": jnp.float32(0)}, step=10)["x"]) == 10
    with pytest.raises(CheckpointError, match="no checkpoint of step 11; there are 9, 10, 100"):
        load_checkpoint(tmp_path, {"x": jnp.float32(0)}, step=11)


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load_checkpoint(tmp_path, {"x": jnp.float32(0)})


@pytest.mark.parametrize("damage", ["truncate", "remove", "empty"])
def test_damaged_checkpoint_is_one_clear_error(tmp_path, tiny_run, damage):
    run_dir = tmp_path / "run"
    shutil.copytree(tiny_run.run_dir, run_dir)
    folder = run_dir / "checkpoints" / "2048"
    files = [path for path in folder.rglob("*") if path.is_file() and "sharding" not in path.name]
    data = max(files, key=lambda path: path.stat().st_size)
    if damage == "truncate":
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    elif damage == "remove":
        data.unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(CheckpointError, match=r"2048 is damaged or of another run"):
        run.load_run(run_dir)


def test_checkpoint_of_another_shape(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": jnp.zeros(3)})
    for like in ({"x": jnp.zeros(4)}, {"y": jnp.zeros(3)}):
        with pytest.raises(CheckpointError, match="damaged or of another run"):
            load_checkpoint(tmp_path, like)
