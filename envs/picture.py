"""Pictures of environments that draw none, or draw with matplotlib. On the host."""

import sys
from typing import Any

import numpy as np

from pufferjax.envs.native import upscale

_NEGATIVE, _ZERO, _POSITIVE = (np.array(x) for x in ((66, 133, 244), (28, 32, 38), (255, 196, 61)))
_STEPS = 255  # shades from zero to either end
_ROW = 16  # numbers of a vector side by side


def picture(observation: np.ndarray) -> np.ndarray:
    """u8[H, W, 3] of an observation: a cell per number, dark for 0, brighter for more, in another colour below 0.

    The brightest is the largest magnitude, or 1 if all are smaller. Channels (a third axis) have a hue each and the
    strongest one shows; a vector is broken into rows of 16; u8[H, W, 3] is taken for a picture already.
    """
    is_rgb = observation.ndim == 3 and observation.shape[2] == 3 and observation.dtype == np.uint8
    if is_rgb and observation.max(initial=0) > 1:  # not three channels of flags
        return observation
    values = np.nan_to_num(observation.astype(np.float64), posinf=1e30, neginf=-1e30)
    if values.ndim <= 1:
        values = values.reshape(-1)
        columns = min(values.size, _ROW)
        values = np.pad(values, (0, -values.size % columns)).reshape(-1, columns)
    if values.size == 0:
        values = np.zeros((1, 1))
    values /= max(1.0, np.abs(values).max())
    if values.ndim == 2:
        shades = np.linspace(0, 1, _STEPS + 1)[:, None]
        palette = np.concatenate([_blend(_NEGATIVE, shades[:0:-1]), _blend(_POSITIVE, shades)])
        return upscale(np.rint(values * _STEPS).astype(np.int64) + _STEPS, palette)
    values = np.abs(values).reshape(values.shape[0], -1, values.shape[-1])
    strongest, value = values.argmax(axis=2), values.max(axis=2)
    hues = _hues(values.shape[2])
    colours = (_ZERO + value[..., None] * (hues[strongest] - _ZERO)).astype(np.uint8)
    cells = np.arange(value.size).reshape(value.shape)
    return upscale(cells, colours.reshape(-1, 3))


def to_rgb(name: str, drawn: Any) -> np.ndarray:
    """u8[H, W, 3] of what a render function returned: such an array, a matplotlib figure, or a tuple that begins with
    one. TypeError for anything else."""
    first = drawn[0] if isinstance(drawn, tuple) and drawn else drawn
    canvas = getattr(first, "canvas", None)
    if hasattr(canvas, "buffer_rgba"):
        canvas.draw()
        image = np.array(canvas.buffer_rgba())[..., :3]
        if "matplotlib.pyplot" in sys.modules:  # which keeps every figure that nobody closes
            sys.modules["matplotlib.pyplot"].close(first)
        return image
    image = np.asarray(drawn)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(
            f"{name}: render must give u8[H, W, 3] or a matplotlib figure, gives {image.dtype}{image.shape}"
        )
    return image


def _blend(colour: np.ndarray, shades: np.ndarray) -> np.ndarray:
    return (_ZERO + shades * (colour - _ZERO)).astype(np.uint8)


def _hues(count: int) -> np.ndarray:
    """f64[count, 3]: colours evenly around the wheel."""
    angles = np.arange(count)[:, None] / count * 2 * np.pi + np.array([0, -2 * np.pi / 3, 2 * np.pi / 3])
    return 155 + 100 * np.cos(angles)
