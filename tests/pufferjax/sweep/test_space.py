"""What a sweep varies: scales, choices, which settings, and what is refused."""

import math

import pytest

from pufferjax.cli.train import parse_train
from pufferjax.sweep.plan import merged_flags
from pufferjax.sweep.space import SCALES, default_lines, field_types, flag, make_space, parse_dimension

LINES = {
    "ppo.learning_rate": ["1e-4", "1", "log"],
    "ppo.gamma": ["0.8", "0.9999", "logit"],
    "policy.hidden_size": ["32", "512", "pow2"],
    "ppo.clip_eps": ["0.1", "0.9"],
    "total_steps": ["1e6", "1e9", "log"],
    "horizon": ["16", "100"],
    "max_seconds": ["10", "60", "integer"],
    "ppo.optimizer": ["muon", "adam"],
    "ppo.scale_rewards": ["True", "False"],
    "num_envs": ["64", "256", "1024", "choice"],
    "overlap": ["None", "True"],
}


def dimension(name, env="maze"):
    return parse_dimension(env, name, LINES[name], "--sweep." + name)


def test_a_scale_is_even_in_what_it_says():
    def middle(name):
        d = dimension(name)
        distribution = d.distribution()
        low, high = distribution.low, distribution.high
        return d, d.setting(type(low)((low * high) ** 0.5 if distribution.log else (low + high) / 2))

    assert middle("ppo.learning_rate")[1] == pytest.approx(0.01)
    assert middle("ppo.clip_eps")[1] == pytest.approx(0.5)
    d, gamma = middle("ppo.gamma")  # half-way between 0.2 and 0.0001 in the logarithm
    assert d.parameter == "1 - ppo.gamma" and 1 - gamma == pytest.approx(math.sqrt(0.2 * 1e-4), rel=1e-3)
    d, size = middle("policy.hidden_size")
    assert d.parameter == "log2 policy.hidden_size" and size == 128 and isinstance(size, int)
    assert middle("total_steps")[1] == pytest.approx(31_622_776, abs=1) and middle("max_seconds")[1] == 35


@pytest.mark.parametrize("name", LINES)
def test_a_setting_comes_back_from_its_parameter_and_from_its_words(name):
    d = dimension(name)
    ends = d.bounds or d.choices
    for setting in ends:
        assert d.setting(d.parameter_of(setting)) == setting
    assert parse_dimension("maze", name, d.words(), "stored") == d
    if d.bounds:  # outside the bounds: the closest
        assert d.setting(d.parameter_of(d.bounds[1] * 10)) == d.bounds[1]


def test_whatever_a_flag_can_set_can_be_swept():
    lists = {"log"}  # what is a list has no scale
    for name, hint in field_types("maze").items():
        if name in lists:
            with pytest.raises(ValueError, match=r"--sweep\.log is a list"):
                parse_dimension("maze", name, ["wandb", "tensorboard"], "--sweep.log")
            continue
        words = ["True", "False"] if hint is bool or name == "overlap" else ["1", "2"]
        words = list(map(str, hint.__args__[:2])) if "Literal" in str(hint) else words
        d = parse_dimension("maze", name, words, "--sweep." + name)
        assert d.distribution() is not None
    flags = merged_flags(
        "maze", ["--env.size", "9", "--ppo.scale-rewards"], {"ppo.scale_rewards": False, "overlap": True}
    )
    assert flags == ["--env.size", "9", "--ppo.no-scale-rewards", "--overlap", "True"]
    config = parse_train(
        "maze", [*flags, *flag("maze", "ppo.optimizer", "adam"), *flag("maze", "max_seconds", None)]
    ).config
    assert not config.train.ppo.scale_rewards and config.options.overlap and config.train.ppo.optimizer == "adam"


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "ppo.learning_rat",
            ["0", "1"],
            "there is no setting ppo.learning_rat of maze to sweep; did you mean ppo.lear",
        ),
        ("learning_rate", ["0", "1"], "did you mean ppo.learning_rate"),
        ("env.sise", ["5", "9"], "did you mean env.size"),
        ("ppo.gamma", ["0.9", "0.99", "lag"], "'lag' is no scale; valid are " + ", ".join(SCALES)),
        ("ppo.gamma", ["0.9", "lag"], "'lag' is no scale"),
        ("ppo.gamma", ["0.99", "0.9", "log"], "the lower bound must be below the upper one, got 0.99 and 0.9"),
        ("ppo.gamma", ["0.9", "0.9", "log"], "the lower bound must be below"),
        ("ppo.gamma", ["0.9", "1", "logit"], "the scale logit needs bounds in"),
        ("ppo.gamma", ["0", "1", "log"], "the scale log needs bounds above 0"),
        ("ppo.gamma", ["0.9"], "needs two bounds and a scale"),
        ("ppo.gamma", [], "needs two bounds and a scale"),
        ("ppo.gamma", ["nan", "1", "linear"], "needs two bounds and a scale"),
        ("policy.hidden_size", ["30", "64", "pow2"], "the scale pow2 needs powers of two"),
        ("horizon", ["16.5", "64"], "its bounds must be whole numbers"),
        ("ppo.optimizer", ["muon", "sgd"], "'sgd' is no value of this setting; valid are muon, aurora"),
        ("ppo.optimizer", ["muon", "muon"], "two or more different choices"),
        ("ppo.optimizer", ["muon", "adam", "log"], "ppo.optimizer is no number"),
    ],
)
def test_what_cannot_be_swept_is_refused_by_name(name, words, message):
    with pytest.raises(ValueError, match=r"^--sweep") as caught:
        parse_dimension("maze", name, words, f"--sweep.{name}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_flag_comes_before_the_preset_and_fixes_what_it_sets():
    preset = {"ppo.gamma": [0.9, 0.99, "linear"], "ppo.clip_eps": [0.1, 0.2, "log"], "total_steps": [10, 20, "log"]}
    space = make_space("maze", preset, {"ppo.gamma": ["0.5", "0.6"]}, ["total_steps"], [])
    assert {d.name: d.bounds for d in space.values()} == {"ppo.gamma": (0.5, 0.6), "ppo.clip_eps": (0.1, 0.2)}
    assert [d.name for d in make_space("maze", preset, {}, [], ["ppo.gamma"]).values()] == ["ppo.gamma"]
    with pytest.raises(ValueError, match="--sweep-only: horizon is not swept"):
        make_space("maze", preset, {}, [], ["horizon"])
    with pytest.raises(ValueError, match="nothing is swept"):
        make_space("maze", preset, {}, list(preset), [])
    # What is swept where a preset does not say is possible.
    config = parse_train("minimal", []).config
    assert len(make_space("minimal", default_lines(config), {}, [], [])) > 5
