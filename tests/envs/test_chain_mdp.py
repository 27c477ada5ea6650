"""The chain against its slow reference, its rules, and what it refuses."""

import jax
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.chain_mdp import reference
from pufferjax.envs.chain_mdp.chain_mdp import STATE

LEFT, RIGHT = 0, 1


@pytest.fixture
def case(native_case):
    return lambda **params: native_case(envs.make("chain_mdp", **params), STATE)


def test_it_keeps_the_contract(case):
    envs.check_env(case(num_states=20).env, num_envs=4)


@pytest.mark.parametrize("num_states", [5, 128])
def test_reference_agrees_for_50_000_steps(case, num_states):
    num_envs, num_steps = 250, 200
    case, twin = case(num_states=num_states), reference.Chains(num_envs, num_states=num_states)
    state = case.reset(num_envs)
    np.testing.assert_array_equal(case.env.observe(state), twin.observe())
    # Everywhere on the chain, and more to the right: random steps from the start never come to the far end.
    twin.position[:] = np.linspace(0, num_states - 1, num_envs)
    state = case.edited(state, position=twin.position)
    state, terminated, truncated, info = case.assert_agrees(
        twin, state, num_steps, seed=num_states, probabilities=(0.45, 0.55)
    )
    fields = case.fields(state)
    np.testing.assert_array_equal(fields["position"], twin.position)
    np.testing.assert_array_equal(fields["thousandths"], twin.thousandths)
    np.testing.assert_array_equal(case.env.clock(state)[0], twin.tick)
    assert truncated.any() and not terminated.any() and (info["perf"] == 1).any()
    assert (info["perf"][truncated] == 0).any()


def test_always_right_is_the_best_return(case):
    case = case()
    state = case.reset(1)
    for t in range(137):
        out = case.step(state, [RIGHT])
        assert out["reward"] == (t >= 125) and out["truncated"] == (t == 136) and not out["terminated"]
        state = out["state"]
    assert (out["episode_return"], out["score"], out["perf"], out["episode_length"]) == (12, 12, 1, 137)
    assert out["obs"] == 1


def test_always_left_is_the_trap(case):
    case = case(num_states=10)
    state, total = case.reset(1), 0.0
    for _ in range(19):
        out = case.step(state, [LEFT])
        assert out["reward"] == np.float32(0.001)
        total, state = total + out["reward"][0], out["state"]
    assert out["truncated"] and out["perf"] == 0
    np.testing.assert_allclose(out["episode_return"], total, rtol=1e-6)


def test_perf_is_the_last_reward_alone(case):
    # To the far end in time, but not there in the last step; and there only in the last step.
    case = case(num_states=5)
    late = case.edited(case.reset(2), position=[4, 3], tick=13, thousandths=[5000, 0])
    out = case.step(late, [LEFT, RIGHT])
    assert out["truncated"].all()
    np.testing.assert_array_equal(out["perf"], np.float32([0, 1]))
    np.testing.assert_array_equal(out["episode_return"], np.float32([5, 1]))


def test_a_stagger_spreads_the_clocks_and_nothing_else(case):
    case = case()
    state = case.reset(2000)
    staggered = np.asarray(case.env.stagger(jax.random.key(0), state))
    ticks = case.fields(staggered)["tick"]
    assert ticks.min() == 0 and ticks.max() == 136 and len(set(ticks.tolist())) == 137
    np.testing.assert_array_equal(case.env.clock(staggered)[1], state)


def test_refusals(case):
    case = case(num_states=10)
    state = case.reset(1)
    case.assert_refuses(state, "the position is not on the chain", position=10)
    case.assert_refuses(state, "the clock is past the step limit", tick=19)
    case.assert_survives_garbage()


@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"num_states": 2}, ValueError, r"chain_mdp: num_states must be an integer in \[3, 256\], got 2"),
        ({"num_states": 257}, ValueError, r"chain_mdp: num_states must be an integer in \[3, 256\], got 257"),
        ({"num_states": "9"}, TypeError, "chain_mdp: num_states must be a static integer"),
        ({"size": 9}, ValueError, "chain_mdp has no argument 'size'; valid are num_states"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("chain_mdp", **params)


def test_the_native_side_refuses_as_well():
    from pufferjax.xla_ops import ffi

    for params, text in (([2], "num_states must be 3 to 256, got 2"), ([], "params must be")):
        with pytest.raises(ValueError, match=text):
            ffi.describe_env("chain_mdp", params)


def test_render_shows_the_agent(case):
    case = case()
    pictures = [case.env.render(case.edited(case.reset(1), position=n)[0]) for n in (1, 126)]
    assert all(p.shape[2] == 3 and p.dtype == np.uint8 for p in pictures) and (pictures[0] != pictures[1]).any()
