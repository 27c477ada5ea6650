"""The statistics of the ablation: what counts as a latch, what the intervals are, and that runs are not repeated."""

import json
import subprocess

import pytest


@pytest.fixture
def statistics(load):
    return load("maze_statistics")


def records(perfs, rewards, warmup_rewards=0, episodes=100):
    """One per epoch of 1,000 steps and 2 seconds."""
    return [
        {
            "step": 1000 * (i + 1), "wall_seconds": 12.0 + 2 * i, "episodes": episodes,
            "perf": perf, "rewards": reward, "warmup_rewards": warmup_rewards,
        }
        for i, (perf, reward) in enumerate(zip(perfs, rewards, strict=True))
    ]  # fmt: skip


def test_times_of_a_run_that_latches(statistics):
    # Two epochs make 200 episodes: the rate of the latest two reaches 0.1 in the fifth.
    measured = statistics.measure(records([0, 0.04, 0.05, 0.08, 0.12, 0.5], [0, 3, 0, 9, 9, 9]))
    assert measured == {"first_reward_steps": 2000, "latch_steps": 5000, "run_seconds": 22}


def test_a_reward_of_the_warmup_counts_from_the_start(statistics):
    assert statistics.measure(records([0.0], [0], warmup_rewards=5))["first_reward_steps"] == 0


def test_few_lucky_episodes_are_no_latch(statistics):
    few = [record | {"episodes": 10} for record in records([1.0] * 19, [1] * 19)]
    assert statistics.measure(few)["latch_steps"] is None
    none = statistics.measure(records([None] * 3, [0] * 3, episodes=0))
    assert none["latch_steps"] is None and none["first_reward_steps"] is None


def result(first, latch, rate, steps=100_000_000):
    millions = [None if x is None else x * 1_000_000 for x in (first, latch)]
    return {"first_reward_steps": millions[0], "latch_steps": millions[1], "steps": steps, "final_rate": rate}


def test_what_never_came_is_a_lower_bound(statistics):
    figures = statistics.summarize([result(10, 30, 0.8), result(20, None, 0.0), result(None, None, 0.0)])
    assert figures["latched"]["mean"] == pytest.approx(1 / 3)
    assert figures["first_reward"]["values"] == [10, 20, 100] and figures["first_reward"]["is_bound"]
    assert figures["latch"]["values"] == [20, 80] and figures["latch"]["is_bound"]
    assert figures["final_rate"]["values"] == [0.8, 0, 0] and not figures["final_rate"]["is_bound"]
    row = statistics.table({"full": figures}).splitlines()[2]
    assert row.startswith("| full | 3 | 0.33 [") and "| >= 50.0 [20.0, 80.0] | 0.267 [" in row
    assert "latch" not in statistics.summarize([result(None, None, 0.0)])


def outcome(flags):
    summary = {"evaluation": {"perf": 0.5}, "warmup_steps": 0, "warmup_rewards": 0, "devices": 1, "machine": "none"}
    return summary, records([0.5], [1.0], episodes=300)


def test_runs_are_kept_and_not_repeated(training, statistics, tmp_path, capsys):
    made, output = training(outcome).made, tmp_path / "out" / "s.json"

    def experiment(*arguments):
        statistics.main(["--size", "5", "--steps", "3000000", "--output", str(output), *arguments])
        return made

    runs = experiment("--seeds", "0", "--arms", "full", "neither", "no-warmup-no-gate")
    assert [run.get("--state-set.fraction") for run in runs] == [None, "0", None]
    assert [run.get("--ppo.priority-exponent") for run in runs] == [None, "0", None]
    assert [run.get("--state-set.warmup-rewards") for run in runs] == [None, None, "0"]
    assert ["--ppo.no-wait-for-reward" in run for run in runs] == [False, False, True]
    assert all((run["env"], run["--total-steps"], run["--env.size"]) == ("maze", "3000000", "5") for run in runs)
    assert len(experiment("--seeds", "0", "1", "--arms", "full", "neither")) == 5  # two of the four were there
    # A run that fails ends the experiment; what was there before is kept.
    with pytest.raises(subprocess.CalledProcessError):
        experiment("--seeds", "2", "9", "--arms", "full")
    assert len(json.loads(output.read_text())["results"]) == 6
    # Other flags are other runs, and an arm overrides them.
    runs = experiment("--seeds", "0", "--arms", "neither", "--", "--state-set.fraction", "0.9", "--num-envs", "64")
    assert runs[-1]["--num-envs"] == "64" and runs[-1]["--state-set.fraction"] == "0"
    assert "| neither | 1 |" in capsys.readouterr().out
    assert len(experiment("--seeds", "0", "1", "2", "--arms", "full")) == 8
    assert (
        "| full | 3 | 1.00 [" in output.with_name("s_5_3M.md").read_text() and output.with_name("s_5_3M.png").is_file()
    )


def test_results_of_an_experiment_under_way(training, statistics, tmp_path, capsys):
    made, output = training(outcome).made, tmp_path / "s.json"
    written = [
        {"size": 35, "steps": 500_000_000, "arm": "full", "seed": seed, "flags": ["--devices", "1"],
         "first_reward_steps": 0, "latch_steps": 90_000_000, "run_seconds": 1800.0, "final_rate": 0.9,
         "warmup_steps": 1, "warmup_rewards": 64, "devices": 1, "machine": "m",
         "curve": {"step": [1.0], "seconds": [1.0], "perf": [0.5]}}
        for seed in (1, 3)
    ]  # fmt: skip
    output.write_text(json.dumps({"results": written}))
    command = ["--size", "35", "--steps", "500000000", "--arms", "full", "--output", str(output), "--seeds"]
    statistics.main([*command, "1", "3", "--", "--devices", "1"])
    assert made == [] and json.loads(output.read_text()) == {"results": written}
    assert "| full | 2 | 1.00 [0.34, 1.00] | 0.0 [0.0, 0.0] | 90.0 [90.0, 90.0] | 0.900 " in capsys.readouterr().out


def test_the_arms_are_flags_of_the_command(statistics):
    from pufferjax.cli.train import parse_train

    def settings(arm):
        config = parse_train("maze", statistics.ARMS[arm]).config.train
        return (
            config.state_set.fraction > 0,
            config.ppo.priority_exponent > 0,
            config.state_set.warmup_rewards > 0,
            config.ppo.wait_for_reward,
        )

    assert {arm: settings(arm) for arm in statistics.ARMS} == {
        "full": (True, True, True, True),
        "state-set-only": (True, False, True, True),
        "priorities-only": (False, True, True, True),
        "neither": (False, False, True, True),
        "no-warmup": (True, True, False, True),
        "no-gate": (True, True, True, False),
        "no-warmup-no-gate": (True, True, False, False),
    }
