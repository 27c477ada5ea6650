"""What the tests of native simulators share: one simulator with the layout of its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

REFUSED = (ValueError, jax.errors.JaxRuntimeError)  # what a handler's refusal becomes in a call run at once, and later


@pytest.fixture(scope="session")
def survive():
    """A function: calls `env` (one agent) on each of `rows`, u8[1, S], which need not be states. Returns the number of
    calls that were accepted; every other one must have been refused by name."""

    def survive(env, rows):
        key = jax.random.key(0)
        functions = [
            jax.jit(lambda s: env.step(key, s, jnp.ones(1, jnp.int32))),
            jax.jit(env.observe),
            jax.jit(lambda s: env.random_walk(key, s, 200, 4, 2)),
        ]
        accepted = 0
        for row in rows:
            for function in functions:
                try:
                    jax.block_until_ready(function(row))
                    accepted += 1
                except REFUSED as error:
                    assert "is not a state of this simulator" in str(error)
        return accepted

    return survive


@pytest.fixture(scope="session")
def native_case():
    """The class: `case = native_case(env, STATE)`."""
    return NativeCase


class NativeCase:
    def __init__(self, env, layout):
        """layout: the NumPy dtype of a row of `env`."""
        assert layout.itemsize == env.spec.state_bytes
        self.env, self.layout = env, layout

    @staticmethod
    def words(key):
        """The two random words that a call gets from its key."""
        return np.asarray(jax.random.bits(key, (2,), jnp.uint32))

    def reset(self, num_envs, seed=0):
        return self.env.reset(jax.random.key(seed), num_envs)[1]

    def fields(self, state):
        """Rows as records, [N]."""
        return np.ascontiguousarray(state).view(self.layout)[:, 0]

    def edited(self, state, **fields):
        """A copy of `state` with some fields overwritten, through restore, so only possible states are reached."""
        return self.restored(self._overwritten(state, fields))

    def restored(self, rows):
        return self.env.restore(self.reset(len(rows)), rows, np.arange(len(rows), dtype=np.int32))

    def _overwritten(self, state, fields):
        rows = np.array(state)
        for name, value in fields.items():
            self.fields(rows)[name] = value
        return rows

    def step(self, state, actions, seed=0):
        """One step, as a dict of NumPy arrays by name, those of info among them."""
        names = ("obs", "state", "reward", "terminated", "truncated")
        *outputs, info = self.env.step(jax.random.key(seed), state, np.asarray(actions, np.int32))
        return jax.tree.map(np.asarray, dict(zip(names, outputs, strict=True)) | info)

    def assert_refuses(self, state, reason, **fields):
        """restore refuses the first row of `state` once these fields are overwritten, and says which row and why."""
        rows = np.concatenate([np.array(state[:1]), self._overwritten(state[:1], fields)])
        with pytest.raises(REFUSED, match=rf"rows\[1\] is not a snapshot of this simulator: {reason}"):
            self.env.restore(self.reset(2), rows, np.array([1, 0], np.int32)).block_until_ready()

    def assert_survives_garbage(self, trials=90):
        """Rows that no simulator wrote are refused or stepped, never followed out of bounds."""
        env, random = self.env, np.random.default_rng(0)
        functions = {
            "step": lambda s: env.step(jax.random.key(0), s, np.ones(1, np.int32)),
            "observe": env.observe,
            "stagger": lambda s: env.stagger(jax.random.key(0), s),
            "random_walk": lambda s: env.random_walk(jax.random.key(0), s, 50, 4, 2),
        }
        refused, accepted = set(), set()
        for trial in range(trials):
            # Anything; small numbers, of which more are valid; and mostly zeros.
            shape, (top, share) = (1, env.spec.state_bytes), [(256, 1.0), (20, 1.0), (4, 0.2)][trial % 3]
            rows = random.integers(0, top, shape, dtype=np.uint8) * (random.random(shape) < share)
            for name, function in functions.items():
                try:
                    jax.block_until_ready(function(rows))
                    accepted.add(name)
                except REFUSED as error:
                    assert "is not a state of this simulator" in str(error)
                    refused.add(name)
        assert refused == accepted == set(functions)

    def assert_agrees(self, twin, state, num_steps, seed, probabilities=None, takes_words=False):
        """Steps the simulator from `state`, and its reference `twin`, with the same random actions; every output must
        be equal. takes_words: the twin's step takes the random words of the call before the actions.

        Returns (state, terminated bool[T, N], truncated bool[T, N], info of [T, N]).
        """
        env, num_envs = self.env, state.shape[0]
        random = np.random.default_rng(seed)
        actions = random.choice(env.spec.num_actions[0], (num_steps, num_envs), p=probabilities).astype(np.int32)

        @jax.jit
        def native(state, actions, keys):
            def body(state, inputs):
                action, key = inputs
                obs, state, *outputs = env.step(key, state, action)
                return state, (jax.random.bits(key, (2,), jnp.uint32), obs, *outputs)

            return jax.lax.scan(body, state, (actions, keys))

        keys = jax.random.split(jax.random.key(seed), num_steps)
        state, (bits, *outputs, info) = jax.tree.map(np.asarray, native(state, actions, keys))
        names = ("obs", "reward", "terminated", "truncated")
        outputs = dict(zip(names, outputs, strict=True)) | info
        for t in range(num_steps):
            *expected, expected_info = twin.step(*([bits[t]] if takes_words else []), actions[t])
            for name, of_twin in (dict(zip(names, expected, strict=True)) | expected_info).items():
                assert outputs[name].dtype == of_twin.dtype
                np.testing.assert_array_equal(outputs[name][t], of_twin, err_msg=f"{name}, step {t}")
        return state, outputs["terminated"], outputs["truncated"], info
