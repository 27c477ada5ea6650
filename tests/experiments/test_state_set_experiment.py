"""With and without the state set: the arms differ in nothing else, and runs are kept and not repeated."""

import dataclasses
import json

import pytest

from pufferjax import envs


@pytest.fixture
def experiment(load):
    return load("state_set")


def outcome(flags):
    """Depth 100 + seed with the state set, 5 + seed without."""
    depth = (5 if flags.get("--state-set.fraction") == "0" else 100) + int(flags["--seed"])
    figures = {"perf": depth / 128, "score": depth, "episode_return": depth - 1, "episode_length": depth, "episodes": 9}
    summary = {
        "evaluation": figures, "steps": 96, "train_seconds": 1.0, "devices": 1, "machine": "none",
        "warmup_steps": 2_000_000, "warmup_rewards": 64,
    }  # fmt: skip
    return summary, [{"step": 100, "wall_seconds": 3.0, **figures, "episodes": 3000}]


def test_runs_are_kept_and_reported(training, experiment, tmp_path, capsys):
    made, output = training(outcome).made, tmp_path / "out" / "p.json"

    def runs(*arguments):
        experiment.main(["password", "--output", str(output), *arguments])
        return made

    runs("--seeds", "0", "1")
    assert [(run["--seed"], run.get("--state-set.fraction")) for run in made] == [
        ("0", None), ("0", "0"), ("1", None), ("1", "0"),
    ]  # fmt: skip
    assert all((run["env"], run["--total-steps"]) == ("password", "80000000") for run in made)
    rows = capsys.readouterr().out.splitlines()
    assert rows[:2] == [
        "password, 80 M steps of training",
        "| arm | seeds | symbols known of 128: interquartile mean [95 % interval] | each seed | "
        "half of the best after, M steps | mean return | warm-up, M steps |",
    ]
    assert rows[3] == "| state set | 2 | 100.5 [100, 101] | 100, 101 | 0.0 | 99.5 | 2.0 |"
    assert rows[4] == "| no state set | 2 | 5.5 [5, 6] | 5, 6 | never | 4.5 | 2.0 |"
    assert output.with_suffix(".png").stat().st_size > 5000 and rows[3] in output.with_suffix(".md").read_text()
    # The same again is not run; another budget, other flags and another environment are.
    assert len(runs("--seeds", "0", "1", "--arms", "state set")) == 4
    runs("--seeds", "0", "--arms", "state set", "--steps", "7", "--", "--num-envs", "64")
    assert len(made) == 5 and made[-1]["--total-steps"] == "7" and made[-1]["--num-envs"] == "64"
    assert "| state set | 1 | 100 [100, 100] | 100 | 0.0 | 99 | 2.0 |" in capsys.readouterr().out
    experiment.main(["maze", "--output", str(output), "--seeds", "0", "--steps", "20000000"])
    assert len(json.loads(output.read_text())["results"]) == 7
    # Another metric is only reported.
    runs("--seeds", "--metric", "perf")
    assert len(made) == 7 and "| state set | 2 | 0.7852 [0.7812, 0.7891] |" in capsys.readouterr().out


@pytest.mark.parametrize("env", envs.names())
def test_the_arms_differ_in_the_state_set_alone(experiment, env):
    from pufferjax.cli.train import parse_train

    with_set, without = (parse_train(env, experiment.flags_of(env, arm, [])).config for arm in experiment.ARMS)
    assert with_set.train.state_set.fraction > 0 and without.train.state_set.fraction == 0
    assert dataclasses.replace(with_set.train, state_set=without.train.state_set) == without.train
    assert (with_set.env_params, with_set.options) == (without.env_params, without.options)
    with_set.make_env()
