"""Every block of code in README.md and docs/*.md runs: page by page, in order, in one folder, at tiny budgets.

Python blocks of a page share a namespace. Shell blocks are `pufferjax` commands; each is called with flags added that
make it small. A block that cannot run here has `<!-- not run: reason -->` on the line before it, and is in NOT_RUN.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from pufferjax import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = {
    ("README.md", "sets up .venv, compiles and trains for minutes"),
    ("getting_started.md", "sets up .venv, compiles and trains for minutes"),
    ("getting_started.md", "installs from a package index"),
    ("minigrid.md", "trains for minutes"),
    ("suites.md", "needs the packages of suites"),
    ("sweeps.md", "installs from a package index"),
    ("sweeps.md", "needs a PostgreSQL server"),
    ("gpu.md", "needs nvcc and a package index"),
    ("gpu.md", "needs nvcc and a GPU"),
    ("gpu.md", "needs a GPU"),
    ("gpu.md", "needs nvcc, CPython 3.12 and a package index"),
}
# Pages with a test of their own, and files that pages show (`<!-- file: PATH -->`, see docs/hooks.py).
OWN_TESTS = {"new_env.md": "test_new_env_page.py", "docs/examples/own_loop.py": "test_own_loop.py"}

SMALL = {
    ("train",): "--num-envs 32 --horizon 16 --total-steps 1024 --eval-episodes 16 --devices 1 --env.size 7 "
    "--env.num-mazes 64 --policy.hidden-size 8 --policy.num-layers 1 --ppo.minibatch-size 128 --state-set.interval 8 "
    "--state-set.replay-span 8 --state-set.walk-steps 16 --state-set.warmup-rewards 1 --state-set.warmup-envs 16",
    ("train", "--resume"): "--total-steps 2048 --eval-episodes 16",
    ("sweep",): "--trials 1 --num-envs 32 --horizon 16 --total-steps 1024 --eval-episodes 16 --devices 1 --env.size 7 "
    "--env.num-mazes 64 --policy.hidden-size 8 --policy.num-layers 1 --ppo.minibatch-size 128 --state-set.interval 8 "
    "--state-set.replay-span 8 --state-set.walk-steps 16 --state-set.warmup-rewards 1 --state-set.warmup-envs 16",
    ("sweep-worker",): "",
    ("eval",): "--episodes 16",
    ("play",): "",
    ("states",): "",
    ("export",): "",
    ("constellation",): "",
    ("envs",): "",
    ("doctor",): "",
    ("bench", "envs"): "--num-envs 64 --num-steps 8 --walk-steps 64 --repeats 2",
    ("bench", "train"): "--num-envs 32 --horizon 16 --minibatch-size 128 --hidden-size 8 --num-layers 1 --epochs 2 "
    "--warmup 1 --devices 1",
    ("bench", "ops"): "--tiny --pairs 2",
}


class Block(NamedTuple):
    language: str
    code: str
    not_run: str | None  # the reason


def blocks(page):
    pattern = r"^(?:<!-- not run: (.*?) -->\n)?```(\w*)\n(.*?)^```$"
    found = re.findall(pattern, page.read_text(), re.DOTALL | re.MULTILINE)
    assert 2 * len(found) == len(re.findall("^```", page.read_text(), re.MULTILINE)), "a fence that is not understood"
    return [Block(language, code, reason or None) for reason, language, code in found if page.name not in OWN_TESTS]


def test_what_is_not_run():
    marked = {(page.name, block.not_run) for page in PAGES for block in blocks(page) if block.not_run}
    assert marked == NOT_RUN
    assert {block.language for page in PAGES for block in blocks(page)} <= {"python", "sh"}
    shown = {path for page in PAGES for path in re.findall(r"<!-- file: (\S+\.py) -->", page.read_text())}
    assert {page.name for page in PAGES} | shown >= set(OWN_TESTS) >= shown
    assert all((Path(__file__).parent / test).is_file() for test in OWN_TESTS.values())


def small(line):
    """The arguments of a `pufferjax` command, with those that make it small."""
    name, *arguments = shlex.split(line, comments=True)
    assert name == "pufferjax", f"not a command of pufferjax: {line}"
    for command in sorted(SMALL, key=len, reverse=True):
        if command[0] == arguments[0] and all(word in arguments for word in command):
            return arguments + SMALL[command].split()
    raise AssertionError(f"no small form of {line}")


def run_python(code, namespace, page):
    code = re.sub(r"total_steps=[\d_]+", "total_steps=16_384", code)
    code = re.sub(r"(num_episodes|eval_episodes)=\d+", r"\1=16", code)
    exec(compile(code, page.name, "exec"), namespace)


@pytest.fixture
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_blocks_run(page, tmp_path, monkeypatch, quick_compilation):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in blocks(page):
        if block.not_run:
            continue
        if block.language == "python":
            run_python(block.code, namespace, page)
        else:
            for line in block.code.splitlines():
                assert cli.main(small(line)) == 0, line


def test_links_and_names_exist():
    """Relative links of the pages, and the experiments and files of results they name."""
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if not re.match(r"\w+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
        for name in re.findall(r"experiments/\w+\.\w+", text):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
    for name in re.findall(r"`([a-z]\w*\.(?:json|md|png))`", (ROOT / "docs" / "results.md").read_text()):
        assert "ENV" in name or (ROOT / "experiments" / "results" / name).is_file(), name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
