"""2048 against its slow reference, its rules, and what it refuses."""

import jax
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.g2048 import reference
from pufferjax.envs.g2048.g2048 import STATE

UP, DOWN, LEFT, RIGHT = range(4)


@pytest.fixture
def case(native_case):
    return lambda **params: native_case(envs.make("g2048", **params), STATE)


def board(*rows):
    return np.array(rows, np.uint8)


# However a tile appears after a move to the right, no move is left then.
END = board([7, 8, 9, 10], [5, 6, 7, 8], [3, 4, 5, 6], [7, 8, 9, 0])
FEW = board([1, 2, 3, 0], [0] * 4, [0] * 4, [0] * 4)


def moved(cells, action):
    """u8[4, 4] after a move, before a tile appears, and the merges."""
    after, merges = reference.move(np.asarray(cells).reshape(-1).tolist(), action)
    return np.array(after, np.uint8).reshape(4, 4), merges


def playable(case, cells, **fields):
    """One row with these cells, the score that they have if all grew from 2s, and other fields."""
    exponents = np.maximum(np.asarray(cells, np.int64), 1)
    score = ((exponents - 1) * 2**exponents * (exponents > 1)).sum()
    return case.edited(case.reset(1), **{"cells": cells, "score": score, "has_moved": 1} | fields)


def after_move(case, cells, action, **fields):
    """The board with the new tile taken off again, and where it appeared, bool[4, 4]."""
    out = case.step(playable(case, cells, **fields), [action])
    new = (moved(cells, action)[0] == 0) & (out["obs"][0] > 0)
    return np.where(new, 0, out["obs"][0]), new


def test_it_keeps_the_contract(case):
    envs.check_env(case(scaffolding=0.5).env, num_envs=4, num_steps=1100)


# Up and left most of the time: such games last longer than random ones.
CASES = [(0.0, 160, 500, (0.4, 0.05, 0.4, 0.15)), (0.375, 72, 300, None)]


def test_the_steps_compared_are_enough():
    assert sum(num_envs * num_steps for _, num_envs, num_steps, _ in CASES) >= 100_000


@pytest.mark.parametrize("scaffolding, num_envs, num_steps, probabilities", CASES)
def test_reference_agrees(case, scaffolding, num_envs, num_steps, probabilities):
    case, twin = case(scaffolding=scaffolding), reference.Games(num_envs, scaffolding=scaffolding)
    key = jax.random.key(1)
    obs, state = case.env.reset(key, num_envs)
    np.testing.assert_array_equal(obs, twin.reset(case.words(key)))
    # Environments that have met every best tile, and some about to time out.
    bests, ticks = np.arange(num_envs) % 18, np.where(np.arange(num_envs) % 4 == 3, 990, 0)
    for game, best, tick in zip(twin.games, bests.tolist(), ticks.tolist(), strict=True):
        game.best, game.tick = best, tick
    state = case.edited(state, best=bests, tick=ticks)
    state, terminated, truncated, info = case.assert_agrees(
        twin, state, num_steps, seed=2, probabilities=probabilities, takes_words=True
    )
    fields = case.fields(state)
    for name in ("tick", "score", "reward_units", "best", "has_moved", "is_scaffolding"):
        np.testing.assert_array_equal(fields[name], [getattr(game, name) for game in twin.games], err_msg=name)
    np.testing.assert_array_equal(fields["cells"], twin.observe())
    np.testing.assert_array_equal(case.env.restore(case.reset(num_envs), state, np.arange(num_envs)), state)
    assert terminated.sum() > num_envs and not truncated.any() and (info["perf"][terminated] > 0).all()


def test_every_line_moves_as_the_reference_moves_it(case):
    """All lines of exponents up to 4 and some of the largest, in every direction."""
    lines = np.stack(np.meshgrid(*[np.arange(5)] * 4), -1).reshape(-1, 4)
    lines = np.concatenate([lines, np.where(lines == 4, 16, lines), np.where(lines == 3, 15, lines)])
    cells = np.zeros((len(lines), 4, 4), np.uint8)
    cells[:, 1], cells[:, 3, :2] = lines, [5, 6]  # other tiles, so that no board has too few
    case = case()
    exponents = cells.astype(np.int64)
    score = ((exponents - 1) * 2**exponents * (exponents > 1)).sum(axis=(1, 2))
    for action in range(4):
        turned = cells.transpose(0, 2, 1) if action in (UP, DOWN) else cells
        rows = case.fields(case.reset(len(cells))).copy()
        rows["cells"], rows["score"], rows["has_moved"] = turned, score, 1
        is_valid = np.array([(2 ** exponents[i][exponents[i] > 0]).sum() <= 2**18 - 4 for i in range(len(cells))])
        state = case.restored(rows[is_valid].view(np.uint8).reshape(-1, case.env.spec.state_bytes))
        out = case.step(state, np.full(len(state), action))
        for before, after, reward in zip(turned[is_valid], out["obs"], out["reward"], strict=True):
            expected, merges = moved(before, action)
            if (expected == before).all():
                np.testing.assert_array_equal(after, before)
                assert reward == np.float32(-0.05)
            else:
                new = after[expected == 0]
                np.testing.assert_array_equal(after[expected > 0], expected[expected > 0])
                assert np.count_nonzero(new) == 1 and new.max() in (1, 2)
                np.testing.assert_allclose(reward, sum(map(reference.merge_reward, merges)) / 10_000, rtol=1e-6)


def test_a_tile_merges_once_per_move(case):
    case = case()
    for line, expected in (
        ([1, 1, 2, 3], [2, 2, 3, 0]),  # not 2 + 2 -> 4, and on
        ([1, 1, 1, 1], [2, 2, 0, 0]),
        ([2, 1, 1, 0], [2, 2, 0, 0]),
        ([1, 0, 1, 1], [2, 1, 0, 0]),  # the pair at the side merges
        ([0, 3, 0, 3], [4, 0, 0, 0]),
    ):
        cells = board([0] * 4, line, [0] * 4, [5, 0, 0, 0])
        shown, new = after_move(case, cells, LEFT)
        np.testing.assert_array_equal(shown[1], expected)
        assert new.sum() == 1
        shown, _ = after_move(case, cells[:, ::-1], RIGHT)
        np.testing.assert_array_equal(shown[1], expected[::-1])
        shown, _ = after_move(case, cells.T, UP)
        np.testing.assert_array_equal(shown[:, 1], expected)
        shown, _ = after_move(case, cells.T[::-1], DOWN)
        np.testing.assert_array_equal(shown[:, 1], expected[::-1])


def test_no_tile_appears_after_a_move_that_changes_nothing(case):
    case = case()
    state = playable(case, FEW, tick=7)
    out = case.step(state, [UP])
    np.testing.assert_array_equal(out["obs"], case.fields(state)["cells"])
    assert out["reward"] == np.float32(-0.05) and not out["terminated"]
    assert case.fields(out["state"])["tick"] == 8 and case.fields(out["state"])["score"] == 4 + 16


def test_rewards_and_score_of_merges(case):
    case = case()
    for exponent, reward in ((2, 0.05), (6, 0.05), (7, 0.08), (8, 0.05 + 0.03 * 2.83), (17, 0.05 + 0.03 * 36.48)):
        cells = board([exponent - 1, exponent - 1, 0, 0], [0] * 4, [0] * 4, [0] * 4)
        state = playable(case, cells)
        out = case.step(state, [LEFT])
        np.testing.assert_allclose(out["reward"], [reward], rtol=1e-6)
        gained = case.fields(out["state"])["score"].astype(int) - case.fields(state)["score"]
        assert gained == 2**exponent


def test_new_tiles_are_uniform_over_empty_cells_and_one_in_ten_is_a_4(case):
    case = case()
    num_envs = 20_000
    cells = board([1, 2, 3, 4], [0] * 4, [5, 6, 7, 8], [0, 0, 1, 2])
    rows = np.repeat(np.asarray(playable(case, cells)), num_envs, axis=0)
    out = case.step(case.restored(rows), np.full(num_envs, LEFT))  # the last row moves: empty are 4 + 2 cells
    is_empty = moved(cells, LEFT)[0] == 0
    new = is_empty & (out["obs"] > 0)
    assert (new.sum(axis=(1, 2)) == 1).all()
    counts = new.sum(axis=0)[is_empty]
    assert len(counts) == 6 and (abs(counts - num_envs / 6) < 5 * np.sqrt(num_envs * 5 / 36)).all()
    fours = (out["obs"][new] == 2).sum()
    assert abs(fours - num_envs / 10) < 5 * np.sqrt(num_envs * 0.09) and set(out["obs"][new].tolist()) == {1, 2}


def test_the_end_costs_one_and_begins_anew(case):
    case = case()
    for seed in range(20):
        out = case.step(playable(case, END, reward_units=20_000, tick=30), [RIGHT], seed)
        assert out["terminated"] and not out["truncated"] and out["reward"] == -1
        assert (out["episode_return"], out["episode_length"], out["score"]) == (1, 31, 1024)
        assert out["perf"] == np.float32(0.8 * 1024 / 65536)
        fields = case.fields(out["state"])
        assert (fields["tick"], fields["score"], fields["reward_units"], fields["has_moved"]) == (0, 0, 0, 0)
        assert fields["best"] == 10 and np.count_nonzero(out["obs"]) == 2


def test_a_stalled_game_ends_at_its_limit_without_the_penalty(case):
    case = case()
    unmoved, large = board([1, 2, 0, 0], *[[0] * 4] * 3), board([14, 2, 3, 0], *[[0] * 4] * 3)
    for cells, fields, limit in (
        (FEW, {}, 1000),
        (FEW, {"best": 9}, 1000),
        (FEW, {"best": 12}, 4000),
        (unmoved, {"best": 12, "has_moved": 0, "score": 0}, 1000),
        (large, {"best": 10}, (13 * 2**14 + 4 + 16) // 4),  # by the score
    ):
        for tick, ends in ((limit - 2, False), (limit - 1, True)):
            out = case.step(playable(case, cells, tick=tick, **fields), [UP])
            assert out["reward"] == np.float32(-0.05) and out["terminated"] == ends and not out["truncated"]
        assert out["episode_length"] == limit


def test_the_best_tile_outlives_the_episode_in_the_state(case):
    case = case()
    assert (case.fields(case.reset(5))["best"] == 0).all()
    out = case.step(playable(case, END, best=12), [RIGHT])
    assert out["terminated"] and case.fields(out["state"])["best"] == 12
    out = case.step(playable(case, END, best=3), [RIGHT])
    assert case.fields(out["state"])["best"] == 10
    # And it goes with a snapshot.
    other = case.env.restore(case.reset(3), out["state"], np.array([1], np.int32))
    assert case.fields(other)["best"].tolist() == [0, 10, 0]


def test_scaffolding_starts(case):
    num_envs = 4000
    case = case(scaffolding=1.0)
    starts = {}
    for best in (0, 13, 14, 15, 16, 17):
        rows = np.repeat(np.asarray(playable(case, END, best=best)), num_envs, axis=0)
        out = case.step(case.restored(rows), np.full(num_envs, RIGHT))
        assert out["terminated"].all() and (case.fields(out["state"])["is_scaffolding"] == 1).all()
        tiles = np.sort(out["obs"].reshape(num_envs, 16), axis=1)[:, -2:]
        pairs, counts = np.unique(tiles, axis=0, return_counts=True)
        starts[best] = dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True))
    assert set(starts[0]) == {(0, k) for k in range(12, 17)} and set(starts[13]) == {(0, k) for k in range(13, 17)}
    assert abs(starts[13][0, 13] - 0.4 * num_envs) < 5 * np.sqrt(0.24 * num_envs)
    for best in (14, 15):
        assert set(starts[best]) == {(0, 14), (0, 15), (13, 14), (14, 15)}
    for best in (16, 17):
        assert set(starts[best]) == {(0, 15), (0, 16), (14, 15), (15, 16)}
        assert all(abs(n - num_envs / 4) < 5 * np.sqrt(num_envs * 3 / 16) for n in starts[best].values())
    # Such an episode does not change the best tile.
    row = playable(case, END, is_scaffolding=1, best=3)
    assert case.fields(case.step(row, [RIGHT])["state"])["best"] == 3


def test_scaffolding_is_off_unless_asked_for(case):
    assert not case().fields(case().reset(1000))["is_scaffolding"].any()
    share = case(scaffolding=0.25).fields(case(scaffolding=0.25).reset(10_000))["is_scaffolding"].mean()
    assert abs(share - 0.25) < 5 * np.sqrt(0.1875 / 10_000)


def test_refusals(case):
    case = case()
    state = playable(case, FEW, tick=5)  # score 4 + 16
    cells = case.fields(state)["cells"][0]
    case.assert_refuses(state, r"a tile is above 2\^17", cells=np.where(cells == 3, 18, cells))
    case.assert_refuses(state, "the tiles are more than a board can hold", cells=np.where(cells > 0, 17, 0))
    case.assert_refuses(state, "there are too few tiles", cells=np.where(cells == 3, cells, 0))
    stuck = np.tile([[1, 2], [2, 1]], (2, 2))
    case.assert_refuses(state, "no move is left", cells=stuck)
    case.assert_refuses(state, "the score does not fit the board", score=24)
    case.assert_refuses(state, "the score does not fit the board", score=4)
    case.assert_refuses(state, "the score does not fit the board", score=18)
    case.assert_refuses(state, r"the best tile is above 2\^17", best=18)
    case.assert_refuses(state, "the score does not fit the moves", has_moved=0)
    case.assert_refuses(state, "the score does not fit the moves", has_moved=2)
    case.assert_refuses(state, "it began with scaffolding, which is off", is_scaffolding=1)
    case.assert_refuses(state, "the clock is past the limit", tick=1000)
    case.assert_refuses(state, "the reserved bytes are not zero", unused=1)
    case.assert_survives_garbage()


@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"scaffolding": -0.1}, ValueError, r"g2048: scaffolding must be a number in \[0, 1\], got -0.1"),
        ({"scaffolding": 1.5}, ValueError, r"g2048: scaffolding must be a number in \[0, 1\], got 1.5"),
        ({"scaffolding": float("nan")}, ValueError, "scaffolding must be a number"),
        ({"scaffolding": "1"}, TypeError, r"g2048: scaffolding must be a number in \[0, 1\], got '1'"),
        ({"scaffolding": True}, TypeError, "got True"),
        ({"size": 4}, ValueError, "g2048 has no argument 'size'; valid are scaffolding"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("g2048", **params)


def test_the_native_side_refuses_as_well():
    from pufferjax.xla_ops import ffi

    for params, text in (([2**24 + 1], "scaffolding must be 0 to"), ([-1], "scaffolding must be 0"), ([], "params")):
        with pytest.raises(ValueError, match=text):
            ffi.describe_env("g2048", params)


def test_render_shows_the_tiles(case):
    case = case()
    image = case.env.render(playable(case, board([1, 2, 3, 17], [0] * 4, [0] * 4, [0] * 4))[0])
    assert image.dtype == np.uint8 and image.shape == (256, 256, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 5
