"""pytest with an instrumented native module: `python pytest_instrumented.py BUILD_DIR [pytest arguments]`.

Run with the sanitizer's runtime in LD_PRELOAD, for Python itself is not built with it; see `make sanitize`.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import pytest

NAME = "pufferjax.xla_ops._cpu"


class Instrumented:
    """Finds the native module in the build folder, before the installed one is looked for."""

    def __init__(self, path: Path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        if name != NAME:
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, str(self.path))
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def main(build: str, *arguments: str) -> int:
    (module,) = Path(build).resolve().glob("_cpu*.so")
    sys.meta_path.insert(0, Instrumented(module))
    from pufferjax.xla_ops import _cpu

    assert _cpu.__file__ == str(module), f"the tests would run {_cpu.__file__}"
    return pytest.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
