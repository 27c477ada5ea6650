"""The true solve rate: whole fresh episodes, one per environment."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax import envs
from pufferjax.core import actions as acting
from pufferjax.core import distributions
from pufferjax.core.config import PolicyConfig
from pufferjax.core.policy import ActorCritic
from pufferjax.core.policy import as_policy as policy_for
from pufferjax.core.programs import compiler_options, functions_of, remembered
from pufferjax.core.rollout import act, forget, initial_memory, look, masks_of, per_env, remember
from pufferjax.core.waiting import wait
from pufferjax.envs import Env
from pufferjax.xla_ops.checks import usual_promotion

_MAX_LANES = 2048
_UNSEEN_MAZES = 8192
_SEED_OFFSET = 0x3C6E_F372_FE94_F82B  # any odd constant below 2**63


def unseen(env: Env) -> Env:
    """The same environment with levels it was never trained on: another `seed`; itself if it has no such parameter, or
    if `envs.make` does not know it.

    A small level set is widened to 8192, so that the figure does not hang on a few levels.
    """
    params = dict(env.params)
    if "seed" not in params or env.spec.name not in envs.names():
        return env
    params["seed"] = (params["seed"] + _SEED_OFFSET) % 2**63
    if 0 < params.get("num_mazes", 0) < _UNSEEN_MAZES:
        params["num_mazes"] = _UNSEEN_MAZES
    return envs.make(env.spec.name, **params)


def as_policy(env: Env, policy: ActorCritic | PolicyConfig) -> ActorCritic:
    """The policy, made for `env` if only its configuration is given."""
    if policy is None:
        raise TypeError("policy must be a PolicyConfig or the policy itself, got None")
    return policy_for(env.spec, policy, PolicyConfig())


def check_has_episodes(env: Env) -> None:
    """ValueError if the episodes of `env` never end: there are none to evaluate."""
    if env.spec.max_episode_steps == 0:
        raise ValueError(f"{env.spec.name}: its episodes never end (max_episode_steps = 0), so none can be evaluated")


def make_step(env: Env, policy: ActorCritic, greedy: bool):
    """`step(params, key, (env_state, observations, memory)) -> ((...), ended bool[N], info)`: policy and simulator."""

    @usual_promotion()
    def step(params, key, agents):
        env_state, observations, memory = agents
        key_env, key_action = jax.random.split(key)
        masks = masks_of(env, env_state)
        if greedy:
            heads, _, recurrent = look(policy, params, observations, memory, masks=masks)
            actions = distributions.mode(heads)
        else:
            noise = acting.draw_noise(env.spec, key_action, (observations.shape[0],))
            actions, _, _, recurrent = act(policy, params, observations, memory, noise, masks=masks)
        observations, env_state, _, terminated, truncated, info = env.step(
            key_env, env_state, acting.env_actions(env.spec, actions)
        )
        ended = terminated | truncated
        memory = remember(env, forget(recurrent, ended), actions, ended)
        return (env_state, observations, memory), per_env(ended, env), info

    return step


def make_first_episodes(env: Env, policy: ActorCritic, num_envs: int, greedy: bool):
    """`play(params, key, counted bool[num_envs]) -> dict of [num_envs]`: the figures of each counted environment's
    first episode after a reset, and zeros for the others. Runs until the last of them has ended. ValueError if none
    ever does."""
    check_has_episodes(env)
    step = make_step(env, policy, greedy)
    names = ("perf", "score", "episode_return", "episode_length")

    @usual_promotion()
    def play(params, key, counted):
        key_reset, key_steps = jax.random.split(key)
        observations, env_state = env.reset(key_reset, num_envs)
        figures = {name: jnp.zeros(num_envs, jnp.float32) for name in names}

        def body(carry):
            agents, waiting, figures, t = carry
            agents, ended, info = step(params, jax.random.fold_in(key_steps, t), agents)
            first = ended & waiting
            figures = {name: jnp.where(first, info[name].astype(jnp.float32), x) for name, x in figures.items()}
            return agents, waiting & ~ended, figures, t + 1

        agents = (env_state, observations, initial_memory(policy, len(observations)))
        carry = (agents, counted, figures, jnp.int32(0))
        return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), body, carry)[2]

    return play


def evaluate(
    env: Env,
    policy: ActorCritic | PolicyConfig,
    params,
    key: jax.Array,
    num_episodes: int = 2000,
    *,
    greedy: bool = False,
) -> dict[str, float | int | None]:
    """Plays exactly `num_episodes` whole episodes from a reset and returns their means.

    Every environment counts its first episode alone, however long it takes: counting whatever ends first would favour
    short episodes. Actions are sampled, as in training, or the most likely ones with `greedy`, of continuous components
    the mean.

    What was compiled is kept for later calls in this process, of the eight latest combinations of environment, policy,
    `greedy` and number of simulators: episodes, divided by the least number of batches of 2048. Native environments
    made from equal arguments are the same one in this, so `unseen(env)` may be called each time.

    Returns a dict: episodes, perf (None if `env.spec.has_perf` is False), perf_stderr (standard error of perf; None for
    one episode, or without perf), score, episode_return, episode_length, seconds (compilation included). A mean is None
    if a figure of one of the episodes is NaN or infinite. Raises ValueError if the episodes of `env` never end.
    """
    if isinstance(num_episodes, bool) or not isinstance(num_episodes, (int, np.integer)) or num_episodes < 1:
        raise ValueError(f"evaluate: num_episodes must be an integer >= 1, got {num_episodes!r}")
    num_episodes = int(num_episodes)
    start = time.perf_counter()
    policy = as_policy(env, policy)
    num_batches = math.ceil(num_episodes / _MAX_LANES)
    num_envs = math.ceil(num_episodes / num_batches)

    def make():
        options = compiler_options(jax.default_backend())
        return jax.jit(make_first_episodes(env, policy, num_envs, greedy), compiler_options=options)

    play = remembered("evaluate", (functions_of(env), policy, num_envs, greedy), make, most=8)
    figures: dict[str, list[np.ndarray]] = {}
    for batch in range(num_batches):
        num_counted = min(num_envs, num_episodes - batch * num_envs)
        result = play(params, jax.random.fold_in(key, batch), jnp.arange(num_envs) < num_counted)
        wait(result["perf"])
        result = jax.device_get(result)
        for name, values in result.items():
            figures.setdefault(name, []).append(np.asarray(values[:num_counted], np.float64))
    all_figures = {name: np.concatenate(values) for name, values in figures.items()}
    perf = all_figures["perf"]
    finite = {name: values for name, values in all_figures.items() if np.isfinite(values).all()}
    if not env.spec.has_perf:
        finite.pop("perf", None)
    means = {name: float(finite[name].mean()) if name in finite else None for name in all_figures}
    return {
        "episodes": perf.size,
        "perf": means["perf"],
        "perf_stderr": float(perf.std(ddof=1) / math.sqrt(perf.size)) if perf.size > 1 and "perf" in finite else None,
        **{name: means[name] for name in ("score", "episode_return", "episode_length")},
        "seconds": time.perf_counter() - start,
    }
