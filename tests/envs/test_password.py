"""The password against its slow reference, its rules, and what it refuses."""

import jax
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.password import reference
from pufferjax.envs.password.password import STATE


@pytest.fixture
def case(native_case):
    return lambda **params: native_case(envs.make("password", **params), STATE)


def test_it_keeps_the_contract(case):
    envs.check_env(case(length=5).env, num_envs=4)


@pytest.mark.parametrize("length", [7, 128])
def test_reference_agrees_for_50_000_steps(case, length):
    num_envs, num_steps = 500, 100
    case, twin = case(length=length), reference.Passwords(num_envs, length=length)
    state = case.reset(num_envs)
    # Random guesses alone never come far: start everywhere, and many before the last symbol.
    twin.position[1::2] = np.linspace(0, length - 1, num_envs // 2).astype(int)
    twin.position[2::4] = length - 1
    twin.tick[:] = twin.position // 2
    state = case.edited(state, position=twin.position, tick=twin.tick)
    np.testing.assert_array_equal(case.env.observe(state), twin.observe())
    state, terminated, truncated, info = case.assert_agrees(twin, state, num_steps, seed=length)
    np.testing.assert_array_equal(case.fields(state)["position"], twin.position)
    np.testing.assert_array_equal(case.env.clock(state)[0], twin.tick)
    assert terminated.any() and not truncated.any() and (info["perf"] == 1).any()


def test_the_secret_is_that_of_the_generator(case):
    # 42 -> 1083814273 -> 378494188 -> 2479403867, modulo 9: 1, 7, 5.
    assert reference.secret(3).tolist() == [2, 8, 6]
    case = case()
    secret, state = reference.secret(128), case.reset(1)
    for position, symbol in enumerate(secret):
        np.testing.assert_array_equal(case.fields(state)["position"], position)
        out = case.step(state, [symbol - 1])
        is_last = position == 127
        assert out["reward"] == 1 and out["terminated"] == is_last and not out["truncated"]
        if not is_last:
            np.testing.assert_array_equal(out["obs"][0], np.where(np.arange(128) <= position, secret, 0))
        state = out["state"]
    assert (out["episode_return"], out["score"], out["perf"], out["episode_length"]) == (128, 128, 1, 128)
    assert not out["obs"].any() and not out["state"].any()


def test_the_first_wrong_guess_ends_the_episode(case):
    case, secret = case(), reference.secret(128)
    for guess in range(9):
        out = case.step(case.edited(case.reset(1), position=100, tick=100), [guess])
        if guess == secret[100] - 1:
            assert out["reward"] == 1 and not out["terminated"] and out["perf"] == 0
        else:
            assert out["reward"] == -1 and out["terminated"] and not out["truncated"]
            assert (out["episode_return"], out["score"], out["episode_length"]) == (99, 100, 101)
            assert out["perf"] == np.float32(100 / 128)


def test_random_play_knows_k_symbols_with_probability_9_to_the_minus_k(case):
    case = case()
    _, snapshots, counts, rewarded = case.env.random_walk(jax.random.key(0), case.reset(4000), 500, 1, 8)
    # One step in nine is rewarded; the standard deviation of the share is sqrt(8/81 / 2e6).
    assert abs(np.asarray(rewarded).sum() / 2e6 - 1 / 9) < 5 * np.sqrt(8 / 81 / 2e6)
    # The last reward was the first of its episode with probability 8/9, else there are snapshots of earlier ones.
    depths = np.asarray(counts) - 1
    for k in (1, 2):
        assert abs((depths >= k).sum() - 4000 / 9**k) < 5 * np.sqrt(4000 / 9**k)
    np.testing.assert_array_equal(case.fields(snapshots[:, 0])["position"], 0)
    deep = depths >= 1
    np.testing.assert_array_equal(case.fields(snapshots[deep, 1])["position"], 1)


def test_a_stagger_leaves_all_as_it_is(case):
    case = case()
    state = case.edited(case.reset(3), position=[0, 5, 127], tick=[0, 5, 3])
    np.testing.assert_array_equal(case.env.stagger(jax.random.key(0), state), state)


def test_refusals(case):
    case = case(length=10)
    state = case.edited(case.reset(1), position=4, tick=2)
    case.assert_refuses(state, "the position is not inside the word", position=10)
    case.assert_refuses(state, "the position is not inside the word", position=2**32 - 1)
    case.assert_refuses(state, "the clock is ahead of the position", tick=5)
    case.assert_survives_garbage()


@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"length": 0}, ValueError, r"password: length must be an integer in \[1, 512\], got 0"),
        ({"length": 513}, ValueError, r"password: length must be an integer in \[1, 512\], got 513"),
        ({"length": 8.0}, TypeError, "password: length must be a static integer"),
        ({"seed": 1}, ValueError, "password has no argument 'seed'; valid are length"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("password", **params)


def test_the_native_side_refuses_as_well():
    from pufferjax.xla_ops import ffi

    for params, text in (([0], "length must be 1 to 512, got 0"), ([], "params must be"), ([1, 2], "params must be")):
        with pytest.raises(ValueError, match=text):
            ffi.describe_env("password", params)


def test_render_shows_what_is_known(case):
    case = case()
    pictures = [case.env.render(case.edited(case.reset(1), position=n)[0]) for n in (0, 1, 127)]
    assert all(p.shape[2] == 3 and p.dtype == np.uint8 and min(p.shape[:2]) >= 128 for p in pictures)
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(pictures[2].reshape(-1, 3), axis=0)) == 10  # nine symbols and one unknown cell
