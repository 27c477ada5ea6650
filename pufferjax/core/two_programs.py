"""When the devices train and when the host tends the state set: the epochs of a run in two programs.

Without `overlap` the devices wait for the host. With it they never do: while epoch e runs, the host takes in epoch
e - 1 and then draws the restarts of epoch e + 1, which so come from the set one epoch earlier.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.core.config import Hypers, TrainConfig
from pufferjax.core.device_epoch import Offered, make_device_epoch, without_set
from pufferjax.core.host_state_set import HostStateSet, Kept
from pufferjax.core.parallel import Mapper, local_config
from pufferjax.core.policy import ActorCritic
from pufferjax.core.programs import compiler_options
from pufferjax.core.train import epoch_keys
from pufferjax.core.types import AheadTrainState, Restarts, TrainState
from pufferjax.core.waiting import fetch
from pufferjax.envs import Env


@dataclasses.dataclass
class _Epoch:
    """An epoch that was dispatched."""

    index: int
    restarts: Restarts
    metrics: dict[str, jax.Array]  # all of them once it has been taken in, until then without those of the state set
    offered: Offered | None  # None once it has been taken in


class TwoPrograms:
    """Training on `devices` with the state set on the host: see `pufferjax.core.epochs` for what the methods do.

    overlap: draw restarts an epoch ahead. Without it, every figure and state is that of
    `pufferjax.core.train.make_update`, as far as XLA rounds alike in two programs. With several devices each has its
    share of the set, as in `pufferjax.core.parallel`.
    Raises ValueError if the devices cannot share the run equally.
    """

    def __init__(
        self,
        env: Env,
        config: TrainConfig,
        devices: Sequence[jax.Device],
        policy: ActorCritic | None = None,
        overlap: bool = True,
    ):
        config = local_config(config, len(devices))
        self._config, self._overlap, self._platform = config, overlap, devices[0].platform
        self._mapper = Mapper(devices)
        self._start, self._epoch = make_device_epoch(env, config, self._mapper, policy)
        self._host = HostStateSet(env, config, len(devices), self._mapper.axis_name, overlap)

    def init(self, key: jax.Array) -> TrainState:
        train_state = self._start(self._mapper.put(key))
        kept = self._host.create()
        restarts, _ = self._host.draw(kept.state_set, *self._host.put((key, self._config.hypers())))
        return self._assembled(train_state, kept, restarts)

    def warmup(
        self, train_state: TrainState, hypers: Hypers, report: Callable[[float, int], bool] = lambda *_: True
    ) -> TrainState:
        key, hypers = self._host.put((train_state.key, hypers))
        kept, fields = self._host.warm(train_state.state_set, train_state.born, key, hypers, report)
        restarts, _ = self._host.draw(kept.state_set, fields["key"], hypers)
        return self._assembled(dataclasses.replace(train_state, **self._mapper.put(fields)), kept, restarts)

    def begin(self, train_state: TrainState, hypers: Hypers) -> None:
        self._host_hypers, self._hypers = self._host.put(hypers), self._mapper.put(hypers)
        self._train_state = without_set(train_state)
        self._index, self._key = int(train_state.epoch), self._host.put(train_state.key)
        entered = train_state.entered if self._overlap else jnp.zeros_like(train_state.born, bool)
        self._kept = Kept(train_state.state_set, train_state.born, entered)
        self._running: _Epoch | None = None  # until it has been taken in
        self._next: tuple[Restarts, Restarts] | None = None  # on the host and, without the slots, on the devices
        if self._overlap:
            self._key = epoch_keys(self._key, None)[0]
            self._next = train_state.restarts, self._uploaded(train_state.restarts)
        else:
            self._draw_next()
        progress = self._mapper.put(jnp.float32(0))
        lowered = self._epoch.lower(self._train_state, self._next[1], self._hypers, progress)
        self._compiled = lowered.compile(compiler_options(self._platform))

    def advance(self, progress: jax.Array) -> Callable[[], dict[str, np.ndarray]]:
        if self._next is None:
            self._settle()
            self._draw_next()
        (restarts, uploaded), self._next = self._next, None
        self._train_state, metrics, offered = self._compiled(
            self._train_state, uploaded, self._hypers, self._mapper.put(progress)
        )
        epoch = _Epoch(self._index, restarts, metrics, offered)
        self._index += 1
        if self._overlap:
            self._settle()
            self._draw_next()
        self._running = epoch

        def figures():
            if epoch is self._running:
                self._settle()
            return fetch(epoch.metrics)

        return figures

    @property
    def train_state(self) -> TrainState:
        self._settle()
        return self._assembled(self._train_state, self._kept, self._next and self._next[0])

    def _settle(self) -> None:
        """Waits for the epoch under way and takes it in."""
        if self._running is None:
            return
        epoch, self._running = self._running, None
        self._kept, figures = self._host.take_in(
            self._kept, epoch.restarts, epoch.offered, epoch.index, self._host_hypers
        )
        epoch.metrics |= figures
        epoch.offered = None  # the devices' memory is free for the next epoch

    def _draw_next(self) -> None:
        restarts, self._key = self._host.draw(self._kept.state_set, self._key, self._host_hypers)
        self._next = restarts, self._uploaded(restarts)

    def _uploaded(self, restarts: Restarts) -> Restarts:
        """For the devices, which have no use for the slots."""
        return self._mapper.put(jax.device_get(dataclasses.replace(restarts, slots=None)), self._mapper.split)

    def _assembled(self, train_state: TrainState, kept: Kept, restarts: Restarts | None) -> TrainState:
        fields = {field.name: getattr(train_state, field.name) for field in dataclasses.fields(TrainState)}
        fields |= {"state_set": kept.state_set, "born": kept.born}
        if self._overlap:
            return AheadTrainState(**fields, restarts=restarts, entered=kept.entered)
        return TrainState(**fields)
