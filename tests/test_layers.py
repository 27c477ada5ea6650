"""The dependency order of the rooms, and life without the native module."""

import ast
import pathlib
import subprocess
import sys
import textwrap

import pytest

from pufferjax.envs.suites import SUITES

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = {"xla_ops": "pufferjax.xla_ops", "envs": "pufferjax.envs", "pufferjax": "pufferjax"}
PLAIN = {"jax", "numpy", *sys.stdlib_module_names}
# What each room of pufferjax/ may import besides itself and what lies below all of them, xla_ops and envs.
ROOMS = {
    "core": set(),
    "runs": {"core"},
    "watch": {"core", "runs"},
    "export": {"core", "runs"},
    "constellation": {"core", "runs"},
    "bench": {"core", "runs", "presets"},
    "presets": set(),
    "sweep": {"core", "runs"},
    "cli": {"core", "runs", "watch", "export", "constellation", "sweep", "bench", "presets"},
}
PUBLIC = ("pufferjax.envs", "pufferjax.xla_ops")


def imported_names(source, package):
    """Dotted names of everything that `source`, a module in `package`, imports; `from a import b` gives a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def is_within(name, modules):
    return any(name == module or name.startswith(module + ".") for module in modules)


def is_allowed(name, folder):
    if is_within(name, {"experiments", "tests"}):
        return False
    if folder == "xla_ops":
        return is_within(name, PLAIN | {"pufferjax.xla_ops"})
    if folder == "envs":
        return is_within(name, PLAIN | {"pufferjax.envs", "pufferjax.xla_ops.ffi", "pufferjax.xla_ops.checks"})
    if folder in ROOMS and is_within(name, {"pufferjax"}):
        rooms = {f"pufferjax.{room}" for room in (folder, *ROOMS[folder])}
        return name == "pufferjax" or is_within(name, {*PUBLIC, *rooms})
    return True  # the rooms may import every third-party package of pyproject.toml


def is_package_of_adapter(name, path):
    """Whether `path` is the adapter of a suite and `name` of that suite's own package."""
    suite = SUITES.get(path.stem) if path.parent == ROOT / "envs" / "suites" else None
    return suite is not None and is_within(name, {suite.package})


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_downwards(folder):
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        inside = path.relative_to(ROOT / folder).parent.parts
        room = inside[0] if folder == "pufferjax" and inside else folder
        package = ".".join([FOLDERS[folder], *inside])
        for name in sorted(imported_names(path.read_text(), package)):
            if not is_allowed(name, room) and not is_package_of_adapter(name, path):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_place_in_the_order_and_says_its_purpose():
    rooms = {path.parent.name: path for path in (ROOT / "pufferjax").glob("*/__init__.py")}
    assert set(rooms) == set(ROOMS)
    assert all(ast.get_docstring(ast.parse(path.read_text())) for path in rooms.values())
    assert {path.name for path in (ROOT / "pufferjax").glob("*.py")} == {"__init__.py", "__main__.py", "run.py"}


def test_the_rule_sees_what_it_should():
    source = "import jax.numpy as jnp\nfrom pufferjax.xla_ops import ffi\nfrom .. import base\nfrom .maze import make\n"
    assert imported_names(source, "pufferjax.envs.maze") == {
        "jax.numpy",
        "pufferjax.xla_ops.ffi",
        "pufferjax.envs.base",
        "pufferjax.envs.maze.maze.make",
    }
    assert is_allowed("pufferjax.xla_ops.ffi", "envs") and not is_allowed("pufferjax.xla_ops.gae_vtrace", "envs")
    assert not is_allowed("pufferjax.xla_ops_more", "xla_ops") and not is_allowed("pufferjax.core.policy", "envs")
    assert is_allowed("pufferjax.core.train.make_init", "runs") and not is_allowed("pufferjax.runs.run", "core")
    assert is_allowed("pufferjax.envs", "core") and not is_allowed("pufferjax.TrainConfig", "core")
    assert not is_allowed("pufferjax.watch.plots", "runs") and not is_allowed("pufferjax.cli.main", "bench")
    assert not is_allowed("pufferjax.envs.base", "xla_ops") and not is_allowed("flax.linen", "xla_ops")
    adapter = ROOT / "envs" / "suites" / "brax.py"
    assert is_package_of_adapter("brax.envs", adapter) and not is_package_of_adapter("jumanji", adapter)
    assert not is_package_of_adapter("brax", ROOT / "envs" / "brax.py")
    assert not is_allowed("experiments.maze", "pufferjax") and not is_allowed("tests.test_layers", "pufferjax")


WITHOUT_NATIVE = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("pufferjax.xla_ops._cpu", "pufferjax.xla_ops._cuda"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Blocker())

import jax, jax.numpy as jnp, numpy as np
from pufferjax import xla_ops
from pufferjax.xla_ops import ffi
"""


def test_ops_run_without_the_native_module():
    source = WITHOUT_NATIVE + textwrap.dedent("""
        backends = xla_ops.backends()
        assert set(backends) >= {"entity_encoder", "gae_vtrace", "linear_max", "linear_recurrence", "mingru_layer"}
        assert all(b == {"cpu": "reference", "cuda": "reference"} for b in backends.values()), backends

        table, row, flags = jnp.ones((3, 2)), jnp.ones(2), jnp.zeros((3, 2), bool)
        a = jax.jit(lambda r: xla_ops.gae_vtrace(r, table, row, flags, table, 0.5, 0.0))(table)
        np.testing.assert_array_equal(a, 0.5 * table)
        h, h_bar = jax.value_and_grad(lambda b: xla_ops.linear_recurrence(table, b, row, flags)[-1].sum())(table)
        assert h == 8 and (h_bar == 1).all()
        cube = jnp.zeros((3, 2, 4))
        loss = lambda kernel: xla_ops.mingru_layer(cube, kernel, cube[0], flags)[0].sum()
        assert jnp.isfinite(jax.jit(jax.grad(loss))(jnp.zeros((4, 12)))).all()
        w2_bar = jax.jit(jax.grad(lambda w: xla_ops.entity_encoder(table, table.T, jnp.ones(3), w, row).sum()))(table)
        np.testing.assert_array_equal(w2_bar, 3.0)

        for refused in (
            lambda: xla_ops.linear_recurrence(table, table, row, impl="native"),
            lambda: ffi.describe_env("maze", []),
        ):
            try:
                refused()
            except RuntimeError as error:
                assert "blocked: pufferjax.xla_ops._cpu" in str(error), error
            else:
                raise AssertionError("no RuntimeError")
    """)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
