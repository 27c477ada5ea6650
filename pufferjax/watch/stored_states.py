"""The states in a state set, for people: figures of each, and a picture of where the curriculum stands.

M stored states of S bytes. Not pure: reads a train state to the host and writes a PNG.
"""

import dataclasses
import io
import os

import numpy as np

from pufferjax.core.diagnostics import filled_slots
from pufferjax.core.types import TrainState
from pufferjax.envs import Env
from pufferjax.envs.maze.maze import inspect, steps_to_goal
from pufferjax.runs.files import write_atomically
from pufferjax.runs.paths import output_path

_COLUMNS, _ROWS = 4, 2  # of pictures
_QUANTILES = (0, 10, 50, 90, 100)


@dataclasses.dataclass(frozen=True)
class Maze:
    """A maze and the stored states in it."""

    level: int
    walls: np.ndarray  # bool[size, size], [y, x]
    steps_to_goal: np.ndarray  # i32[size, size]; -1 in walls
    members: np.ndarray  # i64[members]: indices of its states
    xy: np.ndarray  # i32[members, 2]


@dataclasses.dataclass(frozen=True)
class StoredStates:
    """What a state set holds, best first."""

    rows: np.ndarray  # u8[M, S]
    priorities: np.ndarray  # f32[M], descending
    ages: np.ndarray  # i32[M]: epochs since the state was inserted; 0 in the last epoch
    times: np.ndarray  # i32[M]: steps from the reset of the episode to the snapshot
    mazes: tuple[Maze, ...]  # most states first; empty unless the environment is the maze

    def distances(self) -> np.ndarray:
        """i32[M]: steps of the shortest path from each state to the goal; empty unless the environment is the maze."""
        distances = np.zeros(len(self.rows) if self.mazes else 0, np.int32)
        for maze in self.mazes:
            distances[maze.members] = maze.steps_to_goal[maze.xy[:, 1], maze.xy[:, 0]]
        return distances

    def columns(self) -> dict[str, np.ndarray]:
        """The figures of the states by name, each [M]."""
        distances = {"steps to the goal": self.distances()} if self.mazes else {}
        return {**distances, "episode time (steps)": self.times, "age (epochs)": self.ages, "priority": self.priorities}

    @staticmethod
    def quantiles(values: np.ndarray) -> dict[int, float]:
        """Percentage -> quantile."""
        return {q: float(np.percentile(values, q)) for q in _QUANTILES}


def read_states(env: Env, train_state: TrainState) -> StoredStates:
    """The stored states of a train state, from one device or several."""
    state_set = train_state.state_set
    kept = np.flatnonzero(filled_slots(state_set))
    kept = kept[np.argsort(-np.asarray(state_set.priorities)[kept], kind="stable")]
    rows = np.asarray(state_set.snapshots)[kept]
    return StoredStates(
        rows=rows,
        priorities=np.asarray(state_set.priorities)[kept],
        ages=int(train_state.epoch) - 1 - np.asarray(train_state.born)[kept],
        times=np.asarray(env.clock(rows)[0]),
        mazes=_mazes(env, rows) if env.spec.name == "maze" and len(rows) else (),
    )


def _mazes(env: Env, rows: np.ndarray) -> tuple[Maze, ...]:
    cells, facts = inspect(env, rows)
    walls = np.asarray(cells) == 1
    level, x, y = (np.asarray(facts[name]) for name in ("level", "x", "y"))
    members: dict[bytes, list[int]] = {}
    for index in range(len(rows)):  # by their walls: with a new maze for every episode, all have level 0
        members.setdefault(np.packbits(walls[index]).tobytes(), []).append(index)
    mazes = []
    for indices in members.values():
        own = walls[indices[0]]
        mazes.append(
            Maze(
                level=int(level[indices[0]]),
                walls=own,
                steps_to_goal=steps_to_goal(own),
                members=np.asarray(indices),
                xy=np.stack([x[indices], y[indices]], axis=1),
            )
        )
    return tuple(sorted(mazes, key=lambda maze: -len(maze.members)))  # stable: equal counts in the order of priority


def draw_states(env: Env, states: StoredStates, path: str | os.PathLike, title: str = "") -> None:
    """Writes a PNG to `path`. Raises OSError if it cannot be written.

    In a maze: all states on one empty grid, the levels with the most states, and histograms over the states. In any
    other environment: the pictures of the states with the highest priorities, and the histograms.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    path = output_path("path", path)
    figure = Figure(figsize=(14, 11), layout="constrained")
    title = title.encode("utf-8", "backslashreplace").decode()  # of a path, perhaps: it may hold anything
    figure.suptitle(f"{title}: {len(states.rows)} stored states", parse_math=False)
    top, bottom = figure.subfigures(2, 1, height_ratios=(_ROWS, 1))
    if len(states.rows):
        positive = states.priorities[states.priorities > 0]
        low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
        norm = LogNorm(low, max(high, low * 1.001), clip=True)
        pictures = top.subplots(_ROWS, _COLUMNS, squeeze=False).reshape(-1)
        for axes in pictures:
            axes.axis("off")
        if states.mazes:
            dots = _draw_mazes(pictures, states, norm)
            top.colorbar(dots, ax=pictures.tolist(), label="priority")
        else:
            for axes, row, priority in zip(pictures, states.rows, states.priorities, strict=False):
                axes.imshow(env.render(row))
                axes.set_title(f"priority {priority:.3g}", fontsize=9)
        _draw_histograms(bottom, states)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def _draw_mazes(pictures, states: StoredStates, norm):
    """The first picture holds all states, each other one a level. Returns what the colour bar is made from."""

    def draw(axes, background, xy, priorities):
        size = background.shape[0]
        axes.imshow(background, cmap="Greys", vmin=0, vmax=2, interpolation="nearest")
        axes.plot(1, 1, "s", color="tab:blue", markersize=5)
        axes.plot(size - 2, size - 2, "*", color="tab:red", markersize=12)
        # Ascending, so that the best are on top.
        return axes.scatter(
            *xy[::-1].T, c=priorities[::-1], norm=norm, cmap="viridis", s=max(8, 900 / size), edgecolors="black",
            linewidths=0.4, zorder=3,
        )  # fmt: skip

    size = states.mazes[0].walls.shape[0]
    order = np.concatenate([maze.members for maze in states.mazes])
    xy = np.concatenate([maze.xy for maze in states.mazes])[np.argsort(order)]
    dots = draw(pictures[0], np.pad(np.zeros((size - 2, size - 2)), 1, constant_values=1), xy, states.priorities)
    pictures[0].set_title(f"all {len(states.mazes)} levels (start blue, goal red)", fontsize=9)
    for axes, maze in zip(pictures[1:], states.mazes, strict=False):
        draw(axes, maze.walls, maze.xy, states.priorities[maze.members])
        distances = maze.steps_to_goal[maze.xy[:, 1], maze.xy[:, 0]]
        span = f"{distances[0]}" if distances.min() == distances.max() else f"{distances.min()} to {distances.max()}"
        count = "1 state" if len(distances) == 1 else f"{len(distances)} states"
        start = maze.steps_to_goal[1, 1]
        axes.set_title(f"level {maze.level}: {count},\n{span} steps from the goal (start: {start})", fontsize=9)
    return dots


def _draw_histograms(figure, states: StoredStates) -> None:
    columns = states.columns()
    for axes, (name, values) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True):
        axes.hist(values, bins=min(30, max(1, len(np.unique(values)))), color="tab:gray", label="stored")
        axes.set(xlabel=name, ylabel="states")
        axes.axvline(np.median(values), color="black", label=f"median {np.median(values):.4g}")
        if name == "steps to the goal":
            start = np.median([maze.steps_to_goal[1, 1] for maze in states.mazes])
            axes.axvline(start, color="tab:blue", linestyle="--", label=f"median start {start:.0f}")
        axes.legend(fontsize=8)
