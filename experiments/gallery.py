"""One picture of every native environment, each after some random play: experiments/results/gallery.png.

python experiments/gallery.py
"""

import io
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pufferjax import envs
from pufferjax.runs.files import write_atomically

PATH = Path(__file__).parent / "results" / "gallery.png"
STEPS = {"g2048": 120, "breakout": 200}  # of random play; 40 where nothing is said
COLUMNS = 4


def picture(name: str) -> np.ndarray:
    """u8[height, width, 3]: a simulator after its random play."""
    env = envs.make(name)
    _, env_state = env.reset(jax.random.key(1), 4)
    steps = STEPS.get(name, 40)
    env_state, *_ = env.random_walk(jax.random.key(2), env_state, steps, interval=steps, num_snapshots=1)
    return np.asarray(env.render(env.snapshot(env_state)[0]))


def main() -> None:
    names = envs.names()
    figure = Figure(figsize=(3 * COLUMNS, 3.2 * -(-len(names) // COLUMNS)), layout="constrained")
    axes = list(figure.subplots(-(-len(names) // COLUMNS), COLUMNS).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        axis.imshow(picture(name), interpolation="nearest")
        axis.set_title(name, family="monospace")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=70)
    image = Image.open(buffer).convert("RGB").quantize(colors=128, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    write_atomically(PATH, buffer.getvalue())
    print(PATH)


if __name__ == "__main__":
    main()
