"""Encoders: what they compute, which one reads what, and encoders of the user's own."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import PolicyConfig, envs
from pufferjax.core.encoders import BoardEncoder, conv_strides, encoders_of
from pufferjax.core.policy import init_params, make_policy, muon_labels

U8, F32 = np.dtype(np.uint8), np.dtype(np.float32)
MAZE = envs.make("maze", size=5, num_mazes=4).spec
BOXOBAN = envs.make("boxoban").spec


def spec_of(shape, largest, **changes):
    dtype = F32 if largest is None else U8
    return dataclasses.replace(
        MAZE, name="test", obs_shape=shape, obs_dtype=dtype, obs_max=largest, num_actions=(3,), **changes
    )


def spec_of_parts(**parts):
    """Of parts that are given as name=(shape, max)."""
    made, offset = [], 0
    for name, (shape, largest) in parts.items():
        made.append(envs.ObservationPart(name, offset, shape, F32 if largest is None else U8, largest))
        offset += made[-1].size
    maxima = [part.max for part in made]
    largest = None if None in maxima else max(maxima)
    return spec_of((offset,), largest, obs_parts=tuple(made))


def features(policy, params, observations):
    """f32[T, B, H]: what the encoder makes of observations [T, B, ...], read off the value of an open decoder."""
    columns = []
    for i in range(policy.config.hidden_size):
        kernel = jnp.zeros_like(params["decoder"]["kernel"]).at[i, -1].set(1.0)
        opened = {**params, "decoder": {**params["decoder"], "kernel": kernel}}
        previous = jnp.zeros((*observations.shape[:2], 1), jnp.uint8)
        starts = jnp.zeros(observations.shape[:2], bool)
        state = policy.initial_state(observations.shape[1])
        columns.append(policy.apply({"params": opened}, observations, previous, state, starts)[1])
    return np.stack(columns, axis=-1)


def plain(encoder="auto", hidden_size=3):
    return PolicyConfig(encoder=encoder, hidden_size=hidden_size, num_layers=0, previous_action=False)


def float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


# --- what they compute ------------------------------------------------------------------------------------------------
def mixed_by_hand(board, kernel, bias):
    """[H, W, width]: the sum over the nine cells around each one, of which those outside are zero."""
    height, width, channels = board.shape
    out = np.zeros((height, width, len(bias)))
    for y in range(height):
        for x in range(width):
            around = np.zeros((3, 3, channels))
            for i in range(3):
                for j in range(3):
                    if 0 <= y + i - 1 < height and 0 <= x + j - 1 < width:
                        around[i, j] = board[y + i - 1, x + j - 1]
            out[y, x] = around.reshape(-1) @ kernel + bias
    return out


@pytest.mark.parametrize("num_codes", [3, None])
def test_board_encoder_by_hand(num_codes):
    rng = np.random.default_rng(0)
    shape = (2, 3, 4, 5, 2)  # T, B, H, W, C
    boards = rng.integers(4, size=shape).astype(np.uint8) if num_codes else rng.normal(size=shape).astype(np.float32)
    encoder = BoardEncoder(num_codes, 6)
    params = encoder.init(jax.random.key(0), boards)["params"]
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)  # biases too
    found, weights = encoder.apply({"params": params}, boards), float64(params)
    assert found.shape == (2, 3, 6) and found.dtype == jnp.float32
    for t, b in np.ndindex(2, 3):
        board = boards[t, b]
        if num_codes:
            planes = (board[..., None] == np.arange(1, 4)).astype(np.float64)  # code 0 has none
            cells = np.einsum("hwck,ckf->hwf", planes, weights["cells"]["table"]) + weights["cells"]["bias"]
        else:
            cells = board.astype(np.float64) @ weights["planes"]
        for layer in range(3):
            cells += mixed_by_hand(np.maximum(cells, 0), *(weights[f"mix_{layer}"][x] for x in ("kernel", "bias")))
        cells = np.maximum(cells, 0).reshape(20, -1)
        pooled = np.concatenate([cells.mean(axis=0), cells.max(axis=0)])
        expected = pooled @ weights["pooled"]["kernel"] + weights["pooled"]["bias"]
        np.testing.assert_allclose(found[t, b], expected, rtol=1e-4, atol=1e-5)
    larger = encoder.apply({"params": params}, np.concatenate([boards, boards], axis=3))
    assert larger.shape == (2, 3, 6)  # the same parameters read a board of another size


def strided_by_hand(picture, kernel, bias, stride):
    """[H', W', F]: a convolution that keeps ceil(H / stride) rows, padded with zeros, more of them below."""
    side, (height, width) = kernel.shape[0], picture.shape[:2]
    rows, columns = -(-height // stride), -(-width // stride)
    pads = [max((n - 1) * stride + side - size, 0) for n, size in ((rows, height), (columns, width))]
    padded = np.pad(picture, [(pad // 2, pad - pad // 2) for pad in pads] + [(0, 0)])
    out = np.zeros((rows, columns, len(bias)))
    for y, x in np.ndindex(rows, columns):
        window = padded[y * stride : y * stride + side, x * stride : x * stride + side]
        out[y, x] = np.tensordot(window, kernel, 3) + bias
    return out


@pytest.mark.parametrize("shape, strides", [((9, 11, 2), [2, 1]), ((33, 8), [4, 2])])
def test_conv_encoder_by_hand_sees_bytes_as_0_to_1(shape, strides):
    policy = make_policy(spec_of(shape, 200), plain("conv"))
    params = init_params(policy, jax.random.key(0))
    pictures = np.random.default_rng(0).integers(201, size=(1, 2, *shape)).astype(np.uint8)
    weights = float64(params)["conv_encoder"]
    found = features(policy, params, jnp.asarray(pictures))
    for b in range(2):
        x = pictures[0, b].astype(np.float64).reshape(*shape[:2], -1) / 200
        for layer, stride in enumerate(strides):
            convolution = weights[f"conv_{layer}"]
            x = np.maximum(strided_by_hand(x, convolution["kernel"], convolution["bias"], stride), 0)
        expected = x.reshape(-1) @ weights["dense"]["kernel"] + weights["dense"]["bias"]
        np.testing.assert_allclose(found[0, b], expected, rtol=1e-4, atol=1e-5)


def test_pictures_of_every_size_end_small():
    assert conv_strides(84) == [4, 2, 2] and conv_strides(64) == [4, 2, 2] and conv_strides(8) == [2, 1]
    for side in range(1, 300):
        left = side
        for stride in conv_strides(side):
            left = -(-left // stride)
        assert left <= 6 and len(conv_strides(side)) >= 2


def test_parts_are_encoded_apart_and_summed():
    spec = spec_of_parts(codes=((2, 2), 3), nothing=((0,), None), numbers=((3,), None), one=((), None))
    policy = make_policy(spec, plain())
    params = init_params(policy, jax.random.key(0))
    assert set(params) == {"part_codes", "part_numbers", "part_one", "decoder"}
    rng = np.random.default_rng(0)
    codes, numbers = rng.integers(4, size=(1, 5, 4)), rng.normal(size=(1, 5, 4)).astype(np.float32)
    found = features(policy, params, jnp.concatenate([jnp.float32(codes), numbers], axis=-1))
    weights = float64(params)
    for b in range(5):
        rows = [weights["part_codes"]["table"][cell, code - 1] for cell, code in enumerate(codes[0, b]) if code]
        expected = np.sum(rows, axis=0) + numbers[0, b, :3] @ weights["part_numbers"]["kernel"]
        expected += numbers[0, b, 3:] @ weights["part_one"]["kernel"]
        np.testing.assert_allclose(found[0, b], expected / 3**0.5, rtol=1e-4, atol=1e-5)


def test_planes_may_come_first():
    last = dataclasses.replace(BOXOBAN, obs_shape=(10, 10, 4), channels_first=False)
    observations = jax.random.randint(jax.random.key(0), (1, 2, 4, 10, 10), 0, 2).astype(jnp.uint8)
    for encoder in ("board", "conv"):
        first, second = (make_policy(spec, plain(encoder)) for spec in (BOXOBAN, last))
        params = init_params(first, jax.random.key(0))
        moved = jnp.moveaxis(observations, 2, -1)
        np.testing.assert_array_equal(features(first, params, observations), features(second, params, moved))


@pytest.mark.parametrize("encoder", ["board", "conv"])
def test_gradients_reach_every_parameter_for_every_seed(encoder):
    spec = spec_of((8, 8, 2), 5)
    policy = make_policy(spec, PolicyConfig(encoder=encoder, hidden_size=4, num_layers=1))
    observations = jax.random.randint(jax.random.key(1), (2, 6, 8, 8, 2), 0, 6).astype(jnp.uint8)

    def loss(params):
        previous, starts = jnp.ones((2, 6, 1), jnp.uint8), jnp.zeros((2, 6), bool)
        logits, values, _ = policy.apply({"params": params}, observations, previous, policy.initial_state(6), starts)
        return jnp.sum(jnp.sin(logits[0])) + jnp.sum(values**2 + values)

    def gradient(key):
        params = init_params(policy, key)
        kernel = jax.random.normal(key, params["decoder"]["kernel"].shape)
        return jax.grad(loss)({**params, "decoder": {**params["decoder"], "kernel": kernel}})

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(gradient))(keys)
    for path, leaf in jax.tree_util.tree_flatten_with_path(together)[0]:
        assert jnp.isfinite(leaf).all() and (jnp.abs(leaf).max(axis=range(1, leaf.ndim)) > 0).all(), path
    alone = jax.jit(gradient)(keys[1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-3, atol=1e-4), together, alone)


@pytest.mark.parametrize("encoder, products", [("board", 1 + 27 + 1), ("conv", 2 + 1)])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_every_product_is_as_exact_as_the_configuration_says(encoder, products, precision):
    policy = make_policy(spec_of((8, 8, 2), None), dataclasses.replace(plain(encoder), precision=precision))
    params = jax.eval_shape(lambda: init_params(policy, jax.random.key(0)))

    def loss(params):
        inputs = jnp.zeros((1, 2, 8, 8, 2)), jnp.zeros((1, 2, 1), jnp.uint8)
        return policy.apply({"params": params}, *inputs, policy.initial_state(2), jnp.zeros((1, 2), bool))[1].sum()

    program = str(jax.make_jaxpr(jax.grad(loss))(params))
    found = re.findall(r"dot_general\[.*?precision=(?:\(Precision.)?(\w+)", program, re.DOTALL)
    assert len(found) >= 2 * products and set(found) == {precision.upper()}


# --- which one reads what ---------------------------------------------------------------------------------------------
def test_auto_chooses_by_what_is_observed():
    expected = {"minimal": "entity", "breakout": "linear"}
    for name in envs.names():
        found = encoders_of(envs.make(name).spec, PolicyConfig())
        if name == "chain_mdp":
            continue  # depends on its length
        assert found == {"observation": expected.get(name, "one_hot")}, name
    for shape, largest, encoder in (
        ((84, 84, 3), 255, "conv"),
        ((8, 9, 1), None, "conv"),
        ((7, 7, 3), 255, "linear"),  # too small to be a picture
        ((9, 9, 3), 10, "one_hot"),
        ((84, 84), 255, "linear"),
        ((4, 84, 84, 3), 255, "linear"),
        ((5,), None, "linear"),
        ((), 32, "one_hot"),
        ((), 33, "linear"),
    ):
        assert encoders_of(spec_of(shape, largest), PolicyConfig()) == {"observation": encoder}
    parts = spec_of_parts(map=((9, 9), 4), picture=((16, 16, 3), 255), speed=((2,), None), none=((0,), None))
    assert encoders_of(parts, PolicyConfig()) == {"map": "one_hot", "picture": "conv", "speed": "linear"}
    board = encoders_of(parts, PolicyConfig(encoder="board"))  # what it cannot read is left to auto
    assert board == {"map": "board", "picture": "conv", "speed": "linear"}
    assert encoders_of(parts, PolicyConfig(encoder="conv")) == {"map": "conv", "picture": "conv", "speed": "linear"}


@pytest.mark.parametrize(
    "spec, encoder, text",
    [
        (spec_of((5,), 3), "board", r"'board' needs boards \[H, W\] or \[H, W, C\], test has observation u8\[5\] of 0"),
        (spec_of((9, 9), 65), "board", r"'board' needs codes up to 64 or float planes, .* u8\[9, 9\] of 0 to 65"),
        (spec_of((2, 3, 4, 5), None), "conv", r"'conv' needs pictures .* has observation f32\[2, 3, 4, 5\]"),
        (spec_of((9,), None), "one_hot", "'one_hot' needs integer observations"),
        (spec_of_parts(a=((3,), None), b=((2,), None)), "board", r"needs boards .* a f32\[3\]; b f32\[2\]"),
        (spec_of_parts(a=((3,), 4)), "entity", "'entity' needs an environment that declares entities"),
        (spec_of((0,), None), "linear", "its observations hold no numbers"),
    ],
)
def test_what_an_encoder_cannot_read_is_refused(spec, encoder, text):
    with pytest.raises(ValueError, match=text):
        make_policy(spec, PolicyConfig(encoder=encoder))


def test_adam_steps_first_layers_and_muon_hidden_matrices():
    spec = spec_of_parts(map=((8, 8), 4), picture=((16, 16, 3), 255), speed=((2,), None))
    params = init_params(make_policy(spec, PolicyConfig(encoder="board", encoder_layers=1)), jax.random.key(0))
    labels, _ = jax.tree_util.tree_flatten_with_path(muon_labels(params))
    muon = {jax.tree_util.keystr(path, simple=True, separator="/") for path, label in labels if label == "muon"}
    mixes = {f"part_map/mix_{layer}/kernel" for layer in range(3)}
    recurrent = {"encoder_0/kernel", "mingru_0/kernel", "mingru_1/kernel"}
    assert muon == mixes | recurrent | {"part_map/pooled/kernel", "part_picture/dense/kernel"}


# --- the user's own ---------------------------------------------------------------------------------------------------
class Scaled(nn.Module):
    """The sum of the numbers of x, or of all parts, times a parameter, as every feature."""

    size: int = 3

    @nn.compact
    def __call__(self, x):
        scale = self.param("kernel", nn.initializers.constant(2.0), (1, self.size))
        leaves = [
            y.reshape(*y.shape[:2], -1).astype(jnp.float32).sum(axis=-1, keepdims=True) for y in jax.tree.leaves(x)
        ]
        return sum(leaves) * scale[0]


def test_an_own_encoder_reads_all_or_its_part():
    observations = jnp.arange(8, dtype=jnp.float32).reshape(1, 2, 4)
    one = make_policy(spec_of((4,), None), plain(), encoder=Scaled())
    both = spec_of_parts(a=((3,), None), b=((), None))
    whole = make_policy(both, plain(), encoder=Scaled())
    part = make_policy(both, plain(), encoder={"b": Scaled()})
    named = make_policy(both, plain(), encoder={"a": "linear", "b": Scaled()})
    for policy in (one, whole):
        params = init_params(policy, jax.random.key(0))
        np.testing.assert_allclose(features(policy, params, observations)[0], [[12] * 3, [44] * 3])
        assert muon_labels(params)["own_encoder"] == {"kernel": "adam"}
    assert part != whole and hash(named) is not None
    for policy in (part, named):
        params = init_params(policy, jax.random.key(0))
        assert set(params) == {"part_a", "own_encoder_b", "decoder"}
        expected = observations[..., :3] @ params["part_a"]["kernel"] + 2 * observations[..., 3:]
        np.testing.assert_allclose(features(policy, params, observations), expected / 2**0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "encoder, error, text",
    [
        (Scaled, TypeError, "encoder must be a Flax linen module .* got the class Scaled: make one of it"),
        (lambda x: x, TypeError, "encoder must be a Flax linen module that maps"),
        ({"a": "convolution"}, TypeError, "encoder\\['a'\\] must be a Flax linen module .* got 'convolution'"),
        ({"z": Scaled()}, ValueError, "encoder: test has no part 'z', it has 'a', 'b'"),
        ({"a": "conv"}, ValueError, r"encoder\['a'\] 'conv' needs pictures .* test has a f32\[3\]"),
        (
            Scaled(5),
            ValueError,
            r"encoder Scaled must map {'a': 'float32\[1, 1, 3\]'.* to float32\[1, 1, 3\].*1, 1, 5\]",
        ),
        ({"b": Scaled(5)}, ValueError, r"encoder Scaled must map float32\[1, 1\] to float32\[1, 1, 3\]"),
    ],
)
def test_what_is_no_encoder_is_refused(encoder, error, text):
    with pytest.raises(error, match=text):
        make_policy(spec_of_parts(a=((3,), None), b=((), None)), plain(), encoder=encoder)
