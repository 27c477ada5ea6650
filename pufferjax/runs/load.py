"""Runs read back: what one was trained with, and what it had learned at a checkpoint."""

import dataclasses
import os
import warnings
from collections.abc import Callable

from pufferjax.core.parallel import global_shapes
from pufferjax.core.policy import ActorCritic, as_policy, class_name
from pufferjax.core.types import TrainState
from pufferjax.envs import Env
from pufferjax.runs.checkpoint import load_checkpoint
from pufferjax.runs.paths import local_path
from pufferjax.runs.run_config import RunConfig, read_config, settings


def load_run(
    run_dir: str | os.PathLike,
    step: int | None = None,
    warn: Callable[[str], None] = warnings.warn,
    *,
    env: Env | None = None,
    policy: ActorCritic | None = None,
) -> tuple[RunConfig, Env, ActorCritic, TrainState]:
    """A run, finished or not: its configuration, training environment, policy, and the train state of `step`, or of its
    latest good checkpoint; `warn` gets a line for each newer one.

    After training with `ppo.optimizer = "schedule_free"` its parameters are those that gradients are taken at; what
    `pufferjax eval` plays is `pufferjax.core.optimizers.acting_params(config.train, train_state)`.

    env, policy: those it was trained with, if `envs.make` does not know the one or the other was passed to `train`.

    Raises ValueError, such as CheckpointError, also if another environment or another class of policy was trained.
    """
    run_dir = local_path("run_dir", run_dir)
    config = read_config(run_dir, env)
    if policy is None and config.policy_class != RunConfig.policy_class:
        raise ValueError(
            f"{run_dir} was trained with a policy of its own, {config.policy_class}: load it with "
            "pufferjax.load_run(run_dir, policy=...)"
        )
    env = env or config.make_env()
    given, policy = policy, as_policy(env.spec, policy, config.train.policy)
    if given is not None:
        config = dataclasses.replace(config, policy_class=class_name(policy))
    return config, env, policy, load_train_state(run_dir, config, env, policy, step, warn)


def load_train_state(
    run_dir: str | os.PathLike,
    config: RunConfig,
    env: Env,
    policy: ActorCritic,
    step: int | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> TrainState:
    """That of a run of `config`, as `load_run` does it; the devices it was trained on need not be there."""
    like = global_shapes(env, config.train, config.options.devices or 1, policy, bool(config.options.overlap))
    return load_checkpoint(run_dir, like, step, settings=settings(config.to_table()), warn=warn).train_state
