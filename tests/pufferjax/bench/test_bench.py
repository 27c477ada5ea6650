"""`pufferjax bench` on tiny sizes: structure, not speed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import cli, xla_ops
from pufferjax.bench import envs, ops, profile, startup, timing, train
from pufferjax.bench.ops import OPS, Disagreement
from pufferjax.bench.peers import Peer
from pufferjax.core.parallel import choose_devices
from pufferjax.envs import make
from pufferjax.xla_ops import ffi

SUMMARY = {"median", "low", "high", "min", "max", "samples"}


def bench(capsys, *arguments):
    """The JSON a command prints."""
    assert cli.main(["bench", *map(str, arguments), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_summary_of_known_numbers():
    summary = timing.summarize([3.0, 1.0, 2.0, 5.0, 4.0])
    assert set(summary) == SUMMARY
    assert (summary["median"], summary["min"], summary["max"], summary["samples"]) == (3.0, 1.0, 5.0, 5)
    assert (summary["low"], summary["high"]) == (1.0, 5.0)  # P(median of 5 draws = 1) = 0.058: inside 95 %
    assert timing.summarize([7.0] * 9) == dict.fromkeys(("median", "low", "high", "min", "max"), 7.0) | {"samples": 9}
    wide = timing.summarize(range(1001))
    # The median of n uniform numbers has standard deviation ~ range / (2 sqrt n) = 16.
    assert wide["median"] == 500 and 460 < wide["low"] < 480 and 520 < wide["high"] < 540
    assert timing.summarize(range(1001)) == wide
    with pytest.raises(ValueError, match="samples"):
        timing.summarize([])


def test_pairs_alternate_and_drift_cancels():
    order, clock = [], iter(range(1, 100))

    def measure(name):
        order.append(name)
        return float(next(clock))  # every measurement takes longer than the last

    a, b, ratios = timing.paired(lambda: measure("a"), lambda: measure("b"), pairs=4, warmup=1)
    assert "".join(order) == "abba" * 2 + "ab"
    assert a == [4, 5, 8, 9] and b == [3, 6, 7, 10]
    assert ratios == [4 / 3, 5 / 6, 8 / 7, 9 / 10]


def test_envs(capsys, tmp_path):
    flags = ["--size", 9, "--num-envs", 8, 16, "--num-steps", 4, "--walk-steps", 32, "--repeats", 2]
    result = bench(capsys, "envs", *flags)
    assert result["env"] == "maze" and result["params"]["size"] == 9 and "Python" in result["machine"]
    rows = {(row["what"], row["num_envs"], row["layout"]) for row in result["results"]}
    assert {(what, count, "threads") for what in ("step", "random_walk") for count in (8, 16)} <= rows
    assert all(set(row["steps_per_second"]) == SUMMARY for row in result["results"])
    path = tmp_path / "out.json"
    assert cli.main(["bench", "envs", *map(str, flags), "--json", str(path)]) == 0
    assert json.loads(path.read_text()).keys() == result.keys()
    assert "random_walk" in capsys.readouterr().out


def test_peer():
    """Rates and ratio fit together."""

    def reset(keys):
        return jnp.zeros(len(keys))

    def step(key, state, action):
        return state + 1, action.astype(jnp.float32)

    peer = Peer("a counter", reset, step, num_actions=3)
    result = envs.bench_peer(make("maze", size=9), peer, 8, num_steps=4, pairs=3, devices=jax.local_devices()[:1])
    assert result["peer"] == "a counter" and result["ratio"]["samples"] == 3
    assert result["num_steps"][0] == 4 and result["num_steps"][1] >= envs.PEER_STEPS
    ours, theirs = (result[name] for name in ("steps_per_second", "peer_steps_per_second"))
    assert ours["min"] / theirs["max"] <= result["ratio"]["median"] <= ours["max"] / theirs["min"]


def test_real_peer(capsys):
    pytest.importorskip("jumanji")
    result = bench(capsys, "envs", "--env", "g2048", "--num-envs", 8, "--num-steps", 4, "--walk-steps", 4,
                   "--repeats", 1, "--peer")  # fmt: skip
    assert result["peer"]["peer"] == "Jumanji Game2048" and result["peer"]["ratio"]["median"] > 0


def test_train(capsys):
    result = bench(
        capsys, "train", "--size", 5, "--num-envs", 16, "--horizon", 16, "--hidden-size", 8, "--num-layers", 1,
        "--minibatch-size", 64, "--replay-ratios", 1.0, "--epochs", 3, "--warmup", 0, "--devices", 1,
    )  # fmt: skip
    (row,) = result["results"]
    assert row["compilations_after_first_epoch"] == 0 and row["minibatches"] == 4
    assert set(row["steps_per_second"]) == SUMMARY and row["steps_per_second"]["samples"] == 3
    assert row["peak_memory_bytes"] > 1e7


def test_state_set_pair_and_profile(tiny_env, tiny_config):
    config = tiny_config()
    devices = choose_devices(config, 1)
    result = train.bench_state_set(tiny_env, config, pairs=2, warmup=1, devices=devices)
    assert set(result["with_over_without"]) == SUMMARY and result["compilations_after_first_epoch"] == 0
    assert "with / without" in train.describe(result)
    without = dataclasses.replace(config, state_set=dataclasses.replace(config.state_set, fraction=0.0))
    with pytest.raises(ValueError, match=r"state_set\.fraction"):
        train.bench_state_set(tiny_env, without, 1, 0, devices)

    result = profile.bench_profile(tiny_env, config, repeats=1, devices=devices)
    pieces = result["milliseconds"]
    assert json.dumps(result) and "share of the epoch" in profile.describe(result)
    rest = pieces["epoch"] - pieces["rollout"] - pieces["training"] - pieces["state set"]
    assert pieces["epoch: the rest"] == pytest.approx(rest)
    assert all(x > 0 for name, x in pieces.items() if not name.endswith("the rest"))


def test_ops(capsys):
    result = bench(capsys, "ops", "--tiny", "--pairs", 1, "--rotate-megabytes", 0.01)
    assert [row["op"] for row in result["results"]] == [name for name, op in OPS.items() if not op.needs_gpu]
    for row in result["results"]:
        for name in ("native_ms", "reference_ms", "reference_over_native", "native_gb_per_second"):
            assert set(row[name]) == SUMMARY
        assert row["operand_sets"] >= 2 and row["bytes_moved"] > 0
        copying = result["copying_gb_per_second"]["median"]
        assert row["share_of_copying"] == pytest.approx(row["native_gb_per_second"]["median"] / copying)


def test_ops_at_a_lower_precision():
    names = [name for name, op in OPS.items() if op.needs_gpu]
    assert names == ["linear_max bfloat16", "entity_encoder bfloat16"]
    result = ops.bench_ops(names, 1, 0.01, tiny=True)
    assert [row["op"] for row in result["results"]] == names


def test_what_has_no_native_form_is_skipped_and_rows_are_saved_as_they_come(monkeypatch, capsys):
    backends = xla_ops.backends()
    monkeypatch.setattr(xla_ops, "backends", lambda: backends | {"gae_vtrace": {"cpu": "reference", "cuda": "native"}})
    saved = []
    result = ops.bench_ops(
        ["gae_vtrace", "state_heap_rescore"], 1, 0.01, True, lambda result: saved.append(json.dumps(result))
    )
    skipped, measured = result["results"]
    assert skipped["skipped"] == "no native gae_vtrace on this CPU" and "native_ms" not in skipped
    assert measured["native_ms"]["median"] > 0 and json.loads(saved[-1]) == json.loads(json.dumps(result))
    assert "skipped: no native gae_vtrace" in ops.describe(result)

    has_native = ffi.has_native
    monkeypatch.setattr(ffi, "has_native", lambda target, p: "random_walk" not in target and has_native(target, p))
    saved.clear()
    env, devices = make("maze", size=9), jax.local_devices()[:1]
    result = envs.bench_envs(env, [8, 16], 4, 32, 1, devices, lambda result: saved.append(len(result["results"])))
    rows = {(row["what"], row["num_envs"]): row for row in result["results"]}
    assert rows["random_walk", 8]["skipped"] == "no handler on this CPU for pufferjax.maze.random_walk"
    assert rows["step", 16]["steps_per_second"]["median"] > 0 and saved == [1, 3]
    assert "skipped: no handler" in envs.describe(result)


def test_both_sides_can_be_timed_inside_one_program():
    """As on a GPU."""
    case = OPS["gae_vtrace"].make(8, 4)
    rng = np.random.default_rng(0)
    seconds_of = ops._scanned(case, [case.operands(rng) for _ in range(3)])
    assert 0 < seconds_of("native")() < 0.1 and 0 < seconds_of("reference")() < 0.1


def test_a_wrong_native_op_is_not_timed(monkeypatch):
    right = OPS["gae_vtrace"].make

    def wrong(*size):
        case = right(*size)
        return dataclasses.replace(case, run=lambda impl, *x: case.run(impl, *x) * (1 + 1e-3 * (impl == "native")))

    monkeypatch.setitem(OPS, "gae_vtrace", dataclasses.replace(OPS["gae_vtrace"], make=wrong))
    with pytest.raises(Disagreement, match="gae_vtrace"):
        ops.bench_ops(["gae_vtrace"], 1, 0.01, tiny=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["envs", "--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["envs", "--env", "labyrinth"], "name must be one of maze"),
        (["envs", "--size", "4"], "size must be"),
        (["envs", "--env", "password", "--peer"], "--peer: no other suite has password; those with one are boxoban"),
        (["ops", "--ops", "nonsense"], "--ops must be among"),
        (["train", "--num-envs", "0"], "num_envs must be"),
        (["train", "--minibatch-size", "100"], "ppo.minibatch_size must be a multiple of horizon"),
    ],
)
def test_refusals(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.nightly
def test_startup(capsys, tiny_flags):
    words = " ".join(tiny_flags).split("--")[1:]
    flags = ["=".join(word.split()) for word in words]
    result = bench(capsys, "startup", "--repeats", 1, "--flags", *flags)
    assert result["flags"] == ["--" + flag for flag in flags]
    cold, warm = ({name: x["median"] for name, x in result["results"][kind].items()} for kind in ("cold", "warm"))
    for seconds in (cold, warm):
        assert sum(seconds[name] for name in startup.PHASES) == pytest.approx(seconds["total"], abs=0.01)
        assert min(seconds.values()) >= 0
    assert warm["compiling or loading"] < cold["compiling or loading"]
