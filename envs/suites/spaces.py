"""What the adapters say of actions and observations, in the terms that `from_gymnax` reads."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from pufferjax.envs.gymnax_view import Box, Discrete

__all__ = ["Box", "Discrete", "MultiDiscrete"]


@dataclasses.dataclass(frozen=True, eq=False)
class MultiDiscrete:
    """Several choices at once: component i is one of 0 to nvec[i] - 1."""

    nvec: np.ndarray
    dtype: Any = jnp.int32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nvec.shape
