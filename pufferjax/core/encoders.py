"""Encoders: from an observation and the previous action to the features that the memory reads.

An observation of several parts (`EnvSpec.obs_parts`) is read part by part, each with the encoder that fits its shape.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pufferjax import xla_ops
from pufferjax.core.config import PolicyConfig
from pufferjax.envs import EntityLayout, EnvSpec, ObservationPart

_MAX_ONE_HOT_CODES = 32  # "auto" takes integers up to this for codes, not for amounts
_MAX_BOARD_CODES = 64  # integers up to this may be the codes of a board
_LEAST_PICTURE_SIDE = 8  # "auto" takes three axes for a picture from this size on
_ENTITY_HIDDEN_SIZE = 16
_BOARD_WIDTH, _BOARD_LAYERS = 32, 3
_PICTURE_WIDTHS = (16, 32)  # of the first convolution, and of all others
_LARGE_SIDE, _SMALL_SIDE = 32, 6  # of a picture: where the first stride is 4; where the last convolution may end


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


class ConvEncoder(nn.Module):
    """A small convolutional network for pictures: x f32[..., h, w, C] -> f32[..., H].

    Strided 3x3 convolutions with ReLU, a 4x4 one with stride 4 at first for sides of 32 and more, until no side is
    above 6; then one matrix. Integers come scaled to 0..1.
    """

    hidden_size: int
    precision: str = "highest"

    @nn.compact
    def __call__(self, x):
        leading, shape = x.shape[:-3], x.shape[-3:]
        x = x.reshape(-1, *shape)
        for layer, stride in enumerate(conv_strides(max(shape[:2]))):
            width = _PICTURE_WIDTHS[min(layer, 1)]
            x = Convolution(width, max(3, stride), stride, self.precision, name=f"conv_{layer}")(x)
            x = nn.relu(x)
        x = x.reshape(*leading, -1)
        init = uniform((2.0 / x.shape[-1]) ** 0.5)
        return nn.Dense(self.hidden_size, precision=self.precision, kernel_init=init, name="dense")(x)


def conv_strides(side: int) -> list[int]:
    """Strides of the layers of `ConvEncoder` for a picture whose longer side is `side`; at least two."""
    strides = []
    while len(strides) < 2 or side > _SMALL_SIDE:
        stride = 4 if not strides and side >= _LARGE_SIDE else 2 if side > _SMALL_SIDE else 1
        strides.append(stride)
        side = -(-side // stride)
    return strides


class BoardEncoder(nn.Module):
    """What lies next to what on a board, and how much of it: x [..., h, w, C] -> f32[..., H].

    Every cell becomes the sum of a table's rows for its codes (u8, 0..num_codes, 0 is empty), or of its planes times a
    matrix (f32, num_codes None). Each layer adds to every cell a 3x3 mix of the ReLU of it and its neighbours, zero
    outside the board. The mean and the maximum of every feature over all cells, after a last ReLU, go through one
    matrix: the number of parameters does not depend on the size of the board.
    """

    num_codes: int | None
    hidden_size: int
    precision: str = "highest"

    @nn.compact
    def __call__(self, x):
        width = _BOARD_WIDTH
        leading, shape = x.shape[:-3], x.shape[-3:]
        x = x.reshape(-1, *shape)
        if self.num_codes is not None:
            x = OneHotEncoder(self.num_codes, width, name="cells")(x)
        else:  # not named `kernel`: it takes raw numbers (see muon_labels)
            planes = self.param("planes", uniform((2.0 / shape[-1]) ** 0.5), (shape[-1], width))
            x = jnp.matmul(x, planes, precision=self.precision)
        for layer in range(_BOARD_LAYERS):
            x += NeighbourMix(width, self.precision, name=f"mix_{layer}")(nn.relu(x))
        x = nn.relu(x)
        pooled = jnp.concatenate([jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2))], axis=-1)
        init = uniform((2.0 / pooled.shape[-1]) ** 0.5)
        h = nn.Dense(self.hidden_size, precision=self.precision, kernel_init=init, name="pooled")(pooled)
        return h.reshape(*leading, self.hidden_size)


class NeighbourMix(nn.Module):
    """One matrix from the 3x3 cells around every cell, zero outside, to `width` features: x f32[N, h, w, C] ->
    f32[N, h, w, width]. The rows of `kernel` are those of the nine cells, from the upper left one on, row by row."""

    width: int
    precision: str = "highest"

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        kernel = self.param("kernel", uniform((2.0 / (9 * channels)) ** 0.5), (9 * channels, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        cells = _windows(x, 3, 1)
        # Not side by side in one array, nine times the board for every sample and layer.
        rows = jnp.split(kernel, 9)
        return (
            sum(jnp.matmul(cell, row, precision=self.precision) for cell, row in zip(cells, rows, strict=True)) + bias
        )


class Convolution(nn.Module):
    """A side x side convolution, zero outside: x f32[N, h, w, C] -> f32[N, ceil(h / stride), ceil(w / stride), width].

    As one product of matrices: the gradients of XLA's own convolution are several times slower on a CPU inside a loop,
    which is where an update is.
    """

    width: int
    side: int
    stride: int
    precision: str = "highest"

    @nn.compact
    def __call__(self, x):
        shape = (self.side, self.side, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.he_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        patches = jnp.concatenate(_windows(x, self.side, self.stride), axis=-1)
        return jnp.matmul(patches, kernel.reshape(-1, self.width), precision=self.precision) + bias


def _windows(x: jax.Array, side: int, stride: int) -> list[jax.Array]:
    """For each cell of a side x side window, row by row, what lies there as the window moves over x f32[N, h, w, C]
    with this stride: f32[N, ceil(h / stride), ceil(w / stride), C]. What windows that begin at every stride lack is
    zero: half of it before x and, if it is odd, one more behind."""
    sizes = [-(-n // stride) for n in x.shape[1:3]]
    missing = [max((m - 1) * stride + side - n, 0) for m, n in zip(sizes, x.shape[1:3], strict=True)]
    x = jnp.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)])
    (height, width), last = sizes, stride - 1
    return [
        x[:, i : i + height * stride - last : stride, j : j + width * stride - last : stride]
        for i in range(side)
        for j in range(side)
    ]


# --- which encoder reads what -----------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class OwnEncoders:
    """Encoders of the user's instead of those that are chosen from the shapes: (part, linen module or the name of an
    encoder); part None: the only one, a module for the whole observation."""

    of: tuple[tuple[str | None, Any], ...]


def as_own_encoders(encoder: Any) -> OwnEncoders | None:
    """What may be given as `encoder`: a linen module, or a mapping from parts to modules or names; None: nothing."""
    if encoder is None or isinstance(encoder, OwnEncoders):
        return encoder
    given = dict(encoder) if isinstance(encoder, Mapping) else {None: encoder}
    for part, value in given.items():
        if isinstance(value, nn.Module) or (part is not None and value in ENCODERS):
            continue
        which = "encoder" if part is None else f"encoder[{part!r}]"
        got = f"the class {value.__name__}: make one of it" if isinstance(value, type) else repr(value)
        names = "" if part is None else f" or one of {', '.join(map(repr, ENCODERS))}"
        raise TypeError(f"{which} must be a Flax linen module that maps [T, B, *shape] to [T, B, H]{names}, got {got}")
    return OwnEncoders(tuple(given.items()))


def encoders_of(spec: EnvSpec, config: PolicyConfig, own: OwnEncoders | None = None) -> dict[str, Any]:
    """For each part of the observations of an environment, by its name, the name of the encoder that reads it, or the
    user's module. Of an environment that has no parts the observation is one, "observation". Under None: the user's
    module that reads all of it.

    A named `policy.encoder` reads all parts that it can, and the others are left to what "auto" chooses. Raises
    ValueError if it can read none of them, or not the part it was given for.
    """
    given = {} if own is None else dict(own.of)
    if None in given:
        return given
    parts = {part.name: part for part in spec.all_parts if part.size}
    if not parts:
        raise ValueError(f"{spec.name}: its observations hold no numbers")
    for name, encoder in given.items():
        if name not in parts:
            raise ValueError(f"encoder: {spec.name} has no part {name!r}, it has {', '.join(map(repr, parts))}")
        reason = isinstance(encoder, str) and _unreadable(encoder, spec, parts[name])
        if reason:
            raise ValueError(f"encoder[{name!r}] {encoder!r} {reason}, {spec.name} has {parts[name]}")
    chosen = config.encoder
    left = {name: part for name, part in parts.items() if name not in given}
    reasons = {name: _unreadable(chosen, spec, part) for name, part in left.items()}
    if left and all(reasons.values()):
        seen = "; ".join(map(str, left.values()))
        raise ValueError(f"policy.encoder {chosen!r} {next(iter(reasons.values()))}, {spec.name} has {seen}")
    for name, part in left.items():
        given[name] = _chosen(spec, part) if chosen == "auto" or reasons[name] else chosen
    return {name: given[name] for name in parts}


def _chosen(spec: EnvSpec, part: ObservationPart) -> str:
    """What "auto" takes for a part."""
    if spec.entities is not None and not spec.obs_parts:
        return "entity"
    if part.max is not None and part.max <= _MAX_ONE_HOT_CODES:
        return "one_hot"
    is_picture = len(part.shape) == 3 and min(_sides(part)) >= _LEAST_PICTURE_SIDE
    return "conv" if is_picture else "linear"


def _sides(part: ObservationPart) -> tuple[int, ...]:
    """Height and width of two or three axes."""
    return part.shape[-2:] if part.channels_first else part.shape[:2]


def _unreadable(encoder: str, spec: EnvSpec, part: ObservationPart) -> str | None:
    """What the encoder needs that the part lacks; None: it can read it."""
    if encoder == "one_hot" and part.max is None:
        return "needs integer observations"
    if encoder == "entity" and (spec.entities is None or spec.obs_parts):
        return "needs an environment that declares entities"
    if encoder in ("conv", "board") and len(part.shape) not in (2, 3):
        what = "pictures" if encoder == "conv" else "boards"
        return f"needs {what} [H, W] or [H, W, C]"
    if encoder == "board" and part.max is not None and part.max > _MAX_BOARD_CODES:
        return f"needs codes up to {_MAX_BOARD_CODES} or float planes"
    return None


def _planes(part: ObservationPart, x: jax.Array) -> jax.Array:
    """[T, B, H, W, C] of a picture or board [T, B, *part.shape]."""
    if len(part.shape) == 2:
        return x[..., None]
    return jnp.moveaxis(x, -3, -1) if part.channels_first else x


_OWN_NAME = {"entity": "entity_encoder", "conv": "conv_encoder", "board": "board_encoder"}  # the others: "encoder"
ENCODERS = ("one_hot", "entity", "conv", "board", "linear")


def _encode_part(encoder: Any, spec: EnvSpec, part: ObservationPart, config: PolicyConfig, x: jax.Array, name: str):
    """f32[T, B, H] of x [T, B, *part.shape]; `name`: of the module."""
    hidden, precision = config.hidden_size, config.precision
    if encoder == "conv":
        x = _planes(part, x).astype(jnp.float32)
        return ConvEncoder(hidden, precision, name=name)(x if part.max is None else x / part.max)
    if encoder == "board":
        return BoardEncoder(part.max, hidden, precision, name=name)(_planes(part, x))
    x = x.reshape(*x.shape[:2], -1)
    if encoder == "one_hot":
        return OneHotEncoder(part.max, hidden, name=name)(x)
    x = x.astype(jnp.float32)
    if encoder == "entity":
        return EntityEncoder(spec.entities, hidden, precision, name=name)(x)
    init = uniform((2.0 / x.shape[-1]) ** 0.5)
    return nn.Dense(hidden, precision=precision, name=name, kernel_init=init)(x)


def encode(
    spec: EnvSpec,
    config: PolicyConfig,
    observations: jax.Array,
    previous_choices: jax.Array | None,
    own: OwnEncoders | None = None,
    parent: nn.Module | None = None,
) -> jax.Array:
    """f32[T, B, H]: called inside a module, whose parameters the encoders' are.

    observations [T, B, *obs_shape]; previous_choices u8[T, B, A] (see ActorCritic), None: no input. own: the user's
    encoders; they become submodules of `parent`, the module this is called in.
    """
    encoders = encoders_of(spec, config, own)
    if not spec.obs_parts and encoders.get("observation") == "one_hot":
        num_codes = spec.obs_max
        x = observations.reshape(*observations.shape[:2], -1)
        if previous_choices is not None:
            num_codes = max(num_codes, max(spec.num_actions))
            x = jnp.concatenate([x, previous_choices], axis=-1)
        return OneHotEncoder(num_codes, config.hidden_size, name="encoder")(x)
    h = _encode_observations(spec, config, encoders, observations, parent)
    if previous_choices is not None:
        h += OneHotEncoder(max(spec.num_actions), config.hidden_size, name="action_encoder")(previous_choices)
    return h


def _encode_observations(spec, config, encoders, observations, parent):
    """The sum of what the encoders make of the parts, divided by the root of their number: many parts make no larger
    features than one."""
    split = spec.split(observations)
    if None in encoders:
        seen = split if spec.obs_parts else observations
        return _own(encoders[None], config, seen, observations, "own_encoder", parent)
    total = None
    for part in spec.all_parts:
        if part.name not in encoders:
            continue
        encoder, x = encoders[part.name], split[part.name]
        if isinstance(encoder, str):
            name = f"part_{part.name}" if spec.obs_parts else _OWN_NAME.get(encoder, "encoder")
            h = _encode_part(encoder, spec, part, config, x, name)
        else:
            h = _own(encoder, config, x, observations, f"own_encoder_{part.name}", parent)
        total = h if total is None else total + h
    return total if len(encoders) == 1 else total * len(encoders) ** -0.5


def _own(module, config, x, observations, name, parent):
    """What the user's encoder makes of x. ValueError if that is not f32[T, B, H]."""
    h = module.clone(parent=parent, name=name)(x)
    expected = (*observations.shape[:2], config.hidden_size)
    if not isinstance(h, jax.Array) or h.shape != expected or h.dtype != jnp.float32:
        got = f"{h.dtype}{list(h.shape)}" if isinstance(h, jax.Array) else type(h).__name__
        seen = jax.tree.map(lambda y: f"{y.dtype}{list(y.shape)}", x)
        raise ValueError(
            f"encoder {type(module).__name__} must map {seen} to float32{list(expected)}, policy.hidden_size features, "
            f"gives {got}"
        )
    return h
