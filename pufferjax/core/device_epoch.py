"""What runs on the devices while the state set is elsewhere: a whole epoch, from restarts to what it offers the set.

The rows that environments restart from are an argument. What the set may want stays on the devices until it is fetched:
the scores of everything, and the snapshots of the candidates, sorted by score and cut into chunks.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pufferjax.core.config import TrainConfig
from pufferjax.core.parallel import Mapper, train_state_specs
from pufferjax.core.policy import ActorCritic
from pufferjax.core.train import make_epoch, make_init
from pufferjax.core.types import Offer, TrainState
from pufferjax.envs import Env

_NUM_CHUNKS = 8  # of the best candidates, as many as the set has slots


class Offered(NamedTuple):
    """What an epoch offers the state set: K candidates."""

    offer: Offer  # without the snapshots
    order: jax.Array  # i32[K]: the candidates by score, highest first
    chunks: tuple[jax.Array, ...]  # u8[..., S]: their snapshots in that order, cut at `candidate_chunks`


def make_device_epoch(env: Env, config: TrainConfig, mapper: Mapper, policy: ActorCritic | None = None):
    """(start, epoch) for the devices of `mapper`, jitted; `config` is that of one device's share.

    start(key) -> a fresh train state
    epoch(train_state, restarts, hypers, progress) -> (train_state, metrics, Offered); consumes the train state. The
        metrics lack the figures of the state set.

    In their train states the set and what belongs to it is None, in the restarts the slots are.
    """
    init, run_epoch = (make(env, config, policy, mapper.axis_name) for make in (make_init, make_epoch))
    bounds = candidate_chunks(config)

    def start(key):
        return without_set(init(key))

    def epoch(train_state, restarts, hypers, progress):
        train_state, metrics, offer = run_epoch(train_state, restarts, hypers, progress)
        scores = offer.candidate_scores
        order = jnp.argsort(jnp.where(scores > 0, scores, 0.0), descending=True)
        rows = offer.snapshots.reshape(-1, env.spec.state_bytes)[order]
        chunks = tuple(rows[begin:end] for begin, end in bounds)
        return train_state, metrics, Offered(dataclasses.replace(offer, snapshots=None), order, chunks)

    same, split, specs = mapper.same, mapper.split, without_set(train_state_specs(config))
    return (
        mapper.jit(start, (same,), specs),
        mapper.jit(epoch, (specs, split, same, same), (specs, same, split), donate_argnums=0),
    )


def without_set(train_state: TrainState) -> TrainState:
    """What the devices keep of a train state."""
    fields = {field.name: getattr(train_state, field.name) for field in dataclasses.fields(TrainState)}
    return TrainState(**fields | {"state_set": None, "born": None})


def candidate_chunks(config: TrainConfig) -> list[tuple[int, int]]:
    """(begin, end) of the chunks in which the candidates of a share, ordered by score, are fetched."""
    num_fresh = config.num_envs - config.num_replayed
    return chunk_bounds(config.horizon // config.state_set.interval * num_fresh, config.state_set.capacity)


def chunk_bounds(num_candidates: int, capacity: int) -> list[tuple[int, int]]:
    """The set takes no more than it has slots, so its new states are among that many best candidates; but for those of
    exactly the same score, for which there is the last, large chunk."""
    most = min(num_candidates, capacity)
    size = -(-most // _NUM_CHUNKS)
    bounds = [(begin, min(begin + size, most)) for begin in range(0, most, size)]
    return bounds + [(most, num_candidates)] * (num_candidates > most)
