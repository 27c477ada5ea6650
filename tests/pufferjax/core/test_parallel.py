"""Several devices: shares, refusals, and that two learn like one. Two host devices need a process of their own."""

import jax
import pytest

from pufferjax import PPOConfig, TrainConfig
from pufferjax.core.parallel import choose_devices, local_config


def test_shares_of_a_device():
    config = TrainConfig(num_envs=2048, ppo=PPOConfig(minibatch_size=8192))
    local = local_config(config, 2)
    assert (local.num_envs, local.ppo.minibatch_size, local.state_set.capacity) == (1024, 4096, 128)
    for num_agents in (1, 8):
        ours, whole = local.sizes(num_agents), config.sizes(num_agents)
        assert (ours.num_epochs, ours.num_minibatches) == (whole.num_epochs, whole.num_minibatches)


@pytest.mark.parametrize(
    ("config", "num_devices", "field"),
    [
        (TrainConfig(num_envs=2047), 2, "num_envs"),
        (TrainConfig(ppo=PPOConfig(minibatch_size=128)), 2, r"ppo\.minibatch_size"),
        (TrainConfig(), 3, "num_envs"),
    ],
)
def test_what_does_not_divide_is_named(config, num_devices, field):
    with pytest.raises(ValueError, match=f"{field} must be a multiple of {num_devices} devices"):
        local_config(config, num_devices)


def test_devices_that_are_not_there():
    with pytest.raises(ValueError, match="devices must be 1 to"):
        choose_devices(TrainConfig(), len(jax.devices()) + 1)


def test_two_devices_learn_like_one(train_on_devices):
    result = train_on_devices(
        """
        from pufferjax.core.diagnostics import filled_slots
        from pufferjax.core.parallel import make_parallel

        result = {}
        for count in (1, 2):
            metrics, state = train(OneProgram(env, config, jax.devices()[:count]))
            filled = np.asarray(filled_slots(state.state_set))
            middle = round((filled.sum() - 1) / 2)
            ages = len(metrics) - 1 - np.asarray(state.born)[filled]
            priorities = np.asarray(state.state_set.priorities)[filled]
            shards = [shard.data for shard in state.params["decoder"]["kernel"].addressable_shards]
            result[count] = {
                "rate": late_rate(metrics),
                "episodes": sum(m["episodes"] for m in metrics),
                "states": metrics[-1]["state_set_size"],
                "same_policy": all(np.array_equal(x, shards[0]) for x in shards),
                "rewards": int(state.warmup_rewards),
                "kept": int(filled.sum()),
                "medians": [float(np.sort(x)[middle]) for x in (ages, priorities)],
                "logged_medians": [metrics[-1][x] for x in ("state_age_p50", "priority_p50")],
                "rows": np.asarray(state.state_set.snapshots)[filled].tolist(),
                "repeats": metrics[-1]["state_repeats"],
            }

        # Eight agents in each simulator: traced for two devices, not run.
        env = envs.make("minimal", max_steps=20)
        config = dataclasses.replace(config, total_steps=64 * 8 * 32 * 2, ppo=PPOConfig(minibatch_size=1024))
        init, _, _, update = make_parallel(env, config, jax.devices())
        state = jax.eval_shape(init, jax.random.key(0))
        state, _ = jax.eval_shape(update, state, config.hypers(), jnp.float32(0))
        result["agents"] = [state.observations.shape, state.memory.recurrent.shape, state.env_state.shape]
        json.dump(result, sys.stdout)
        """,
        count=2,
    )
    assert result.pop("agents") == [[64 * 8, 66], [2, 64 * 8, 32], [64, 336]]
    for figures in result.values():
        assert figures["rate"] > 0.95 and figures["states"] > 0 and figures["rewards"] >= 64
        # The logged figures are those of the shares of all devices together.
        assert figures["kept"] == figures["states"] and figures["logged_medians"] == figures["medians"]
        places = {bytes(row[:4] + row[8:]) for row in figures["rows"]}  # all but the clock
        assert figures["repeats"] == pytest.approx(1 - len(places) / figures["kept"], abs=1e-6)
    assert result["2"]["same_policy"]
    # The same number of environments and steps: as many episodes, within what learning a little faster or slower does.
    assert result["2"]["episodes"] == pytest.approx(result["1"]["episodes"], rel=0.15)
