"""The page as one file."""

import base64
import hashlib
import json
import re

import pytest

from pufferjax import cli
from pufferjax.constellation import server

pytest.importorskip("plotly")
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture
def exported(tmp_path, make_run, capsys):
    """`exported(*flags)`: (the page, what was printed)."""
    make_run(tmp_path / "runs" / "e<!--" / "a", lines=4, top=0.8)
    config = make_run(tmp_path / "runs" / "e<!--" / "<script>", finished=False) / "config.toml"
    config.write_text(config.read_text().replace('"ActorCritic"', json.dumps(EVIL)))
    (tmp_path / "runs" / "e<!--" / "a" / "states.png").write_bytes(b"\x89PNG")
    assert cli.main(["constellation", str(tmp_path / "runs"), "--export", str(tmp_path / "page.html")]) == 0
    return (tmp_path / "page.html").read_text(), capsys.readouterr().out


def embedded(page):
    (text,) = re.findall(r'<script type="application/json" id="embedded">(.*?)</script>', page, re.DOTALL)
    return text


def test_everything_is_in_the_file(exported, rows_of):
    page, said = exported
    assert re.fullmatch(r"2 runs: \S+page.html\n", said)
    assert not re.search(
        r"<(script|img|link)[^>]*(src|href)=\"(?!data:)", page.replace(server.plotly_script().decode(), "")
    )
    data = json.loads(embedded(page))
    found = {name: row for (_, name), row in rows_of(data["runs"]).items()}
    assert set(found) == {"a", "<script>"} and found["<script>"]["settings"]["policy_class"] == EVIL
    details = data["details"][found["a"]["id"]]
    assert details["curves"]["perf"] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert details["images"] == [{"name": "states.png", "data": "data:image/png;base64,iVBORw=="}]
    assert data["svg"].startswith("<svg")


def test_its_policy_lets_only_its_own_scripts_run(exported):
    page, _ = exported
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert "unsafe" not in policy and "default-src 'none'" in policy
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in scripts]
    assert len(scripts) == 2 and re.findall(r"script-src (.*?);", policy) == [
        " ".join(f"'sha256-{x}'" for x in digests)
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy


def test_what_runs_are_called_ends_no_script(exported):
    page, _ = exported
    assert not set(embedded(page)) & set("<>&") and "alert(1)" in embedded(page)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "DIR must be at least one folder"),
        (["nowhere"], "DIR must be folders, and"),
        (["runs", "--port", "70000"], "--port must be an integer in [0, 65535], got 70000"),
        (["runs", "--export", "nowhere/page.html"], "--export: there is no folder"),
        (["runs", "--export", "runs"], "is a folder"),
        (["runs", "--export", "page.html"], "there is no run in the folders"),
        (["runs", "--host", "no.such.host.invalid"], "--host 'no.such.host.invalid' is no address"),
    ],
)
def test_a_refusal_is_one_line(tmp_path, monkeypatch, capsys, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert cli.main(["constellation", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert list(tmp_path.rglob("*.html")) == []
