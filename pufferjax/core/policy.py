"""The Flax policy: encoder -> MinGRU layers with highway -> one decoder for logits and value.

Written for sequences [T, B]; a rollout step is a sequence of length 1.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pufferjax import xla_ops
from pufferjax.core.config import PolicyConfig
from pufferjax.core.normalization import OBSERVATION_NORM, ObservationNorm
from pufferjax.envs import EntityLayout, EnvSpec

_MAX_ONE_HOT_CODES = 32
_ENTITY_HIDDEN_SIZE = 16
_MOST_CHOICES = 255  # of a previous action as u8, besides "none"


def _uniform(scale):
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -scale, scale)

    return init


def _decoder_init(key, shape, dtype=jnp.float32):
    """The value starts at exactly zero and the policy nearly uniform: before the first reward there is nothing to say,
    and noise in either would be learned from."""
    return _uniform(0.01 * shape[0] ** -0.5)(key, shape, dtype).at[:, -1].set(0)


class OneHotEncoder(nn.Module):
    """A linear layer on the one-hot code of small integers: x u8[..., C] with values 0..num_codes -> f32[..., H]."""

    num_codes: int
    hidden_size: int

    @nn.compact
    def __call__(self, x):
        cells = x.shape[-1]
        # Fan-in is the number of cells: one table row per cell is active.
        table = self.param("table", _uniform((2.0 / cells) ** 0.5), (cells, self.num_codes, self.hidden_size))
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
            "entity_kernel", _uniform((2.0 / layout.entity_size) ** 0.5), (layout.entity_size, width)
        )
        entity_bias = self.param("entity_bias", nn.initializers.zeros, (width,), jnp.float32)
        kernel = self.param("kernel", _uniform((2.0 / width) ** 0.5), (width, hidden))
        bias = self.param("bias", nn.initializers.zeros, (hidden,), jnp.float32)
        h = xla_ops.entity_encoder(entities, entity_kernel, entity_bias, kernel, bias, precision=self.precision)
        if layout.num_self:
            self_kernel = self.param("self_kernel", _uniform((2.0 / layout.num_self) ** 0.5), (layout.num_self, hidden))
            h += jnp.matmul(own, self_kernel, precision=self.precision)
        return h


class MinGRU(nn.Module):
    """One MinGRU layer with highway (Feng et al. 2024, "Were RNNs all we needed?"; gates as in PufferLib).

    (h_in, g, p) = x W;  z = sigmoid(g);  h_t = (1 - z) h_{t-1} + z f(h_in) with f(u) = u + 1/2 for u >= 0, else
    sigmoid(u);  y = sigmoid(p) h_t + (1 - sigmoid(p)) x.
    """

    hidden_size: int
    precision: str = "highest"

    @nn.compact
    def __call__(self, x, state, starts):
        """x f32[T, B, H], state f32[B, H], starts bool[T, B] -> (y f32[T, B, H], state f32[B, H])."""
        kernel = self.param("kernel", _uniform(self.hidden_size**-0.5), (self.hidden_size, 3 * self.hidden_size))
        return xla_ops.mingru_layer(x, kernel, state, starts, precision=self.precision)


class ActorCritic(nn.Module):
    """Recurrent actor-critic for discrete action heads."""

    spec: EnvSpec
    config: PolicyConfig

    def initial_state(self, num_agents: int) -> jax.Array:
        """f32[L, N, H] of zeros."""
        return jnp.zeros((self.config.num_layers, num_agents, self.config.hidden_size), jnp.float32)

    @nn.compact
    def __call__(self, observations, previous_actions, state, starts):
        """One forward pass over T steps of B agents.

        Args:
          observations: [T, B, *obs_shape].
          previous_actions: u8[T, B, A], 0 at the start of an episode, else 1 + action.
          state: f32[L, B, H], memory before the first step; or a tuple of L arrays f32[B, H].
          starts: bool[T, B], where the memory is cut before the step.

        Returns:
          logits, a tuple of f32[T, B, num_actions[head]]; value f32[T, B]; state after the last step, in the form it
          came in.
        """
        spec, config, precision = self.spec, self.config, self.config.precision
        x = self._encode(observations, previous_actions)
        for layer in range(config.encoder_layers):
            x = nn.Dense(config.hidden_size, precision=precision, name=f"encoder_{layer}")(nn.relu(x))
        states = []
        for layer in range(config.num_layers):
            x, last = MinGRU(config.hidden_size, precision, name=f"mingru_{layer}")(x, state[layer], starts)
            states.append(last)
        # One product for all outputs; the value is the last.
        num_outputs = sum(spec.num_actions) + 1
        outputs = nn.Dense(num_outputs, precision=precision, name="decoder", kernel_init=_decoder_init)(x)
        heads = jnp.split(outputs, np.cumsum(spec.num_actions), axis=-1)
        if isinstance(state, tuple):
            state = tuple(states)
        elif states:
            state = jnp.stack(states)
        return tuple(heads[:-1]), heads[-1][..., 0], state

    def _encode(self, observations, previous_actions):
        spec, config, precision = self.spec, self.config, self.config.precision
        if config.normalize_observations:
            norm = ObservationNorm(spec.obs_shape, config.observation_clip, name=OBSERVATION_NORM)
            observations = norm(observations.astype(jnp.float32))
        x = observations.reshape(*observations.shape[:2], -1)
        encoder = encoder_of(spec, config)
        if encoder == "one_hot":
            num_codes = spec.obs_max
            if config.previous_action:
                num_codes = max(num_codes, max(spec.num_actions))
                x = jnp.concatenate([x, previous_actions], axis=-1)
            return OneHotEncoder(num_codes, config.hidden_size, name="encoder")(x)
        x = x.astype(jnp.float32)
        if encoder == "entity":
            h = EntityEncoder(spec.entities, config.hidden_size, precision, name="entity_encoder")(x)
        else:
            init = _uniform((2.0 / x.shape[-1]) ** 0.5)
            h = nn.Dense(config.hidden_size, precision=precision, name="encoder", kernel_init=init)(x)
        if config.previous_action:
            h += OneHotEncoder(max(spec.num_actions), config.hidden_size, name="action_encoder")(previous_actions)
        return h


def encoder_of(spec: EnvSpec, config: PolicyConfig) -> str:
    """The encoder that `config` chooses for an environment: "one_hot", "entity" or "linear"."""
    if config.encoder != "auto":
        return config.encoder
    if spec.entities is not None:
        return "entity"
    return "one_hot" if spec.obs_max is not None and spec.obs_max <= _MAX_ONE_HOT_CODES else "linear"


def make_policy(spec: EnvSpec, config: PolicyConfig) -> ActorCritic:
    """The policy for an environment. Raises ValueError if the encoder cannot read its observations."""
    if config.encoder == "one_hot" and spec.obs_max is None:
        raise ValueError(f"policy.encoder 'one_hot' needs integer observations, {spec.name} has {spec.obs_dtype}")
    if config.encoder == "entity" and spec.entities is None:
        raise ValueError(f"policy.encoder 'entity' needs an environment that declares entities, {spec.name} does not")
    if config.normalize_observations and encoder_of(spec, config) == "one_hot":
        raise ValueError(
            f"policy.normalize_observations must be False for codes, which are no quantities; {spec.name} gives "
            f"{spec.obs_dtype} up to {spec.obs_max} and the encoder is one_hot"
        )
    if config.previous_action and max(spec.num_actions) > _MOST_CHOICES:
        raise ValueError(
            f"policy.previous_action must be False for more than {_MOST_CHOICES} choices, {spec.name} has "
            f"{max(spec.num_actions)}"
        )
    return ActorCritic(spec, config)


def as_policy(spec: EnvSpec, policy: nn.Module | PolicyConfig | None, config: PolicyConfig) -> nn.Module:
    """The policy that is meant: the given module, the one that a PolicyConfig describes, or with None that of `config`.

    Raises TypeError saying what is expected and what came.
    """
    if policy is None or isinstance(policy, PolicyConfig):
        return make_policy(spec, policy or config)
    expected = "policy must be a Flax linen module with initial_state, like pufferjax.core.policy.ActorCritic,"
    if isinstance(policy, type):
        raise TypeError(f"{expected} or a PolicyConfig, got the class {policy.__name__}: make one of it")
    if isinstance(policy, nnx.Module):
        name = type(policy).__name__
        raise TypeError(
            f"{expected} or a PolicyConfig, got the nnx module {name}: wrap it with flax.nnx.bridge.ToLinen"
        )
    missing = [x for x in ("init", "apply", "initial_state") if not callable(getattr(policy, x, None))]
    missing += [] if hasattr(policy, "spec") else ["spec"]
    if missing:
        raise TypeError(f"{expected} or a PolicyConfig; {type(policy).__name__} has no {', '.join(missing)}")
    return policy


def init_params(policy: ActorCritic, key: jax.Array):
    """Parameters of a fresh policy."""
    spec = policy.spec
    observations = jnp.zeros((1, 1, *spec.obs_shape), spec.obs_dtype)
    previous_actions = jnp.zeros((1, 1, len(spec.num_actions)), jnp.uint8)
    return policy.init(key, observations, previous_actions, policy.initial_state(1), jnp.zeros((1, 1), bool))["params"]


def muon_labels(params) -> dict:
    """Which optimizer each parameter gets, as a pytree of "muon" and "adam".

    Muon orthogonalises the step of hidden matrices, whose rows and columns are both features. Adam steps tables (one
    row per code), biases, the first layer on raw numbers (of entities and of the agent itself too), and the decoder,
    whose outputs are not features.
    """
    first_or_last = ("encoder", "action_encoder", "decoder")

    def label(path, leaf):
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")  # of any pytree, not dicts alone
        module, name = names[0], names[-1]
        return "muon" if leaf.ndim == 2 and name == "kernel" and module not in first_or_last else "adam"

    return jax.tree_util.tree_map_with_path(label, params)
