"""Exported policies say and do what the Flax policy does: of every encoder, of choices, numbers, masks and memory."""

import ast
import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.reference
import pytest

from pufferjax import PolicyConfig, cli, envs
from pufferjax.core.actions import env_actions, no_previous_actions, previous_actions
from pufferjax.core.distributions import mode
from pufferjax.core.policy import init_params, make_policy
from pufferjax.export import numpy_player
from pufferjax.export.network import network_of
from pufferjax.export.npz import write_npz
from pufferjax.export.numpy_player import Player
from pufferjax.export.onnx_model import onnx_model
from pufferjax.runs.load import load_run


class Parts:
    """Observations of several parts; a choice of three and two numbers, one bounded."""

    name = "parts"

    def action_space(self, params):
        turn = types.SimpleNamespace(n=3)
        push = types.SimpleNamespace(low=np.float32([-2, -np.inf]), high=np.float32([6, np.inf]), shape=(2,))
        push.dtype = jnp.float32
        return types.SimpleNamespace(spaces={"push": push, "turn": turn})

    def reset(self, key, params=None):
        state = {"x": jnp.zeros(2), "time": jnp.int32(0)}
        return self._see(key, state), state

    def _see(self, key, state):
        return {"codes": jax.random.randint(key, (4,), 0, 6).astype(jnp.uint8), "place": state["x"] * 100}

    def observation_space(self, params):
        codes = types.SimpleNamespace(low=0, high=5, shape=(4,), dtype=jnp.uint8)
        place = types.SimpleNamespace(low=-np.inf, high=np.inf, shape=(2,), dtype=jnp.float32)
        return types.SimpleNamespace(spaces={"codes": codes, "place": place})

    def step(self, key, state, action, params=None):
        time = state["time"] + 1
        state = {"x": state["x"] + action["push"], "time": time}
        return self._see(key, state), state, jnp.float32(0), jnp.bool_(False), time >= 50, {}


def parts():
    return envs.from_gymnax(Parts(), max_episode_steps=50)


CASES = {
    "one_hot": (lambda: envs.make("maze", size=5, num_mazes=4), PolicyConfig(hidden_size=12)),
    "linear": (
        lambda: envs.make("breakout"),
        PolicyConfig(hidden_size=9, encoder_layers=1, normalize_observations=True, observation_clip=0.5),
    ),
    "no memory": (lambda: envs.make("chain_mdp"), PolicyConfig(hidden_size=8, num_layers=0, previous_action=False)),
    "entity": (lambda: envs.make("minimal"), PolicyConfig(hidden_size=16, num_layers=1)),
    "parts": (parts, PolicyConfig(hidden_size=8, normalize_observations=True)),
}


def random_params(policy):
    """Every parameter far from where it starts, so that none of them can be forgotten."""

    def draw(path, x):
        noise = jax.random.normal(jax.random.key(len(str(path)) * 31 + x.size), x.shape)
        return jnp.abs(noise) + 0.5 if "variance" in str(path) else 0.5 * noise

    return jax.tree_util.tree_map_with_path(draw, init_params(policy, jax.random.key(0)))


@pytest.mark.parametrize("case", CASES)
def test_they_say_and_do_what_the_policy_does(tmp_path, case):
    make, config = CASES[case]
    env = make()
    num_agents = 3 * env.spec.num_agents
    policy = make_policy(env.spec, config)
    params = random_params(policy)
    network = network_of(policy, params)
    write_npz(network, tmp_path / "policy.npz")
    player = Player(tmp_path / "policy.npz")
    model = onnx.reference.ReferenceEvaluator(onnx_model(network))
    onnx.checker.check_model(model.proto_, full_check=True)
    step = jax.jit(policy.apply)

    observations, state = env.reset(jax.random.key(1), 3)
    player.reset(num_agents)
    previous, memory = no_previous_actions(env.spec, (num_agents,)), policy.initial_state(num_agents)
    starts = jnp.zeros((1, num_agents), bool)
    for t in range(6):
        heads, value, new_memory = step(
            {"params": params}, observations[None], jax.tree.map(lambda x: x[None], previous), memory, starts
        )
        spoken = [np.asarray(x[0]) for x in (heads[:-1] if env.spec.action_low else heads)]
        fed = {
            "observations": np.asarray(observations, np.float32).reshape(num_agents, -1),
            "previous": player.previous.copy(),
            **({"memory": player.memory.copy()} if config.num_layers else {}),
        }
        theirs = dict(zip(model.output_names, model.run(None, fed), strict=True))
        before = player.memory.copy()
        logits, means, ours = player.look(observations)
        for name, x in (("ours", (logits, ours)), ("onnx", (theirs.get("logits"), theirs["value"]))):
            np.testing.assert_allclose(x[0], np.concatenate(spoken, axis=1), rtol=1e-4, atol=1e-4, err_msg=name)
            np.testing.assert_allclose(x[1], value[0], rtol=1e-4, atol=1e-4, err_msg=name)
        if env.spec.action_low:
            np.testing.assert_allclose(means, heads[-1].mean[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(theirs["means"], heads[-1].mean[0], rtol=1e-4, atol=1e-4)
        if config.num_layers:
            np.testing.assert_allclose(player.memory, new_memory, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(theirs["new_memory"], new_memory, rtol=1e-4, atol=1e-4)
        player.memory = before
        choices, numbers = player.act(observations, greedy=True)
        likeliest = mode(jax.tree.map(lambda x: x[0], heads))
        done = env_actions(env.spec, likeliest)
        ours = (choices if len(env.spec.num_actions) > 1 or numbers is not None else choices[:, 0], numbers)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            ours if numbers is not None else ours[0],
            done,
        )
        observations, state, *_ = env.step(jax.random.key(t), state, done)
        ended = np.arange(num_agents) == t % 4  # as if
        previous, memory = previous_actions(env.spec, likeliest, ended), jnp.where(ended[:, None], 0, new_memory)
        player.forget(ended)


def test_draws_have_the_policys_probabilities_and_keep_to_the_mask(tmp_path):
    env = envs.make("maze", size=5, num_mazes=4)
    policy = make_policy(env.spec, PolicyConfig(hidden_size=8, num_layers=1, previous_action=False))
    write_npz(network_of(policy, random_params(policy)), tmp_path / "policy.npz")
    player, count = Player(tmp_path / "policy.npz", seed=3), 20_000
    observations = np.repeat(np.asarray(env.reset(jax.random.key(1), 1)[0]), count, axis=0)
    player.reset(count)
    logits = player.look(observations)[0][0].astype(np.float64)
    mask = np.arange(len(logits)) != logits.argmax()
    expected = np.where(mask, np.exp(logits - logits.max()), 0)
    player.reset(count)
    drawn = np.bincount(player.act(observations, mask=mask[None])[0][:, 0], minlength=len(logits)) / count
    np.testing.assert_allclose(drawn, expected / expected.sum(), atol=0.015)
    assert drawn[logits.argmax()] == 0


def test_the_player_needs_numpy_alone():
    source = ast.parse(Path(numpy_player.__file__).read_text())
    imported = {x.name for node in ast.walk(source) if isinstance(node, ast.Import) for x in node.names}
    assert imported == {"json", "numpy"} and not any(isinstance(x, ast.ImportFrom) for x in ast.walk(source))


def test_what_cannot_be_exported_says_so():
    spec = parts().spec
    with pytest.raises(ValueError, match="this has encoders of one's own"):
        network_of(make_policy(spec, PolicyConfig(), {"place": "linear"}), {})
    board = envs.make("maze", size=5, num_mazes=4).spec
    with pytest.raises(ValueError, match="one_hot, linear and entity can be exported, this has conv"):
        network_of(make_policy(board, PolicyConfig(encoder="conv")), {})


def test_the_command(tiny_run, tmp_path, capsys, monkeypatch):
    for name in ("policy.npz", "policy.onnx"):
        assert cli.main(["export", str(tiny_run.run_dir), str(tmp_path / name)]) == 0
        assert f"{name}: " in capsys.readouterr().out
    _, env, policy, train_state = load_run(tiny_run.run_dir)
    player = Player(tmp_path / "policy.npz")
    kept = network_of(policy, train_state.params).arrays
    assert all(np.array_equal(player.arrays[name], x) for name, x in kept.items())
    metadata = onnx.load(tmp_path / "policy.onnx").metadata_props[0]
    assert json.loads(metadata.value) == player.description and player.description["env"] == env.spec.name
    for argv, message in (
        ([str(tiny_run.run_dir), "policy.pt"], "the file must end with .npz or .onnx, got policy.pt"),
        ([str(tmp_path / "nothing"), str(tmp_path / "a.npz")], "nothing"),
        ([str(tiny_run.run_dir), str(tmp_path / "nowhere" / "a.npz")], "there is no folder"),
    ):
        assert cli.main(["export", *argv]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert cli.main(["export", str(tiny_run.run_dir), str(tmp_path / "b.onnx")]) == 2
    assert "pip install 'pufferjax[onnx]'" in capsys.readouterr().err and not (tmp_path / "b.onnx").exists()
