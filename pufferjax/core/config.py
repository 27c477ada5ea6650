"""Every setting of a training run, with its default, unit and valid range. Frozen, hashable, checked on construction.

`TrainConfig` holds what is static (shapes, counts, switches) and the default values of what may vary during a run;
`config.hypers()` gives the latter as a pytree of scalars that can be traced, swept with vmap, or replaced.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.xla_ops.checks import check_scalar

_LARGEST = float(jnp.finfo(jnp.float32).max)
WALK_LENGTHS = (16, 8, 4, 2, 1)  # a walk of the state set takes walk_steps over one of these


def take_numpy_scalars(config: Any) -> None:
    """Turns NumPy's scalars in the fields of a frozen dataclass into Python's numbers: what comes out of an array is
    no other setting."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(config, field.name, value.item())


def _check(name: str, value: Any, valid: str, ok: bool) -> None:
    if not ok:
        raise ValueError(f"{name} must be {valid}, got {value!r}")


def _check_int(name: str, value: Any, low: int, high: int = 2**31 - 1) -> None:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    _check(name, value, f"an integer in [{low}, {high}]", is_int and low <= value <= high)


def _check_float(name: str, value: Any, low: float, high: float = math.inf, *, open_high: bool = False) -> None:
    valid = f"a number in [{low:g}, {high:g}{')' if open_high or math.isinf(high) else ']'}"
    # Beyond the largest f32 a number would become infinite in `hypers`.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST
    _check(name, value, valid, is_number and low <= value and (value < high if open_high else value <= high))


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    _check(name, value, f"one of {', '.join(map(repr, choices))}", isinstance(value, str) and value in choices)


def _check_bool(name: str, value: Any) -> None:
    _check(name, value, "True or False", isinstance(value, bool))


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Encoder -> MinGRU layers with highway -> one decoder for logits and value."""

    hidden_size: int = 64  # units of the encoder and of every recurrent layer, 1 to 8192
    num_layers: int = 2  # MinGRU layers, 0 to 32; 0: no memory
    # "one_hot": a table row per (cell, code) of small-integer observations; "entity": the maximum over the entities of
    # an environment that declares them; "board": 3x3 mixes of neighbouring cells and their mean and maximum, for boards
    # [H, W] or [H, W, C] of codes up to 64 or of float planes; "conv": a small convolutional network, for pictures
    # [H, W] or [H, W, C]; "linear": the raw numbers; "auto": entity where they are declared, one_hot for integers of at
    # most 32 codes, conv for other [H, W, C] of at least 8 x 8, else linear. Of an observation of several parts each is
    # encoded by itself, and a part that the named encoder cannot read by what "auto" takes for it.
    encoder: Literal["auto", "one_hot", "entity", "board", "conv", "linear"] = "auto"
    # Layers of ReLU and a hidden_size x hidden_size matrix added to the encoder, 0 to 8 (0, as in the original: none).
    encoder_layers: int = 0
    # The action before this one is an input. The original has no such input; a wall-follower needs its heading.
    previous_action: bool = True
    # Observations less their running mean, over their running standard deviation. Integers are codes and stay.
    normalize_observations: bool = False
    observation_clip: float = 10.0  # where normalised observations are cut, in standard deviations; >= 0, 0: nowhere
    # Of continuous actions: the logarithm of their standard deviation at the start, -10 to 5; it is learned, and the
    # same in all states. Where both bounds are finite, a unit is half of the distance between them.
    initial_log_std: float = 0.0
    # How exact the policy's matrix products must be, as jax.lax.Precision: "highest" is float32 everywhere; "high" and
    # "default" permit a GPU its faster TF32 and bfloat16. A CPU is exact always.
    precision: Literal["highest", "high", "default"] = "highest"

    def __post_init__(self):
        take_numpy_scalars(self)
        _check_int("policy.hidden_size", self.hidden_size, 1, 8192)
        _check_int("policy.num_layers", self.num_layers, 0, 32)
        _check_int("policy.encoder_layers", self.encoder_layers, 0, 8)
        _check_choice("policy.encoder", self.encoder, ("auto", "one_hot", "entity", "board", "conv", "linear"))
        _check_bool("policy.previous_action", self.previous_action)
        _check_bool("policy.normalize_observations", self.normalize_observations)
        _check_float("policy.observation_clip", self.observation_clip, 0)
        _check_float("policy.initial_log_std", self.initial_log_std, -10, 5)
        _check_choice("policy.precision", self.precision, ("highest", "high", "default"))


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Clipped PPO with V-trace ratios on minibatches of whole rows (one agent, the full horizon)."""

    # "muon": with Adam for what is no hidden matrix; "aurora": the same, but of matrices that widen all outputs learn
    # alike; "adam"; "schedule_free": Adam averaged over all steps, which needs no falling learning rate.
    optimizer: Literal["muon", "aurora", "adam", "schedule_free"] = "muon"
    learning_rate: float = 0.015  # step size at the start, >= 0: of Muon's hidden matrices, or of everything with adam
    other_learning_rate_ratio: float = 0.1  # Muon only: Adam's step on heads, biases and tables, relative to the above
    min_learning_rate_ratio: float = 0.15  # learning_rate at the end of the run, relative to its start; 0 to 1
    anneal_start: float = 0.0  # share of the run with a constant learning rate, before the cosine begins; 0 to 1
    # Width at which learning_rate was chosen: in a network of another, Adam's step on matrices that read features is
    # times base_width / width (muP), as Muon's is without it; 0: not.
    base_width: int = 0
    momentum: float = 0.95  # decay per update of the running mean of gradients; schedule_free's b1; in [0, 1)
    max_grad_norm: float = 1.5  # a longer gradient, over all parameters, is scaled down to this norm; >= 0
    gamma: float = 0.995  # discount of rewards per step, 0 to 1
    gae_lambda: float = 0.98  # decay of the advantage's trace per step, on top of gamma; 0 to 1
    rho_clip: float = 1.0  # V-trace: the largest importance ratio that weights a step's own error; >= 0
    c_clip: float = 1.0  # V-trace: the largest importance ratio that carries the trace on to the step before; >= 0
    clip_eps: float = 0.13  # PPO: how far an action's probability ratio moves from 1 until the gradient stops; >= 0
    value_clip_eps: float = 0.2  # how far a value moves until its gradient stops, in units of the return; >= 0
    value_coef: float = 1.0  # weight of the value loss beside the policy loss; >= 0
    entropy_coef: float = 1e-3  # weight of the entropy bonus at the start of the run; >= 0
    min_entropy_ratio: float = 0.3  # entropy_coef at the end of the run, relative to its start; 0 to 1
    # Of KL(uniform || policy), the same during the whole run; >= 0. An entropy bonus has no hold on an action that is
    # hardly ever drawn; this brings it back, and costs about log_barrier_coef / advantage of the right action's
    # probability.
    log_barrier_coef: float = 0.0
    minibatch_size: int = 8192  # samples of an update; a multiple of the horizon: whole rows
    replay_ratio: float = 0.4  # samples trained on per sample collected, 0 to 100; 0: nothing is trained
    # Rewards divided by the running standard deviation of discounted returns: returns far from 1 take the gradient for
    # themselves. Not for rewards that are rare: the first one met would count thousands.
    scale_rewards: bool = False
    reward_clip: float = 0.0  # where rewards, scaled ones after that, are cut: to [-this, this]; >= 0, 0: nowhere
    normalize_advantages: bool = True  # subtract the mean of each minibatch and divide by its standard deviation
    priority_exponent: float = 0.9  # rows are drawn with probability ~ (sum over time of |advantage|) ** this; >= 0
    importance_exponent: float = 0.5  # and weighted by (N * probability) ** -this in the policy loss; >= 0
    # Departures from the original, where the last step of a row has no successor, memory leaks through episode ends,
    # time-outs count as failures, and training starts before there is anything to learn.

    bootstrap: bool = True  # use V of the state after the last step; False: the last step has advantage 0
    reset_memory: bool = True  # cut the recurrent state at episode ends
    # "cut": a time-out's own step has advantage 0 and ends the trace; "terminate": a time-out counts as a failure.
    truncation: Literal["cut", "terminate"] = "cut"
    wait_for_reward: bool = True  # no update before the first non-zero reward

    def __post_init__(self):
        take_numpy_scalars(self)
        _check_choice("ppo.optimizer", self.optimizer, ("muon", "aurora", "adam", "schedule_free"))
        _check_int("ppo.base_width", self.base_width, 0, 8192)
        _check_choice("ppo.truncation", self.truncation, ("cut", "terminate"))
        for name in ("learning_rate", "other_learning_rate_ratio", "max_grad_norm", "rho_clip", "c_clip"):
            _check_float(f"ppo.{name}", getattr(self, name), 0)
        for name in ("clip_eps", "value_clip_eps", "value_coef", "entropy_coef", "priority_exponent"):
            _check_float(f"ppo.{name}", getattr(self, name), 0)
        for name in ("log_barrier_coef", "importance_exponent"):
            _check_float(f"ppo.{name}", getattr(self, name), 0)
        for name in ("min_learning_rate_ratio", "anneal_start", "min_entropy_ratio", "gamma", "gae_lambda"):
            _check_float(f"ppo.{name}", getattr(self, name), 0, 1)
        _check_float("ppo.momentum", self.momentum, 0, 1, open_high=True)
        if self.optimizer == "schedule_free":
            _check("ppo.momentum", self.momentum, "above 0 with schedule_free", self.momentum > 0)
        _check_float("ppo.reward_clip", self.reward_clip, 0)
        _check_int("ppo.minibatch_size", self.minibatch_size, 1)
        _check_float("ppo.replay_ratio", self.replay_ratio, 0, 100)
        for name in ("scale_rewards", "normalize_advantages", "bootstrap", "reset_memory", "wait_for_reward"):
            _check_bool(f"ppo.{name}", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class StateSetConfig:
    """The state-set curriculum: a priority heap of simulator snapshots from which part of the environments restart."""

    capacity: int = 256  # snapshots kept, 1 to 2**24
    # Memory of these snapshots in bytes, 1 to 2**43, all devices together: a run keeps fewer of them where states are
    # large, and says so.
    max_bytes: int = 2**30
    fraction: float = 0.4  # of the environments that restart from it in every epoch, in [0, 1); 0: no curriculum
    interval: int = 16  # steps between the candidates of a fresh environment; a divisor of the horizon
    min_states: int = 1  # restarts begin when this many snapshots are held; 1 to capacity
    priority_exponent: float = 1.0  # slots are drawn with probability ~ priority ** this; >= 0, 0: uniformly
    importance_exponent: float = 0.0  # restarted rows are weighted by (size * probability) ** -this; >= 0
    decay: float = 0.9  # a restarted slot that scores lower than before keeps this share of its priority; 0 to 1
    replay_span: int = 16  # steps over which a restarted slot is scored, 1 to horizon; candidates: over `interval`
    # Restarted episodes have the whole time limit before them. With the clock of the snapshot, states just before a
    # time-out, from which nothing is learned, gather in the set: a state, and all that is found from it, grows older.
    reset_clock: bool = True
    # Share of the restarts that first take random actions at simulator speed, 0 to 1. Where they end is a candidate
    # too: a walk from states the policy can finish from leads to states it almost can.
    walk_fraction: float = 0.5
    # Steps of the longest walk, a multiple of 16; equal parts of the walkers take a half of it, a quarter, ... 1/16.
    # 0: no walks.
    walk_steps: int = 1024
    # Solve rate of fresh episodes, >= 0, from which the restarted share of the environments falls: restarts near the
    # goal teach little about a task that is mostly solved.
    release_from: float = 0.3
    release_until: float = 0.6  # solve rate at which the restarted share has fallen to 0; >= release_from
    # Random warm-up before training: random actions at simulator speed until this many rewards were met, the last
    # snapshots before each filling the set. 0: none. Its steps are counted and logged. A reward is here one above zero,
    # or, where there are others, a rare one that is not the usual one.
    warmup_rewards: int = 64
    warmup_snapshots: int = 4  # snapshots before each reward of the warm-up, `interval` steps apart; 1 to 1024
    warmup_envs: int = 256  # simulators of the warm-up, 1 to 65536
    warmup_max_steps: int = 4_000_000_000  # simulator steps after which the warm-up gives up: training begins without
    # Seconds after which the warm-up of a run gives up, >= 0. Where it does, another run may walk further: set
    # warmup_max_steps to what can be walked in less for the same figures twice.
    warmup_max_seconds: float = 30.0

    def __post_init__(self):
        take_numpy_scalars(self)
        _check_int("state_set.capacity", self.capacity, 1, 2**24)
        _check_int("state_set.max_bytes", self.max_bytes, 1, 2**43)
        _check_float("state_set.fraction", self.fraction, 0, 1, open_high=True)
        _check_int("state_set.interval", self.interval, 1)
        _check_int("state_set.min_states", self.min_states, 1, self.capacity)
        _check_float("state_set.priority_exponent", self.priority_exponent, 0)
        _check_float("state_set.importance_exponent", self.importance_exponent, 0)
        _check_float("state_set.decay", self.decay, 0, 1)
        _check_int("state_set.replay_span", self.replay_span, 1)
        _check_bool("state_set.reset_clock", self.reset_clock)
        _check_float("state_set.walk_fraction", self.walk_fraction, 0, 1)
        _check_int("state_set.walk_steps", self.walk_steps, 0)
        _check("state_set.walk_steps", self.walk_steps, f"a multiple of {WALK_LENGTHS[0]}",
               self.walk_steps % WALK_LENGTHS[0] == 0)  # fmt: skip
        _check_float("state_set.release_from", self.release_from, 0)
        _check_float("state_set.release_until", self.release_until, self.release_from)
        # Below these the walk's counts of rewards and of chunks of steps fit 31 bits.
        _check_int("state_set.warmup_rewards", self.warmup_rewards, 0, 2**30)
        _check_int("state_set.warmup_snapshots", self.warmup_snapshots, 1, 2**10)
        _check_int("state_set.warmup_envs", self.warmup_envs, 1, 2**16)
        _check_int("state_set.warmup_max_steps", self.warmup_max_steps, 0, 2**43)
        _check_float("state_set.warmup_max_seconds", self.warmup_max_seconds, 0)


class Hypers(NamedTuple):
    """The numbers that may be traced: f32 scalars (see the fields of the same names in the configs)."""

    learning_rate: jax.Array
    other_learning_rate_ratio: jax.Array
    min_learning_rate_ratio: jax.Array
    anneal_start: jax.Array
    max_grad_norm: jax.Array
    gamma: jax.Array
    gae_lambda: jax.Array
    rho_clip: jax.Array
    c_clip: jax.Array
    clip_eps: jax.Array
    value_clip_eps: jax.Array
    value_coef: jax.Array
    entropy_coef: jax.Array
    min_entropy_ratio: jax.Array
    log_barrier_coef: jax.Array
    priority_exponent: jax.Array
    importance_exponent: jax.Array
    state_priority_exponent: jax.Array
    state_importance_exponent: jax.Array
    state_decay: jax.Array


def check_hypers(hypers: Any) -> Hypers:
    """`hypers` as f32 scalars; what is traced passes. Raises TypeError or ValueError naming the field."""
    if not isinstance(hypers, Hypers):
        raise TypeError(f"hypers must be a pufferjax.Hypers, got {type(hypers).__name__}")
    return Hypers(*(check_scalar("train", f"hypers.{name}", x) for name, x in zip(Hypers._fields, hypers, strict=True)))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the settings of a run come to with environments of K agents.

    A step is the step of one agent, here and in everything that is logged: N environments that advance once make N * K
    steps. Only the random warm-up counts those of environments.
    """

    num_envs: int  # N
    num_rows: int  # N * K: the agents of all environments
    batch_size: int  # samples collected per epoch: steps of all agents
    num_epochs: int
    num_minibatches: int  # updates per epoch


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run; impossible combinations raise ValueError naming the field."""

    total_steps: int = 100_000_000  # agent steps of training, at least one epoch; rounded down to whole epochs
    num_envs: int = 2048  # simulators, each with all its agents; >= 1
    horizon: int = 128  # steps per epoch and agent, >= 1: the length of the rows that are trained on
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    state_set: StateSetConfig = dataclasses.field(default_factory=StateSetConfig)

    def __post_init__(self):
        take_numpy_scalars(self)
        for name, section in (("policy", PolicyConfig), ("ppo", PPOConfig), ("state_set", StateSetConfig)):
            value = getattr(self, name)
            _check(name, value, f"a {section.__name__}", isinstance(value, section))
        _check_int("num_envs", self.num_envs, 1)
        _check_int("horizon", self.horizon, 1)
        _check_int("total_steps", self.total_steps, self.num_envs * self.horizon, 2**63 - 1)
        size, horizon = self.ppo.minibatch_size, self.horizon
        _check("ppo.minibatch_size", size, f"a multiple of horizon = {horizon}", size % horizon == 0)
        interval = self.state_set.interval
        _check("state_set.interval", interval, f"a divisor of horizon = {horizon}", horizon % interval == 0)
        span = self.state_set.replay_span
        _check("state_set.replay_span", span, f"at most horizon = {horizon}", span <= horizon)
        if self.state_set.fraction > 0:
            fraction = self.state_set.fraction
            _check("state_set.fraction", fraction, f"0 or at least 1 / num_envs = {1 / self.num_envs:g}",
                   self.num_replayed >= 1)  # fmt: skip

    def sizes(self, num_agents: int = 1) -> Sizes:
        """The counts for environments of `num_agents` agents. ValueError naming the field that does not fit them."""
        num_rows = self.num_envs * num_agents
        batch_size, size = num_rows * self.horizon, self.ppo.minibatch_size
        agents = "" if num_agents == 1 else f" * {num_agents} agents"
        _check("total_steps", self.total_steps, f"at least num_envs{agents} * horizon = {batch_size}",
               self.total_steps >= batch_size)  # fmt: skip
        _check("ppo.minibatch_size", size, f"at most num_envs{agents} * horizon = {batch_size}", size <= batch_size)
        num_minibatches = int(self.ppo.replay_ratio * batch_size / size)
        # Otherwise nothing would ever be trained, and nothing say so.
        least = f"ppo.minibatch_size / (num_envs{agents} * horizon) = {size / batch_size:g}"
        _check("ppo.replay_ratio", self.ppo.replay_ratio, f"0 or at least {least}",
               self.ppo.replay_ratio == 0 or num_minibatches >= 1)  # fmt: skip
        return Sizes(
            num_envs=self.num_envs,
            num_rows=num_rows,
            batch_size=batch_size,
            num_epochs=self.total_steps // batch_size,
            num_minibatches=num_minibatches,
        )

    def fitted(self, state_bytes: int) -> "TrainConfig":
        """Itself, or with a state set of fewer snapshots of `state_bytes` each, as many as `state_set.max_bytes` holds
        (of 8 or more a multiple of 8, which devices can share). ValueError if it does not hold one."""
        state_set = self.state_set
        capacity = min(state_set.capacity, state_set.max_bytes // state_bytes)
        _check("state_set.max_bytes", state_set.max_bytes, f"at least the {state_bytes} bytes of a state",
               capacity >= 1)  # fmt: skip
        if capacity == state_set.capacity:
            return self
        capacity -= capacity % 8 if capacity >= 8 else 0
        min_states = min(state_set.min_states, capacity)
        return dataclasses.replace(
            self, state_set=dataclasses.replace(state_set, capacity=capacity, min_states=min_states)
        )

    @property
    def num_replayed(self) -> int:
        """Environments that may restart from the state set; the last ones. The others are always fresh."""
        return int(self.state_set.fraction * self.num_envs)

    @property
    def num_walked(self) -> int:
        """Environments that may restart from a random walk that began in the state set; the last ones."""
        return int(self.state_set.walk_fraction * self.num_replayed) if self.state_set.walk_steps else 0

    def hypers(self) -> Hypers:
        """The traceable numbers at their configured values."""
        values = {
            name: getattr(self.state_set, name.removeprefix("state_"))
            if name.startswith("state_")
            else getattr(self.ppo, name)
            for name in Hypers._fields
        }
        return Hypers(**{name: jnp.float32(value) for name, value in values.items()})
