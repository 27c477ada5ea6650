"""The examples of docs/new_env.md, taken from the page: the native one is built and checked, the other one trained."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

import pufferjax
from pufferjax import envs
from pufferjax.core.policy import init_params

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "new_env.md").read_text()


def blocks():
    """The code of the page: by file name where the first line gives one, the build command as "build.sh"."""
    found = {}
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        name = re.match(r"(?://|#) (\S+\.\w+)\n", code)
        found["build.sh" if language == "sh" else name[1]] = code
    return found


RUN = """
import runpy
page = runpy.run_path("corridor.py", run_name="__main__")
env = page["envs"].make("corridor", length=4)
assert env.params == {"length": 4} and page["envs"].parameters("corridor")["length"].default == 9
try:
    page["ffi"].register_module(page["_corridor"])
except ValueError as error:
    assert "pufferjax.corridor.clock is registered already" in str(error), error
else:
    raise AssertionError("registered twice")
"""


def test_the_native_example(tmp_path):
    pytest.importorskip("pybind11")
    assert shutil.which("c++")
    files = blocks()
    assert len(files["corridor.py"].splitlines()) <= 45
    for name in ("corridor.h", "cpu.cc", "corridor.py"):
        (tmp_path / name).write_text(files[name])
    flags = re.search(r"target_compile_options\(_cpu PRIVATE (.*?)\)", (ROOT / "CMakeLists.txt").read_text(), re.DOTALL)
    optional = {"-Wall", "-Wextra"}
    assert set(flags[1].split()) - optional <= set(files["build.sh"].split())  # those of the package's own build
    # Unoptimised: half the time, and speed is not what is checked here.
    build = files["build.sh"].replace("-O3", "-O0").replace("python ", f"{sys.executable} ")
    environment = {**os.environ, "REPOSITORY": str(ROOT)}
    built = subprocess.run(["sh", "-c", build], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # each of the many programs of check_env runs once
    checked = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_a_simulator_without_stagger_is_refused_in_one_sentence(tmp_path):
    files = blocks()
    complete = files["corridor.h"]
    (tmp_path / "corridor.h").write_text(re.sub(r".* void Stagger\(.*\n", "", complete))
    assert (tmp_path / "corridor.h").read_text() != complete
    (tmp_path / "cpu.cc").write_text(files["cpu.cc"])
    command = ["c++", "-std=c++17", "-fsyntax-only", "-I.", f"-I{ROOT}", "-isystem", jax.ffi.include_dir(), "cpu.cc"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode != 0
    assert refused.stderr.count("error:") == 1 and "a simulator needs `static void Stagger" in refused.stderr


@pytest.fixture
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_the_example_in_jax(tmp_path, monkeypatch, quick_compilation):
    """At a tiny budget, stopped and resumed."""
    page = types.ModuleType("lock")
    exec(compile(blocks()["lock.py"], "lock.py", "exec"), page.__dict__)
    monkeypatch.setitem(sys.modules, "lock", page)
    encoder = {}
    exec(compile(blocks()["encoder.py"], "encoder.py", "exec"), encoder)
    assert set(init_params(encoder["policy"], jax.random.key(0))) > {"own_encoder_entered", "part_is_jammed"}
    page.SECRET = page.SECRET[:4]
    env = envs.from_gymnax(page.Lock(), max_episode_steps=5)
    settings = dataclasses.replace(page.config.state_set, warmup_envs=16, warmup_rewards=1, warmup_max_steps=131_072)
    config = dataclasses.replace(
        page.config,
        num_envs=16,
        total_steps=512,
        policy=pufferjax.PolicyConfig(hidden_size=8, num_layers=1),
        ppo=dataclasses.replace(page.config.ppo, minibatch_size=64),
        state_set=settings,
    )
    options = {"run_dir": tmp_path / "lock", "seed": 1, "eval_episodes": 0, "devices": 1, "show": False}
    first = pufferjax.train(env, config, **options)
    resumed = pufferjax.train(env, dataclasses.replace(config, total_steps=1024), resume=True, **options)
    assert resumed.metrics[:2] == first.metrics and [line["step"] for line in resumed.metrics] == [256, 512, 768, 1024]
    assert resumed.metrics[-1]["state_set_size"] > 0
    seeded = dataclasses.replace(env, params={"seed": 1})  # envs.make could not make it with another one
    assert pufferjax.unseen(seeded) is seeded
    with pytest.raises(ValueError, match=r"started with env\.max_episode_steps 5"):
        other = envs.from_gymnax(page.Lock(), max_episode_steps=6)
        pufferjax.train(other, config, resume=True, **options)
