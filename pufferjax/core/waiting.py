"""How the host waits for the devices: in naps, since blocking inside JAX would keep Python from seeing a signal."""

import time
from typing import Any

import jax


def wait(array: jax.Array) -> None:
    """Until `array` is there."""
    nap = 0.0002
    while not array.is_ready():
        time.sleep(nap)
        nap = min(2 * nap, 0.02)


def fetch(tree: Any) -> Any:
    """The arrays of `tree`, once they are there, as NumPy's."""
    for x in jax.tree.leaves(tree):
        wait(x)
    return jax.device_get(tree)
