"""Where the lines of metrics.jsonl go besides: TensorBoard and Weights & Biases, each if asked for.

tensorboard  event files in RUN_DIR/tensorboard, by tensorboardX (`tensorboard --logdir runs`)
wandb        a run of the project "pufferjax" (WANDB_PROJECT), by wandb, its files in RUN_DIR/wandb. Where it goes and
             as whom is wandb's business: WANDB_MODE=offline, WANDB_ENTITY, WANDB_API_KEY, `wandb login`

metrics.jsonl is the record; a sink is a copy, and never worth a run. One that fails is named once and left alone for
the rest of it. A resumed run goes on in the same place: TensorBoard forgets what came after the checkpoint, W&B keeps
both, and those lines have the same steps.
"""

import contextlib
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
NAMES = tuple(_PACKAGES)


class Sink(Protocol):
    def write(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, run_dir: Path, settings: Mapping[str, Any], first_step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step + 1)
        if not first_step:
            table = [f"| {name} | {value} |" for name, value in settings.items()]
            self._writer.add_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *table]))

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run_dir: Path, settings: Mapping[str, Any], first_step: int):
        import wandb

        known = run_dir / "wandb" / "run_id"  # by which a resumed run finds its beginning
        if not known.exists():
            known.parent.mkdir(exist_ok=True)
            known.write_text(secrets.token_hex(4), encoding="utf-8")
        # Console "off": the lines of the terminal are no metrics, and wandb would put itself between it and the run.
        options = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pufferjax"),
            name=run_dir.name,
            dir=run_dir,
            id=known.read_text(encoding="utf-8").strip(),
            resume="allow",
            config=dict(settings),
            settings=options,
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        self._run.finish()


_SINKS: dict[str, Callable[[Path, Mapping[str, Any], int], Sink]] = {"tensorboard": _TensorBoard, "wandb": _Wandb}


def check_sinks(names: Sequence[str]) -> None:
    """ValueError if the package of a sink is not installed, saying what to install."""
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ValueError(
                f"log: {name} needs the package {_PACKAGES[name]}, which is not installed: "
                f"pip install 'pufferjax[{name}]'"
            )


class Sinks:
    """The sinks of a run, a context manager: `open`, then `write` for each line. No sink's error gets out."""

    def __init__(self, names: Sequence[str], warn: Callable[[str], None]):
        self._names, self._warn = names, warn
        self._open: dict[str, Sink] = {}

    def open(self, run_dir: Path | None, settings: Mapping[str, Any], first_step: int) -> None:
        """first_step: of the checkpoint that the run goes on from; 0: from its beginning."""
        for name in self._names:
            with self._trying(name):
                self._open[name] = _SINKS[name](run_dir, settings, first_step)

    def write(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, or other figures with their `step`; what is null, or no number, is left out."""
        step = record["step"]
        figures = {
            name: value
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for name in list(self._open):
            with self._trying(name):
                self._open[name].write(figures, step)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for name in list(self._open):
            with self._trying(name):
                self._open.pop(name).close()

    @contextlib.contextmanager
    def _trying(self, name: str):
        try:
            yield
        except Exception as error:  # whatever it is: the run does not need this
            sink = self._open.pop(name, None)
            if sink is not None:
                with contextlib.suppress(Exception):
                    sink.close()
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
            self._warn(f"log: {name} failed and gets nothing more of this run, which goes on ({reason})")
