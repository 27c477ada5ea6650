"""Action spaces as heads and back, masks, what is refused, and random actions."""

import dataclasses
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.actions import are_valid, random_actions

KEY = jax.random.key(0)
LIMIT = 12


def box(low, high, shape=(), dtype=jnp.float32):
    return types.SimpleNamespace(low=low, high=high, shape=shape, dtype=dtype)


def choice(n, **more):
    return types.SimpleNamespace(n=n, **more)


def several(counts, **more):
    return types.SimpleNamespace(nvec=np.asarray(counts), shape=np.shape(counts), **more)


class Told(NamedTuple):
    time: jax.Array
    told: object  # the last action, as it came
    total: jax.Array


class Echo:
    """Keeps the last action in its state and shows its numbers; gives 1, or less by each number's distance to 0."""

    name = "echo"
    default_params = types.SimpleNamespace(max_steps_in_episode=LIMIT)

    def __init__(self, space, first, mask=None):
        self.space, self.first, self.mask = space, first, mask

    def action_space(self, params):
        return self.space

    def observe(self, state):
        return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(state.told)])

    def reset(self, key, params):
        state = Told(jnp.int32(0), self.first, jnp.float32(0))
        return self.observe(state), state

    def step(self, key, state, action, params):
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), action, self.first)
        assert all(jax.tree.leaves(same)), "the structure is that of the space; shapes and dtypes too"
        total = sum(jnp.sum(jnp.abs(x.astype(jnp.float32))) for x in jax.tree.leaves(action))
        reward, time = 1 - total, state.time + 1
        ended = time == LIMIT
        _, fresh = self.reset(key, params)
        state = jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh, Told(time, action, total))
        return self.observe(state), state, reward, jnp.bool_(False), ended, self.info(state)

    def info(self, state):
        return {} if self.mask is None else {"action_mask": self.mask(state)}


def told(env, action, agents=2):
    """What the environment was told: the observation after one step."""
    _, state = env.reset(KEY, agents)
    obs, _, reward, *_ = env.step(KEY, state, action)
    return np.asarray(obs), np.asarray(reward)


MIXED = {
    "b": (choice(3, start=5, dtype=jnp.int32), box(-1.0, [[0.5], [2.0]], (2, 1), jnp.float16)),
    "a": several([[2], [4]], dtype=jnp.int8),
    "c": box(0, 2, (2,), jnp.int32),
    "d": box(-np.inf, [3.0], (1,)),
}
MIXED["b"] = types.SimpleNamespace(spaces=MIXED["b"])
MIXED_FIRST = {
    "a": jnp.zeros((2, 1), jnp.int8),
    "b": (jnp.int32(5), jnp.zeros((2, 1), jnp.float16)),
    "c": jnp.zeros(2, jnp.int32),
    "d": jnp.zeros(1),
}


@pytest.fixture(scope="module")
def mixed():
    return envs.from_gymnax(Echo(types.SimpleNamespace(spaces=MIXED), MIXED_FIRST))


@pytest.fixture(scope="module")
def pushed():
    """Numbers alone: one bounded on both sides, one on none."""
    return envs.from_gymnax(Echo(box([-2.0, -np.inf], [4.0, np.inf], (2,)), jnp.zeros(2)))


def test_spaces_are_heads_in_order_and_actions_are_rebuilt(mixed):
    spec = mixed.spec
    assert spec.num_actions == (2, 4, 3, 3, 3)  # a, a, b[0], c, c: dictionaries by name
    assert spec.action_low == (-1, -1, -np.inf) and spec.action_high == (0.5, 2, 3)
    assert spec.action_names[2] == ("5", "6", "7") and not spec.has_action_mask
    choices = np.array([[1, 3, 2, 0, 2], [0, 2, 0, 1, 1]], np.int32)
    numbers = np.array([[-1, 2, -7.5], [0.5, 0.25, 3]], np.float32)
    obs, reward = told(mixed, (choices, numbers))
    np.testing.assert_array_equal(obs, [[1, 3, 7, -1, 2, 0, 2, -7.5], [0, 2, 5, 0.5, 0.25, 1, 1, 3]])
    np.testing.assert_allclose(reward, 1 - np.abs(obs).sum(axis=1))


def test_an_environment_of_both_kinds_keeps_the_contract(mixed):
    envs.check_env(mixed, num_envs=4)


@pytest.mark.parametrize(
    "space, text",
    [
        (types.SimpleNamespace(shape=(2,)), r"must have n, nvec or num_categories .* SimpleNamespace of shape \(2,\)"),
        (box(1.0, -1.0), "must be in order, are 1.0 and -1.0"),
        (box(np.nan, 1.0), "must be in order"),
        (box([0.0, 0.0], 1.0, (3,)), r"bounds of its action space must have its shape \(3,\)"),
        (box(0, 1e9, (), jnp.int32), "whole numbers .* at most 65536 choices"),
        (choice(0), "the number of actions"),
        ({"go": choice(3, dtype=jnp.float32)}, r"the choices of its action space\['go'\] must be integers"),
        ((), "holds nothing to choose"),
    ],
)
def test_spaces_that_cannot_be_acted_on_are_refused(space, text):
    with pytest.raises(ValueError, match=text):
        envs.from_gymnax(Echo(space, jnp.zeros(())))


@pytest.mark.parametrize(
    "action, error, text",
    [
        (np.zeros((2, 2), np.int32), TypeError, r"echo.step: action must be float32\[2, 2\], got dtype int32"),
        (np.zeros((2, 3), np.float32), ValueError, r"action must have shape float32\[2, 2\], got \(2, 3\)"),
        (np.zeros(2, np.float32), ValueError, r"got \(2,\)"),
        (np.float32([[0, 0], [4.5, 0]]), ValueError, r"action\[1, 0\] is 4.5, valid are finite numbers from -2 to 4"),
        (np.float32([[0, 0], [-2.5, 0]]), ValueError, r"action\[1, 0\] is -2.5, valid are finite numbers from -2 to 4"),
        (np.float32([[0, np.nan], [0, 0]]), ValueError, r"action\[0, 1\] is nan, valid are finite numbers from -inf"),
        (np.float32([[0, np.inf], [0, 0]]), ValueError, r"action\[0, 1\] is inf"),
    ],
)
def test_numbers_that_are_no_actions_are_refused(pushed, action, error, text):
    _, state = pushed.reset(KEY, 2)
    with pytest.raises(error, match=text):
        pushed.step(KEY, state, action)


def test_of_both_kinds_each_is_checked(mixed):
    _, state = mixed.reset(KEY, 2)
    choices, numbers = np.zeros((2, 5), np.int32), np.zeros((2, 3), np.float32)
    with pytest.raises(TypeError, match=r"must be a tuple \(int32\[2, 5\], float32\[2, 3\]\), got ndarray"):
        mixed.step(KEY, state, choices)
    with pytest.raises(ValueError, match=r"action\[0\]\[0, 2\] is 3, valid are 0 to 2"):
        mixed.step(KEY, state, (choices + np.int32([0, 0, 3, 0, 0]), numbers))
    with pytest.raises(ValueError, match=r"action\[1\]\[0, 0\] is 1.0, valid are finite numbers from -1 to 0.5"):
        mixed.step(KEY, state, (choices, numbers + 1))


def test_traced_numbers_that_are_no_actions_give_nan_and_leave_a_state_that_can_be(pushed):
    _, state = pushed.reset(KEY, 4)
    action = np.float32([[9, 0], [np.nan, 1], [1, np.inf], [-2, 1]])
    obs, state, reward, *_ = jax.jit(pushed.step)(KEY, state, action)
    np.testing.assert_array_equal(np.isnan(reward), [True, True, True, False])
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(obs, np.float32([[4, 0], [0, 1], [1, largest], [-2, 1]]))


def test_random_actions_are_uniform_between_bounds_and_normal_without(pushed):
    numbers = np.asarray(random_actions(pushed.spec, KEY, (40_000,)))
    assert abs(numbers[:, 0].mean() - 1) < 0.03 and abs(numbers[:, 0].std() - 6 / np.sqrt(12)) < 0.02
    assert numbers[:, 0].min() >= -2 and numbers[:, 0].max() <= 4
    assert abs(numbers[:, 1].mean()) < 0.02 and abs(numbers[:, 1].std() - 1) < 0.02
    assert are_valid(pushed.spec, jnp.asarray(numbers)).all()
    masks = jnp.tile(jnp.array([True, False, True, True, False, False]), (30_000, 1))
    spec = dataclasses.replace(pushed.spec, num_actions=(4, 2), action_low=(), action_high=())
    choices = np.asarray(random_actions(spec, KEY, (30_000,), masks))
    np.testing.assert_allclose(np.bincount(choices[:, 0]) / 30_000, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.012)
    assert set(choices[:, 1]) == {0, 1}  # a head that allows nothing: any


# --- masks ------------------------------------------------------------------------------------------------------------
class Halves(Echo):
    """Choices of the parity of the clock are allowed; any other costs 100."""

    name = "halves"

    def __init__(self, told=False):
        super().__init__(several([4, 3]), jnp.zeros(2, jnp.int32), self.allowed if told else None)

    def allowed(self, state):
        even = state.time % 2 == 0
        return [jnp.arange(4) % 2 == jnp.where(even, 0, 1), jnp.arange(3) % 2 == jnp.where(even, 0, 1)]

    def step(self, key, state, action, params):
        allowed = jnp.stack([x[a] for x, a in zip(self.allowed(state), action, strict=True)]).all()
        obs, state, _, *rest = super().step(key, state, action, params)
        return obs, state, jnp.where(allowed, 1.0, -100.0), *rest


class ItsOwn(Halves):
    action_mask = Halves.allowed


class WithParams(Halves):
    def get_legal_actions(self, state, params):
        return jnp.concatenate(self.allowed(state)) & (params.max_steps_in_episode == LIMIT)


@pytest.mark.parametrize(
    "made",
    [
        lambda: envs.from_gymnax(Halves(), action_mask=Halves().allowed),
        lambda: envs.from_gymnax(ItsOwn()),
        lambda: envs.from_gymnax(WithParams()),
    ],
    ids=["argument", "method", "method with parameters"],
)
def test_masks_are_made_of_the_state(made):
    env = made()
    assert env.spec.has_action_mask
    _, state = env.reset(KEY, 2)
    np.testing.assert_array_equal(env.action_mask(state), [[True, False, True, False, True, False, True]] * 2)
    _, state, *_ = env.step(KEY, state, np.zeros((2, 2), np.int32))
    np.testing.assert_array_equal(env.action_mask(state), [[False, True, False, True, False, True, False]] * 2)
    # A walk keeps to them: of 64 steps none was worth less than 1.
    _, _, _, rewarded = env.random_walk(KEY, state, 64, 8, 2)
    np.testing.assert_array_equal(rewarded, [64, 64])
    again = envs.from_gymnax(envs.as_gymnax(dataclasses.replace(env)))
    assert again.spec.has_action_mask and again.spec.num_actions == (4, 3)


def test_a_mask_that_a_step_tells_is_kept_in_the_row():
    env = envs.from_gymnax(Halves(told=True))
    plain = envs.from_gymnax(Halves(told=True), action_mask=False)
    assert env.spec.state_bytes == plain.spec.state_bytes + 7 and not plain.spec.has_action_mask
    assert plain.action_mask(plain.reset(KEY, 1)[1]) is None
    _, state = env.reset(KEY, 2)
    assert np.asarray(env.action_mask(state)).all()  # nothing was told yet
    odd = [[False, True, False, True, False, True, False]] * 2
    _, state, *_ = env.step(KEY, state, np.zeros((2, 2), np.int32))
    np.testing.assert_array_equal(env.action_mask(state), odd)
    rows = env.snapshot(state)
    for _ in range(LIMIT - 1):
        _, state, _, _, truncated, _ = env.step(KEY, state, np.zeros((2, 2), np.int32))
    assert truncated.all() and np.asarray(env.action_mask(state)).all()  # a new episode: nothing was told yet
    np.testing.assert_array_equal(env.action_mask(env.restore(state, rows, np.arange(2, dtype=np.int32))), odd)
    envs.check_env(env, num_envs=4)


def test_check_env_wants_masks_as_the_spec_says():
    env = envs.from_gymnax(ItsOwn())
    none = dataclasses.replace(env, action_mask=lambda state: None)
    with pytest.raises(envs.EnvCheckError, match="action_mask: it is None although"):
        envs.check_env(none, num_envs=4)
    nothing = dataclasses.replace(env, action_mask=lambda state: env.action_mask(state).at[:, 4:].set(False))
    with pytest.raises(envs.EnvCheckError, match="a state allows no action of head 1"):
        envs.check_env(nothing, num_envs=4)
    wide = dataclasses.replace(env, action_mask=lambda state: env.action_mask(state)[:, :6])
    with pytest.raises(envs.EnvCheckError, match=r"must be bool\(4, 7\), is bool\(4, 6\)"):
        envs.check_env(wide, num_envs=4)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"action_mask must have 7 entries, .* heads \(4, 3\), has 4"):
        envs.from_gymnax(Halves(), action_mask=lambda state: jnp.ones(4, bool))
    with pytest.raises(TypeError, match="action_mask must be a function of the state"):
        envs.from_gymnax(Halves(), action_mask=True)
    with pytest.raises(ValueError, match="action_mask must be None, its actions are numbers"):
        envs.from_gymnax(Echo(box(-1, 1), jnp.float32(0)), action_mask=lambda state: state)
    env = envs.from_gymnax(Halves(), action_mask=lambda state: jnp.arange(7) < 4)
    with pytest.raises(ValueError, match="the mask of agent 0 allows no action of head 1"):
        env.action_mask(env.reset(KEY, 2)[1])


# --- the other way round ----------------------------------------------------------------------------------------------
def test_an_action_space_goes_through_both_adapters(mixed, pushed):
    for env, action in (
        (pushed, np.float32([[1, -3]])),
        (mixed, (np.int32([[1, 3, 2, 0, 2]]), np.float32([[-1, 2, -7.5]]))),
    ):
        view = envs.as_gymnax(env)
        space = view.action_space()
        assert space.contains(space.sample(KEY))
        again = envs.from_gymnax(view)
        assert again.spec.num_actions == env.spec.num_actions
        assert (again.spec.action_low, again.spec.action_high) == (env.spec.action_low, env.spec.action_high)
        np.testing.assert_array_equal(told(again, action, 1)[0], told(env, action, 1)[0])
    assert envs.as_gymnax(pushed).num_actions == 2
    with pytest.raises(AttributeError, match="its actions have several parts"):
        _ = envs.as_gymnax(mixed).num_actions
    with pytest.raises(TypeError, match="action must be a tuple of 6, got int"):
        envs.as_gymnax(mixed).step(KEY, mixed.reset(KEY, 1)[1][0], 3)
