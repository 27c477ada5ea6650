"""pufferjax.runs.paths: what users give as a path, and that nothing is spent on one that leads nowhere."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pufferjax
from pufferjax import cli
from pufferjax.runs.load import load_run
from pufferjax.runs.paths import local_path, output_path


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("gs://bucket/run", ValueError, "run_dir must be a path of this machine, got the URL 'gs://bucket/run'"),
        (Path("s3://bucket/run"), ValueError, "got the URL 's3:/bucket/run' (a folder of that name"),
        ("file:///tmp/run", ValueError, "got the URL"),
        ("~nobody-of-that-name/run", ValueError, "run_dir is '~nobody-of-that-name/run', and there is no such home"),
        ("", ValueError, "run_dir must be a path, got ''"),
        ("runs/a\0b", ValueError, r"run_dir must be a path, got 'runs/a\x00b'"),
        (7, TypeError, "run_dir must be a path, got 7"),
        (b"runs/a", TypeError, "run_dir must be a path, got b'runs/a'"),
    ],
)
def test_no_path_of_this_machine(path, error, message, tmp_path, monkeypatch, tiny_env, tiny_config):
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: pufferjax.train(tiny_env, tiny_config(), run_dir=path, devices=1),
        lambda: pufferjax.train(tiny_env, tiny_config(), run_dir=path, devices=1, resume=True),
        lambda: load_run(path),
    ):
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)
    assert not os.listdir(tmp_path)


def test_a_folder_may_be_called_like_a_url(tmp_path):
    assert local_path("run_dir", tmp_path / "gs:" / "x") == tmp_path / "gs:" / "x"
    assert local_path("run_dir", "a:b/c:/d") == Path("a:b/c:/d")


def test_home_is_expanded(tmp_path, monkeypatch, tiny_run, tiny_env):
    monkeypatch.setenv("HOME", str(tiny_run.run_dir.parent))
    config, *_ = load_run("~/tiny")
    assert config.env == "maze"
    with pytest.raises(FileExistsError, match=f"{tiny_run.run_dir} exists"):
        pufferjax.train(tiny_env, config.train, run_dir="~/tiny", devices=1)
    assert output_path("--gif", "~/tiny.gif") == tiny_run.run_dir.parent / "tiny.gif"
    levels = pufferjax.envs.make  # the path of a level file too
    with pytest.raises(ValueError, match=f"levels: {tiny_run.run_dir.parent}/none.txt cannot be read"):
        levels("boxoban", levels="~/none.txt")


def test_what_could_not_be_saved_does_not_begin(tmp_path, tiny_env, tiny_config, monkeypatch):
    # The folder of the run can be made, but the files of a checkpoint have longer paths than the system allows.
    run_dir = tmp_path
    while len(str(run_dir)) < 3900:
        run_dir = run_dir / ("x" * min(200, 3999 - len(str(run_dir))))
    monkeypatch.setattr("pufferjax.runs.loop.Loop.run", lambda *arguments: pytest.fail("it began"))
    with pytest.raises(OSError, match="checkpoints/2048 could not be written"):
        pufferjax.train(tiny_env, tiny_config(), run_dir=run_dir, devices=1, show=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("eval RUN --gif none/x.gif", "--gif: there is no folder none"),
        ("play RUN --gif /", "--gif: / is a folder"),
        ("states RUN --output none/x.png", "--output: there is no folder none"),
        ("bench ops --json none/x.json", "--json: there is no folder none"),
        ("eval RUN --gif gs://x/y.gif", "--gif must be a path of this machine"),
        ("train maze --run-dir gs://x/y", "run_dir must be a path of this machine"),
    ],
)
def test_commands_try_their_output_first(arguments, message, capsys, tmp_path, monkeypatch, tiny_run):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments.replace("RUN", str(tiny_run.run_dir)).split()) == 2
    assert message in capsys.readouterr().err


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    source = """
    import dataclasses, os, sys, warnings
    warnings.filterwarnings("error", category=EncodingWarning, module="pufferjax")
    import pufferjax

    assert sys.flags.utf8_mode == 0
    env = pufferjax.envs.make("chain_mdp")
    spec = dataclasses.replace(env.spec, name="ma\\u00eftre")
    env = dataclasses.replace(env, spec=spec, params={"\\u00e9": "\\u20ac"})
    config = pufferjax.TrainConfig(
        total_steps=64, num_envs=4, horizon=16, ppo=pufferjax.PPOConfig(minibatch_size=64, replay_ratio=1.0),
        state_set=pufferjax.StateSetConfig(fraction=0),
    )
    run_dir = os.path.join(sys.argv[1], "run")
    for resume in (False, True):
        options = {"run_dir": run_dir, "resume": resume, "devices": 1, "eval_episodes": 0}
        result = pufferjax.train(env, config, **options)
    config, *_ = pufferjax.load_run(run_dir, env=env)
    try:
        pufferjax.load_run(run_dir + "\\u00fc")
    except ValueError as error:
        assert "which file names in this locale (ascii) cannot hold" in str(error)
    assert config.env == "ma\\u00eftre" and result.summary["env"] == "ma\\u00eftre", config
    """
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", textwrap.dedent(source), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ma\u00eftre" in (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")
