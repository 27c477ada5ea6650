"""What is run on the GPU: items, each of which gives figures or says why not."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from pufferjax.xla_ops import ffi


class Wrong(Exception):
    """An item ran, and its results are not what they must be."""


class Missing(Exception):
    """What an item needs is not there: a handler, a tool."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What an item is told. facts: figures of the machine that were measured before, by name."""

    dry_run: bool
    facts: dict[str, Any]
    deadline: float  # of `time.time`; an item that can end early does so before it
    emit: Callable[..., None]  # emit(name, **figures): a row of its own, at once

    @property
    def device(self) -> jax.Device:
        """The one under test."""
        return jax.devices()[0]

    @property
    def host(self) -> jax.Device:
        return jax.devices("cpu")[0]

    @property
    def platform(self) -> str:
        """Of the handlers under test, in the terms of `ffi.has_native`."""
        return "cuda" if self.device.platform == "gpu" else "cpu"

    def has_native(self, target: str) -> bool:
        return ffi.has_native(target, self.platform)

    def seconds_left(self) -> float:
        return self.deadline - time.time()


@dataclasses.dataclass(frozen=True)
class Item:
    """run(context) -> figures; raises Wrong or Missing. limit: seconds until it counts as hung."""

    phase: str
    name: str
    run: Callable[[Context], dict[str, Any]]
    limit: float = 60.0
