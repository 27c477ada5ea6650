"""Constellation with twelve small runs of the maze in it: docs/constellation.png.

python experiments/constellation_picture.py --folder /tmp/constellation

Trains the runs, unless they are there: with and without the state set, three learning rates, two seeds; one has the
picture of its state set and an episode beside it. Needs a Chromium.
"""

import argparse
import io
import subprocess
import sys
import time
from pathlib import Path

from browser import Browser
from PIL import Image

import pufferjax
from pufferjax import envs
from pufferjax.runs.files import write_atomically

PATH = Path(__file__).resolve().parents[1] / "docs" / "constellation.png"
STEPS = 1_500_000
COLORS = 224
BEST = Path("with the state set") / "rate-0.015-seed-0"


def train_runs(folder: Path) -> None:
    env = envs.make("maze", size=9)
    for name, fraction in (("with the state set", 0.4), ("without", 0.0)):
        for rate in (0.005, 0.015, 0.045):
            for seed in (0, 1):
                run_dir = folder / name / f"rate-{rate}-seed-{seed}"
                if (run_dir / "summary.json").exists():
                    continue
                config = pufferjax.TrainConfig(
                    total_steps=STEPS,
                    num_envs=256,
                    horizon=64,
                    policy=pufferjax.PolicyConfig(hidden_size=32, num_layers=1),
                    ppo=pufferjax.PPOConfig(learning_rate=rate, minibatch_size=4096, replay_ratio=1.0),
                    state_set=pufferjax.StateSetConfig(fraction=fraction),
                )
                pufferjax.train(env, config, seed=seed, run_dir=run_dir, eval_episodes=500, devices=1, show=False)
                print(run_dir, flush=True)
    best = folder / BEST
    for command in (["states", best, "--output", best / "states.png"], ["eval", best, "--gif", best / "solve.gif"]):
        subprocess.run([sys.executable, "-m", "pufferjax", *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def photograph(folder: Path, port: int) -> list[Image.Image]:
    """Its four most telling views, 1280 x 800 each."""
    command = [sys.executable, "-m", "pufferjax", "constellation", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pictures = []
    try:
        server.stdout.readline()
        with Browser() as browser:
            browser.prefer("light")
            browser.open(f"http://127.0.0.1:{port}/")
            browser.wait_for("document.querySelector('.plot')?.dataset.points > 0", 60)

            def take(tab, until):
                browser.ask(f"document.getElementById('tab-{tab}').click()")
                browser.wait_for(until)
                time.sleep(3)
                pictures.append(Image.open(io.BytesIO(browser.picture())).convert("RGB"))

            take("scatter", "document.querySelector('.plot')?.dataset.points > 0")
            take("curves", "!!document.querySelector('#view canvas')?.getAttribute('aria-label')")
            browser.ask("document.getElementById('tab-table').click()")
            row = (
                f"[...document.querySelectorAll('tbody tr.run')].find((x) => x.cells[1].textContent === '{BEST.name}')"
            )
            browser.wait_for(f"!!{row}")
            browser.ask(f"{row}.click()")
            take("run", "document.querySelectorAll('.images img').length === 2")
            take("cost", "!!document.querySelector('#view canvas')?.getAttribute('aria-label')")
    finally:
        server.terminate()
        server.wait()
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of the runs; it is kept")
    parser.add_argument("--port", type=int, default=8498)
    arguments = parser.parse_args()
    train_runs(arguments.folder / "runs")
    pictures = photograph(arguments.folder / "runs", arguments.port)
    width, height = pictures[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for i, picture in enumerate(pictures):
        whole.paste(picture, ((i % 2) * width, (i // 2) * height))
    buffer = io.BytesIO()
    small = whole.resize((1600, 1000), Image.Resampling.LANCZOS)
    small.quantize(COLORS, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    write_atomically(PATH, buffer.getvalue())
    print(f"{PATH}: {len(buffer.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
