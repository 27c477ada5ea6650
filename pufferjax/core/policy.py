"""The Flax policy: encoder -> MinGRU layers with highway -> one decoder for logits and value.

Written for sequences [T, B]; a rollout step is a sequence of length 1.
"""

import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import xla_ops
from pufferjax.core.actions import no_previous_actions, split
from pufferjax.core.config import PolicyConfig
from pufferjax.core.distributions import Gaussian
from pufferjax.core.encoders import OwnEncoders, as_own_encoders, encode, encoders_of, uniform
from pufferjax.core.normalization import OBSERVATION_NORM, ObservationNorm, are_normalized
from pufferjax.envs import EnvSpec

_MOST_CHOICES = 255  # of a previous action as u8, besides "none"


def _decoder_init(key, shape, dtype=jnp.float32):
    """The value starts at exactly zero, the policy nearly uniform, and means near the middle of the bounds: before the
    first reward there is nothing to say, and noise in either would be learned from."""
    return uniform(0.01 * shape[0] ** -0.5)(key, shape, dtype).at[:, -1].set(0)


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
        kernel = self.param("kernel", uniform(self.hidden_size**-0.5), (self.hidden_size, 3 * self.hidden_size))
        return xla_ops.mingru_layer(x, kernel, state, starts, precision=self.precision)


class ActorCritic(nn.Module):
    """Recurrent actor-critic for discrete action heads, continuous components, or both.

    Components are normal with a mean of the decoder's and a learned standard deviation that is the same in every state;
    both in the units of `pufferjax.core.actions`.

    encoder: the user's own, instead of those that `config` chooses; see `make_policy`.
    """

    spec: EnvSpec
    config: PolicyConfig
    encoder: Any = None

    def __post_init__(self):
        # Held in an object that Flax does not look into, so that their names are not taken before they are used.
        object.__setattr__(self, "encoder", as_own_encoders(self.encoder))
        super().__post_init__()

    def initial_state(self, num_agents: int) -> jax.Array:
        """f32[L, N, H] of zeros."""
        return jnp.zeros((self.config.num_layers, num_agents, self.config.hidden_size), jnp.float32)

    @nn.compact
    def __call__(self, observations, previous_actions, state, starts):
        """One forward pass over T steps of B agents.

        Args:
          observations: [T, B, *obs_shape].
          previous_actions: u8[T, B, A], 0 at the start of an episode, else 1 + action; of C continuous components
            f32[T, B, C + 1], the numbers and 1, or all 0 at the start of an episode; of both, a tuple of the two.
          state: f32[L, B, H], memory before the first step; or a tuple of L arrays f32[B, H].
          starts: bool[T, B], where the memory is cut before the step.

        Returns:
          heads, a tuple of logits f32[T, B, num_actions[head]] and, last, a `distributions.Gaussian` of f32[T, B, C] if
          there are components; value f32[T, B]; state after the last step, in the form it came in.
        """
        spec, config, precision = self.spec, self.config, self.config.precision
        if config.normalize_observations and are_normalized(spec).any():
            norm = ObservationNorm(spec, config.observation_clip, name=OBSERVATION_NORM)
            observations = norm(observations)
        choices, numbers = split(spec, previous_actions) if config.previous_action else (None, None)
        x = encode(spec, config, observations, choices, self.encoder, self)
        if numbers is not None:
            init = uniform((2.0 / numbers.shape[-1]) ** 0.5)
            x += nn.Dense(
                config.hidden_size, use_bias=False, precision=precision, name="number_encoder", kernel_init=init
            )(numbers)
        for layer in range(config.encoder_layers):
            x = nn.Dense(config.hidden_size, precision=precision, name=f"encoder_{layer}")(nn.relu(x))
        states = []
        for layer in range(config.num_layers):
            x, last = MinGRU(config.hidden_size, precision, name=f"mingru_{layer}")(x, state[layer], starts)
            states.append(last)
        # One product for all outputs; the value is the last.
        components = len(spec.action_low)
        sizes = (*spec.num_actions, components) if components else spec.num_actions
        outputs = nn.Dense(sum(sizes) + 1, precision=precision, name="decoder", kernel_init=_decoder_init)(x)
        *heads, value = jnp.split(outputs, np.cumsum(sizes), axis=-1)
        if components:
            init = nn.initializers.constant(config.initial_log_std)
            log_std = self.param("log_std", init, (components,), jnp.float32)
            heads[-1] = Gaussian(heads[-1], jnp.broadcast_to(log_std, heads[-1].shape))
        if isinstance(state, tuple):
            state = tuple(states)
        elif states:
            state = jnp.stack(states)
        return tuple(heads), value[..., 0], state


def make_policy(spec: EnvSpec, config: PolicyConfig, encoder: Any = None) -> ActorCritic:
    """The policy for an environment.

    encoder: instead of the encoder that `config` names or chooses, a Flax linen module that maps observations
      [T, B, *obs_shape] to f32[T, B, hidden_size]; of an environment of several parts (`spec.obs_parts`) it gets the
      dictionary `spec.split(observations)`. Or a mapping from names of parts to such modules, each for its part
      [T, B, *shape], or to names of encoders; what it does not mention is read as `config` says. Adam steps all
      parameters of such modules, whatever `ppo.optimizer`.

    Raises ValueError if an encoder cannot read the observations, or makes something else of them; TypeError if it is no
    such module.
    """
    own = as_own_encoders(encoder)
    encoders_of(spec, config, own)
    if config.previous_action and max(spec.num_actions, default=0) > _MOST_CHOICES:
        raise ValueError(
            f"policy.previous_action must be False for more than {_MOST_CHOICES} choices, {spec.name} has "
            f"{max(spec.num_actions)}"
        )
    policy = ActorCritic(spec, config, own)
    if own is not None:
        jax.eval_shape(lambda key: init_params(policy, key), jax.random.key(0))  # what it makes of them
    return policy


def check_heads(spec: EnvSpec, heads) -> None:
    """TypeError unless what a policy returned as heads is what an environment of this `spec` needs."""
    sizes = [x.shape[-1] for x in heads if not isinstance(x, Gaussian)]
    components = [x.mean.shape[-1] for x in heads[-1:] if isinstance(x, Gaussian)]
    needed = [len(spec.action_low)] if spec.action_low else []
    if sizes != list(spec.num_actions) or components != needed:
        gaussian = f" and, last, a distributions.Gaussian of {len(spec.action_low)} numbers" if needed else ""
        raise TypeError(
            f"policy must return heads for {spec.name}: logits of sizes {spec.num_actions}{gaussian}; they are logits "
            f"of sizes {tuple(sizes)}" + (f" and a Gaussian of {components[0]}" if components else "")
        )


def as_policy(spec: EnvSpec, policy: nn.Module | PolicyConfig | None, config: PolicyConfig) -> nn.Module:
    """The policy that is meant: the given module, the one that a PolicyConfig describes, or with None that of `config`.
    A class of `flax.nnx` is given as `flax.nnx.bridge.to_linen(Class, ...)`.

    Raises TypeError saying what is expected and what came.
    """
    if policy is None or isinstance(policy, PolicyConfig):
        return make_policy(spec, policy or config)
    expected = "policy must be a Flax linen module with initial_state, like pufferjax.core.policy.ActorCritic,"
    if isinstance(policy, type):
        raise TypeError(f"{expected} or a PolicyConfig, got the class {policy.__name__}: make one of it")
    # Who gives an nnx module has imported nnx; to do so for everybody would take a fifth of the start.
    nnx = sys.modules.get("flax.nnx")
    if nnx and isinstance(policy, nnx.bridge.ToLinen):
        from pufferjax.core.nnx_policy import from_bridge

        return from_bridge(policy)
    if nnx and isinstance(policy, nnx.Module):
        name = type(policy).__name__
        raise TypeError(
            f"{expected} or a PolicyConfig, got the nnx module {name}, whose parameters are made already: give its "
            f"class, wrapped as flax.nnx.bridge.to_linen({name}, ...), so that every seed makes its own"
        )
    missing = [x for x in ("init", "apply", "initial_state") if not callable(getattr(policy, x, None))]
    missing += [] if hasattr(policy, "spec") else ["spec"]
    if missing:
        raise TypeError(f"{expected} or a PolicyConfig; {type(policy).__name__} has no {', '.join(missing)}")
    return policy


def class_name(policy: nn.Module) -> str:
    """What a run directory records of a policy: its class, and that of its encoders if they are the user's."""
    name = getattr(policy, "class_name", type(policy).__name__)
    own = getattr(policy, "encoder", None)
    if not isinstance(own, OwnEncoders):
        return name
    encoders = [x if isinstance(x, str) else type(x).__name__ for _, x in own.of]
    return f"{name}({', '.join(encoders)})"


def init_params(policy: ActorCritic, key: jax.Array):
    """Parameters of a fresh policy."""
    spec = policy.spec
    observations = jnp.zeros((1, 1, *spec.obs_shape), spec.obs_dtype)
    previous_actions = no_previous_actions(spec, (1, 1))
    return policy.init(key, observations, previous_actions, policy.initial_state(1), jnp.zeros((1, 1), bool))["params"]


def muon_labels(params) -> dict:
    """Which optimizer each parameter gets, as a pytree of "muon" and "adam".

    Muon orthogonalises the step of hidden matrices, whose rows and columns are both features. Adam steps tables (one
    row per code), biases, standard deviations, the first layer on raw numbers (of entities, of the agent itself and of
    its last action too), convolutions of pictures, the user's own encoders, whose first layers are not known, and the
    decoder, whose outputs are no features.
    """
    first_or_last = ("encoder", "action_encoder", "number_encoder", "decoder")

    def is_first_or_last(names):
        is_linear_part = names[0].startswith("part_") and len(names) == 2
        return names[0] in first_or_last or is_linear_part or names[0].startswith("own_encoder")

    def label(path, leaf):
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")  # of any pytree, not dicts alone
        return "muon" if leaf.ndim == 2 and names[-1] == "kernel" and not is_first_or_last(names) else "adam"

    return jax.tree_util.tree_map_with_path(label, params)
