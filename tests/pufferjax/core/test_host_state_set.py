"""The state set on the host: what it stores and how it trains is what one program does; little is transferred."""

import dataclasses
import functools
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pufferjax
from pufferjax import PPOConfig, StateSet, StateSetConfig
from pufferjax.core import host_state_set
from pufferjax.core.device_epoch import Offered, chunk_bounds
from pufferjax.core.diagnostics import entered_slots, state_set_metrics
from pufferjax.core.epochs import OneProgram, draws_ahead, make_epochs
from pufferjax.core.host_state_set import HostStateSet, Kept
from pufferjax.core.train import draw_restarts, epoch_keys, judge, make_epoch
from pufferjax.core.two_programs import TwoPrograms
from pufferjax.core.types import Offer, Restarts
from pufferjax.runs.load import load_run

TIMES = ("wall_seconds", "steps_per_second")


def equal(a, b):
    def data(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    jax.tree.map(lambda x, y: np.testing.assert_array_equal(data(x), data(y)), a, b)


@pytest.fixture(scope="module")
def config(tiny_config):
    """Half of the restarts walk, and the set needs five states first.

    With four minibatches the learner is a loop, which XLA compiles alike in every program; a single one it would fuse,
    and so round, as its surroundings suggest.
    """
    return tiny_config(
        ppo=PPOConfig(optimizer="adam", minibatch_size=64, replay_ratio=1.0),
        state_set=StateSetConfig(
            capacity=24, fraction=0.5, interval=8, replay_span=8, warmup_envs=4, warmup_rewards=4, walk_steps=16,
            min_states=5, release_from=2, release_until=3,
        )
    )  # fmt: skip


def trained(epochs, config, num_epochs):
    """(the metrics of every epoch, the train state after them)"""
    hypers = config.hypers()
    epochs.begin(epochs.warmup(epochs.init(jax.random.key(0)), hypers), hypers)
    figures = []
    for epoch in range(num_epochs):  # one ahead, as a run does it
        figures.append(epochs.advance(jnp.float32(epoch / 8)))
        figures[-2:-1] = [f() for f in figures[-2:-1]]
    return [*figures[:-1], figures[-1]()], epochs.train_state


def test_in_turn_it_is_the_one_program(tiny_env, config):
    metrics, state = trained(OneProgram(tiny_env, config, jax.devices()[:1]), config, 6)
    ours, our_state = trained(TwoPrograms(tiny_env, config, jax.devices()[:1], overlap=False), config, 6)
    assert ours == metrics and metrics[-1]["restarted_envs"] == 8 and sum(m["state_evictions"] for m in ours) > 10
    heap = our_state.state_set
    assert sorted(np.asarray(heap.heap).tolist()) == list(range(24))
    equal(our_state, state)


def test_overlapped_it_is_the_one_program_with_restarts_drawn_ahead(tiny_env, config):
    env, hypers = tiny_env, config.hypers()
    run_epoch = make_epoch(env, config)
    late = []  # by epoch: restarts whose slot had been filled anew

    @jax.jit
    def update(state, progress):
        restarts, state_set, born, epoch = state.restarts, state.state_set, state.born, state.epoch
        _, key, *_ = epoch_keys(epoch_keys(state.key, None)[0], None)
        drawn = draw_restarts(env, config, hypers, state_set, key, state.env_state[:1])
        state, metrics, offer = run_epoch(state, restarts, hypers, progress)
        rows = jnp.concatenate([offer.snapshots.reshape(-1, env.spec.state_bytes), restarts.rows[4:]])
        stale = state.entered[restarts.slots]
        rescored, state_set, born = judge(config, hypers, state_set, born, epoch, restarts.slots, offer, rows, ~stale)
        metrics |= state_set_metrics(env, rescored, state_set, born, epoch)
        entered = entered_slots(rescored, state_set)
        state = dataclasses.replace(state, state_set=state_set, born=born, restarts=drawn, entered=entered)
        return state, metrics, jnp.sum(stale & offer.is_restarted)

    epochs = TwoPrograms(env, config, jax.devices()[:1])
    state = jax.tree.map(jnp.copy, epochs.warmup(epochs.init(jax.random.key(0)), hypers))
    expected = []
    for epoch in range(6):
        state, metrics, stale = update(state, jnp.float32(epoch / 8))
        expected.append(jax.device_get(metrics))
        late.append(int(stale))
    ours, our_state = trained(epochs, config, 6)
    assert ours == expected and sum(late) > 0
    equal(our_state, state)
    with jax.transfer_guard("disallow"):
        progress = jax.device_put(np.float32(0.9), jax.devices()[0])
        epochs.advance(progress)
        epochs.advance(progress)()


def set_config(tiny_config, capacity):
    """8 fresh environments, each with 8 candidates, 4 that restart and 4 that walk before."""
    settings = {"capacity": capacity, "fraction": 0.5, "interval": 2, "replay_span": 2, "walk_steps": 16}
    return tiny_config(state_set=StateSetConfig(**settings))


@pytest.mark.parametrize("capacity", [12, 200])  # fewer than the candidates, and more
def test_it_stores_what_inserting_everything_would_and_fetches_little_else(
    tiny_env, tiny_config, monkeypatch, capacity
):
    config = set_config(tiny_config, capacity)
    host = HostStateSet(tiny_env, config, count=1, axis_name=None, ahead=True)
    plain = jax.jit(functools.partial(judge, config, config.hypers()))
    num_candidates, width, state_bytes = 8 * 8, 8, tiny_env.spec.state_bytes
    bounds, fetched = chunk_bounds(num_candidates, capacity), []

    def fetch(tree):
        fetched.append(sum(x.nbytes for x in jax.tree.leaves(tree)))
        return jax.device_get(tree)

    monkeypatch.setattr(host_state_set, "fetch", fetch)
    rng = np.random.default_rng(capacity)

    def rows(count):
        return rng.integers(256, size=(count, state_bytes), dtype=np.uint8)

    for filled, kind in itertools.product((0, 7, capacity), ("any", "tied", "low")):
        mask = np.arange(capacity) < filled
        kept = StateSet.create(capacity, state_bytes).insert(rows(capacity), rng.random(capacity, np.float32), mask)
        born, entered = jnp.zeros(capacity, jnp.int32), jnp.asarray(rng.random(capacity) < 0.3)
        for epoch in (1, 2, 3):
            scores = rng.random(num_candidates + width, np.float32) * np.float32(1 + 0.2 * epoch)
            scores = np.round(3 * scores) / 3 if kind == "tied" else scores * (1e-6 if kind == "low" else 1)
            scores = np.float32(scores)
            scores[rng.random(len(scores)) < 0.1] = [0, np.nan, -1][epoch - 1]
            snapshots, began = rows(num_candidates), rows(width)
            slots = rng.integers(max(1, int(kept.size)), size=width).astype(np.int32)
            restarted = (rng.random(width) < 0.8) & (int(kept.size) > 0)
            offer = Offer(*map(jnp.asarray, (scores[:-width], scores[-width:], restarted)), None)
            candidates = np.concatenate([snapshots, began[width // 2 :]])
            rescored, expected, expected_born = plain(
                kept, born, epoch, slots, offer, candidates, ~np.asarray(entered)[slots]
            )

            order = np.argsort(-np.where(scores[:-width] > 0, scores[:-width], 0)).astype(np.int32)
            chunks = tuple(jnp.asarray(snapshots[order][begin:end]) for begin, end in bounds)
            before = jax.tree.map(jnp.copy, Kept(kept, born, entered))
            restarts = Restarts(jnp.asarray(slots), None, jnp.asarray(began), None)
            offered = Offered(offer, jnp.asarray(order), chunks)
            fetched.clear()
            (kept, born, entered), _ = host.take_in(before, restarts, offered, epoch, config.hypers())
            equal((kept, born), (expected, expected_born))
            new = np.asarray(entered_slots(rescored, expected))
            np.testing.assert_array_equal(entered, new)

            # Of the rows, whole chunks were fetched, those with a row that is stored now.
            stored = {row.tobytes() for row in np.asarray(expected.snapshots)[new]}
            wanted = [c.nbytes for c in chunks if stored & {row.tobytes() for row in np.asarray(c)}]
            assert fetched == [8 * num_candidates + 5 * width, sum(wanted)]
            if kind != "tied":  # never more than the set has slots
                assert fetched[1] <= capacity * state_bytes
            if kind == "low" and filled == capacity == 12 and epoch == 1:
                assert fetched[1] == 0


def test_a_slot_with_another_state_is_not_rescored(tiny_config):
    config = set_config(tiny_config, 12)
    rows = np.arange(3 * 16, dtype=np.uint8).reshape(3, 16)
    kept = StateSet.create(12, 16).insert(rows, jnp.array([1.0, 2.0, 3.0]))
    offer = Offer(jnp.zeros(64), jnp.zeros(8), jnp.ones(8, bool), None)
    slots, is_current = jnp.array([0, 1, 1, 1, 0, 0, 0, 0]), jnp.array([True] + [False] * 7)
    arguments = (kept, jnp.zeros(12, jnp.int32), 1, slots, offer, jnp.zeros((68, 16), jnp.uint8), is_current)
    _, after, _ = jax.jit(functools.partial(judge, config, config.hypers()))(*arguments)
    np.testing.assert_array_equal(after.priorities[:3], np.float32([0.9, 2, 3]))


def test_chunks_cover_every_candidate_once():
    for num_candidates, capacity in [(1, 1), (5, 100), (100, 5), (64, 64), (9832, 256), (7, 8), (8, 7)]:
        bounds = chunk_bounds(num_candidates, capacity)
        assert [i for a, b in bounds for i in range(a, b)] == list(range(num_candidates))
        assert len(bounds) <= 9 and min(num_candidates, capacity) in {b for _, b in bounds}


def test_where_it_is_used(tiny_env, tiny_config):
    without = tiny_config(state_set=StateSetConfig(fraction=0.0, interval=8))
    devices = jax.devices()[:1]
    assert isinstance(make_epochs(tiny_env, tiny_config(), devices), OneProgram)
    assert isinstance(make_epochs(tiny_env, tiny_config(), devices, overlap=True), TwoPrograms)

    class Accelerator:
        platform = "cuda"

    assert draws_ahead(tiny_config(), [Accelerator], None) and not draws_ahead(without, [Accelerator], None)
    with pytest.raises(ValueError, match=r"overlap must be False or None without a state set .*, got True"):
        draws_ahead(without, devices, True)


def without_times(records):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def test_an_overlapped_run_goes_on_from_any_checkpoint(tmp_path, tiny_env, config):
    def train(**options):
        return pufferjax.train(tiny_env, config, seed=3, eval_episodes=0, devices=1, show=False, **options)

    whole = train(overlap=True)
    run_dir = tmp_path / "run"
    train(overlap=True, run_dir=run_dir, checkpoint_interval_seconds=0)
    for step in (7 * 256, 8 * 256):
        shutil.rmtree(run_dir / "checkpoints" / str(step))
    (run_dir / "summary.json").unlink()
    assert int(load_run(run_dir)[-1].epoch) == 6
    with pytest.raises(ValueError, match="overlap True; resumed it cannot have False"):
        train(overlap=False, run_dir=run_dir, resume=True)
    resumed = train(run_dir=run_dir, resume=True)
    assert without_times(resumed.metrics) == without_times(whole.metrics) and len(whole.metrics) == 8
    equal(resumed.train_state, whole.train_state)
    equal(load_run(run_dir)[-1], whole.train_state)


@pytest.mark.nightly
def test_two_devices_and_a_host(tmp_path, train_on_devices):
    result = train_on_devices(
        """
        from pufferjax.runs.checkpoint import load_checkpoint, save_checkpoint
        from pufferjax.core.parallel import global_shapes
        from pufferjax.core.two_programs import TwoPrograms

        config = dataclasses.replace(config, state_set=dataclasses.replace(config.state_set, walk_steps=32))
        host, *devices = jax.devices()

        def same(a, b):
            def data(x):
                return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
            equal = jax.tree.map(lambda x, y: np.array_equal(data(x), data(y)), a, b)
            return all(jax.tree.leaves(equal))

        result = {}
        # Without the learner, in which two programs of several devices round differently.
        own = dataclasses.replace(
            config, policy=PolicyConfig(hidden_size=8, num_layers=1),
            ppo=dataclasses.replace(config.ppo, replay_ratio=0.0),
        )
        metrics, state = train(OneProgram(env, own, devices), 3)
        ours, our_state = train(TwoPrograms(env, own, devices, overlap=False), 3)
        pairs = [(x[name], y[name]) for x, y in zip(ours, metrics) for name in y]
        same_metrics = np.allclose(*zip(*pairs), rtol=1e-5, equal_nan=True)  # NaN: no losses; sums are over shares
        result["same_in_turn"] = [same_metrics, same(our_state, state)]
        result["evictions"] = sum(m["state_evictions"] for m in metrics)
        overlapped = TwoPrograms(env, config, devices)
        metrics, state = train(overlapped)
        result["rate"] = late_rate(metrics)
        result["places"] = [
            sorted(d.id for d in x.devices())
            for x in (state.env_state, state.key, state.state_set.snapshots, state.restarts.rows, state.born)
        ]
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), global_shapes(env, config, 2, overlap=True))
        result["shapes"] = shapes == jax.tree.map(lambda x: (x.shape, x.dtype), state)

        save_checkpoint(sys.argv[1], 1, state)
        loaded = load_checkpoint(sys.argv[1], overlapped.init(jax.random.key(1))).train_state
        result["loaded"] = same(loaded, state)
        json.dump(result, sys.stdout)
        """,
        count=3,
        arguments=[tmp_path],
    )
    assert result["same_in_turn"] == [True, True]
    assert result["rate"] > 0.95
    assert result["places"] == [[1, 2], [1, 2], [0], [0], [0]]
    assert result["shapes"] and result["loaded"] and result["evictions"] > 10
