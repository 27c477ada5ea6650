"""`from_gymnax`: any environment with gymnax's interface as an `Env`. gymnax itself is never imported.

A row holds, in this order: a fingerprint of the layout, the clock and the return of the episode, the observation and
the environment's state. The observation is kept because gymnax lets it depend on the key and the action of the step
that led to it, so it cannot be made again from the state. PRNG keys in the state that are mere randomness are not kept:
every step gives the state new ones, derived from the key of that step, so one snapshot restored twice gives two
futures. Keys from which a level is made again and again are kept (`pufferjax.envs.state_keys`), and the clock of a game
that shows or reads the time is left alone (`pufferjax.envs.game_clock`).
"""

import dataclasses
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.base import Env, EnvSpec
from pufferjax.envs.game_clock import GameClock, find_game_clock, named_clocks
from pufferjax.envs.picture import picture, to_rgb
from pufferjax.envs.rows import RowLayout, draw_keys, from_bytes, is_key, leaf_name, num_bytes, to_bytes
from pufferjax.envs.state_keys import stream_keys
from pufferjax.envs.walk import make_random_walk
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_count, random_words, usual_promotion

# Environments that do not restart by themselves are reset so many at a time: a share of the batch, but not too few.
_SHARE_RESET, _FEWEST_RESETS = 32, 8
_MAX_LISTED = 64  # numbers of an array among the parameters; a larger one is recorded by its checksum


class _Row(NamedTuple):
    fingerprint: Any  # u32[], of the layout: the rows of another environment are refused
    clock: Any  # i32[], steps since the episode began
    episode_return: Any  # f32[], so far
    observation: Any  # as `step` gives it
    state: Any  # the environment's own


@usual_promotion()
def from_gymnax(
    env: Any,
    params: Any = None,
    *,
    max_episode_steps: int | None = None,
    perf: Callable[[jax.Array], Any] | None = None,
    time_field: str | None = "time",
    keep_keys: bool | Collection[str] | None = None,
    auto_reset: bool = True,
    clock_moves: bool | None = None,
    render: Callable[[Any], Any] | None = None,
    name: str | None = None,
) -> Env:
    """The environment behind gymnax's interface, 1.0 or 0.x, with settable state.

    Args:
      env: has `reset(key, params) -> (obs, state)` and `step(key, state, action, params)` that starts a new episode by
        itself and returns (obs, state, reward, terminated, truncated, info), or in 0.x (obs, state, reward, done,
        info). obs and state may be any pytrees of arrays, but of the same layout after a reset and after a step.
        `action_space(params)` must be discrete (have `n`).
      params: of the environment; `env.default_params` if None. May hold traced numbers (randomised physics, in jit or
        vmap), if max_episode_steps is given; `Env.params` then lacks those.
      max_episode_steps: the time limit; `params.max_steps_in_episode` if None. An episode that reaches it is cut there.
      perf: maps the return of an episode, f32[], to 0..1: how good it is. None: unknown. `spec.has_perf` is then False:
        there is no solve rate, runs show returns, and the restarted share of the environments stays what it is.
      time_field: name of the numbers in the state that count the steps of the episode. `stagger` and `clock` set them
        together with the clock of the row, so that the environment's own time limit moves along; see Time. None: the
        state has none.
      keep_keys: which typed PRNG keys in the state belong to it: True for all, False for none, or the names of those
        (say {"level"} or {"rng.level"}). None: found out; see Randomness.
      auto_reset: whether `step` starts a new episode by itself. False: it returns the last observation and state of an
        episode that ends, and the new one is made here by `env.reset`, for the environments that ended alone: where a
        reset costs more than a step, most of the time.
      clock_moves: `spec.clock_moves`: whether nothing but the time limit depends on the time. None: found out; see
        Time.
      render: draws a state of the environment as u8[H, W, 3]. Default: `env.render(state, params)` if there is one (an
        RGB array, or a matplotlib figure), else a picture of the observation.
      name: `spec.name`; `env.name` if None.

    Flags. Of the two only `terminated` is set where both hold. A 0.x environment says only `done`: that is a truncation
    if `info["truncated"]` says so, or, without such an entry, if the clock has reached the time limit. A 0.x game that
    can also be over in its very last step is therefore given a max_episode_steps above its own limit if a loss of the
    bootstrap is better than a loss of that end.

    Observations. One array stays as it is: uint8, bool, and integers that the observation space bounds by 0 and 255
    become uint8 with `obs_max` from that space, all others float32. A pytree becomes one float32 vector.

    Randomness. Environment i of a batch steps with a key derived from (key, i). A typed PRNG key in the state is drawn
    anew in every step if it is a mere stream: if every step replaces it by another one, split off or folded, from which
    nothing else that the step returns was made. All others are kept, since a level may be made from them. Raw uint32
    keys cannot be told from other numbers: they are kept too. A snapshot restored twice has two futures only as far as
    the environment uses the key of its step and such streams.

    Time. The environment is tried out for a few thousand steps. If what it shows or does depends on the time before the
    time limit, if its numbers called `time_field` do not count the steps, or if it has other numbers that do, the clock
    is never set: `stagger` changes nothing, rows keep their time, and `spec.clock_moves` is False.

    Actions and rows are checked where they are concrete. Under jit nothing can be raised: an invalid action gives a
    reward of NaN, an env_id out of range restores nothing.

    Raises TypeError or ValueError naming what is missing or wrong.
    """
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise TypeError(
                f"from_gymnax: env must have reset and step as in gymnax, {type(env).__name__} has no {method}"
            )
    name = str(name or getattr(env, "name", type(env).__name__))
    params = getattr(env, "default_params", None) if params is None else params
    limit = _time_limit(name, params, max_episode_steps)
    num_actions, action_dtype = _actions(name, env, params)
    has_perf = perf is not None
    perf = perf or jnp.zeros_like

    key = jax.random.key(0)
    obs, state = jax.eval_shape(lambda key: _reset_outputs(name, env.reset(key, params)), key)
    zero = jnp.zeros((), action_dtype)
    stepped = jax.eval_shape(lambda key, state: _step_outputs(name, env.step(key, state, zero, params)), key, state)
    _require_same(name, "the observation", obs, stepped.obs)
    _require_same(name, "the state", state, stepped.state)
    for what, value in (("reward", stepped.reward), ("terminated (or done)", stepped.terminated)):
        if value.shape != ():
            raise ValueError(f"{name}: {what} of one environment must be one number, has shape {value.shape}")
    perf_shape = jax.eval_shape(lambda x: jnp.asarray(perf(x), jnp.float32), jnp.float32(0)).shape
    if perf_shape != ():
        raise ValueError(f"{name}: perf must map a return to one number, gives shape {perf_shape}")

    read_observation, obs_max = _observation_reader(name, obs, _space(env, "observation_space", params))
    obs_struct = jax.eval_shape(read_observation, obs)
    header = _Row(jnp.uint32(0), jnp.int32(0), jnp.float32(0), obs_struct, state)
    streams = stream_keys(
        lambda key: env.reset(key, params),
        lambda key, state: _obs_and_rest(_step_outputs(name, env.step(key, state, zero, params))),
        state,
    )
    kept_keys = _kept_keys(name, state, streams, keep_keys)
    layout = RowLayout.of(header, {f"state.{key}".rstrip(".") for key in kept_keys})
    fingerprint = zlib.crc32(repr((name, layout.describe())).encode())
    game_clock = GameClock(tuple(named_clocks(state, time_field)), bool(clock_moves))
    if clock_moves is None:
        trial_params = _concrete(env, params)
        game_clock = find_game_clock(
            lambda key: env.reset(key, trial_params),
            lambda key, state, action, at_limit: _step_outputs(
                name, env.step(key, state, action.astype(action_dtype), trial_params), at_limit
            ),
            state,
            time_field=time_field,
            limit=limit,
            num_actions=num_actions,
            restarts=auto_reset,
        )
    clocks = _clocks(layout, game_clock.leaves)
    spec = EnvSpec(
        name=name,
        obs_shape=obs_struct.shape,
        obs_dtype=np.dtype(obs_struct.dtype),
        obs_max=obs_max,
        num_actions=(num_actions,),
        num_agents=1,
        state_bytes=layout.size,
        max_episode_steps=limit,
        action_names=(tuple(map(str, range(num_actions))),),
        clock_moves=game_clock.is_free,
        has_perf=has_perf,
    )

    # --- one environment ----------------------------------------------------------------------------------------------
    def pack(clock, episode_return, observation, state):
        return layout.pack(_Row(jnp.uint32(fingerprint), clock, episode_return, observation, state))

    def reset_one(key):
        obs, state = env.reset(key, params)
        return pack(jnp.int32(0), jnp.float32(0), read_observation(obs), state)

    def step_one(keys, row, action):
        key_step, key_state = keys
        before = layout.unpack(row, key_state)
        clock = before.clock + 1
        outputs = _step_outputs(
            name, env.step(key_step, before.state, action.astype(action_dtype), params), clock >= limit
        )
        is_valid = (action >= 0) & (action < num_actions)
        reward = jnp.where(is_valid, outputs.reward.astype(jnp.float32), jnp.nan)
        episode_return = before.episode_return + reward
        ended = outputs.terminated | outputs.truncated
        row = pack(
            jnp.where(ended, 0, clock),
            jnp.where(ended, 0.0, episode_return),
            read_observation(outputs.obs),
            outputs.state,
        )
        return row, reward, outputs.terminated, outputs.truncated, clock, episode_return

    # --- a batch ------------------------------------------------------------------------------------------------------
    def env_keys(words, num_envs):
        return jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.wrap_key_data(words, impl="threefry2x32"), jnp.arange(num_envs, dtype=jnp.int32)
        )

    def reset_batch(words, num_envs):
        rows = jax.vmap(reset_one)(env_keys(words, num_envs))
        return observe_batch(rows), rows

    def observe_batch(rows):
        return jax.vmap(lambda row: layout.unpack(row, key).observation)(rows)

    def step_keys(words, num_envs):
        """Of every environment, the keys of its step, of the keys in its state, and of a reset."""
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(env_keys(words, num_envs))
        return keys[:, 0], keys[:, 1], keys[:, 2]

    def restart_some(rows, ended, reset_keys):
        """`rows` with fresh ones where `ended`, a few at a time: as many rounds as it takes, most often one or none."""
        num_envs = rows.shape[0]
        few = min(num_envs, max(_FEWEST_RESETS, num_envs // _SHARE_RESET))
        order = jnp.argsort(~ended, stable=True)
        order = jnp.concatenate([order, jnp.full(few, num_envs, order.dtype)])
        num_ended = jnp.sum(ended)

        def restart(carry):
            first, rows = carry
            envs = jax.lax.dynamic_slice(order, (first,), (few,))
            fresh = jax.vmap(reset_one)(reset_keys[jnp.minimum(envs, num_envs - 1)])
            envs = jnp.where(first + jnp.arange(few) < num_ended, envs, num_envs)
            return first + few, rows.at[envs].set(fresh, mode="drop")

        carry, _ = ffi.vary_together(((jnp.int32(0), rows), num_ended))
        return jax.lax.while_loop(lambda carry: carry[0] < num_ended, restart, carry)[1]

    def step_batch(words, rows, action):
        *keys, reset_keys = step_keys(words, rows.shape[0])
        rows, reward, terminated, truncated, clock, episode_return = jax.vmap(step_one)(keys, rows, action)
        # Where the environment has a limit of its own, it has restarted by itself.
        is_overdue = (clock >= limit) & ~terminated & ~truncated
        truncated |= is_overdue
        ended = terminated | truncated

        def restart(rows):
            fresh = jax.vmap(reset_one)(reset_keys)
            return jnp.where(is_overdue[:, None], fresh, rows)

        if auto_reset:
            rows = jax.lax.cond(jnp.any(is_overdue), restart, lambda rows: rows, rows)
        else:
            rows = restart_some(rows, ended, reset_keys)
        performance = jax.vmap(lambda x: jnp.asarray(perf(x), jnp.float32))(episode_return)
        info = {
            "episode_return": jnp.where(ended, episode_return, 0.0),
            "episode_length": jnp.where(ended, clock, 0),
            "score": jnp.where(ended, episode_return, 0.0),
            "perf": jnp.where(ended, performance, 0.0),
        }
        return observe_batch(rows), rows, reward, terminated, truncated, info

    def times_of(rows):
        offset, dtype = clocks[0]
        return jax.vmap(lambda row: from_bytes(row[offset : offset + num_bytes((), dtype)], (), dtype))(rows)

    def set_clocks(rows, times):
        for offset, dtype in clocks:
            rows = rows.at[:, offset : offset + num_bytes((), dtype)].set(jax.vmap(to_bytes)(times.astype(dtype)))
        return rows

    def stagger_batch(words, rows):
        if not game_clock.is_free:
            return rows
        draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, limit, jnp.int32))
        return set_clocks(rows, draw(env_keys(words, rows.shape[0])))

    def clock_batch(rows):
        is_free = game_clock.is_free
        return times_of(rows), set_clocks(rows, jnp.zeros(rows.shape[0], jnp.int32)) if is_free else rows

    def restore_batch(state, rows, env_ids):
        # The last row for each environment: a scatter does not say which of several it takes.
        env_ids = jnp.where(env_ids < 0, state.shape[0], env_ids)
        chosen = (
            jnp.full(state.shape[0], -1, jnp.int32)
            .at[env_ids]
            .max(jnp.arange(rows.shape[0], dtype=jnp.int32), mode="drop")
        )
        return jnp.where((chosen >= 0)[:, None], rows[chosen], state)

    def play_itself(words, step_words, actions):
        """The environment's own states from step to step, without rows: streams alone are drawn as `step` does."""
        drawn = streams - kept_keys

        def one(key, state, action, clock):
            key_step, key_state, key_reset = key
            leaves, treedef = jax.tree_util.tree_flatten_with_path(state)
            leaves = [
                draw_keys(key_state, first_state_leaf + i, leaf) if leaf_name(path) in drawn else leaf
                for i, (path, leaf) in enumerate(leaves)
            ]
            state = jax.tree.unflatten(treedef, leaves)
            out = _step_outputs(
                name, env.step(key_step, state, action.astype(action_dtype), params), clock + 1 >= limit
            )
            fresh_obs, fresh_state = env.reset(key_reset, params)
            is_overdue = (clock + 1 >= limit) & ~out.terminated & ~out.truncated
            truncated = out.truncated | is_overdue
            ended = out.terminated | truncated
            is_restarted = is_overdue if auto_reset else ended
            obs, state = _select(is_restarted, (fresh_obs, fresh_state), (out.obs, out.state))
            clock = jnp.where(ended, 0, clock + 1)
            reward = out.reward.astype(jnp.float32)
            return state, clock, (read_observation(obs), reward, out.terminated, truncated)

        def body(carry, xs):
            words, action = xs
            state, clock, outputs = jax.vmap(one)(step_keys(words, len(action)), carry[0], action, carry[1])
            return (state, clock), outputs

        num_envs = actions.shape[1]
        obs, state = jax.vmap(lambda key: env.reset(key, params))(env_keys(words, num_envs))
        carry = (state, jnp.zeros(num_envs, jnp.int32))
        return jax.vmap(read_observation)(obs), jax.lax.scan(body, carry, (step_words, actions))[1]

    first_state_leaf = len(layout.leaves) - len(jax.tree.leaves(state))
    reset_batch = jax.jit(usual_promotion()(reset_batch), static_argnums=1)
    observe_batch, step_batch, stagger_batch, clock_batch, restore_batch = (
        jax.jit(usual_promotion()(f)) for f in (observe_batch, step_batch, stagger_batch, clock_batch, restore_batch)
    )

    # --- checks, then the batch ---------------------------------------------------------------------------------------
    def check_state(function, state):
        return check_array(f"{name}.{function}", "state", state, ("N", spec.state_bytes), jnp.uint8)

    def words_of(function, key):
        return random_words(f"{name}.{function}", key, (2,))

    def reset(key, num_envs):
        num_envs = check_count(f"{name}.reset", "num_envs", num_envs, 1)
        return reset_batch(words_of("reset", key), num_envs)

    def step(key, state, action):
        state = check_state("step", state)
        action = check_array(f"{name}.step", "action", action, (state.shape[0],), jnp.int32)
        if _is_concrete(action):
            values = np.asarray(action)
            for i in np.flatnonzero((values < 0) | (values >= num_actions))[:1]:
                raise ValueError(f"{name}.step: action[{i}] is {values[i]}, valid are 0 to {num_actions - 1}")
        return step_batch(words_of("step", key), state, action)

    def observe(state):
        return observe_batch(check_state("observe", state))

    def restore(state, rows, env_ids):
        state = check_state("restore", state)
        rows = check_array(f"{name}.restore", "rows", rows, ("R", spec.state_bytes), jnp.uint8)
        env_ids = check_array(f"{name}.restore", "env_ids", env_ids, (rows.shape[0],), jnp.int32)
        if _is_concrete(env_ids):
            ids = np.asarray(env_ids)
            for i in np.flatnonzero((ids < 0) | (ids >= state.shape[0]))[:1]:
                raise ValueError(f"{name}.restore: env_ids[{i}] is {ids[i]}, valid are 0 to {state.shape[0] - 1}")
        if _is_concrete(rows):
            refuse_foreign(np.asarray(rows))
        return restore_batch(state, rows, env_ids) if rows.shape[0] else state

    def refuse_foreign(rows):
        found, clock = rows[:, :4].copy().view("<u4")[:, 0], rows[:, 4:8].copy().view("<i4")[:, 0]
        for wrong, why in (
            (found != fingerprint, "it is of another environment"),
            ((clock < 0) | (clock >= limit), f"its clock must be 0 to {limit - 1}"),
        ):
            for i in np.flatnonzero(wrong)[:1]:
                raise ValueError(f"{name}.restore: rows[{i}] is not a snapshot of this environment: {why}")

    def stagger(key, state):
        return stagger_batch(words_of("stagger", key), check_state("stagger", state))

    def clock(state):
        return clock_batch(check_state("clock", state))

    def unadapted(key, keys, actions):
        step_words = jnp.stack([words_of("unadapted", k) for k in keys])
        return jax.jit(usual_promotion()(play_itself))(words_of("unadapted", key), step_words, actions)

    def render_row(row):
        row = check_array(f"{name}.render", "row", row, (spec.state_bytes,), jnp.uint8)
        content = layout.unpack(row, key)
        if render is not None:
            return to_rgb(name, render(content.state))
        if callable(getattr(env, "render", None)):
            return to_rgb(name, env.render(content.state, params))
        return picture(np.asarray(content.observation))

    return Env(
        spec=spec,
        params={**_listed(params), "max_episode_steps": limit},
        reset=reset,
        step=step,
        observe=observe,
        restore=restore,
        stagger=stagger,
        clock=clock,
        random_walk=make_random_walk(spec, step),
        render=render_row,
        unadapted=unadapted,
    )


def _select(which: jax.Array, these: Any, those: Any) -> Any:
    """One of two pytrees, as `which`, bool[], says."""
    return jax.tree.map(lambda x, y: jax.lax.select(jnp.broadcast_to(which, jnp.shape(y)), x, y), these, those)


# --- what an environment says about itself ----------------------------------------------------------------------------
class _Outputs(NamedTuple):
    obs: Any
    state: Any
    reward: Any
    terminated: Any
    truncated: Any


def _reset_outputs(name: str, outputs: Any) -> tuple[Any, Any]:
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        raise ValueError(f"{name}: reset must return (obs, state), returned {_kind(outputs)}")
    return outputs


def _step_outputs(name: str, outputs: Any, is_at_limit: Any = False) -> _Outputs:
    """What `step` of one environment returned, in either version, with flags that exclude each other."""
    if not isinstance(outputs, tuple) or len(outputs) not in (5, 6):
        raise ValueError(
            f"{name}: step must return (obs, state, reward, terminated, truncated, info), or as in gymnax 0.x (obs, "
            f"state, reward, done, info); it returned {_kind(outputs)}"
        )
    obs, state, reward, *flags, info = outputs
    flags = [jnp.asarray(flag).astype(bool) for flag in flags]
    if len(flags) == 1:
        is_truncation = info["truncated"] if isinstance(info, Mapping) and "truncated" in info else is_at_limit
        flags = [flags[0] & ~jnp.asarray(is_truncation).astype(bool), flags[0]]
    terminated, truncated = flags
    return _Outputs(obs, state, jnp.asarray(reward), terminated, truncated & ~terminated)


def _kind(outputs: Any) -> str:
    return f"{len(outputs)} values" if isinstance(outputs, tuple) else f"a {type(outputs).__name__}"


def _time_limit(name: str, params: Any, max_episode_steps: Any) -> int:
    if max_episode_steps is None:
        max_episode_steps = getattr(params, "max_steps_in_episode", None)
        if max_episode_steps is None:
            raise ValueError(f"{name}: max_episode_steps must be given: its params have no max_steps_in_episode")
        if not _is_concrete(max_episode_steps):
            raise ValueError(f"{name}: max_episode_steps must be given where params.max_steps_in_episode is traced")
        if float(max_episode_steps).is_integer():  # some environments write 100.0
            max_episode_steps = int(max_episode_steps)
    return check_count(name, "max_episode_steps", max_episode_steps, 1)


def _space(env: Any, method: str, params: Any) -> Any:
    """The space that `env.method(params)` describes; None if there is no such method."""
    function = getattr(env, method, None)
    return function(params) if callable(function) else None


def _actions(name: str, env: Any, params: Any) -> tuple[int, Any]:
    """(number of actions, their dtype)."""
    space = _space(env, "action_space", params)
    count = getattr(space, "n", None) if space is not None else getattr(env, "num_actions", None)
    if count is None or np.ndim(count) != 0:
        what = "no action_space" if space is None else f"the action space {_shown(space)}"
        raise ValueError(f"{name}: the actions must be one discrete choice (an action space with n), it has {what}")
    dtype = jax.dtypes.canonicalize_dtype(getattr(space, "dtype", jnp.int32))
    return check_count(name, "the number of actions", int(count), 1), dtype


def _shown(space: Any) -> str:
    shape = getattr(space, "shape", None)
    return type(space).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _observation_reader(name: str, obs: Any, space: Any) -> tuple[Callable[[Any], jax.Array], int | None]:
    """(function from what `step` returned to the observation of the contract, obs_max)."""
    leaves = jax.tree.leaves(obs)
    if not leaves:
        raise ValueError(f"{name}: the observation holds no array")
    for leaf in leaves:
        if is_key(leaf.dtype) or jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise ValueError(f"{name}: an observation must hold real numbers, has {leaf.dtype}")
    if not jax.tree_util.treedef_is_leaf(jax.tree.structure(obs)):
        return lambda obs: jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(obs)]), None
    obs_max = _integer_max(leaves[0].dtype, space)
    dtype = jnp.float32 if obs_max is None else jnp.uint8
    return lambda obs: jnp.asarray(obs).astype(dtype), obs_max


def _integer_max(dtype: Any, space: Any) -> int | None:
    """The largest value of integer observations that fit a byte; None for all others."""
    if dtype == jnp.bool_:
        return 1
    if not jnp.issubdtype(dtype, jnp.integer):
        return None
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if np.ndim(getattr(space, "n", None)) == 0 and getattr(space, "n", None) is not None:
        low, high = 0, space.n - 1
    if low is None or high is None or not np.min(low) >= 0 or not np.max(high) <= 255:
        return 255 if dtype == jnp.uint8 else None
    return max(1, int(np.max(high)))


def _require_same(name: str, what: str, first: Any, second: Any) -> None:
    """ValueError unless two pytrees have the same layout."""
    if jax.tree.structure(first) != jax.tree.structure(second):
        raise ValueError(
            f"{name}: {what} must have one structure: {jax.tree.structure(first)} after a reset, "
            f"{jax.tree.structure(second)} after a step"
        )
    flat, _ = jax.tree_util.tree_flatten_with_path(first)
    for (path, a), b in zip(flat, jax.tree.leaves(second), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"{name}: {what} must have one layout: {leaf_name(path) or 'it'} is {a.dtype}{list(a.shape)} after a "
                f"reset, {b.dtype}{list(b.shape)} after a step"
            )


def _clocks(layout: RowLayout, state_leaves: Collection[int]) -> list[tuple[int, Any]]:
    """(offset, dtype) of what counts the steps: the clock of the row, then these leaves of the state."""
    names = [leaf_name(path).split(".")[0] for path in layout.paths]
    counters = [names.index("clock"), *(names.index("state") + i for i in state_leaves)]
    return [(layout.offsets[i], layout.leaves[i].dtype) for i in counters]


def _kept_keys(name: str, state: Any, streams: Collection[str], keep_keys: Any) -> frozenset[str]:
    """Names of the leaves of `state` whose PRNG keys a row holds."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    keys = frozenset(leaf_name(path) for path, leaf in flat if is_key(leaf.dtype))
    if keep_keys is None:
        return keys - frozenset(streams)
    if isinstance(keep_keys, bool):
        return keys if keep_keys else frozenset()
    wrong = f"{name}: keep_keys must be True, False, None or names among {sorted(keys)}, the PRNG keys in the state"
    if isinstance(keep_keys, str) or not isinstance(keep_keys, Collection):
        raise TypeError(f"{wrong}; got {keep_keys!r}")
    for key in keep_keys:
        if key not in keys:
            raise ValueError(f"{wrong}; got {key!r}")
    return frozenset(keep_keys)


def _obs_and_rest(outputs: "_Outputs") -> tuple[Any, Any]:
    """Everything but the state, and the state."""
    return (outputs.obs, *outputs[2:]), outputs.state


def _concrete(env: Any, params: Any) -> Any:
    """`params` with the environment's defaults in place of numbers that are traced, to try it out with."""
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params)):
        return params
    defaults = getattr(env, "default_params", None)
    if jax.tree.structure(defaults) != jax.tree.structure(params):
        raise ValueError(
            "from_gymnax: params that are traced need an env whose default_params have their structure: an environment "
            "is tried out with numbers"
        )
    return jax.tree.map(lambda x, y: y if isinstance(x, jax.core.Tracer) else x, params, defaults)


def _is_concrete(x: Any) -> bool:
    return not isinstance(x, jax.core.Tracer)


def _listed(params: Any) -> dict[str, Any]:
    """The parameters as numbers, texts and lists, which config.toml can hold."""
    if dataclasses.is_dataclass(params):
        items = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    elif hasattr(params, "_asdict"):
        items = params._asdict()
    else:
        items = dict(params) if isinstance(params, Mapping) else {}
    listed = {}
    for key, value in items.items():
        if not _is_concrete(value):
            continue  # traced: it has no value to be recorded
        if isinstance(value, str):
            listed[key] = value
        elif np.ndim(value) == 0 and isinstance(np.asarray(value).item(), (bool, int, float)):
            listed[key] = np.asarray(value).item()
        elif hasattr(value, "dtype") and not is_key(value.dtype):
            array = np.asarray(value)
            checksum = f"{array.dtype}{list(array.shape)} crc32 {zlib.crc32(array.tobytes()):08x}"
            listed[key] = array.tolist() if array.size <= _MAX_LISTED else checksum
    return listed
