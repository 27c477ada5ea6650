"""What the files that describe the package say of each other."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]


def test_the_files_for_people_name_the_version_of_pyproject():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf'^version: "?{re.escape(VERSION)}"?$', citation, re.MULTILINE)
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == VERSION or headings[:2] == ["Unreleased", VERSION]


def test_no_python_file_has_a_version_of_its_own():
    literal = re.compile(rf"""["']{re.escape(VERSION)}["']""")
    files = [path for folder in ("pufferjax", "xla_ops", "envs") for path in (ROOT / folder).rglob("*.py")]
    assert not [path.name for path in files if literal.search(path.read_text())]


def test_the_annotations_are_marked():
    assert (ROOT / "pufferjax" / "py.typed").is_file()


def test_the_headers_compiled_against_are_those_of_the_oldest_jaxlib():
    oldest = next(r for r in PYPROJECT["project"]["dependencies"] if r.startswith("jaxlib"))
    oldest = re.search(r">=([\d.]+)", oldest)[1]
    assert any(r.startswith(f"jaxlib=={oldest};") for r in PYPROJECT["build-system"]["requires"])


def test_wheels_are_built_for_the_pythons_that_are_named():
    pattern = r"Programming Language :: Python :: 3\.(\d+)"
    named = [int(m[1]) for c in PYPROJECT["project"]["classifiers"] if (m := re.fullmatch(pattern, c))]
    assert PYPROJECT["tool"]["cibuildwheel"]["build"] == [f"cp3{minor}-*" for minor in named]
    assert PYPROJECT["project"]["requires-python"] == f">=3.{named[0]}"


@pytest.mark.parametrize("name", ["ci", "wheels", "docs"])
def test_the_workflows_call_what_the_makefile_has(name):
    targets = re.findall(r"\bmake (?:-\S+ )*([a-z-]+)", (ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert set(targets) <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
