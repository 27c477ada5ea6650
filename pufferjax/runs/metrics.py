"""metrics.jsonl: one JSON object per line, each the pooled figures of a window of epochs.

step                training steps so far (agent steps; those of the warm-up are counted apart)
wall_seconds        since the start of the run, compilation and warm-up included
epoch               epochs so far
steps_per_second    training steps of the window over its wall time
episodes            fresh episodes that ended in the window: begun with a reset, in environments never restarted
perf, score, episode_return, episode_length
                    means over those episodes; null if there were none, and perf also where the environment does not
                    say how good an episode is. An episode belongs to all the policies that
                    played it: of L steps in each of N environments, to those of the last L * N steps. Where that is
                    many epochs, the figures tell what these policies could on average, not what the last one can:
                    that is what `evaluate` tells
loss, policy_loss, value_loss, entropy, kl, clip_fraction, value_clip_fraction, grad_norm
                    means over the window; null if not finite; 0 while the learner waits for the first reward.
                    value_clip_fraction: samples whose value had moved by more than ppo.value_clip_eps towards the
                    return since the last pass over them, and got no gradient, as a share of all
bad_rows            rows (the steps of an agent in an epoch) with a reward or an observation that is NaN or infinite, or
                    with what the policy made of one before; mean per epoch over the window. They are not trained on
                    while there are others
bad_reward_rows     those of them with such a reward
skipped_updates     updates that were not made since they were not finite, mean per epoch over the window; the losses
                    are means over the others
learning_rate, entropy_coef
                    of the window's last epoch
reward_factor       by which rewards were multiplied, mean over the window; only with ppo.scale_rewards
rewards             non-zero rewards of all environments, mean per epoch over the window
state_set_size, priority_min, priority_mean, priority_max
                    at the end of the window; 0 while the state set is empty, as the following
priority_p10, priority_p50, priority_p90
                    quantiles over the stored states; these and the next, if a device holds more than 1024 states, over
                    an evenly spaced part of them
state_age_p10, ...  likewise, the epochs since the state was inserted; the warm-up's came in epoch 0
state_time_p10, ... likewise, the episode time of the states: steps from the reset to the snapshot;
                    -1 if the environment does not tell
state_repeats       share of the stored states that equal another one, which is not counted, but for the episode time
state_inserts, state_evictions
                    states that entered the set and states that gave way to them, mean per epoch over the window;
                    one that entered and gave way in the same epoch counts as neither
restarted_share     environments restarted from the state set, as a share of all, mean over the window
restarted_episodes, restarted_perf
                    first episode ends of restarted environments, and their mean; null if there were none
warmup_steps, warmup_rewards
                    simulator steps of the random warm-up before training, and the rewards it met
"""

import json
import math
import os
from collections.abc import Mapping, Sequence

from pufferjax.runs.json_text import json_text
from pufferjax.runs.paths import local_path

_EPISODE_MEANS = ("perf", "score", "episode_return", "episode_length")
_RESTARTED = ("restarted_envs", *(f"restarted_{name}" for name in ("episodes", *_EPISODE_MEANS)))
_LAST_VALUES = (
    "learning_rate",
    "entropy_coef",
    "state_set_size",
    "priority_min",
    "priority_mean",
    "priority_max",
    *(f"{name}_{quantile}" for name in ("priority", "state_age", "state_time") for quantile in ("p10", "p50", "p90")),
    "state_repeats",
)


def finite(x: float) -> float | None:
    """`x`, or None if it is NaN or infinite, which JSON cannot hold."""
    return x if math.isfinite(x) else None


def pool(epochs: Sequence[Mapping[str, float]], num_envs: int) -> dict[str, float | int | None]:
    """The figures of a window, from what `update` returned for each of its epochs."""

    def total(name):
        values = [float(epoch[name]) for epoch in epochs]
        return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)  # fsum refuses inf - inf

    episodes, restarted_episodes = round(total("episodes")), round(total("restarted_episodes"))
    has_perf = "perf" in epochs[0]  # not where nobody said how good an episode is
    restarted_perf = finite(total("restarted_perf") / restarted_episodes) if restarted_episodes and has_perf else None
    others = [name for name in epochs[0] if name not in ("episodes", *_EPISODE_MEANS, *_LAST_VALUES, *_RESTARTED)]
    return {
        "episodes": episodes,
        **{name: finite(total(name) / episodes) if episodes and name in epochs[0] else None for name in _EPISODE_MEANS},
        **{name: finite(sum(float(epoch[name]) for epoch in epochs) / len(epochs)) for name in others},
        **{name: finite(float(epochs[-1][name])) for name in _LAST_VALUES},
        "restarted_share": total("restarted_envs") / len(epochs) / num_envs,
        "restarted_episodes": restarted_episodes,
        "restarted_perf": restarted_perf,
    }


class MetricsWriter:
    """Appends records to a JSONL file, each line with one system call, so that a crash leaves only whole lines.

    `position`: bytes of the file to keep and go on after. Raises OSError, also if the file has fewer.
    """

    def __init__(self, path: str | os.PathLike, position: int = 0):
        self._path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror}") from None
        size = os.fstat(self._file).st_size
        if size < position:
            os.close(self._file)
            raise OSError(f"{path} was cut: it has {size} bytes, and had {position} when the checkpoint was written")
        os.ftruncate(self._file, position)
        self.position = position

    def write(self, record: Mapping) -> None:
        line = (json_text(record) + "\n").encode()
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise OSError(f"{self._path} cannot be written: {error.strerror}") from None
        if written != len(line):
            raise OSError(f"{self._path}: only {written} of {len(line)} bytes could be written; is the disk full?")
        self.position += written

    def sync(self) -> None:
        """Waits until what was written would survive a loss of power."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """The records of a metrics.jsonl. A torn last line is left out; any other bad line raises ValueError."""
    lines = local_path("path", path).read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or torn
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
    return records
