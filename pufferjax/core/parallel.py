"""Data-parallel training over a one-dimensional device mesh.

Every device runs its share of the environments and keeps its share of the state set; rows of each minibatch come from
all devices and gradients are averaged, so the devices hold the same policy. On a CPU the devices are the cores (one
host device each), which beats one device with XLA's threads: a rollout step is too short to split.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from pufferjax.core.config import TrainConfig
from pufferjax.core.cores import num_cores
from pufferjax.core.policy import ActorCritic
from pufferjax.core.train import make_init, make_update
from pufferjax.core.types import AheadTrainState, Memory, Restarts, RewardScale, TrainState
from pufferjax.core.warmup import make_walk
from pufferjax.envs import Env
from pufferjax.xla_ops import ffi

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


def _has_host_devices() -> bool:
    """Whether the user has said how many host devices there are: by JAX's own variable or option, or by XLA's flag."""
    asked = jax.config.jax_num_cpu_devices
    return (asked is not None and asked > 0) or "xla_force_host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )


def start_devices(count: int | None = None) -> list[jax.Device]:
    """JAX's devices; if it has not started yet in this process, `count` host devices (None: one per core that this
    process may use). JAX_NUM_CPU_DEVICES and XLA_FLAGS=--xla_force_host_platform_device_count are left as they are.

    Raises RuntimeError if JAX cannot start what JAX_PLATFORMS asks for.
    """
    if not _has_host_devices():
        with contextlib.suppress(RuntimeError):  # JAX has started: its devices are what they are
            jax.config.update("jax_num_cpu_devices", count or num_cores())
    try:
        return jax.local_devices()
    except (AssertionError, RuntimeError) as error:  # some versions of JAX only assert that they found a platform
        asked = jax.config.jax_platforms
        raise RuntimeError(
            f"JAX has no device: JAX_PLATFORMS is {asked!r}, and {str(error) or 'no such platform could be started'}. "
            "Unset it, set it to cpu, or install that platform's plugin"
        ) from error


def limit_op_threads(num_devices: int) -> None:
    """Shares the CPU's cores among the native calls of `num_devices` host devices."""
    ffi.limit_threads(max(1, num_cores() // num_devices))


def choose_devices(config: TrainConfig, count: int | None = None) -> list[jax.Device]:
    """The devices to train on: `count` of JAX's default ones, or as many as can share the run equally.

    If JAX has not started yet in this process, every CPU core is first made a host device. ValueError if `count` is not
    to be had or cannot share the run.
    """
    devices = start_devices(count)
    if count is not None:
        if not 1 <= count <= len(devices):
            raise ValueError(f"devices must be 1 to {len(devices)}, the number JAX has in this process, got {count}")
        local_config(config, count)
        return devices[:count]
    for count in range(len(devices), 1, -1):
        with contextlib.suppress(ValueError):
            local_config(config, count)
            return devices[:count]
    return devices[:1]


def global_shapes(
    env: Env, config: TrainConfig, num_devices: int, policy: ActorCritic | None = None, overlap: bool = False
) -> TrainState:
    """Shapes and dtypes of the TrainState of a run on `num_devices`, whatever devices there are now."""
    shapes = jax.eval_shape(make_init(env, config, policy), jax.random.key(0))
    if num_devices > 1:
        size = jax.ShapeDtypeStruct((num_devices,), shapes.state_set.size.dtype)
        shapes = dataclasses.replace(shapes, state_set=dataclasses.replace(shapes.state_set, size=size))
    if not overlap:
        return shapes
    num_replayed = num_devices * local_config(config, num_devices).num_replayed
    restarts = Restarts(
        slots=jax.ShapeDtypeStruct((num_replayed,), jnp.int32),
        importance=jax.ShapeDtypeStruct((num_replayed,), jnp.float32),
        rows=jax.ShapeDtypeStruct((num_replayed, env.spec.state_bytes), jnp.uint8),
        is_held=jax.ShapeDtypeStruct((num_replayed,), jnp.bool_),
    )
    entered = jax.ShapeDtypeStruct(shapes.born.shape, jnp.bool_)
    fields = {field.name: getattr(shapes, field.name) for field in dataclasses.fields(TrainState)}
    return AheadTrainState(**fields, restarts=restarts, entered=entered)


class Mapper:
    """Compiles functions of one device's share for all `devices`, and places what they are given.

    In the specs of operands and results, `same` is what all devices have alike, `split` what is split over its first
    axis. On a single device nothing is split. `axis_name` is that of the devices inside the functions; a single one has
    none.
    """

    same, split = PartitionSpec(), PartitionSpec(AXIS)

    def __init__(self, devices: Sequence[jax.Device]):
        self._device = devices[0] if len(devices) == 1 else None
        self.axis_name = AXIS if len(devices) > 1 else None
        self._mesh = Mesh(np.asarray(devices), (AXIS,))
        if len(devices) > 1 and devices[0].platform == "cpu" and jaxlib.version.__version__ == "0.11.2":
            # Its Shardy ends the process (signal 11) while it compiles `update`, in its pass
            # ManualComputationUnusedInputsPattern; the older partitioner does not, nor do 0.10.2 and 0.12.
            jax.config.update("jax_use_shardy_partitioner", False)

    def jit(self, function, in_specs, out_specs, **options):
        if self._device is not None:
            return jax.jit(function, **options)

        def shardings(specs):
            return jax.tree.map(lambda spec: NamedSharding(self._mesh, spec), specs)

        # The policy is computed alike on every device; to prove that to the type system buys nothing.
        sharded = jax.shard_map(function, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        # Explicit placements: else the first epoch's input and output would differ in theirs, and compile twice.
        return jax.jit(sharded, in_shardings=shardings(in_specs), out_shardings=shardings(out_specs), **options)

    def put(self, tree, spec: PartitionSpec = same):
        """The arrays of `tree` on the devices."""
        return jax.device_put(tree, self._device or NamedSharding(self._mesh, spec))


def train_state_specs(config: TrainConfig) -> TrainState:
    """How several devices share the arrays of a TrainState of `config`."""
    same, split = Mapper.same, Mapper.split
    fields = {field.name: same for field in dataclasses.fields(TrainState)}
    fields |= dict.fromkeys(("env_state", "observations", "is_fresh", "state_set", "born"), split)
    fields["reward_scale"] = RewardScale(split, same, same, same) if config.ppo.scale_rewards else None
    return TrainState(**fields | {"memory": Memory(recurrent=PartitionSpec(None, AXIS), previous_actions=split)})


def make_parallel(env: Env, config: TrainConfig, devices: Sequence[jax.Device], policy: ActorCritic | None = None):
    """(init, begin, go_on, update) as in `make_init`, `make_walk` and `make_update`, jitted, over all `devices`;
    `config` counts the whole run.

    With several devices the arrays of a TrainState are split over the environments, those of the state set over its
    slots, and `state_set.size` is i32[devices]. But for init all consume the train state they are given.
    Raises ValueError if the devices cannot share the environments, minibatches or slots equally.
    """
    if len(devices) == 1:
        # Placed as a state from a checkpoint is: else a resumed run would be another program, and compile anew.
        placed = SingleDeviceSharding(devices[0])
        return (
            jax.jit(make_init(env, config, policy), out_shardings=placed),
            *(
                jax.jit(function, donate_argnums=(0, 1)[:n])
                for n, function in enumerate(make_walk(env, config), start=1)
            ),
            jax.jit(make_update(env, config, policy), donate_argnums=0),
        )
    config = local_config(config, len(devices))
    mapper = Mapper(devices)
    same, specs = mapper.same, train_state_specs(config)

    def local(train_state: TrainState) -> TrainState:
        state_set = train_state.state_set
        return dataclasses.replace(train_state, state_set=dataclasses.replace(state_set, size=state_set.size[0]))

    def stacked(train_state: TrainState) -> TrainState:
        state_set = train_state.state_set
        return dataclasses.replace(train_state, state_set=dataclasses.replace(state_set, size=state_set.size[None]))

    init_local = make_init(env, config, policy, AXIS)
    begin_local, go_on_local = make_walk(env, config, AXIS)
    update_local = make_update(env, config, policy, AXIS)

    def init(key):
        return stacked(init_local(key))

    def begin(train_state):
        train_state, walk = begin_local(local(train_state))
        return stacked(train_state), walk

    def go_on(train_state, walk, hypers, chunks):
        train_state, walk = go_on_local(local(train_state), walk, hypers, chunks)
        return stacked(train_state), walk

    def update(train_state, hypers, progress):
        train_state, metrics = update_local(local(train_state), hypers, progress)
        return stacked(train_state), metrics

    return (
        mapper.jit(init, (same,), specs),
        mapper.jit(begin, (specs,), (specs, mapper.split), donate_argnums=0),
        mapper.jit(go_on, (specs, mapper.split, same, same), (specs, mapper.split), donate_argnums=(0, 1)),
        mapper.jit(update, (specs, same, same), (specs, same), donate_argnums=0),
    )
