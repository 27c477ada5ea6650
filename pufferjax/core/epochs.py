"""The epochs of a run, one after the other: one program that holds the state set, or two programs,
with the set on the host.

Both kinds have the same methods:

init(key) -> TrainState
warmup(train_state, hypers, report) -> TrainState; report(steps, rewards) is called several times a second, and says
    whether to walk on
begin(train_state, hypers): compiles; the train state is then consumed by the first epoch
advance(progress f32[]) -> figures: dispatches the next epoch; `figures()` waits for its end and returns its metrics,
    NumPy scalars. May wait for the epoch before it, never for the one it dispatches.
train_state: after the epoch dispatched last; copy what is to outlive the next one
"""

import copy
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.core.config import Hypers, TrainConfig
from pufferjax.core.parallel import limit_op_threads, make_parallel
from pufferjax.core.policy import ActorCritic, as_policy
from pufferjax.core.programs import Program, functions_of, remembered
from pufferjax.core.two_programs import TwoPrograms
from pufferjax.core.types import TrainState
from pufferjax.core.waiting import wait
from pufferjax.core.warmup import num_chunks, walk_in_parts
from pufferjax.envs import Env


class OneProgram:
    """Training by `pufferjax.core.parallel`: an epoch is one program on the devices, the state set in their memory."""

    def __init__(self, env: Env, config: TrainConfig, devices: Sequence[jax.Device], policy: ActorCritic | None = None):
        functions = make_parallel(env, config, devices, policy)
        self._init, self._begin_walk, self._walk, self._update = (Program(x, devices) for x in functions)
        self._hypers_like, self._walks = config.hypers(), num_chunks(env, config)[0] > 0

    def init(self, key: jax.Array) -> TrainState:
        compiled = self._init.compile(key)
        # Everything a run needs, at the same time; the epoch takes longest, and compiles while the walk goes on.
        train_state = self._init.results(key)
        if self._walks:
            self._begin_walk.compile(train_state)
            self._walk.compile(*self._begin_walk.results(train_state), self._hypers_like, jnp.int32(1))
        self._update.compile(train_state, self._hypers_like, jnp.float32(0))
        return compiled.result()(key)

    def warmup(
        self, train_state: TrainState, hypers: Hypers, report: Callable[[float, int], bool] = lambda *_: True
    ) -> TrainState:
        if not self._walks:
            return train_state
        train_state, walk = self._begin_walk(train_state)
        return walk_in_parts(
            lambda s, w, chunks: self._walk(s, w, hypers, jnp.int32(chunks)), train_state, walk, report
        )

    def begin(self, train_state: TrainState, hypers: Hypers) -> None:
        self.train_state, self._hypers = train_state, hypers
        self._compiled = self._update.compile(train_state, hypers, jnp.float32(0)).result()

    def advance(self, progress: jax.Array) -> Callable[[], dict[str, np.ndarray]]:
        self.train_state, metrics = self._compiled(self.train_state, self._hypers, progress)

        def figures():
            wait(metrics["loss"])
            return jax.device_get(metrics)

        return figures


def draws_ahead(config: TrainConfig, devices: Sequence[jax.Device], overlap: bool | None) -> bool:
    """Whether a run on `devices` overlaps the host's work with theirs; None: if they are not CPUs.

    Raises ValueError for True without a state set.
    """
    if overlap and config.state_set.fraction == 0:
        raise ValueError("overlap must be False or None without a state set (state_set.fraction = 0), got True")
    return devices[0].platform != "cpu" and config.state_set.fraction > 0 if overlap is None else overlap


def make_epochs(
    env: Env,
    config: TrainConfig,
    devices: Sequence[jax.Device],
    policy: ActorCritic | None = None,
    overlap: bool | None = None,
) -> OneProgram | TwoPrograms:
    """The epochs of a run on `devices`, `config` counting all of it; overlap: see `draws_ahead`.

    The state set is on the host wherever the devices are something else, and where they overlap. Raises ValueError if
    the devices cannot share the environments, minibatches or slots equally.

    What was compiled for the latest few is kept: epochs for an equal environment, config, policy and the same devices
    (another seed, say) compile nothing again in this process. Raises ValueError under `jax.disable_jit`.
    """
    if jax.config.jax_disable_jit:
        raise ValueError(
            "jax_disable_jit must be off: a run is made of compiled programs; pufferjax.make_train works without"
        )
    overlap = draws_ahead(config, devices, overlap)
    policy = as_policy(env.spec, policy, config.policy)

    def make():
        if overlap or (devices[0].platform != "cpu" and config.state_set.fraction > 0):
            return TwoPrograms(env, config, devices, policy, overlap)
        return OneProgram(env, config, devices, policy)

    epochs = remembered("epochs", (functions_of(env), config, policy, tuple(devices), overlap), make, most=4)
    if devices[0].platform == "cpu":
        limit_op_threads(len(devices))
    return copy.copy(epochs)  # the run is the copy's own, what was compiled is shared
