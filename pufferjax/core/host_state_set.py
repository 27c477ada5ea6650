"""Training with the state set in host memory: an epoch is one program on the devices, and the host keeps the set.

Down to the devices go the rows that environments restart from. Up come the scores of everything the epoch offers, and
its snapshots sorted by score, in chunks, of which the host fetches those that hold rows it keeps: it first lets the
heap decide on the mere numbers of the candidates. So the heap sees what it would see in the one program of
`pufferjax.core.train.make_update`, the same rows end in the same slots, and little more than that is transferred. The
random walks, of the warm-up and of restarts, run on the host as well.

Without `overlap` the devices wait for the host. With it they never do: while epoch e runs, the host takes in epoch
e - 1 and then draws the restarts of epoch e + 1, which so come from the set one epoch earlier. A slot that gets another
state in between is not re-scored by them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.core.config import Hypers, TrainConfig
from pufferjax.core.diagnostics import state_set_metrics
from pufferjax.core.evaluate import wait
from pufferjax.core.parallel import AXIS, Mapper, limit_op_threads, local_config, train_state_specs
from pufferjax.core.policy import ActorCritic
from pufferjax.core.state_set import StateSet
from pufferjax.core.train import draw_restarts, epoch_keys, judge, make_epoch, make_init, make_warmup
from pufferjax.core.types import AheadTrainState, Offer, Restarts, TrainState
from pufferjax.envs import Env

_NUM_CHUNKS = 8  # in which the best candidates, as many as the set has slots, are fetched


class _Kept(NamedTuple):
    """What the host keeps, after some epoch."""

    state_set: StateSet
    born: jax.Array  # i32[M]
    entered: jax.Array  # bool[M]: slots filled anew by that epoch


@dataclasses.dataclass
class _Epoch:
    """An epoch on the devices: what it was given, and what it will give."""

    index: int
    slots: jax.Array  # i32[C]
    rows: jax.Array  # u8[C, S]
    metrics: dict[str, jax.Array]
    scores: tuple[Offer, jax.Array]  # without the snapshots; i32[K], the candidates by score, highest first
    chunks: tuple[jax.Array, ...]  # u8[..., S]: their snapshots in that order
    figures: dict[str, jax.Array] | None = None  # all of its metrics, once it has been taken in


class HostStateSet:
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
        count = len(devices)
        config = local_config(config, count)
        axis_name = AXIS if count > 1 else None
        if devices[0].platform == "cpu":
            limit_op_threads(count)
        self._config, self._overlap = config, overlap
        self._host = jax.local_devices(backend="cpu")[0]
        self._mapper = mapper = Mapper(devices)
        specs = dataclasses.replace(train_state_specs(), state_set=None, born=None)
        first_walked = config.num_replayed - config.num_walked
        capacity, state_bytes = config.state_set.capacity, env.spec.state_bytes
        num_fresh = config.num_envs - config.num_replayed
        num_candidates = config.horizon // config.state_set.interval * num_fresh
        bounds = _chunk_bounds(num_candidates, capacity)

        # --- on the devices
        init, run_epoch = make_init(env, config, policy, axis_name), make_epoch(env, config, policy, axis_name)

        def start(key):
            return dataclasses.replace(init(key), state_set=None, born=None)

        def epoch(train_state, restarts, hypers, progress):
            train_state, metrics, offer = run_epoch(train_state, restarts, hypers, progress)
            scores = offer.candidate_scores
            order = jnp.argsort(jnp.where(scores > 0, scores, 0.0), descending=True)
            rows = offer.snapshots.reshape(-1, state_bytes)[order]
            chunks = tuple(rows[begin:end] for begin, end in bounds)
            return train_state, metrics, (dataclasses.replace(offer, snapshots=None), order), chunks

        same, split = mapper.same, mapper.split
        self._start = mapper.jit(start, (same,), specs)
        self._epoch = mapper.jit(epoch, (specs, split, same, same), (specs, same, split, split), donate_argnums=0)

        # --- on the host
        warmup = make_warmup(env, config, axis_name)
        nothing = {field.name: None for field in dataclasses.fields(TrainState)}

        def create():
            share = StateSet.create(capacity, state_bytes), jnp.zeros(capacity, jnp.int32), jnp.zeros(capacity, bool)
            shares = _merge(jax.tree.map(lambda x: jnp.stack([x] * count), share)) if count > 1 else share
            return _Kept(*shares)

        def warm(state_set, key, hypers):
            fields = {"key": key, "reward_seen": jnp.bool_(False)}
            fields |= {"warmup_steps": jnp.float32(0), "warmup_rewards": jnp.int32(0)}
            after = warmup(TrainState(**nothing | fields | {"state_set": state_set}), hypers)
            return after.state_set, {name: getattr(after, name) for name in fields}

        def draw(state_set, key, hypers):
            next_key, key, *_ = epoch_keys(key, axis_name)
            _, spare = env.reset(jax.random.key(0), 1)
            return draw_restarts(env, config, hypers, state_set, key, spare), next_key

        def decide(heap, born, entered, slots, offer, order, epoch, hypers):
            # The candidates are their own numbers, so what the set holds in the end says which of them it took.
            numbered = dataclasses.replace(heap, snapshots=_as_bytes(jnp.full(capacity, -1)))
            numbers = jnp.arange(num_candidates + config.num_walked)
            rescored, after, born = judge(
                config, hypers, numbered, born, epoch, slots, offer, _as_bytes(numbers), ~entered[slots]
            )
            taken = jax.lax.bitcast_convert_type(after.snapshots, jnp.int32)
            entered = taken >= 0
            slot_of = jnp.full(len(numbers), capacity)  # none: beyond the last
            slot_of = slot_of.at[jnp.where(entered, taken, len(numbers))].set(jnp.arange(capacity), mode="drop")
            by_score = slot_of[:num_candidates][order]
            rescored, heap = (dataclasses.replace(x, snapshots=None) for x in (rescored, after))
            return (
                (rescored, heap, born, entered if overlap else jnp.zeros_like(entered)),
                [by_score[begin:end] for begin, end in bounds],
                slot_of[num_candidates:],
            )

        def move(snapshots, slots, rows):
            return snapshots.at[slots].set(rows, mode="drop")

        def move_walked(snapshots, slots, rows):
            return move(snapshots, slots, rows[first_walked:])

        def figures(rescored, state_set, born, epoch):
            return state_set_metrics(env, rescored, state_set, born, epoch, axis_name)

        def program(function, num_same=0, out_axes: Any = 0, **options):
            return jax.jit(_over_shares(function, count, num_same, out_axes), **options)

        self._create = jax.jit(create)
        self._warm = program(warm, 2, (0, None), donate_argnums=0)
        self._draw = program(draw, 2, (0, None))
        self._decide = program(decide, 2, donate_argnums=0)
        self._move = program(move, donate_argnums=0)
        self._move_walked = program(move_walked, donate_argnums=0)
        self._figures = program(figures, 1, None)

    def init(self, key: jax.Array) -> TrainState:
        train_state = self._start(self._mapper.put(key))
        with jax.default_device(self._host):
            kept = self._at_host(self._create())
        restarts = self._draw(kept.state_set, self._at_host(key), self._at_host(self._config.hypers()))[0]
        return self._assembled(train_state, kept, restarts)

    def warmup(self, train_state: TrainState, hypers: Hypers) -> TrainState:
        key, hypers = self._at_host((train_state.key, hypers))
        state_set, fields = self._warm(train_state.state_set, key, hypers)
        kept = _Kept(state_set, train_state.born, jnp.zeros_like(train_state.born, bool))
        restarts = self._draw(state_set, fields["key"], hypers)[0]
        return self._assembled(dataclasses.replace(train_state, **self._mapper.put(fields)), kept, restarts)

    def begin(self, train_state: TrainState, hypers: Hypers) -> None:
        self._host_hypers, self._hypers = self._at_host(hypers), self._mapper.put(hypers)
        fields = {field.name: getattr(train_state, field.name) for field in dataclasses.fields(TrainState)}
        self._train_state = TrainState(**fields | {"state_set": None, "born": None})
        self._index, self._key = int(train_state.epoch), self._at_host(train_state.key)
        entered = jnp.zeros_like(train_state.born, bool)
        if self._overlap:
            entered = train_state.entered
            self._key = epoch_keys(self._key, None)[0]
        self._kept = _Kept(train_state.state_set, train_state.born, entered)
        self._running: _Epoch | None = None
        self._next: tuple[Restarts, Restarts] | None = None  # on the host and, without the slots, on the devices
        if self._overlap:
            self._next = train_state.restarts, self._uploaded(train_state.restarts)
        else:
            self._draw_next()
        progress = self._mapper.put(jnp.float32(0))
        lowered = self._epoch.lower(self._train_state, self._next[1], self._hypers, progress)
        self._compiled = lowered.compile()

    def advance(self, progress: jax.Array) -> Callable[[], dict[str, np.ndarray]]:
        if self._next is None:
            self._settle()
            self._draw_next()
        restarts, uploaded = self._next
        self._train_state, metrics, scores, chunks = self._compiled(
            self._train_state, uploaded, self._hypers, self._mapper.put(progress)
        )
        epoch = _Epoch(self._index, restarts.slots, restarts.rows, metrics, scores, chunks)
        self._index += 1
        self._next = None
        if self._overlap:
            self._settle()
            self._draw_next()
        self._running = epoch

        def figures():
            if epoch is self._running:
                self._settle()
            return _fetch(epoch.figures)

        return figures

    @property
    def train_state(self) -> TrainState:
        self._settle()
        return self._assembled(self._train_state, self._kept, self._next and self._next[0])

    def _assembled(self, train_state: TrainState, kept: _Kept, restarts: Restarts | None) -> TrainState:
        fields = {field.name: getattr(train_state, field.name) for field in dataclasses.fields(TrainState)}
        fields |= {"state_set": kept.state_set, "born": kept.born}
        return (
            AheadTrainState(**fields, restarts=restarts, entered=kept.entered)
            if self._overlap
            else TrainState(**fields)
        )

    def _at_host(self, tree):
        return jax.device_put(tree, self._host)

    def _uploaded(self, restarts: Restarts) -> Restarts:
        """For the devices, which have no use for the slots."""
        return self._mapper.put(jax.device_get(dataclasses.replace(restarts, slots=None)), self._mapper.split)

    def _draw_next(self) -> None:
        restarts, self._key = self._draw(self._kept.state_set, self._key, self._host_hypers)
        self._next = restarts, self._uploaded(restarts)

    def _settle(self) -> None:
        """Waits for the epoch under way and takes it in."""
        if self._running is None:
            return
        epoch, self._running = self._running, None
        offer, order = self._at_host(_fetch(epoch.scores))
        index = self._at_host(np.int32(epoch.index))
        state_set, born, entered = self._kept
        (rescored, heap, born, entered), slots_of_chunks, slots_of_walked = self._decide(
            dataclasses.replace(state_set, snapshots=None),
            born, entered, epoch.slots, offer, order, index, self._host_hypers,
        )  # fmt: skip
        snapshots = state_set.snapshots
        moves = [(slots, chunk) for slots, chunk in zip(slots_of_chunks, epoch.chunks, strict=True) if self._any(slots)]
        for (slots, _), rows in zip(moves, _fetch([chunk for _, chunk in moves]), strict=True):
            snapshots = self._move(snapshots, slots, self._at_host(rows))
        if self._any(slots_of_walked):
            snapshots = self._move_walked(snapshots, slots_of_walked, epoch.rows)
        self._kept = _Kept(dataclasses.replace(heap, snapshots=snapshots), born, entered)
        epoch.figures = epoch.metrics | self._figures(rescored, self._kept.state_set, born, index)
        epoch.scores = epoch.chunks = ()  # the devices' memory is free for the next epoch

    def _any(self, slots: jax.Array) -> bool:
        return bool((np.asarray(slots) < self._config.state_set.capacity).any())


def _fetch(tree: Any) -> Any:
    """The arrays of `tree`, once they are there, as NumPy's. The only way up from the devices."""
    for x in jax.tree.leaves(tree):
        wait(x)
    return jax.device_get(tree)


def _chunk_bounds(num_candidates: int, capacity: int) -> list[tuple[int, int]]:
    """(begin, end) of the parts in which the candidates, ordered by score, are fetched.

    The set takes no more than it has slots, so its new states are among that many best ones; but for candidates of
    exactly the same score, for which there is the last, large part.
    """
    most = min(num_candidates, capacity)
    size = -(-most // _NUM_CHUNKS)
    bounds = [(begin, min(begin + size, most)) for begin in range(0, most, size)]
    return bounds + [(most, num_candidates)] * (num_candidates > most)


def _as_bytes(numbers: jax.Array) -> jax.Array:
    """u8[n, 4] of i32[n]."""
    return jax.lax.bitcast_convert_type(numbers.astype(jnp.int32), jnp.uint8)


def _over_shares(function, count: int, num_same: int, out_axes: Any):
    """`function` of one share, for all `count` shares of the state set, side by side in each array as in a TrainState.

    The last `num_same` arguments are the same for all shares, and so are results with None in `out_axes`. For the
    function, the shares are the devices of the axis AXIS.
    """
    if count == 1:
        return function

    def split(tree):
        return _by_set(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), tree)

    def merged(tree, axis):
        return tree if axis is None else _merge(tree)

    def whole(*args):
        first_same = len(args) - num_same
        in_axes = [0] * first_same + [None] * num_same
        args = [*map(split, args[:first_same]), *args[first_same:]]
        results = jax.vmap(function, in_axes, out_axes, axis_name=AXIS)(*args)
        return tuple(map(merged, results, out_axes)) if isinstance(out_axes, tuple) else merged(results, out_axes)

    return whole


def _merge(tree):
    return _by_set(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), tree)


def _by_set(change: Callable[[jax.Array], jax.Array], tree):
    """`tree` with every array changed but the sizes of state sets, i32[shares] in either form."""

    def of(x):
        if not isinstance(x, StateSet):
            return change(x)
        return dataclasses.replace(jax.tree.map(change, dataclasses.replace(x, size=None)), size=x.size)

    return jax.tree.map(of, tree, is_leaf=lambda x: isinstance(x, StateSet))
