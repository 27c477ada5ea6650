"""`from_gymnax`: any environment with gymnax's interface as an `Env`. gymnax itself is never imported.

A row holds, in this order: a fingerprint of the layout, the clock and the return of the episode, the observation and
the environment's state. The observation is kept where it depends on the key or the action of the step that led to it,
as gymnax lets it, and left out where it can be made again from the state (`pufferjax.envs.observe_again`). PRNG keys in
the state that are mere randomness are not kept: every step gives the state new ones, derived from the key of that step,
so one snapshot restored twice gives two futures. Keys from which a level is made again and again are kept
(`pufferjax.envs.state_keys`), and the clock of a game that shows or reads the time is left alone
(`pufferjax.envs.game_clock`).
"""

import dataclasses
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pufferjax.envs.actions import (
    are_valid,
    check_actions,
    check_mask,
    idle_actions,
    is_concrete,
    made_valid,
    split_actions,
)
from pufferjax.envs.base import Env, EnvSpec
from pufferjax.envs.game_clock import GameClock, find_game_clock, named_clocks
from pufferjax.envs.gymnax_actions import action_heads, trial_actions
from pufferjax.envs.gymnax_masks import allowed_action, mask_of_state, told_mask_of
from pufferjax.envs.observations import observation_reader
from pufferjax.envs.observe_again import is_made_again, observe_function
from pufferjax.envs.picture import picture, to_rgb
from pufferjax.envs.rows import RowLayout, draw_keys, from_bytes, is_key, leaf_name, num_bytes, to_bytes
from pufferjax.envs.state_keys import stream_keys
from pufferjax.envs.walk import make_random_walk
from pufferjax.xla_ops import ffi
from pufferjax.xla_ops.checks import check_array, check_count, random_words, usual_promotion

# Environments that do not restart by themselves are reset so many at a time: a share of the batch, but not too few.
_SHARE_RESET, _FEWEST_RESETS = 32, 8
_SMALL_OBSERVATION = 64  # bytes of an observation that is stored unasked: little is saved by making it again
_MAX_LISTED = 64  # numbers of an array among the parameters; a larger one is recorded by its checksum


class _Row(NamedTuple):
    fingerprint: Any  # u32[], of the layout: the rows of another environment are refused
    clock: Any  # i32[], steps since the episode began
    episode_return: Any  # f32[], so far
    observation: Any  # as `step` gives it; (): made again from the state
    action_mask: Any  # bool[choices], as `step` gives it in its info; None: there is none, or it is made from the state
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
    action_mask: Callable[[Any], Any] | bool | None = None,
    store_observation: bool | None = None,
    get_obs: Callable[[Any], Any] | None = None,
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
        `action_space(params)` may be made of choices and of numbers; see Actions.
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
      action_mask: maps a state of the environment to which choices are allowed in it; see Actions. None: found. False:
        all are.
      store_observation: whether rows hold the observation. None: if it is small (under 64 bytes) or cannot be made
        again; see Memory. False: never; ValueError if it cannot be made again. True: always.
      get_obs: makes of a state what reset and step show of it, and is taken at its word (`check_env` compares): rows do
        not hold the observation, unless store_observation is True. None: found out, by trying; see Memory.
      auto_reset: whether `step` starts a new episode by itself. False: it returns the last observation and state of an
        episode that ends, and the new one is made here by `env.reset`, for the environments that ended alone: where a
        reset costs more than a step, most of the time.
      clock_moves: `spec.clock_moves`: whether nothing but the time limit depends on the time. None: found out; see
        Time.
      render: draws a state of the environment as u8[H, W, 3]. Default: `env.render(state, params)` if there is one (an
        RGB array, or a matplotlib figure), else a picture of the observation, or of its largest part with two or three
        axes.
      name: `spec.name`; `env.name` if None.

    Flags. Of the two only `terminated` is set where both hold. A 0.x environment says only `done`: that is a truncation
    if `info["truncated"]` says so, or, without such an entry, if the clock has reached the time limit. A 0.x game that
    can also be over in its very last step is therefore given a max_episode_steps above its own limit if a loss of the
    bootstrap is better than a loss of that end.

    Observations. One array stays as it is: uint8, bool, and integers that the observation space bounds by 0 and 255
    become uint8 with `obs_max` from that space, all others float32. A dictionary, tuple or other pytree becomes one
    vector, uint8 if all its arrays would, else float32. `spec.obs_parts` says what lies where and `spec.split` takes it
    apart again; the policy encodes each part by itself. The space of a part is looked up in `space.spaces`, or in a
    dictionary or tuple of spaces.

    Memory. A state set holds rows, and the observation may be most of one. An environment with a method get_obs,
    observation or observe that takes a state (and params) is tried out for a thousand steps, resets and time-outs
    among them: if that makes, bit for bit, what reset and step have shown, rows hold no observation, and `step` and
    `observe` make it again.

    Randomness. Environment i of a batch steps with a key derived from (key, i). A typed PRNG key in the state is drawn
    anew in every step if it is a mere stream: if every step replaces it by another one, split off or folded, from which
    nothing else that the step returns was made. All others are kept, since a level may be made from them. Raw uint32
    keys cannot be told from other numbers: they are kept too. A snapshot restored twice has two futures only as far as
    the environment uses the key of its step and such streams.

    Time. The environment is tried out for a few thousand steps. If what it shows or does depends on the time before the
    time limit, if its numbers called `time_field` do not count the steps, or if it has other numbers that do, the clock
    is never set: `stagger` changes nothing, rows keep their time, and `spec.clock_moves` is False.

    Actions. `n` is a choice, `nvec` or `num_categories` are several, a box of whole numbers is a choice for each, one
    of real numbers a continuous component for each, with or without bounds; tuples and dictionaries hold other spaces.
    Depth first, dictionaries by name and arrays row by row, choices are the discrete heads and real numbers the
    components. The environment gets an action of the structure, shapes and dtypes of its space, with choices counted
    from where the space begins.
    Which choices are allowed says `action_mask(state)`, an argument of this function or else a method of the
    environment (also by the names get_action_mask and get_legal_actions; it may take the parameters too), or else
    `info["action_mask"]` of a step, which is kept in the row; there all are allowed at the beginning of an episode. A
    mask is an array, or a pytree of them in the structure of the action, true for each choice of each head that is.

    Actions and rows are checked where they are concrete. Under jit nothing can be raised: an invalid action gives a
    reward of NaN (a number that is none, or out of bounds, reaches the environment as the nearest valid one), an env_id
    out of range restores nothing.

    Raises TypeError or ValueError naming what is missing or wrong.
    """
    if store_observation is not None and not isinstance(store_observation, bool):
        raise TypeError(f"from_gymnax: store_observation must be True, False or None, got {store_observation!r}")
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise TypeError(
                f"from_gymnax: env must have reset and step as in gymnax, {type(env).__name__} has no {method}"
            )
    name = str(name or getattr(env, "name", type(env).__name__))
    params = getattr(env, "default_params", None) if params is None else params
    limit = _time_limit(name, params, max_episode_steps)
    heads = action_heads(name, env, params)
    has_perf = perf is not None
    perf = perf or jnp.zeros_like

    key = jax.random.key(0)
    obs, state = jax.eval_shape(lambda key: _reset_outputs(name, env.reset(key, params)), key)
    own_mask = mask_of_state(name, env, params, heads, action_mask, state)
    is_mask_told = own_mask is None and action_mask is None  # by a step

    def play(key, state, action, is_at_limit=False, params=params):
        """(what a step of the environment gives, the mask it tells or None) for an action of the contract."""
        choices, numbers = split_actions(heads, action)
        outputs = env.step(key, state, heads.build(choices, numbers), params)
        told = told_mask_of(name, heads, outputs) if is_mask_told else None
        return _step_outputs(name, outputs, is_at_limit), told

    idle = idle_actions(heads, ())
    stepped, told_mask = jax.eval_shape(lambda key, state: play(key, state, idle), key, state)
    _require_same(name, "the observation", obs, stepped.obs)
    _require_same(name, "the state", state, stepped.state)
    for what, value in (("reward", stepped.reward), ("terminated (or done)", stepped.terminated)):
        if value.shape != ():
            raise ValueError(f"{name}: {what} of one environment must be one number, has shape {value.shape}")
    perf_shape = jax.eval_shape(lambda x: jnp.asarray(perf(x), jnp.float32), jnp.float32(0)).shape
    if perf_shape != ():
        raise ValueError(f"{name}: perf must map a return to one number, gives shape {perf_shape}")

    read_observation, obs_max, obs_parts = observation_reader(name, obs, _space(env, "observation_space", params))
    obs_struct = jax.eval_shape(read_observation, obs)
    streams = stream_keys(
        lambda key: env.reset(key, params),
        lambda key, state: _all_and_state(*play(key, state, idle), own_mask),
        state,
    )
    kept_keys = _kept_keys(name, state, streams, keep_keys)
    trial_params = _concrete(env, params)

    def try_step(key, state, action, at_limit):
        action = allowed_action(heads, action, own_mask and own_mask(state, trial_params))
        return play(key, state, action, at_limit, trial_params)

    def draw_actions(rng, shape):
        return trial_actions(heads, rng, shape)

    game_clock = GameClock(tuple(named_clocks(state, time_field)), bool(clock_moves))
    if clock_moves is None:
        game_clock = find_game_clock(
            lambda key: env.reset(key, trial_params),
            lambda *args: try_step(*args)[0],
            state,
            time_field=time_field,
            limit=limit,
            draw_actions=draw_actions,
            restarts=auto_reset,
        )

    def layout_with(observation):
        header = _Row(jnp.uint32(0), jnp.int32(0), jnp.float32(0), observation, told_mask, state)
        return RowLayout.of(header, {f"state.{key}".rstrip(".") for key in kept_keys})

    layout = layout_with(obs_struct)
    observe_state = None  # makes the observation of a state; None: rows hold it
    if get_obs is not None and not store_observation:
        _require_same(name, "the observation", obs, jax.eval_shape(get_obs, state), "by get_obs")
        observe_state, layout = get_obs, layout_with(())
    elif not store_observation and (
        store_observation is False or num_bytes(obs_struct.shape, obs_struct.dtype) >= _SMALL_OBSERVATION
    ):
        observe_state, reason = observe_function(env, params, state, obs)
        if observe_state is not None:
            small = layout_with(())
            tried = observe_function(env, trial_params, state, obs)[0]
            trial = _observation_trial(
                lambda key: env.reset(key, trial_params), try_step, small, read_observation, tried,
                game_clock.leaves, limit, told_mask,
            )  # fmt: skip
            if is_made_again(*trial, draw_actions):
                layout = small
            else:
                observe_state, reason = None, "that differs from what reset and step show"
        if observe_state is None and store_observation is False:
            raise ValueError(
                f"{name}: store_observation must be True or None, the observation cannot be made again: {reason}"
            )
    fingerprint = zlib.crc32(repr((name, layout.describe())).encode())
    clocks = _clocks(layout, game_clock.leaves)
    spec = EnvSpec(
        name=name,
        obs_shape=obs_struct.shape,
        obs_dtype=np.dtype(obs_struct.dtype),
        obs_max=obs_max,
        num_actions=heads.num_actions,
        obs_parts=obs_parts,
        num_agents=1,
        state_bytes=layout.size,
        max_episode_steps=limit,
        action_names=heads.action_names,
        clock_moves=game_clock.is_free,
        has_perf=has_perf,
        action_low=heads.action_low,
        action_high=heads.action_high,
        has_action_mask=own_mask is not None or told_mask is not None,
    )
    all_allowed = None if told_mask is None else jnp.ones(told_mask.shape, bool)

    # --- one environment ----------------------------------------------------------------------------------------------
    def pack(clock, episode_return, obs, mask, state):
        observation = read_observation(obs) if observe_state is None else ()
        return layout.pack(_Row(jnp.uint32(fingerprint), clock, episode_return, observation, mask, state))

    def observe_one(row):
        content = layout.unpack(row, key)
        return content.observation if observe_state is None else read_observation(observe_state(content.state))

    def reset_one(key):
        obs, state = env.reset(key, params)
        return pack(jnp.int32(0), jnp.float32(0), obs, all_allowed, state)

    def step_one(keys, row, action):
        key_step, key_state = keys
        before = layout.unpack(row, key_state)
        clock = before.clock + 1
        outputs, mask = play(key_step, before.state, made_valid(heads, action), clock >= limit)
        reward = jnp.where(are_valid(heads, action), outputs.reward.astype(jnp.float32), jnp.nan)
        episode_return = before.episode_return + reward
        ended = outputs.terminated | outputs.truncated
        if mask is not None:
            mask |= ended  # it is of the state that ended the episode
        row = pack(jnp.where(ended, 0, clock), jnp.where(ended, 0.0, episode_return), outputs.obs, mask, outputs.state)
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
        return jax.vmap(observe_one)(rows)

    def mask_batch(rows):
        def one(row):
            content = layout.unpack(row, key)
            return content.action_mask if own_mask is None else own_mask(content.state)

        return jax.vmap(one)(rows)

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
            out, _ = play(key_step, state, action, clock + 1 >= limit)
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
            state, clock, outputs = jax.vmap(one)(step_keys(words, num_envs), carry[0], action, carry[1])
            return (state, clock), outputs

        num_envs = jax.tree.leaves(actions)[0].shape[1]
        obs, state = jax.vmap(lambda key: env.reset(key, params))(env_keys(words, num_envs))
        carry = (state, jnp.zeros(num_envs, jnp.int32))
        return jax.vmap(read_observation)(obs), jax.lax.scan(body, carry, (step_words, actions))[1]

    first_state_leaf = len(layout.leaves) - len(jax.tree.leaves(state))
    reset_batch = jax.jit(usual_promotion()(reset_batch), static_argnums=1)
    observe_batch, mask_batch, step_batch, stagger_batch, clock_batch, restore_batch = (
        jax.jit(usual_promotion()(f))
        for f in (observe_batch, mask_batch, step_batch, stagger_batch, clock_batch, restore_batch)
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
        action = check_actions(f"{name}.step", spec, action, state.shape[0])
        return step_batch(words_of("step", key), state, action)

    def observe(state):
        return observe_batch(check_state("observe", state))

    def mask_of(state):
        state = check_state("action_mask", state)
        return check_mask(f"{name}.action_mask", spec, mask_batch(state)) if spec.has_action_mask else None

    def restore(state, rows, env_ids):
        state = check_state("restore", state)
        rows = check_array(f"{name}.restore", "rows", rows, ("R", spec.state_bytes), jnp.uint8)
        env_ids = check_array(f"{name}.restore", "env_ids", env_ids, (rows.shape[0],), jnp.int32)
        if is_concrete(env_ids):
            ids = np.asarray(env_ids)
            for i in np.flatnonzero((ids < 0) | (ids >= state.shape[0]))[:1]:
                raise ValueError(f"{name}.restore: env_ids[{i}] is {ids[i]}, valid are 0 to {state.shape[0] - 1}")
        if is_concrete(rows):
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
        parts = spec.split(np.asarray(observe(row[None])[0]))
        drawn = max(parts.values(), key=lambda x: x.size * (x.ndim in (2, 3)))
        return picture(drawn if drawn.ndim in (2, 3) else np.concatenate([x.reshape(-1) for x in parts.values()]))

    return Env(
        spec=spec,
        params={**_listed(params), "max_episode_steps": limit},
        reset=reset,
        step=step,
        observe=observe,
        restore=restore,
        stagger=stagger,
        clock=clock,
        action_mask=mask_of,
        random_walk=make_random_walk(spec, step, mask_of if spec.has_action_mask else None),
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
        if not is_concrete(max_episode_steps):
            raise ValueError(f"{name}: max_episode_steps must be given where params.max_steps_in_episode is traced")
        if float(max_episode_steps).is_integer():  # some environments write 100.0
            max_episode_steps = int(max_episode_steps)
    return check_count(name, "max_episode_steps", max_episode_steps, 1)


def _space(env: Any, method: str, params: Any) -> Any:
    """The space that `env.method(params)` describes; None if there is no such method."""
    function = getattr(env, method, None)
    return function(params) if callable(function) else None


def _observation_trial(
    reset_state: Callable[[Any], tuple[Any, Any]],
    play: Callable[..., tuple[Any, Any]],
    layout: RowLayout,
    read: Callable[[Any], jax.Array],
    observe_state: Callable[[Any], Any],
    clock_leaves: Collection[int],
    limit: int,
    told_mask: Any,
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """(reset, step, observe) for `is_made_again`, with rows of `layout`, which hold no observation."""

    def pack(obs, mask, state):
        return read(obs), layout.pack(_Row(jnp.uint32(0), jnp.int32(0), jnp.float32(0), (), mask, state))

    def reset(key):
        obs, state = reset_state(key)
        return pack(obs, None if told_mask is None else jnp.ones(told_mask.shape, bool), state)

    def step(key, row, action, times_out):
        key_step, key_state = jax.random.split(key)
        leaves, treedef = jax.tree.flatten(layout.unpack(row, key_state).state)
        for i in clock_leaves:
            leaves[i] = jnp.where(times_out, limit - 1, leaves[i]).astype(leaves[i].dtype)
        outputs, mask = play(key_step, jax.tree.unflatten(treedef, leaves), action, times_out)
        return pack(outputs.obs, mask, outputs.state)

    def observe(row):
        return read(observe_state(layout.unpack(row, jax.random.key(0)).state))

    return reset, step, observe


def _require_same(name: str, what: str, first: Any, second: Any, other: str = "after a step") -> None:
    """ValueError unless two pytrees, the first after a reset, have the same layout."""
    if jax.tree.structure(first) != jax.tree.structure(second):
        raise ValueError(
            f"{name}: {what} must have one structure: {jax.tree.structure(first)} after a reset, "
            f"{jax.tree.structure(second)} {other}"
        )
    flat, _ = jax.tree_util.tree_flatten_with_path(first)
    for (path, a), b in zip(flat, jax.tree.leaves(second), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"{name}: {what} must have one layout: {leaf_name(path) or 'it'} is {a.dtype}{list(a.shape)} after a "
                f"reset, {b.dtype}{list(b.shape)} {other}"
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


def _all_and_state(outputs: "_Outputs", told_mask: Any, own_mask: Any) -> tuple[Any, Any]:
    """Everything but the state, and the state."""
    own = None if own_mask is None else own_mask(outputs.state)
    return (outputs.obs, *outputs[2:], told_mask, own), outputs.state


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
        if not is_concrete(value):
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
