"""Data-parallel training over a one-dimensional device mesh.

Every device runs its share of the environments and keeps its share of the state set; rows of each minibatch come from
all devices and gradients are averaged, so the devices hold the same policy. On a CPU the devices are the cores (one
host device each), which beats one device with XLA's threads: a rollout step is too short to split.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from pufferjax.config import TrainConfig
from pufferjax.envs import Env
from pufferjax.policy import ActorCritic
from pufferjax.train import make_init, make_update, make_warmup
from pufferjax.types import Memory, TrainState

AXIS = "devices"


def local_config(config: TrainConfig, num_devices: int) -> TrainConfig:
    """The share of one device. Raises ValueError naming what does not divide."""

    def share(name: str, total: int, unit: int = 1) -> int:
        if total % (num_devices * unit):
            multiple = f"a multiple of {num_devices} devices" + (f" x horizon = {unit}" if unit > 1 else "")
            raise ValueError(f"{name} must be {multiple}, got {total}")
        return total // num_devices

    state_set = config.state_set
    return dataclasses.replace(
        config,
        num_envs=share("num_envs", config.num_envs),
        total_steps=config.total_steps // num_devices,
        ppo=dataclasses.replace(
            config.ppo, minibatch_size=share("ppo.minibatch_size", config.ppo.minibatch_size, config.horizon)
        ),
        state_set=dataclasses.replace(
            state_set,
            capacity=share("state_set.capacity", state_set.capacity),
            min_states=-(-state_set.min_states // num_devices),
            warmup_envs=share("state_set.warmup_envs", state_set.warmup_envs),
            warmup_rewards=-(-state_set.warmup_rewards // num_devices),
            warmup_max_steps=state_set.warmup_max_steps // num_devices,
        ),
    )


def make_parallel(env: Env, config: TrainConfig, devices: Sequence[jax.Device], policy: ActorCritic | None = None):
    """(init, warmup, update) as in `pufferjax.train`, over all `devices`; `config` counts the whole run.

    With one device these are the functions of `pufferjax.train` themselves. With several, the arrays of a TrainState
    are split over the environments, those of the state set over its slots, and `state_set.size` is i32[devices].
    Not jitted. Raises ValueError if the devices cannot share the environments, minibatches or slots equally.
    """
    if len(devices) == 1:
        return make_init(env, config, policy), make_warmup(env, config), make_update(env, config, policy)
    config = local_config(config, len(devices))
    mesh = Mesh(np.asarray(devices), (AXIS,))
    same, split = PartitionSpec(), PartitionSpec(AXIS)
    fields = {field.name: same for field in dataclasses.fields(TrainState)}
    fields |= dict.fromkeys(("env_state", "observations", "is_fresh", "state_set"), split)
    specs = TrainState(**fields | {"memory": Memory(recurrent=PartitionSpec(None, AXIS), previous_actions=split)})

    def local(train_state: TrainState) -> TrainState:
        state_set = train_state.state_set
        return dataclasses.replace(train_state, state_set=dataclasses.replace(state_set, size=state_set.size[0]))

    def stacked(train_state: TrainState) -> TrainState:
        state_set = train_state.state_set
        return dataclasses.replace(train_state, state_set=dataclasses.replace(state_set, size=state_set.size[None]))

    init_local = make_init(env, config, policy, AXIS)
    warmup_local = make_warmup(env, config, AXIS)
    update_local = make_update(env, config, policy, AXIS)

    def update_stacked(train_state, hypers, progress):
        train_state, metrics = update_local(local(train_state), hypers, progress)
        return stacked(train_state), metrics

    def shard(f, in_specs, out_specs):
        # The policy is computed alike on every device; to prove that to the type system buys nothing.
        return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    init = shard(lambda key: stacked(init_local(key)), same, specs)
    warmup = shard(lambda state, hypers: stacked(warmup_local(local(state), hypers)), (specs, same), specs)
    update = shard(update_stacked, (specs, same, same), (specs, same))
    return init, warmup, update
