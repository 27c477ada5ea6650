"""Learn from a reward that a random agent meets once in ten million steps: the state-set curriculum for JAX.

Imports go one way: xla_ops <- envs <- core <- runs <- watch, export, constellation, sweep, presets <- bench <- cli; see
tests/test_layers.py.
"""

import importlib.metadata
import importlib.util
import pkgutil

# Imported from the repository's root, this folder hides the installed package, which alone holds xla_ops and envs.
__path__ = pkgutil.extend_path(__path__, __name__)

if importlib.util.find_spec("pufferjax.xla_ops") is None:
    raise ImportError(
        f"pufferjax is not installed: {__path__[0]} is its source folder, without the compiled package. In the folder "
        "above it run `pip install -e .`, or `make demo`, which sets up an environment of its own in .venv"
    )

from pufferjax import envs, xla_ops
from pufferjax.core.config import Hypers, PolicyConfig, PPOConfig, StateSetConfig, TrainConfig
from pufferjax.core.evaluate import evaluate, unseen
from pufferjax.core.state_set import StateSet
from pufferjax.core.train import make_init, make_train, make_update
from pufferjax.core.warmup import make_warmup
from pufferjax.runs.load import load_run
from pufferjax.runs.run import TrainResult, train

__version__ = importlib.metadata.version("pufferjax")

__all__ = [
    "Hypers",
    "PPOConfig",
    "PolicyConfig",
    "StateSet",
    "StateSetConfig",
    "TrainConfig",
    "TrainResult",
    "__version__",
    "envs",
    "evaluate",
    "load_run",
    "make_init",
    "make_train",
    "make_update",
    "make_warmup",
    "train",
    "unseen",
    "xla_ops",
]
