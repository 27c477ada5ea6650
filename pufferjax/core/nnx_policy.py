"""A policy written as a `flax.nnx` module, wrapped with `nnx.bridge.to_linen`, as the pure functions a run needs."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from pufferjax.envs import EnvSpec


@dataclasses.dataclass(frozen=True)
class NnxPolicy:
    """What a run uses of a policy. Each `init` makes the module anew with `rngs` from its key, so that every seed has
    parameters of its own."""

    module: nnx.bridge.ToLinen
    spec: EnvSpec

    @property
    def class_name(self) -> str:
        return self.module.nnx_class.__name__

    def initial_state(self, num_agents: int) -> Any:
        return _shapes(self.module).initial_state(num_agents)

    def init(self, key: jax.Array, *arguments: Any) -> dict[str, Any]:
        return self.module.init(key, *arguments)

    def apply(self, variables: Any, *arguments: Any) -> Any:
        return self.module.apply(variables, *arguments)


def _shapes(module: nnx.bridge.ToLinen) -> nnx.Module:
    """The nnx module, with shapes for parameters: for what does not depend on them."""

    def make():
        rngs = {} if module.skip_rng else {"rngs": nnx.Rngs(0)}
        return module.nnx_class(*module.args, **module.kwargs, **rngs)

    return nnx.eval_shape(make)


def from_bridge(module: nnx.bridge.ToLinen) -> NnxPolicy:
    """The policy of `nnx.bridge.to_linen(Class, *args, **kwargs)`, whose class has `spec`, an EnvSpec, and
    `initial_state(num_agents)`, and is called like `pufferjax.core.policy.ActorCritic`.

    Raises TypeError if it lacks one of them, or has variables that are no parameters: a run keeps parameters alone.
    """
    made = _shapes(module)
    name = type(made).__name__
    if not isinstance(getattr(made, "spec", None), EnvSpec) or not callable(getattr(made, "initial_state", None)):
        raise TypeError(
            f"policy: the nnx module {name} must have spec, an EnvSpec, and initial_state(num_agents), like "
            "pufferjax.core.policy.ActorCritic"
        )
    others = {type(x).__name__ for _, x in nnx.to_flat_state(nnx.state(made)) if not isinstance(x, nnx.Param)}
    if others:
        raise TypeError(
            f"policy: the nnx module {name} has variables other than Param, {', '.join(sorted(others))}: a policy is "
            "to be a pure function of its parameters"
        )
    return NnxPolicy(module.clone(metadata_fn=None), made.spec)  # plain arrays, without metadata
