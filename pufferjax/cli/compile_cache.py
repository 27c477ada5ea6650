"""XLA's persistent compilation cache, on for the command: the second start of the same training loads its programs.

The library leaves JAX's configuration alone; this is for the process of a command, which is pufferjax's own.
"""

import contextlib
import hashlib
import os
import platform
import tempfile
from pathlib import Path
from typing import Annotated

import tyro

from pufferjax.cli.refusals import warn

Flag = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="PATH|none",
        help="Folder of compiled programs, by which a later start is quicker; none: keep none. Default: "
        "$JAX_COMPILATION_CACHE_DIR, else a folder of this version in $XDG_CACHE_HOME or ~/.cache.",
    ),
]


def use_compile_cache(choice: str | None = None) -> Path | None:
    """Lets JAX keep what it compiles in this process; the folder, or None where there is none.

    choice: of --compile-cache. A folder that cannot be written costs one line if it was asked for, none if not:
    everything works without. Call it before anything is compiled.
    """
    import jax

    if choice == "none":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    asked = choice or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(asked).expanduser().absolute() if asked else _default_folder()
    if folder is None or not _is_writable(folder):
        if asked:
            warn(f"compiled programs are not kept: {folder} cannot be written")
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # A start compiles dozens of small programs besides the large ones. What the user set in the environment stays.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES" not in os.environ:
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _default_folder() -> Path | None:
    """Of this user, these versions and this kind of CPU; None for a user without a home."""
    from pufferjax.runs.machine import version

    base = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    versions = "-".join(f"{name}{version(name)}" for name in ("pufferjax", "jax", "jaxlib"))
    return home / "pufferjax" / f"{versions}-{_cpu()}"


def _cpu() -> str:
    """Machine code for one CPU may be an illegal instruction on another that shares the home folder."""
    facts = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        for name in ("model name", "flags", "Features"):
            facts += [line for line in lines if line.startswith(name)][:1]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
