"""The settings in a config.toml: what tomllib would say, more quickly."""

import json
import tomllib

import pytest
import tomli_w

from pufferjax import envs, presets
from pufferjax.constellation.config_text import ConfigReader
from pufferjax.runs.run_config import RunConfig, settings

RUN = '[run]\nenv = "maze"\n'


def read(text, reader=None):
    return dict((reader or ConfigReader(lambda name, value: (name, value))).read(text))


@pytest.mark.parametrize("name", ["four_rooms", "breakout", "chain_mdp"])
def test_a_configuration_has_the_settings_that_the_run_has(name):
    assert name in envs.names()
    table = RunConfig.from_table({**presets.load(name), "run": {"env": name, "log": ["wandb"]}}).to_table()
    expected = {x: json.dumps(value) if isinstance(value, list) else value for x, value in settings(table).items()}
    reader = ConfigReader(lambda name, value: (name, value))
    text = tomli_w.dumps(table)
    assert read(text, reader) == expected
    assert read(text, reader) == expected  # from the lines it knows by now
    changed = read(text.replace("horizon = ", "horizon = 1"), reader)
    assert {x for x in changed if changed[x] != expected[x]} == {"horizon"}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("a = 1", "a", 1),
        ("a = 1.0", "a", 1.0),
        ("a = true", "a", True),
        ("a = -2.5e-7  # small", "a", -2.5e-7),
        ("a = 1_000", "a", 1000),
        ("a = 0x1F", "a", 31),
        ("a = nan", "a", "nan"),
        ("a = -inf", "a", "-inf"),
        ('a = "1"', "a", "1"),
        ('a = "<b>\\u00e9\\n"', "a", "<b>é\n"),
        ('a = """\nb = 1\n[c]\n"""', "a", "b = 1\n[c]\n"),
        ("a = [\n  1,\n  2,\n]", "a", "[1, 2]"),
        ("a = {b = {c = 3}}", "a.b.c", 3),
        ("[a.b]\nc = 4", "a.b.c", 4),
        ('"quoted key" = 5', "quoted key", 5),
        ("a = 2026-01-01", "a", '"2026-01-01"'),
        ("a = 1\r", "a", 1),
    ],
)
def test_any_toml_is_read(text, name, value):
    found = read(text + "\n" + RUN)[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["a = ", "a = 01", "a = 1\na = 2", "[a]\n[a]", "a = 1\n[a]", "a", "= 1", "a = 'x", "a = [1", "[a", "a = 1 2", "\0"],
)
def test_what_is_no_toml_is_refused(text):
    with pytest.raises(ValueError):
        tomllib.loads(text + "\n" + RUN)
    with pytest.raises(ValueError):
        read(text + "\n" + RUN)


@pytest.mark.parametrize("text", ["", "a = 1", "[run]\nseed = 1", "[run]\nenv = 3", 'run = "maze"'])
def test_what_is_not_of_a_run_says_so(text):
    with pytest.raises(ValueError, match=r"\[run\] names no env"):
        read(text)
