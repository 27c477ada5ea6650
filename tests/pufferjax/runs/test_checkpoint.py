"""pufferjax.checkpoint: the whole TrainState, there and back."""

import dataclasses
import os
import re
import resource
import shutil
import subprocess
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import pufferjax
from pufferjax.core.policy import ActorCritic
from pufferjax.runs import arrays, checkpoint
from pufferjax.runs.checkpoint import (
    CheckpointError,
    checkpoint_steps,
    clean_up,
    delete_old,
    load_checkpoint,
    save_checkpoint,
)
from pufferjax.runs.load import load_run


def plain(tree):
    is_key = jax.dtypes.prng_key
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, is_key) else x), tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), a) == jax.tree.map(lambda x: (x.shape, x.dtype), b)


def test_the_whole_train_state_returns(tiny_run, tiny_env, tiny_config):
    config, env, policy, train_state = load_run(tiny_run.run_dir)
    assert_same(train_state, tiny_run.train_state)
    assert int(train_state.epoch) == 8
    assert config.train == tiny_config() and env.params == tiny_env.params
    assert policy.spec == env.spec


class Undecided(ActorCritic):
    """The parameters of the usual policy, and other actions."""

    def __call__(self, *arguments):
        logits, *rest = super().__call__(*arguments)
        return tuple(0 * x for x in logits), *rest


def test_a_policy_and_an_environment_of_ones_own(tmp_path, tiny_env, tiny_config, capsys):
    env = dataclasses.replace(tiny_env, spec=dataclasses.replace(tiny_env.spec, name="mine"))
    policy, config = Undecided(env.spec, tiny_config().policy), tiny_config()
    options = {"run_dir": tmp_path / "run", "eval_episodes": 0, "devices": 1}
    trained = pufferjax.train(env, config, policy=policy, **options)
    assert "load it with: pufferjax.load_run(run_dir, env=..., policy=...)" in capsys.readouterr().out
    _, our_env, our_policy, train_state = load_run(tmp_path / "run", env=env, policy=policy)
    assert our_env is env and our_policy is policy
    assert_same(train_state, trained.train_state)

    for arguments, text in (
        ({}, "name must be one of"),
        ({"env": env}, "was trained with a policy of its own, Undecided: load it with"),
        (
            {"env": env, "policy": ActorCritic(env.spec, config.policy)},
            "policy_class was 'Undecided' there and is 'ActorC",
        ),
        ({"env": tiny_env, "policy": policy}, "environment was 'mine' there and is 'maze'"),
    ):
        with pytest.raises(ValueError, match=text):
            load_run(tmp_path / "run", **arguments)
    with pytest.raises(ValueError, match="started with policy_class Undecided; resumed it cannot have ActorCritic"):
        pufferjax.train(env, config, resume=True, **options)


def test_a_loaded_state_trains_on(tiny_run, tiny_env, tiny_config):
    *_, train_state = load_run(tiny_run.run_dir)
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
        "empty": jnp.zeros((0, 5, 3)),  # the memory of a policy without recurrent layers
        "float": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-40], jnp.float32),
    }
    save_checkpoint(tmp_path, 12, tree)
    loaded = load_checkpoint(tmp_path, tree).train_state
    assert_same(loaded, tree)
    np.testing.assert_array_equal(jax.random.bits(loaded["key"], (3,)), jax.random.bits(tree["key"], (3,)))


def scalar(x):
    return {"x": jnp.float32(x)}


def test_the_latest_step_is_loaded_and_unfinished_folders_are_not(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, scalar(step), {"epoch": step})
    (tmp_path / "checkpoints" / "200.partial").mkdir()
    assert checkpoint_steps(tmp_path) == [9, 10, 100]
    latest = load_checkpoint(tmp_path, scalar(0))
    assert float(latest.train_state["x"]) == 100 and latest.step == 100 and latest.progress == {"epoch": 100}
    assert float(load_checkpoint(tmp_path, scalar(0), step=10).train_state["x"]) == 10
    with pytest.raises(CheckpointError, match="no checkpoint of step 11; there are 9, 10, 100"):
        load_checkpoint(tmp_path, scalar(0), step=11)


PATTERNS = ["lr=[0.1,0.2]", "[!a]", "a*b?", "back\\slash", "gs:", "~", "\udcff", "two\nlines", "\u00e9 {x,y} %41 #"]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("tmpdir", ["plain", "[tmp]"])
def test_any_name_of_a_folder_above(tmp_path, monkeypatch, name, tmpdir):
    (tmp_path / tmpdir).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / tmpdir))
    tree = {"x": jnp.arange(9), "key": jax.random.key(1)}
    run_dir = tmp_path / name / "run"
    save_checkpoint(run_dir, 1, tree)
    assert_same(load_checkpoint(run_dir, tree).train_state, tree)
    shutil.move(run_dir, tmp_path / "moved")
    assert_same(load_checkpoint(tmp_path / "moved", tree).train_state, tree)
    assert sorted(os.listdir(tmp_path)) == sorted({name, "moved", tmpdir})
    assert not os.listdir(tmp_path / name) and not os.listdir(tmp_path / tmpdir)


def test_a_checkpoint_that_orbax_left_unlisted(tmp_path, monkeypatch):
    # As versions did that let Orbax see the path: its parts were not found below `[`, and nothing said so.
    tree = {"x": jnp.arange(9), "y": {"z": jnp.ones(2)}}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "[0]" / "train_state", tree)
    assert not (tmp_path / "[0]" / "train_state" / "manifest.ocdbt").exists()
    folder = save_checkpoint(tmp_path, 1, tree)
    shutil.rmtree(folder / "train_state")
    shutil.move(tmp_path / "[0]" / "train_state", folder / "train_state")
    sums = [f"{digest}  {name}\n" for name, digest in checkpoint._digests(folder).items()]
    (folder / "SHA256SUMS").write_text("".join(sums))
    assert_same(load_checkpoint(tmp_path, tree).train_state, tree)


def test_what_cannot_be_read_back_was_not_written(tmp_path, monkeypatch):
    # Without the detour the arrays are written, and cannot be found again.
    monkeypatch.setattr(arrays, "_PLAIN", re.compile(".*"))
    with pytest.raises(OSError, match="checkpoints/1 could not be written"):
        save_checkpoint(tmp_path / "[0]", 1, scalar(1))
    assert not checkpoint_steps(tmp_path / "[0]")


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load_checkpoint(tmp_path, scalar(0))


def test_a_flipped_bit_or_cut_in_any_file_is_noticed_and_the_previous_checkpoint_is_used(tmp_path):
    tree = {"x": jnp.arange(3000, dtype=jnp.uint8), "key": jax.random.key(1)}
    save_checkpoint(tmp_path, 1, tree)
    folder = save_checkpoint(tmp_path, 2, tree)
    random = np.random.default_rng(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 5
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        for position in random.integers(len(whole), size=3):
            flipped[position] ^= 1 << random.integers(8)
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match="2 is damaged or of another run"):
                load_checkpoint(tmp_path, tree, step=2)
            flipped[:] = whole
        path.write_bytes(whole[: len(whole) // 2])
        warnings = []
        assert load_checkpoint(tmp_path, tree, warn=warnings.append).step == 1, path
        assert len(warnings) == 1 and warnings[0].endswith("using that of step 1 instead")
        path.unlink()
        assert load_checkpoint(tmp_path, tree).step == 1, path
        path.write_bytes(whole)
    assert load_checkpoint(tmp_path, tree).step == 2


def test_only_damaged_checkpoints_are_one_clear_error(tmp_path):
    for step in (1, 2):
        (save_checkpoint(tmp_path, step, scalar(step)) / "progress.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"2 is damaged .*progress\.json is not as it was written, and the 1 before"
    ):
        load_checkpoint(tmp_path, scalar(0))


def test_checkpoint_of_another_shape(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": jnp.zeros(3)})
    for like in ({"x": jnp.zeros(4)}, {"y": jnp.zeros(3)}):
        with pytest.raises(CheckpointError, match="damaged or of another run"):
            load_checkpoint(tmp_path, like)


def test_a_part_that_did_not_exist_yet_is_none(tmp_path):
    stored = {"x": jnp.arange(3), "key": jax.random.key(1), "of": (jnp.ones(2), jnp.zeros(0))}
    save_checkpoint(tmp_path, 1, stored)
    like = jax.eval_shape(lambda: stored)
    assert_same(load_checkpoint(tmp_path, like | {"new": None}).train_state, stored | {"new": None})
    new = jax.ShapeDtypeStruct((2,), jnp.float32)
    for other, message in (
        (like | {"new": new}, r"new is missing there and float32\[2\] here"),
        ({"key": like["key"], "of": like["of"]}, r"x is int32\[3\] there and missing here"),
        (like | {"x": jax.ShapeDtypeStruct((3,), jnp.uint32)}, r"x is int32\[3\] there and uint32\[3\] here"),
    ):
        with pytest.raises(CheckpointError, match=f"of another run: {message}"):
            load_checkpoint(tmp_path, other)


def test_checkpoint_of_another_run_of_the_same_shape(tmp_path):
    save_checkpoint(tmp_path, 1, scalar(1), {"settings": {"seed": 1, "max_seconds": 5}})
    with pytest.raises(CheckpointError, match="of another run: seed was 1 there and is 2 here"):
        load_checkpoint(tmp_path, scalar(0), settings={"seed": 2})
    # How long a run lasts may be changed, and what another version does not know is no contradiction.
    assert load_checkpoint(tmp_path, scalar(0), settings={"seed": 1, "max_seconds": 6, "new": 0}).step == 1


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path):
    tree = {"x": jax.random.bits(jax.random.key(0), (100_000,))}
    save_checkpoint(tmp_path, 1, tree)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # no file may grow beyond, as if the disk were full
    try:
        with pytest.raises(OSError, match="checkpoints/2 could not be written"):
            save_checkpoint(tmp_path, 2, tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    assert_same(load_checkpoint(tmp_path, tree).train_state, tree)


@pytest.mark.skipif(not os.path.isdir("/sys"), reason="needs a folder in which not even root may write")
def test_a_folder_in_which_nobody_may_write():
    with pytest.raises(OSError, match="could not be written"):
        save_checkpoint("/sys", 1, scalar(0))


def test_a_step_can_be_saved_again(tmp_path):
    for x in (1, 2):
        save_checkpoint(tmp_path, 7, scalar(x))
    assert float(load_checkpoint(tmp_path, scalar(0)).train_state["x"]) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["7"]


def test_the_latest_ones_are_kept_and_remains_are_cleaned_up(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, scalar(step))
    delete_old(tmp_path, keep=3)
    assert checkpoint_steps(tmp_path) == [2, 3, 4]
    folder = tmp_path / "checkpoints"
    for name in ("5.partial", "1.deleted"):
        (folder / name / "train_state").mkdir(parents=True)
    clean_up(tmp_path, after=3)
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4.damaged"]


def test_the_sums_can_be_checked_without_us(tmp_path):
    folder = save_checkpoint(tmp_path, 1, scalar(0))
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
