"""What may be given as a policy, and what is said of anything else."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import pufferjax
from pufferjax.core.policy import ActorCritic, muon_labels


class Bare(nnx.Module):
    pass


@pytest.mark.parametrize(
    "policy, text",
    [
        (ActorCritic, "got the class ActorCritic: make one of it"),
        (Bare, "got the class Bare: make one of it"),
        (Bare(), "got the nnx module Bare, whose parameters are made already"),
        ("small", "str has no init, apply, initial_state, spec"),
    ],
)
def test_what_is_no_policy_is_refused(policy, text, tiny_env, tiny_config):
    calls = (
        lambda: pufferjax.make_train(tiny_env, tiny_config(), policy),
        lambda: pufferjax.make_update(tiny_env, tiny_config(), policy),
        lambda: pufferjax.train(tiny_env, tiny_config(), policy=policy, devices=1, show=False),
    )
    for call in calls:
        with pytest.raises(TypeError, match=f"policy must be a Flax linen module.*{text}"):
            call()


def test_a_config_makes_its_policy(tiny_env, tiny_config):
    config = tiny_config()
    other = pufferjax.PolicyConfig(hidden_size=4, num_layers=1)
    state = jax.eval_shape(pufferjax.make_init(tiny_env, config, other), jax.random.key(0))
    assert state.memory.recurrent.shape == (1, 16, 4)


def test_parameters_may_be_any_pytree():
    matrix, bias = jnp.ones((2, 2)), jnp.ones(2)
    assert muon_labels([{"kernel": matrix}, (bias, matrix)]) == [{"kernel": "muon"}, ("adam", "adam")]
    assert muon_labels(matrix) == "adam"
