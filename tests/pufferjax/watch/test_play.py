"""pufferjax play: the picture in characters, whole episodes on a terminal, and what it says without one."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from pufferjax import cli
from pufferjax.core.policy import make_policy
from pufferjax.watch.play import fit, half_blocks, play


def pixels(segments):
    """u8[h, w, 3] and, for the lower half of an odd last line, black: read back from the characters."""
    lines = [[]]
    for text, style, _ in segments.segments:
        if text == "\n":
            lines.append([])
            continue
        assert set(text) == {"▀"}
        lines[-1] += [(style.color.triplet, style.bgcolor and style.bgcolor.triplet)] * len(text)
    assert lines.pop() == []
    rows = []
    for line in lines:
        rows.append([tuple(top) for top, _ in line])
        rows.append([tuple(bottom) if bottom else (0, 0, 0) for _, bottom in line])
    return np.array(rows, np.uint8)


def test_half_blocks_show_every_pixel():
    image = np.random.default_rng(0).integers(256, size=(7, 5, 3), dtype=np.uint8)
    image[:, 2:4] = image[:, 2:3]  # equal neighbours share a segment
    shown = pixels(half_blocks(image))
    np.testing.assert_array_equal(shown[:7], image)
    assert shown.shape == (8, 5, 3) and (shown[7] == 0).all()


@pytest.mark.parametrize(
    "cells, scale, room, shape",
    [
        ((5, 5), 8, (20, 20), (20, 20)),
        ((5, 4), 3, (9, 12), (10, 8)),
        ((3, 3), 1, (3, 3), (3, 3)),
        ((8, 4), 2, (9, 6), (6, 3)),
    ],
)
def test_a_picture_fits_the_terminal(cells, scale, room, shape):
    small = np.random.default_rng(1).integers(256, size=(*cells, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(small, scale, axis=0), scale, axis=1)
    fitted = fit(large, *room)
    assert fitted.shape == (*shape, 3) and fitted.shape[1] <= room[0] and fitted.shape[0] <= room[1]
    if shape[0] >= cells[0]:  # in whole steps: no colour that was not there
        np.testing.assert_array_equal(fitted[:: shape[0] // cells[0], :: shape[0] // cells[0]], small)


def test_whole_episodes_are_shown(tiny_env, tiny_config, tiny_run):
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system="truecolor", width=40, height=12)
    params = jax.device_get(tiny_run.train_state.params)
    policy = make_policy(tiny_env.spec, tiny_config().policy)
    played = play(tiny_env, policy, params, jax.random.key(1), console, episodes=2, fps=1e9)
    assert len(played) == 2 and all(1 <= x["episode_length"] <= tiny_env.spec.max_episode_steps for x in played)
    frames = output.getvalue().split("episode 1 of 2  step ")
    assert len(frames) == 1 + played[0]["episode_length"]  # a frame before each step
    assert output.getvalue().count("episode 2 of 2") == played[1]["episode_length"]
    assert all("▀" in frame for frame in frames[1:])


def test_the_command(tiny_run, tmp_path, capsys):
    run_dir = str(tiny_run.run_dir)
    assert cli.main(["play", run_dir]) == 2
    assert "play draws on a terminal, and stdout is none; --gif PATH" in capsys.readouterr().err
    for flags, text in ((["--episodes", "0"], "--episodes must be"), (["--fps", "0"], "--fps must be")):
        assert cli.main(["play", run_dir, *flags]) == 2
        assert text in capsys.readouterr().err
    assert cli.main(["play", run_dir, "--gif", str(tmp_path / "none" / "a.gif")]) == 2
    gif = tmp_path / "episode.gif"
    assert cli.main(["play", run_dir, "--gif", str(gif), "--seen"]) == 0
    assert gif.read_bytes().startswith(b"GIF8") and f"gif: {gif}" in capsys.readouterr().out
