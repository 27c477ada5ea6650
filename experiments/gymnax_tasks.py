"""Sparse tasks of gymnax with and without the state set, through `envs.from_gymnax`.

    pip install gymnax six         # 1.0, which wants JAX below 0.12; six is missing in its list of what it needs
    python experiments/gymnax_tasks.py deep_sea                         # five seeds, both arms, every size
    python experiments/gymnax_tasks.py deep_sea --sizes 12 --seeds 0 1  # part of it; results of other settings are kept
    python experiments/gymnax_tasks.py mountain_car

deep_sea (Osband et al., bsuite): a diver goes down one row in each step, left or right, N rows in all. Only N steps to
the right, whose action differs from cell to cell, lead to the reward of 1; each costs 0.01 / N, so everything else that
is to be learned says left. A random episode is rewarded with probability 2^-N.

mountain_car: a car too weak for the hill must swing up; N steps in an episode, and in place of the usual -1 per step a
reward of 1 at the top and none elsewhere. At N = 1000 random actions meet it once in about 4 million steps.

Both arms may take the same number of simulator steps. With the state set, up to --warmup-steps of them are those of the
random warm-up and the others training; without it all are training. All seeds of an arm run as one program (vmap).
solved: share of 256 fresh episodes after training that end with the reward. Intervals: 95 %, percentile bootstrap of
the mean over seeds. Results: experiments/results/TASK.json and .png.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from runs import COLOURS, NO_STATE_SET, RESULTS, STATE_SET, Results, bootstrap

import pufferjax
from pufferjax import envs
from pufferjax.core.evaluate import make_first_episodes
from pufferjax.core.policy import make_policy
from pufferjax.runs.machine import machine

ARMS = (STATE_SET, NO_STATE_SET)
EPISODES = 256


@dataclasses.dataclass(frozen=True)
class Task:
    make: Callable[[int], envs.Env]  # of a size
    sizes: tuple[int, ...]  # by default, and the steps of training and of the warm-up
    steps: int
    warmup_steps: int
    size_label: str
    num_envs: int
    horizon: int
    state_set: Callable[[int], pufferjax.StateSetConfig]  # for a size, but for its warm-up's length


def make_deep_sea(size: int) -> envs.Env:
    from gymnax.environments.bsuite.deep_sea import DeepSea

    # The costs are at most 0.01 in all, so a return above a half is the reward.
    return envs.from_gymnax(DeepSea(size), perf=lambda episode_return: episode_return > 0.5)


def make_mountain_car(size: int) -> envs.Env:
    from gymnax.environments.classic_control.mountain_car import MountainCar

    class SparseMountainCar(MountainCar):
        def step_env(self, key, state, action, params):
            _, state, _, *ended, info = super().step_env(key, state, action, params)
            return self.get_obs(state), state, jnp.float32(self.is_terminated(state, params)), *ended, info

        def get_obs(self, state, params=None, key=None):
            return jnp.array([state.position + 0.5, state.velocity / 0.07])  # both of the order of 1

    env = SparseMountainCar()
    return envs.from_gymnax(env, dataclasses.replace(env.default_params, max_steps_in_episode=size))


TASKS = {
    "deep_sea": Task(
        make_deep_sea, (8, 10, 12, 14, 16), 1_000_000, 8_000_000,
        size_label="size N (a random episode is rewarded once in 2^N)", num_envs=64, horizon=32,
        state_set=lambda size: pufferjax.StateSetConfig(
            capacity=128,
            fraction=0.5,
            interval=2,
            replay_span=16,
            walk_steps=0,  # a walk of 16 steps and more ends in another episode
            warmup_envs=16,
            warmup_rewards=8,
            warmup_snapshots=size // 2,  # the whole way to the reward
        ),
    ),
    "mountain_car": Task(
        make_mountain_car, (1000,), 1_000_000, 32_000_000,
        size_label="steps of an episode", num_envs=128, horizon=64,
        state_set=lambda size: pufferjax.StateSetConfig(
            capacity=256,
            fraction=0.5,
            interval=8,
            replay_span=64,
            walk_steps=64,
            warmup_envs=1024,
            warmup_rewards=4,
            warmup_snapshots=16,
        ),
    ),
}  # fmt: skip


def config_of(task: Task, arm: str, size: int, steps: int, warmup_steps: int) -> pufferjax.TrainConfig:
    state_set = dataclasses.replace(task.state_set(size), warmup_max_steps=warmup_steps)
    if arm == NO_STATE_SET:
        state_set, steps = dataclasses.replace(state_set, fraction=0.0), steps + warmup_steps
    return pufferjax.TrainConfig(
        total_steps=steps,
        num_envs=task.num_envs,
        horizon=task.horizon,
        policy=pufferjax.PolicyConfig(hidden_size=64, num_layers=1, previous_action=False),
        ppo=pufferjax.PPOConfig(
            optimizer="adam", learning_rate=3e-3, minibatch_size=512, replay_ratio=1.0, gamma=0.99, gae_lambda=0.95,
            entropy_coef=1e-2,
        ),
        state_set=state_set,
    )  # fmt: skip


def run(task: Task, arm: str, size: int, seeds: Sequence[int], steps: int, warmup_steps: int) -> dict:
    start = time.perf_counter()
    env, config = task.make(size), config_of(task, arm, size, steps, warmup_steps)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    states, metrics = jax.jit(jax.vmap(pufferjax.make_train(env, config)))(keys)
    sizes = config.sizes(env.spec.num_agents)
    play = make_first_episodes(env, make_policy(env.spec, config.policy), EPISODES, greedy=False)
    figures = jax.jit(jax.vmap(play, (0, 0, None)))(states.params, keys, jnp.ones(EPISODES, bool))
    return {
        "solved": np.asarray(figures["perf"], float).mean(axis=1).round(4).tolist(),
        "training_steps": sizes.num_epochs * sizes.batch_size,
        "warmup_steps_used": np.asarray(states.warmup_steps).tolist(),
        "warmup_rewards": np.asarray(states.warmup_rewards).tolist(),
        "solved_in_training": _shares(metrics["perf"], metrics["episodes"]),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _shares(solved, episodes, parts: int = 20) -> list[list[float]]:
    """Per seed, the solved share of the fresh episodes in each twentieth of the training."""
    sums = [[np.add.reduceat(x, np.linspace(0, len(x), parts, endpoint=False).astype(int)) for x in np.asarray(figure)]
            for figure in (solved, episodes)]  # fmt: skip
    return (np.asarray(sums[0]) / np.maximum(np.asarray(sums[1]), 1)).round(4).tolist()


def key_of(arm: str, size: int, seeds: Sequence[int], steps: int, warmup_steps: int) -> dict:
    return {"arm": arm, "size": size, "seeds": list(seeds), "steps": steps, "warmup_steps": warmup_steps}


def table(results: Sequence[dict]) -> str:
    lines = [f"| size | {' | '.join(ARMS)} |", "|---" * (len(ARMS) + 1) + "|"]
    for size in sorted({r["size"] for r in results}):
        cells = []
        for arm in ARMS:
            found = [r["solved"] for r in results if (r["size"], r["arm"]) == (size, arm)]
            cells.append("{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap(found[0])) if found else "-")
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: Sequence[dict], title: str, size_label: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for arm, shift in zip(ARMS, (-0.1, 0.1), strict=True):
        colour = COLOURS[arm]
        of_arm = sorted((r for r in results if r["arm"] == arm), key=lambda r: r["size"])
        if of_arm:
            sizes = np.array([r["size"] for r in of_arm]) + shift
            means, lows, highs = np.array([bootstrap(r["solved"]) for r in of_arm]).T
            axes.errorbar(sizes, means, (means - lows, highs - means), fmt="o-", color=colour, label=arm, capsize=3)
            for x, r in zip(sizes, of_arm, strict=True):
                axes.plot([x] * len(r["solved"]), r["solved"], ".", color=colour, alpha=0.4)
    axes.set(xlabel=size_label, ylabel="solved, fresh episodes", title=title, ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--sizes", type=int, nargs="+", help="default: those of the task, like the steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--steps", type=int, help="of training, with the state set")
    parser.add_argument("--warmup-steps", type=int, help="at most, of the random warm-up")
    parser.add_argument("--output", type=Path, help="default: results/TASK.json")
    args = parser.parse_args()
    task = TASKS[args.task]
    steps, warmup_steps = args.steps or task.steps, args.warmup_steps or task.warmup_steps
    results = Results(args.output or RESULTS / f"{args.task}.json", machine=machine())
    shown = []
    for size in args.sizes or task.sizes:
        for arm in args.arms:
            key = key_of(arm, size, args.seeds, steps, warmup_steps)
            try:
                results.add_missing(key, run, task, arm, size, args.seeds, steps, warmup_steps)
            except ImportError as error:
                sys.exit(f"gymnax_tasks.py needs gymnax (pip install gymnax six): {error}")
            shown += (found := results.matching(key))
            print(f"{size}, {arm}: solved {found[0]['solved']}, {found[0]['seconds']} s", flush=True)
    print(table(shown))
    plot(shown, args.task, task.size_label, results.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
