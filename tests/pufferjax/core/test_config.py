"""Bad settings are refused on construction, naming the field, what came and what is valid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import PolicyConfig, PPOConfig, StateSetConfig, TrainConfig, make_init, make_warmup
from pufferjax.core.config import Sizes


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TrainConfig(num_envs=0), "num_envs"),
        (lambda: TrainConfig(num_envs=2.5), "num_envs"),
        (lambda: TrainConfig(horizon=0), "horizon"),
        (lambda: TrainConfig(total_steps=1000), "total_steps"),
        (lambda: TrainConfig(ppo=PPOConfig(minibatch_size=1000)), "ppo.minibatch_size"),
        (lambda: TrainConfig(num_envs=8, ppo=PPOConfig(minibatch_size=2048)).sizes(1), "ppo.minibatch_size"),
        (lambda: TrainConfig(num_envs=8, ppo=PPOConfig(minibatch_size=8320)).sizes(8), "ppo.minibatch_size"),
        (lambda: TrainConfig(total_steps=2048 * 128 * 8 - 1).sizes(8), "total_steps"),
        (
            lambda: TrainConfig(num_envs=64, ppo=PPOConfig(replay_ratio=0.99, minibatch_size=8192)).sizes(),
            "ppo.replay_ratio",
        ),
        (lambda: TrainConfig(state_set=StateSetConfig(interval=100)), "state_set.interval"),
        (lambda: TrainConfig(state_set=StateSetConfig(replay_span=129)), "state_set.replay_span"),
        (lambda: TrainConfig(num_envs=64, state_set=StateSetConfig(fraction=0.01)), "state_set.fraction"),
        (lambda: PPOConfig(optimizer="sgd"), "ppo.optimizer"),
        (lambda: PPOConfig(gamma=1.5), "ppo.gamma"),
        (lambda: PPOConfig(gamma=float("nan")), "ppo.gamma"),
        (lambda: PPOConfig(learning_rate=-1.0), "ppo.learning_rate"),
        (lambda: PPOConfig(momentum=1.0), "ppo.momentum"),
        (lambda: PPOConfig(replay_ratio="much"), "ppo.replay_ratio"),
        (lambda: PPOConfig(bootstrap=1), "ppo.bootstrap"),
        (lambda: PPOConfig(truncation="bootstrap"), "ppo.truncation"),
        (lambda: StateSetConfig(fraction=1.0), "state_set.fraction"),
        (lambda: StateSetConfig(fraction=-0.1), "state_set.fraction"),
        (lambda: StateSetConfig(capacity=0), "state_set.capacity"),
        (lambda: StateSetConfig(capacity=8, min_states=9), "state_set.min_states"),
        (lambda: StateSetConfig(decay=1.1), "state_set.decay"),
        (lambda: StateSetConfig(release_from=0.5, release_until=0.4), "state_set.release_until"),
        (lambda: StateSetConfig(walk_steps=24), "state_set.walk_steps"),
        (lambda: StateSetConfig(walk_fraction=1.1), "state_set.walk_fraction"),
        (lambda: StateSetConfig(reset_clock=1), "state_set.reset_clock"),
        (lambda: PolicyConfig(hidden_size=0), "policy.hidden_size"),
        (lambda: PolicyConfig(encoder="cnn"), "policy.encoder"),
        (lambda: PolicyConfig(num_layers=True), "policy.num_layers"),
    ],
)
def test_refusals_name_the_field(make, field):
    with pytest.raises(ValueError, match=rf"{field} must be .*got "):
        make()


def test_an_epoch_with_samples_to_train_on_trains():
    # 64 x 128 samples are one minibatch: a ratio just below 1 would make none of them, for ever.
    config = TrainConfig(num_envs=64, ppo=PPOConfig(replay_ratio=1, minibatch_size=8192))
    assert config.sizes().num_minibatches == 1
    assert TrainConfig(num_envs=64, ppo=PPOConfig(replay_ratio=0)).sizes().num_minibatches == 0


def test_numbers_from_arrays_are_numbers():
    config = TrainConfig(
        num_envs=np.int64(64), ppo=PPOConfig(learning_rate=np.float32(0.5), normalize_advantages=np.True_)
    )
    assert config == TrainConfig(num_envs=64, ppo=PPOConfig(learning_rate=0.5, normalize_advantages=True))
    assert (type(config.num_envs), type(config.ppo.learning_rate)) == (int, float)
    with pytest.raises(ValueError, match=r"horizon must be an integer in .*, got 64\.0"):
        TrainConfig(horizon=np.float64(64))


def test_derived_counts():
    config = TrainConfig(
        total_steps=1_000_000, num_envs=100, horizon=64, ppo=PPOConfig(minibatch_size=640, replay_ratio=0.5)
    )
    assert config.sizes(1) == Sizes(num_envs=100, num_rows=100, batch_size=6400, num_epochs=156, num_minibatches=5)
    assert config.sizes(8) == Sizes(num_envs=100, num_rows=800, batch_size=51200, num_epochs=19, num_minibatches=40)
    assert config.num_replayed == 40


def test_hypers_are_the_configured_numbers():
    hypers = TrainConfig(ppo=PPOConfig(gamma=0.9), state_set=StateSetConfig(decay=0.5, priority_exponent=2.0)).hypers()
    assert all(x.dtype == jnp.float32 and x.shape == () for x in jax.tree.leaves(hypers))
    assert float(hypers.gamma) == pytest.approx(0.9)
    assert (float(hypers.state_decay), float(hypers.state_priority_exponent)) == (0.5, 2.0)
    assert float(hypers.priority_exponent) == pytest.approx(PPOConfig().priority_exponent)


@pytest.mark.parametrize(
    "most",
    [
        {"warmup_envs": 2**16},
        {"warmup_rewards": 2**30},
        {"warmup_envs": 1, "warmup_max_steps": 2**43},
        {"warmup_snapshots": 2**10},
    ],
)
def test_the_largest_warmup_can_be_counted(most, tiny_env, tiny_config):
    config = tiny_config(state_set=StateSetConfig(capacity=32, interval=8, **most))
    train_state = jax.eval_shape(make_init(tiny_env, config), jax.random.key(0))
    after = jax.eval_shape(make_warmup(tiny_env, config), train_state, config.hypers())
    assert after.warmup_rewards.dtype == "int32"
    name, value = list(most.items())[-1]
    with pytest.raises(ValueError, match=f"state_set.{name} must be an integer in .*, got {value + 1}"):
        StateSetConfig(**{name: value + 1})
