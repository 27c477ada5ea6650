"""A trained policy as a list of layers and their arrays: what every form of export is made from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pufferjax.core import actions
from pufferjax.core.encoders import encoders_of
from pufferjax.core.normalization import OBSERVATION_NORM, SMALLEST_VARIANCE, are_normalized
from pufferjax.core.policy import ActorCritic


@dataclasses.dataclass(frozen=True)
class Network:
    """One step of a policy for N agents.

    description: of JSON types. Its input x f32[N, D + P] is the flat observation and what was done before: of each head
    0 at the start of an episode, else 1 + the choice, then, if there are numbers, these and 1, or all 0.

    encoders   each reads x[:, begin:end]; their sum is h f32[N, H]. "one_hot": codes c >= 1 take row c - 1 of their
               cell's table; "linear": times kernel, plus bias; "entity": the first num_self numbers times self_kernel,
               plus the maximum over the entities of ReLU(entity w1 + b1) w2 + b2. What comes out is times scale.
    layers     "dense": ReLU(h) kernel + bias; "mingru": (u, g, p) = h kernel, its memory m becomes m + sigmoid(g)
               (f(u) - m) with f(u) = u + 1/2 for u >= 0, else sigmoid(u), and h becomes h + sigmoid(p) (m - h)
    decoder    h kernel + bias: the logits of every head, the means of the numbers, the value
    arrays named "norm_*": x[:, :D] becomes clip((x - mean) factor, low, high); names missing: there is none
    arrays named "number_*": a number y stands for offset + scale clip(y, low, high) in the environment
    """

    description: dict[str, Any]
    arrays: dict[str, np.ndarray]


def network_of(policy: ActorCritic, params: Any) -> Network:
    """The layers of a policy of `make_policy`. ValueError for one of another class, or with encoders that are not among
    one_hot, linear and entity."""
    if type(policy) is not ActorCritic or policy.encoder is not None:
        kind = type(policy).__name__ if type(policy) is not ActorCritic else "encoders of one's own"
        raise ValueError(f"export: only policies that pufferjax makes have a known form, this has {kind}")
    spec, config = policy.spec, policy.config
    encoders = encoders_of(spec, config)
    if unknown := sorted({*encoders.values()} - {"one_hot", "linear", "entity"}):
        raise ValueError(f"export: the encoders one_hot, linear and entity can be exported, this has {unknown[0]}")
    arrays, size = {}, int(np.prod(spec.obs_shape))

    def kept(name: str, array: Any) -> str:
        arrays[name] = np.asarray(array, np.float32)
        return name

    def layer(kind: str, module: Mapping[str, Any], name: str, **facts) -> dict[str, Any]:
        return {"kind": kind, **facts, **{key: kept(f"{name}_{key}", x) for key, x in module.items()}}

    heads, components = len(spec.num_actions), len(spec.action_low)
    choices, numbers = (heads, components + 1 if components else 0) if config.previous_action else (0, 0)
    scale = len(encoders) ** -0.5
    layers = []
    for part in spec.all_parts:
        if part.name in encoders:
            kind, name = encoders[part.name], f"part_{part.name}"
            if not spec.obs_parts:
                name = "entity_encoder" if kind == "entity" else "encoder"
            facts = {"begin": part.offset, "end": part.offset + part.size, "scale": scale}
            if kind == "entity":
                facts |= {"num_self": spec.entities.num_self, "entity_size": spec.entities.entity_size}
            layers.append(layer(kind, params[name], name, **facts))
    if choices and not spec.obs_parts and encoders.get("observation") == "one_hot":
        layers[0]["end"] += choices  # one table for both
    elif choices:
        facts = {"begin": size, "end": size + choices, "scale": 1.0}
        layers.append(layer("one_hot", params["action_encoder"], "action_encoder", **facts))
    if numbers:
        facts = {"begin": size + choices, "end": size + choices + numbers, "scale": 1.0}
        layers.append(layer("linear", params["number_encoder"], "number_encoder", **facts))
    hidden = [f"encoder_{i}" for i in range(config.encoder_layers)]
    memory = [f"mingru_{i}" for i in range(config.num_layers)]
    description = {
        "env": spec.name,
        "observation_size": size,
        "num_actions": list(spec.num_actions),
        "num_numbers": components,
        "shows_previous_action": bool(config.previous_action),
        "hidden_size": config.hidden_size,
        "encoders": layers,
        "layers": [
            *(layer("dense", params[name], name) for name in hidden),
            *(layer("mingru", params[name], name) for name in memory),
        ],
        "decoder": layer("linear", params["decoder"], "decoder"),
    }
    if config.normalize_observations and are_normalized(spec).any():
        _keep_norm(spec, config, params[OBSERVATION_NORM], kept)
    if components:
        kept("number_std", np.exp(np.asarray(params["log_std"], np.float32)))
        for name, x in zip(("offset", "scale", "low", "high"), actions.units(spec), strict=True):
            kept(f"number_{name}", x)
    return Network(description, arrays)


def _keep_norm(spec, config, norm, kept) -> None:
    """Codes pass unchanged: mean 0, factor 1, no bounds."""
    is_normal = are_normalized(spec).reshape(-1)
    bound = np.where(is_normal & bool(config.observation_clip), config.observation_clip or np.inf, np.inf)
    kept("norm_mean", np.where(is_normal, np.asarray(norm["mean"]).reshape(-1), 0))
    kept("norm_factor", np.where(is_normal, (np.asarray(norm["variance"]).reshape(-1) + SMALLEST_VARIANCE) ** -0.5, 1))
    kept("norm_low", -bound)
    kept("norm_high", bound)
