"""What runs on the host while the devices train: the state set, in its memory, and all that is done to it.

Of what an epoch offers, the heap first decides on the mere numbers of the candidates; then the chunks are fetched that
hold rows it keeps, and those are moved to their slots. So the heap sees what it would see in the one program of
`pufferjax.core.train.make_update`, the same rows end in the same slots, and little more than that is transferred. The
random walks, of the warm-up and of restarts, run here as well.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.core.config import Hypers, TrainConfig
from pufferjax.core.device_epoch import Offered, candidate_chunks
from pufferjax.core.diagnostics import state_set_metrics
from pufferjax.core.shares import alike, over_shares
from pufferjax.core.state_set import StateSet
from pufferjax.core.train import draw_restarts, epoch_keys, judge
from pufferjax.core.types import Restarts, TrainState
from pufferjax.core.waiting import fetch
from pufferjax.core.warmup import make_walk, num_chunks, walk_in_parts
from pufferjax.envs import Env
from pufferjax.xla_ops.checks import usual_promotion


class Kept(NamedTuple):
    """What the host keeps, after some epoch."""

    state_set: StateSet
    born: jax.Array  # i32[M]
    entered: jax.Array  # bool[M]: slots filled anew by that epoch; if `ahead`


class HostStateSet:
    """What is done to a state set, as functions of what is `Kept` and of other arrays on the host (see `put`).

    config: of one share of the set; count: the devices that have one each, side by side in the arrays.
    ahead: restarts are drawn before the epoch before them is taken in, so a slot may get another state in between. It
    is then not re-scored by them.
    """

    def __init__(self, env: Env, config: TrainConfig, count: int, axis_name: str | None, ahead: bool):
        self._device = jax.local_devices(backend="cpu")[0]
        self._capacity = config.state_set.capacity

        def program(function, num_same=0, out_axes: Any = 0, **options):
            return jax.jit(usual_promotion()(over_shares(function, count, num_same, out_axes)), **options)

        first_walked = config.num_replayed - config.num_walked
        self._create = jax.jit(partial(_create, self._capacity, env.spec.state_bytes, count))
        self._walks = num_chunks(env, config)[0] > 0
        begin, go_on = make_walk(env, config, axis_name)
        self._begin_walk = program(partial(_begin_walk, begin), 1, (0, 0, None))
        self._go_on = program(partial(_go_on, go_on), 3, (0, 0, None), donate_argnums=(0, 1))
        self._draw = program(partial(_draw, env, config, axis_name), 2, (0, None))
        self._decide = program(partial(_decide, config, ahead), 2, donate_argnums=0)
        self._move = program(partial(_move, 0), donate_argnums=0)
        self._move_walked = program(partial(_move, first_walked), donate_argnums=0)
        self._figures = program(partial(_figures, env, axis_name), 1, None)

    def put(self, tree: Any) -> Any:
        """The arrays of `tree` in the host's memory."""
        return jax.device_put(tree, self._device)

    def create(self) -> Kept:
        """An empty set."""
        with jax.default_device(self._device):
            return self.put(self._create())

    def warm(
        self, state_set: StateSet, born: jax.Array, key: jax.Array, hypers: Hypers, report: Callable[[float, int], bool]
    ) -> tuple[Kept, dict[str, jax.Array]]:
        """After the warm-up, which consumes the set; and the other fields of a TrainState that it changes."""
        fields = {"key": key, "reward_seen": np.bool_(False)}
        fields = self.put(fields | {"warmup_steps": np.float32(0), "warmup_rewards": np.int32(0)})
        if self._walks:
            state_set, walk, fields = self._begin_walk(state_set, fields)

            def go_on(train_state, walk, chunks):
                state_set, fields = train_state.state_set, _changed(train_state)
                state_set, walk, fields = self._go_on(state_set, walk, fields, hypers, self.put(np.int32(chunks)))
                return _train_state(state_set, fields), walk

            train_state = walk_in_parts(go_on, _train_state(state_set, fields), walk, report)
            state_set, fields = train_state.state_set, _changed(train_state)
        return Kept(state_set, born, jnp.zeros_like(born, bool)), fields

    def draw(self, state_set: StateSet, key: jax.Array, hypers: Hypers) -> tuple[Restarts, jax.Array]:
        """The restarts of the epoch that begins with `key`, and the key with which the next one does."""
        return self._draw(state_set, key, hypers)

    def take_in(
        self, kept: Kept, restarts: Restarts, offered: Offered, epoch: int, hypers: Hypers
    ) -> tuple[Kept, dict[str, jax.Array]]:
        """After an epoch that began from `restarts`, and the figures of the set; waits for it, and consumes the set."""
        offer, order = self.put(fetch((offered.offer, offered.order)))
        index = self.put(np.int32(epoch))
        state_set, born, entered = kept
        (rescored, heap, born, entered), slots_of_chunks, slots_of_walked = self._decide(
            dataclasses.replace(state_set, snapshots=None), born, entered, restarts.slots, offer, order, index, hypers
        )
        snapshots = state_set.snapshots
        pairs = zip(slots_of_chunks, offered.chunks, strict=True)
        moves = [(slots, chunk) for slots, chunk in pairs if self._names_any(slots)]
        for (slots, _), rows in zip(moves, fetch([chunk for _, chunk in moves]), strict=True):
            snapshots = self._move(snapshots, slots, self.put(rows))
        if self._names_any(slots_of_walked):
            snapshots = self._move_walked(snapshots, slots_of_walked, restarts.rows)
        kept = Kept(dataclasses.replace(heap, snapshots=snapshots), born, entered)
        return kept, self._figures(rescored, kept.state_set, born, index)

    def _names_any(self, slots: jax.Array) -> bool:
        return bool((np.asarray(slots) < self._capacity).any())


def _create(capacity: int, state_bytes: int, count: int) -> Kept:
    share = Kept(StateSet.create(capacity, state_bytes), jnp.zeros(capacity, jnp.int32), jnp.zeros(capacity, bool))
    return alike(share, count)


# --- of one share


def _train_state(state_set, fields):
    """What the warm-up reads and writes of a train state."""
    nothing = {field.name: None for field in dataclasses.fields(TrainState)}
    return TrainState(**nothing | fields | {"state_set": state_set})


def _changed(train_state):
    return {name: getattr(train_state, name) for name in ("key", "reward_seen", "warmup_steps", "warmup_rewards")}


def _begin_walk(begin, state_set, fields):
    train_state, walk = begin(_train_state(state_set, fields))
    return train_state.state_set, walk, _changed(train_state)


def _go_on(go_on, state_set, walk, fields, hypers, chunks):
    train_state, walk = go_on(_train_state(state_set, fields), walk, hypers, chunks)
    return train_state.state_set, walk, _changed(train_state)


def _draw(env, config, axis_name, state_set, key, hypers):
    next_key, key, *_ = epoch_keys(key, axis_name)
    _, spare = env.reset(jax.random.key(0), 1)
    return draw_restarts(env, config, hypers, state_set, key, spare), next_key


def _decide(config, ahead, heap, born, entered, slots, offer, order, epoch, hypers):
    """`judge` without the rows: ((rescored, heap, born, entered), the slots that each chunk's candidates go to, those
    that the walked ones go to); the slot after the last is none. heap, rescored: sets without snapshots."""
    capacity, bounds = config.state_set.capacity, candidate_chunks(config)
    num_candidates = bounds[-1][1]
    # The candidates are their own numbers, so what the set holds in the end says which of them it took.
    numbered = dataclasses.replace(heap, snapshots=_as_bytes(jnp.full(capacity, -1)))
    numbers = jnp.arange(num_candidates + config.num_walked)
    rescored, after, born = judge(
        config, hypers, numbered, born, epoch, slots, offer, _as_bytes(numbers), ~entered[slots]
    )
    taken = jax.lax.bitcast_convert_type(after.snapshots, jnp.int32)
    entered = taken >= 0
    slot_of = jnp.full(len(numbers), capacity)
    slot_of = slot_of.at[jnp.where(entered, taken, len(numbers))].set(jnp.arange(capacity), mode="drop")
    by_score = slot_of[:num_candidates][order]
    rescored, heap = (dataclasses.replace(x, snapshots=None) for x in (rescored, after))
    return (
        (rescored, heap, born, entered if ahead else jnp.zeros_like(entered)),
        [by_score[begin:end] for begin, end in bounds],
        slot_of[num_candidates:],
    )


def _move(first, snapshots, slots, rows):
    return snapshots.at[slots].set(rows[first:], mode="drop")


def _figures(env, axis_name, rescored, state_set, born, epoch):
    return state_set_metrics(env, rescored, state_set, born, epoch, axis_name)


def _as_bytes(numbers: jax.Array) -> jax.Array:
    """u8[n, 4] of i32[n]."""
    return jax.lax.bitcast_convert_type(numbers.astype(jnp.int32), jnp.uint8)
