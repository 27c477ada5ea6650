"""Every flag of every command says what it means, and --help is what the README sends a reader to."""

import dataclasses
import re

import pytest

from pufferjax import cli, envs
from pufferjax.core.config import TrainConfig
from pufferjax.runs.run_config import RunOptions

COMMANDS = [
    *(["train", name] for name in envs.names()),
    ["eval"],
    ["play"],
    ["states"],
    ["export"],
    ["constellation"],
    ["sweep", "maze"],
    ["sweep-worker"],
    ["doctor"],
    *(["bench", name] for name in ("envs", "train", "ops", "startup", "gpu")),
]


def meanings(arguments, monkeypatch, capsys):
    """{flag or positional: its help, without the default} of a command's --help."""
    monkeypatch.setenv("COLUMNS", "90")  # one column of boxes
    assert cli.main([*arguments, "--help"]) == 0
    found, name = {}, None
    for line in capsys.readouterr().out.splitlines():
        text = line.strip("│╭╰─╮╯ ")
        if re.match(r"[│ ] (--?[a-z]|[A-Z_]+( |$))", line):
            flag, _, text = text.partition("  ")  # the help is beside it or below
            name = re.split("[, ]", flag)[0]
            found[name] = text
        elif re.match(r"[│ ] {6}", line) and name:
            found[name] += " " + text
        else:
            name = None
    return {name: re.sub(r"\((default|required)[^)]*\)", "", text).strip() for name, text in found.items()}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_flag_has_a_meaning(arguments, monkeypatch, capsys):
    found = meanings(arguments, monkeypatch, capsys)
    assert len(found) > 2
    assert [name for name, text in found.items() if len(text) < 8] == []


def fields(config, prefix=""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{prefix}{field.name}.")
        else:
            yield f"--{prefix}{field.name}".replace("_", "-")


def test_every_field_of_the_configuration_is_such_a_flag(monkeypatch, capsys):
    found = meanings(["train", "maze"], monkeypatch, capsys)
    expected = [*fields(TrainConfig()), *fields(RunOptions()), *(f"--env.{x}" for x in envs.parameters("maze"))]
    expected = {name.replace("_", "-") for name in expected}
    assert expected <= set(found)
    assert {name for name in found if "." in name} <= expected
    # A comment that tyro takes for that of two fields would say the same of both.
    texts = [found[name] for name in expected]
    assert sorted(text for text in set(texts) if texts.count(text) > 1) == []


@pytest.mark.parametrize("name", envs.names())
def test_every_argument_of_an_environment_has_a_meaning(name):
    assert set(envs.meanings(name)) == set(envs.parameters(name))
