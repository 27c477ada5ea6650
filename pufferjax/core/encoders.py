"""Encoders: from an observation and the previous action to the features that the memory reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pufferjax import xla_ops
from pufferjax.core.config import PolicyConfig
from pufferjax.envs import EntityLayout, EnvSpec

_MAX_ONE_HOT_CODES = 32
_ENTITY_HIDDEN_SIZE = 16


def uniform(scale):
    """An initializer: uniform in [-scale, scale]."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return init


class OneHotEncoder(nn.Module):
    """A linear layer on the one-hot code of small integers: x u8[..., C] with values 0..num_codes -> f32[..., H]."""

    num_codes: int
    hidden_size: int

    @nn.compact
    def __call__(self, x):
        cells = x.shape[-1]
        # Fan-in is the number of cells: one table row per cell is active.
        table = self.param("table", uniform((2.0 / cells) ** 0.5), (cells, self.num_codes, self.hidden_size))
        bias = self.param("bias", nn.initializers.zeros, (self.hidden_size,), jnp.float32)
        return xla_ops.one_hot_linear(x, table, bias)


class EntityEncoder(nn.Module):
    """Features of the agent itself and a set of entities: x f32[..., F + N * D] -> f32[..., H].

    own W + max over entities of (ReLU(entity W1 + b1) W2 + b2): the order of the entities does not matter, and what is
    learned about one serves for all.
    """

    layout: EntityLayout
    hidden_size: int
    precision: str = "highest"

    @nn.compact
    def __call__(self, x):
        layout, width, hidden = self.layout, _ENTITY_HIDDEN_SIZE, self.hidden_size
        own, entities = jnp.split(x, [layout.num_self], axis=-1)
        entities = entities.reshape(*x.shape[:-1], layout.num_entities, layout.entity_size)
        # `kernel` is a hidden matrix; the two others take raw numbers (see muon_labels).
        entity_kernel = self.param(
            "entity_kernel", uniform((2.0 / layout.entity_size) ** 0.5), (layout.entity_size, width)
        )
        entity_bias = self.param("entity_bias", nn.initializers.zeros, (width,), jnp.float32)
        kernel = self.param("kernel", uniform((2.0 / width) ** 0.5), (width, hidden))
        bias = self.param("bias", nn.initializers.zeros, (hidden,), jnp.float32)
        h = xla_ops.entity_encoder(entities, entity_kernel, entity_bias, kernel, bias, precision=self.precision)
        if layout.num_self:
            self_kernel = self.param("self_kernel", uniform((2.0 / layout.num_self) ** 0.5), (layout.num_self, hidden))
            h += jnp.matmul(own, self_kernel, precision=self.precision)
        return h


def encoder_of(spec: EnvSpec, config: PolicyConfig) -> str:
    """The encoder that `config` chooses for an environment: "one_hot", "entity" or "linear"."""
    if config.encoder != "auto":
        return config.encoder
    if spec.entities is not None:
        return "entity"
    return "one_hot" if spec.obs_max is not None and spec.obs_max <= _MAX_ONE_HOT_CODES else "linear"


def encode(
    spec: EnvSpec, config: PolicyConfig, observations: jax.Array, previous_choices: jax.Array | None
) -> jax.Array:
    """f32[T, B, H]: called inside a module, whose parameters the encoders' are.

    observations [T, B, *obs_shape], previous_choices u8[T, B, A] (see ActorCritic; None: not an input).
    """
    precision = config.precision
    x = observations.reshape(*observations.shape[:2], -1)
    encoder = encoder_of(spec, config)
    if encoder == "one_hot":
        num_codes = spec.obs_max
        if previous_choices is not None:
            num_codes = max(num_codes, max(spec.num_actions))
            x = jnp.concatenate([x, previous_choices], axis=-1)
        return OneHotEncoder(num_codes, config.hidden_size, name="encoder")(x)
    x = x.astype(jnp.float32)
    if encoder == "entity":
        h = EntityEncoder(spec.entities, config.hidden_size, precision, name="entity_encoder")(x)
    else:
        init = uniform((2.0 / x.shape[-1]) ** 0.5)
        h = nn.Dense(config.hidden_size, precision=precision, name="encoder", kernel_init=init)(x)
    if previous_choices is not None:
        h += OneHotEncoder(max(spec.num_actions), config.hidden_size, name="action_encoder")(previous_choices)
    return h
