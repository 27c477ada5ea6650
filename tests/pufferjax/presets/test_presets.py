"""pufferjax.presets: defaults < preset < flags."""

import importlib.resources

import pytest

from pufferjax import envs, presets
from pufferjax.cli.train import parse_train
from pufferjax.core.config import TrainConfig
from pufferjax.envs import suites
from pufferjax.runs.run_config import RunConfig


def test_merge_goes_table_by_table():
    base = {"a": 1, "ppo": {"x": 1, "y": 2}, "list": [1, 2]}
    merged = presets.merge(base, {"a": 2, "ppo": {"y": 3, "z": 4}, "list": [3], "new": {"b": 1}})
    assert merged == {"a": 2, "ppo": {"x": 1, "y": 3, "z": 4}, "list": [3], "new": {"b": 1}}
    assert base == {"a": 1, "ppo": {"x": 1, "y": 2}, "list": [1, 2]}


PRESET = {
    "total_steps": 100,
    "ppo": {"gamma": 0.9, "gae_lambda": 0.8},
    "overlay": [
        {"max_size": 7, "total_steps": 1},
        {"max_size": 15, "total_steps": 2, "ppo": {"gamma": 0.5}},
    ],
}


@pytest.mark.parametrize(
    ("size", "total_steps", "gamma"),
    [(5, 1, 0.9), (7, 1, 0.9), (9, 2, 0.5), (15, 2, 0.5), (17, 100, 0.9), (None, 100, 0.9)],
)
def test_first_overlay_that_fits(size, total_steps, gamma):
    expected = {"total_steps": total_steps, "ppo": {"gamma": gamma, "gae_lambda": 0.8}}
    assert presets.resolve(PRESET, size) == expected


def test_overlay_without_max_size():
    with pytest.raises(ValueError, match="must have max_size"):
        presets.resolve({"overlay": [{"total_steps": 1}]}, 5)


@pytest.mark.parametrize("name", envs.names())
def test_shipped_presets_are_valid_at_every_size(name):
    preset = presets.load(name)
    sizes = {None, 5, 35, *(overlay["max_size"] for overlay in preset.get("overlay", []))}
    for size in sizes:
        RunConfig.from_table(presets.merge(presets.resolve(preset, size), {"run": {"env": name}})).make_env()


@pytest.mark.parametrize("suite", suites.SUITES)
def test_presets_of_suites_are_valid(suite):
    files = importlib.resources.files(presets)
    names = (
        [path.name.removesuffix(".toml") for path in files.joinpath(suite).iterdir()]
        if (files.joinpath(suite).is_dir())
        else []
    )
    env = envs.make("maze", size=5, num_mazes=16)  # in place of one that may not be installed
    for name in ["any", *names]:
        preset = presets.load(f"{suite}:{name}")
        assert preset and "env" not in preset
        config = RunConfig.from_table(preset | {"run": {**preset["run"], "env": "maze"}}, env)
        config.train.sizes(1)
    # The most specific one is taken whole.
    assert presets.load("gymnax:Pendulum-v1") != presets.load("gymnax:any") == presets.load("gymnax")


def test_no_preset_is_empty():
    assert presets.load("no_such_env") == {}


@pytest.fixture
def preset(monkeypatch):
    def install(table):
        monkeypatch.setattr(presets, "load", lambda name: table)

    return install


def test_flags_over_overlay_over_preset_over_defaults(preset):
    preset(
        {
            "horizon": 64,
            "env": {"size": 21, "vision": 9},
            "ppo": {"gamma": 0.9, "gae_lambda": 0.8, "minibatch_size": 64},
            "run": {"eval_episodes": 7},
            "overlay": [{"max_size": 15, "num_envs": 32, "ppo": {"gamma": 0.5}}],
        }
    )
    config = parse_train("maze", []).config
    assert config.env_params == {"size": 21, "num_mazes": 8192, "seed": 42, "vision": 9}
    assert (config.train.num_envs, config.train.horizon, config.train.ppo.gamma) == (TrainConfig().num_envs, 64, 0.9)
    config = parse_train("maze", ["--env.size", "15", "--ppo.gae-lambda", "0.7", "--seed", "4"]).config
    assert config.env_params["size"] == 15 and config.env_params["vision"] == 9
    assert (config.train.num_envs, config.train.ppo.gamma, config.train.ppo.gae_lambda) == (32, 0.5, 0.7)
    assert (config.options.seed, config.options.eval_episodes) == (4, 7)
    assert config.train.policy == TrainConfig().policy


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"learning_rate": 1}, "unknown key learning_rate; valid are total_steps"),
        ({"ppo": {"lr": 1}}, "unknown key ppo.lr"),
        ({"overlay": [{"max_size": 99, "state_set": {"size": 1}}]}, "unknown key state_set.size"),
        ({"ppo": {"gamma": 2}}, "ppo.gamma must be"),
        ({"run": {"env": "maze"}}, "no key run.env"),
    ],
)
def test_bad_presets_name_the_key(preset, table, message):
    preset(table)
    with pytest.raises(ValueError, match=message):
        parse_train("maze", [])
