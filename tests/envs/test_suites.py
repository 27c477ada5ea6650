"""Environments of other packages by name. Those of a suite that is not installed are skipped; `make test-suites`
installs each of them alone."""

import dataclasses
import inspect
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs import suites

# Two of each; the second keyword argument is changed, so that it reaches the environment.
TASKS = [
    ("gymnax:CartPole-v1", {"max_steps_in_episode": 50}),
    ("gymnax:Pendulum-v1", {"max_steps_in_episode": 50}),
    ("jumanji:Game2048-v1", {"max_episode_steps": 50}),
    ("jumanji:Maze-v0", {"time_limit": 30}),
    ("xland:MiniGrid-DoorKey-8x8", {"max_steps": 50}),
    ("xland:XLand-MiniGrid-R1-9x9", {"max_steps": 50}),
    ("navix:Navix-DoorKey-8x8-v0", {"max_steps": 50}),
    ("navix:Navix-Empty-5x5-v0", {"max_steps": 50}),
    ("brax:inverted_pendulum", {"episode_length": 50}),
    ("brax:reacher", {"episode_length": 30}),
    ("playground:CartpoleBalance", {"episode_length": 30}),
    ("playground:PendulumSwingup", {"episode_length": 30}),
    ("craftax:Craftax-Classic-Symbolic-v1", {"max_timesteps": 30}),
    ("craftax:Craftax-Symbolic-v1", {"max_timesteps": 20}),
]
KEY = jax.random.key(3)


def needs(suite):
    if sys.version_info < suites.SUITES[suite].python:
        pytest.skip(f"{suite} needs a newer Python")
    if not suites.is_installed(suite):
        pytest.skip(f"pip install 'pufferjax[{suite}]'")


@pytest.mark.parametrize(("name", "params"), TASKS)
def test_an_environment_keeps_the_contract(name, params):
    needs(name.partition(":")[0])
    env = envs.make(name, **params)
    assert env.spec.name == name and env.params.items() >= params.items()
    assert env.spec.max_episode_steps == next(iter(params.values()))
    envs.check_env(env, num_envs=4)


@pytest.mark.parametrize("suite", suites.SUITES)
def test_unknown_names_and_parameters_are_named_in_one_line(suite):
    needs(suite)
    names = suites.environment_names(suite)
    assert names and len(set(names)) == len(names)
    with pytest.raises(ValueError, match=f"{suite} has no environment 'no such'; (valid|close to it) are "):
        envs.make(f"{suite}:no such")
    known = envs.parameters(f"{suite}:{names[0]}")
    assert all(type(parameter.default) is parameter.annotation for parameter in known.values())
    with pytest.raises(ValueError, match="has no argument 'no_such'; valid are"):
        envs.make(f"{suite}:{names[0]}", no_such=1)
    number = next(key for key, parameter in known.items() if parameter.annotation in (int, float))
    with pytest.raises(TypeError, match=f"{number} of {suite}:.* must be a"):
        envs.make(f"{suite}:{names[0]}", **{number: "three"})


def test_nothing_is_imported_before_it_is_asked_for():
    packages = ", ".join(repr(suite.package) for suite in suites.SUITES.values())
    code = f"import sys, pufferjax; print([name for name in ({packages}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xminigrid", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "pufferjax.envs.suites.xland", raising=False)
    with pytest.raises(ValueError, match=r"need its package.*: pip install 'pufferjax\[xland\]'$"):
        envs.make("xland:MiniGrid-DoorKey-8x8")


def test_an_older_python_is_refused(monkeypatch):
    old = dataclasses.replace(suites.SUITES["navix"], python=(4, 0))
    monkeypatch.setitem(suites.SUITES, "navix", old)
    with pytest.raises(ValueError, match=r"the environments of navix need Python 4\.0 or newer, this is "):
        envs.make("navix:Navix-Empty-5x5-v0")


def test_a_package_that_does_not_go_with_the_others_is_told_in_one_line(monkeypatch):
    def broken(name):
        raise AttributeError("module 'jax' has no attribute 'old'")

    monkeypatch.setattr(suites.importlib, "import_module", broken)
    with pytest.raises(ValueError, match="the package of brax cannot be imported: AttributeError: module 'jax' has no"):
        envs.make("brax:ant")


class Counter:
    """Counts to `length`; an episode ends with the last number, or on action 1. What reset and step draw is shown."""

    num_actions = 2

    def __init__(self, length=6):
        self.length = length

    def reset(self, key, params):
        state = {"count": jnp.int32(0), "luck": jax.random.uniform(key)}
        return self.see(state), state

    def see(self, state):
        return jnp.stack([state["count"].astype(jnp.float32), state["luck"]])

    def step(self, key, state, action, params):
        state = {**state, "count": state["count"] + 1}
        ended = state["count"] == self.length
        return self.see(state), state, jnp.float32(1), (action == 1) & ~ended, ended, {}


def test_restarts_where_the_environment_does_not():
    num_envs = 300  # more than are reset in one round
    counter, options = Counter(), {"max_episode_steps": 6, "auto_reset": False, "name": "counter"}
    stored = envs.from_gymnax(counter, **options)
    env = envs.from_gymnax(counter, **options, get_obs=counter.see)
    assert env.spec.state_bytes == stored.spec.state_bytes - 8  # two numbers
    envs.check_env(env)
    with pytest.raises(ValueError, match=r"reset, float32\[1\] by get_obs"):
        envs.from_gymnax(counter, **options, get_obs=lambda state: state["luck"][None])
    obs, state = env.reset(KEY, num_envs)
    actions = jax.random.randint(KEY, (8, num_envs), 0, 2)
    count = np.zeros(num_envs, int)
    luck = np.asarray(obs[:, 1])
    for t, action in enumerate(actions):
        obs, state, _, terminated, truncated, info = env.step(jax.random.fold_in(KEY, t), state, action)
        ended = np.asarray(terminated | truncated)
        count = np.where(ended, 0, count + 1)
        np.testing.assert_array_equal(obs[:, 0], count)
        np.testing.assert_array_equal(truncated, np.asarray(info["episode_length"]) == 6)
        # A new draw for each that ended, none for the others.
        np.testing.assert_array_equal(np.asarray(obs[:, 1]) != luck, ended)
        luck = np.asarray(obs[:, 1])
        assert len(np.unique(luck)) == num_envs


@pytest.fixture
def counters(monkeypatch):
    """A suite of one environment."""
    module = types.ModuleType("pufferjax.envs.suites.counters")
    module.names = lambda: ("Counter-v0",)
    module.defaults = lambda name: {"length": 6, "scale": 1.0, "is_odd": False}
    module.build = lambda name, params: envs.from_gymnax(
        Counter(params["length"]), max_episode_steps=params["length"], auto_reset=False, name=f"counters:{name}"
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(suites.SUITES, "counters", suites.Suite("json", "counts"))
    return module


def test_parameters_are_what_config_toml_can_hold(counters):
    assert envs.is_known("counters:Counter-v0") and not envs.is_known("counter:Counter-v0")
    env = envs.make("counters:Counter-v0", length=np.int64(4), scale=2)
    assert env.spec.name == "counters:Counter-v0" and env.spec.max_episode_steps == 4
    assert env.params == {"length": 4, "scale": 2.0, "is_odd": False}
    assert [type(value) for value in env.params.values()] == [int, float, bool]
    assert envs.parameters("counters:Counter-v0")["scale"] == inspect.Parameter(
        "scale", inspect.Parameter.KEYWORD_ONLY, default=1.0, annotation=float
    )
    for wrong in ({"length": 4.5}, {"length": True}, {"is_odd": 1}, {"scale": "2"}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} of counters:Counter-v0 must be "):
            envs.make("counters:Counter-v0", **wrong)


def test_a_taken_name_is_not_registered():
    with pytest.raises(ValueError, match="SUITE:NAME of a suite"):
        envs.register("brax:mine", lambda size=3: None)
