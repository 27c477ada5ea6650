"""A child: runs the items it was asked for and sends what they give, a line of JSON for each event.

Events: {"begin": [phase, item], "limit": seconds}, {"row": [phase, item, status, figures]}, {"end": [phase, item]}. The
order of what to run is the JSON in the environment variable ORDER.
"""

import importlib
import json
import os
import time
import traceback
from typing import Any

ORDER = "PUFFERJAX_BENCH_ORDER"
AGAIN = 75  # exit status of a child whose device no longer computes: another one may go on


class Sender:
    """Events of this process, into the FIFO at `path`."""

    def __init__(self, path: str):
        self._descriptor = os.open(path, os.O_WRONLY)

    def begin(self, phase: str, item: str, limit: float) -> None:
        self._send({"begin": [phase, item], "limit": limit})

    def row(self, phase: str, item: str, status: str, **figures: Any) -> None:
        self._send({"row": [phase, item, status, figures]})

    def end(self, phase: str, item: str) -> None:
        self._send({"end": [phase, item]})

    def _send(self, event: dict[str, Any]) -> None:
        from pufferjax.runs.json_text import json_text

        line = (json_text(event) + "\n").encode()
        while line:
            line = line[os.write(self._descriptor, line) :]


def order() -> dict[str, Any]:
    return json.loads(os.environ[ORDER])


def items_of(phase: str, dry_run: bool):
    """The items of a phase, a module beside this one. Starts no backend."""
    return importlib.import_module(f"pufferjax.bench.gpu.{phase}").items(dry_run)


def main() -> None:
    asked = order()
    sender = Sender(asked["events"])
    known = {(item.phase, item.name): item for phase in asked["phases"] for item in items_of(phase, asked["dry_run"])}
    for phase, name in asked["items"]:
        if not _run(known[phase, name], sender, asked):
            os._exit(AGAIN)


def _run(item, sender: Sender, asked: dict[str, Any]) -> bool:
    """Runs it; whether this process is still good for another one."""
    from pufferjax.bench.gpu.items import Context, Missing, Wrong

    def emit(name: str, **figures):
        sender.row(item.phase, f"{item.name}: {name}", "ok", **figures)

    sender.begin(item.phase, item.name, item.limit)
    context = Context(asked["dry_run"], asked["facts"], min(asked["deadline"], time.time() + item.limit), emit)
    start, status, is_good = time.perf_counter(), "ok", True
    try:
        figures = item.run(context)
    except Missing as missing:
        status, figures = "missing", {"error": str(missing)}
    except Wrong as wrong:
        status, figures = "failed", {"error": str(wrong)}
    except Exception as error:
        text = traceback.format_exc()
        status, figures = "failed", {"error": f"{type(error).__name__}: {error}"[-1500:], "trace": text[-3000:]}
        is_good = still_works()
    sender.row(item.phase, item.name, status, seconds=round(time.perf_counter() - start, 3), **figures)
    sender.end(item.phase, item.name)
    return is_good


def still_works() -> bool:
    """Whether the device still computes; after an illegal access nothing does any more in this process."""
    import jax
    import jax.numpy as jnp

    try:
        return float(jax.block_until_ready(jnp.arange(8.0) + 1)[3]) == 4
    except Exception:
        return False


if __name__ == "__main__":
    main()
