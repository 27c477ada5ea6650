"""Learn from a reward that a random agent meets once in ten million steps: the state-set curriculum for JAX."""

import pkgutil

# Imported from the repository's root, this folder hides the installed package, which alone holds xla_ops and envs.
__path__ = pkgutil.extend_path(__path__, __name__)

from pufferjax import envs, xla_ops
from pufferjax.config import Hypers, PolicyConfig, PPOConfig, StateSetConfig, TrainConfig
from pufferjax.evaluate import evaluate, unseen
from pufferjax.run import TrainResult, train
from pufferjax.state_set import StateSet
from pufferjax.train import make_init, make_train, make_update, make_warmup

__all__ = [
    "Hypers",
    "PPOConfig",
    "PolicyConfig",
    "StateSet",
    "StateSetConfig",
    "TrainConfig",
    "TrainResult",
    "envs",
    "evaluate",
    "make_init",
    "make_train",
    "make_update",
    "make_warmup",
    "train",
    "unseen",
    "xla_ops",
]
