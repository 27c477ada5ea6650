"""An environment whose adapter was not told how good a return is has no solve rate, and nothing hangs on one."""

import dataclasses
import json

import jax
import jax.numpy as jnp

import pufferjax
from pufferjax import envs


def test_without_perf_there_is_no_solve_rate(tiny_config, timed_game, tmp_path, capsys):
    state_set = dataclasses.replace(tiny_config().state_set, release_from=0.3, release_until=0.6)
    config = dataclasses.replace(tiny_config(state_set=state_set), total_steps=4096)
    runs = {}
    for name, perf in (("none", None), ("clipped", lambda x: jnp.clip(x, 0, 1))):
        env = envs.from_gymnax(timed_game(10, lambda action: 1), max_episode_steps=10, perf=perf)
        assert env.spec.has_perf == (perf is not None)
        options = {"run_dir": tmp_path / name, "eval_episodes": 20, "devices": 1, "print_interval_seconds": 0}
        runs[name] = pufferjax.train(env, config, **options), capsys.readouterr().out
    (result, shown), (told, shown_told) = runs["none"], runs["clipped"]
    last = result.metrics[-1]
    assert last["episodes"] > 0 and last["episode_return"] == 10
    assert last["perf"] is None and last["restarted_perf"] is None
    assert result.evaluation["perf"] is None and result.evaluation["perf_stderr"] is None
    assert result.evaluation["episode_return"] == 10
    assert json.loads((tmp_path / "none" / "summary.json").read_text())["evaluation"]["perf"] is None
    assert "perf 1" not in shown and "return 10 (" in shown and "unseen levels: return 10 over 20" in shown
    assert "perf 1" in shown_told and told.evaluation["perf"] == 1
    # The state set lets go of the environments by a solve rate, and by nothing else.
    assert told.metrics[-1]["restarted_share"] == 0 and last["restarted_share"] > 0.3
    metrics = jax.eval_shape(pufferjax.make_train(env, config), jax.random.key(0))[1]
    assert "perf" in metrics
