"""Breakout against its slow reference, its rules one by one, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pufferjax import envs
from pufferjax.envs.breakout import reference
from pufferjax.envs.breakout.reference import ROW, pack_bricks, unpack_bricks

STAY, LEFT, RIGHT = range(3)
KEY = jax.random.key(0)
REFUSAL = (ValueError, jax.errors.JaxRuntimeError)  # before or after the call has returned


def make(**params):
    return envs.make("breakout", **{"frame_skip": 1, "max_steps": 10_000, "clip_reward": False} | params)


def row(*, destroyed=(), **fields):
    """A possible state of a served ball as a 1-element array of `ROW`: away from everything, moving up."""
    values = {
        "ball_x": 250, "ball_y": 200, "ball_vx": 0, "ball_vy": -256 / 60, "paddle_x": 257, "ball_speed": 256,
        "lives": 5, "is_served": 1,
    } | fields  # fmt: skip
    made = np.zeros(1, ROW)
    for name, value in values.items():
        made[name] = value
    bricks = np.zeros((1, 108), bool)
    bricks[0, list(destroyed)] = True
    made["is_destroyed"] = pack_bricks(bricks)
    if "score" not in fields:
        made["score"] = reference.POINTS[bricks[0]].sum()
    if "earned" not in fields:
        made["earned"] = made["score"]
    return made


def step(env, before, action=STAY, key=KEY):
    """(row after, reward, terminated, truncated, info) of one state, which must be possible."""
    state = env.restore(env.reset(key, 1)[1], before.view(np.uint8).reshape(1, -1), np.zeros(1, np.int32))
    action = np.array([[action]], np.float32) if env.spec.action_low else np.array([action], np.int32)
    _, state, reward, terminated, truncated, info = env.step(key, state, action)
    info = {name: float(value[0]) for name, value in info.items()}
    return (
        np.array(env.snapshot(state)).view(ROW)[0, 0],
        float(reward[0]),
        bool(terminated[0]),
        bool(truncated[0]),
        info,
    )


def bricks_of(after):
    return set(np.flatnonzero(unpack_bricks(after["is_destroyed"][None])[0]).tolist())


# --- against the reference --------------------------------------------------------------------------------------------
def random_rows(random, count, max_steps):
    """Possible states from all over the game, some near the end of a board, the last ball or the time limit."""
    rows = np.zeros(count, ROW)
    bricks = random.random((count, 108)) < random.choice([0, 0.3, 0.7, 0.97, 0.99], (count, 1))
    points = bricks @ reference.POINTS
    second = (random.random(count) < 0.5) & (points < 432)
    rows["is_destroyed"] = pack_bricks(bricks)
    rows["score"] = points + 432 * second
    rows["earned"] = rows["score"]
    speed = random.choice([256, 320, 384, 448], count)
    angle = random.uniform(-np.pi, np.pi, count)
    rows["ball_vx"], rows["ball_vy"] = speed / 60 * np.sin(angle), speed / 60 * np.cos(angle)
    rows["ball_speed"] = np.where(random.random(count) < 0.5, 448, speed)
    rows["ball_x"], rows["ball_y"] = random.uniform(0, 544, count), random.uniform(0, 280, count)
    rows["is_half"] = random.random(count) < 0.3
    rows["paddle_x"] = random.uniform(0, 1, count) * np.where(rows["is_half"], 545, 514)
    rows["lives"] = random.integers(0, 6, count)
    rows["hits"] = random.integers(0, 4, count)
    rows["is_served"] = 1
    rows["tick"] = max_steps - 1 - random.integers(0, max_steps, count)
    return rows


def chase(key, obs, continuous=False):
    """Mostly towards the ball: such a player meets everything there is in the game."""
    key_random, key_action = jax.random.split(key)
    ahead = obs[:, 2] * 576 + 16 - (obs[:, 0] * 576 + obs[:, 9] * 31)
    towards = jnp.where(ahead > 8, RIGHT, jnp.where(ahead < -8, LEFT, STAY))
    is_random = jax.random.bernoulli(key_random, 0.1, towards.shape)
    if continuous:
        drawn = jax.random.uniform(key_action, towards.shape, minval=-1, maxval=1)
        return jnp.where(is_random, drawn, jnp.clip(ahead / 40, -1, 1))
    return jnp.where(is_random, jax.random.randint(key_action, towards.shape, 0, 3), towards).astype(jnp.int32)


CASES = [(1, 150, False, False, 430), (4, 1000, True, False, 60), (2, 100, False, True, 300)]
NUM_ENVS = 208


def test_the_cases_cover_enough():
    assert sum(num_steps for *_, num_steps in CASES) * NUM_ENVS >= 100_000


@pytest.mark.parametrize("frame_skip, max_steps, clip_reward, continuous, num_steps", CASES)
def test_reference_agrees_bit_for_bit(frame_skip, max_steps, clip_reward, continuous, num_steps):
    params = {"frame_skip": frame_skip, "max_steps": max_steps, "clip_reward": clip_reward}
    env, twin = make(continuous=continuous, **params), reference.Breakouts(NUM_ENVS, **params)
    key = jax.random.key(frame_skip)
    obs, state = env.reset(key, NUM_ENVS)
    np.testing.assert_array_equal(obs, twin.observe())
    np.testing.assert_array_equal(state, twin.rows())

    rows = np.array(state)
    rows[16:] = random_rows(np.random.default_rng(frame_skip), NUM_ENVS - 16, max_steps).view(np.uint8).reshape(-1, 52)
    state = env.restore(state, rows, np.arange(NUM_ENVS, dtype=np.int32))
    twin.load(rows)
    np.testing.assert_array_equal(env.observe(state), twin.observe())

    @jax.jit
    def native(state, keys):
        def body(state, key):
            action = chase(key, env.observe(state), continuous)
            own = action[:, None] if continuous else action
            obs, state, reward, terminated, truncated, info = env.step(key, state, own)
            bits = jax.random.bits(key, (2,), jnp.uint32)
            return state, (bits, action, state, obs, reward, terminated, truncated, info)

        return jax.lax.scan(body, state, keys)[1]

    outputs = jax.tree.map(np.asarray, native(state, jax.random.split(key, num_steps)))
    seen = np.zeros(4, int)
    for t in range(num_steps):
        bits, action, rows, *expected = jax.tree.map(lambda x, t=t: x[t], outputs)
        before = twin.row["score"].copy(), twin.destroyed.any(axis=1)
        jax.tree.map(np.testing.assert_array_equal, tuple(expected), twin.step(bits, action))
        np.testing.assert_array_equal(rows, twin.rows(), err_msg=f"step {t}")
        refilled = (before[0] == 432) & before[1] & ~twin.destroyed.any(axis=1)
        seen += [expected[2].sum(), expected[3].sum(), refilled.sum(), (twin.row["is_half"] == 1).any()]
    assert (seen > 0).all(), f"ends, time-outs, second boards, half paddles: {seen}"


def test_polynomials():
    x = np.linspace(-1.6, 1.6, 100_001)
    assert np.abs(reference.sin(x.astype(np.float32)) - np.sin(x)).max() < 3e-7
    assert np.abs(reference.cos(x.astype(np.float32)) - np.cos(x)).max() < 3e-7


# --- rules ------------------------------------------------------------------------------------------------------------
def test_spec_and_contract():
    spec = envs.make("breakout").spec
    assert spec.obs_shape == (118,) and spec.obs_dtype == np.float32 and spec.obs_max is None
    assert spec.num_actions == (3,) and spec.num_agents == 1 and spec.state_bytes == ROW.itemsize == 52
    assert spec.action_names == (("stay", "left", "right"),) and spec.max_episode_steps == 20_000
    envs.check_env(make(frame_skip=4, max_steps=20, clip_reward=True), num_envs=4)
    steered = make(continuous=True, frame_skip=4, max_steps=20)
    assert steered.spec.num_actions == () and steered.spec.action_names == ()
    assert (steered.spec.action_low, steered.spec.action_high) == ((-1.0,), (1.0,))
    envs.check_env(steered, num_envs=4)


def test_the_serve_goes_down_to_a_random_side_and_the_paddle_waits():
    env = make()
    num_envs = 2000
    _, state = env.reset(KEY, num_envs)
    _, state, *_ = env.step(KEY, state, np.full(num_envs, RIGHT, np.int32))
    rows = np.array(state).view(ROW)[:, 0]
    angle = np.pi / 3.25
    np.testing.assert_allclose(rows["ball_vy"], 256 / 60 * np.cos(angle), rtol=1e-6)
    np.testing.assert_allclose(np.abs(rows["ball_vx"]), 256 / 60 * np.sin(angle), rtol=1e-6)
    assert abs((rows["ball_vx"] > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(num_envs)
    assert (rows["paddle_x"] == 257).all() and (rows["is_served"] == 1).all()
    np.testing.assert_allclose(rows["ball_x"], 272 + rows["ball_vx"], rtol=1e-6)  # it moves in the same frame
    np.testing.assert_allclose(rows["ball_y"], 135 + rows["ball_vy"], rtol=1e-6)


def test_the_paddle_moves_620_pixels_per_second_and_stays_in_the_field():
    for action, x, expected in [
        (STAY, 100, 100), (LEFT, 100, 100 - 620 / 60), (RIGHT, 100, 100 + 620 / 60),
        (LEFT, 5, 0), (RIGHT, 510, 514),
    ]:  # fmt: skip
        after, *_ = step(make(), row(paddle_x=x), action)
        assert after["paddle_x"] == pytest.approx(expected)
    for share, expected in [(0.5, 100 + 310 / 60), (-1, 100 - 620 / 60), (0, 100)]:
        after, *_ = step(make(continuous=True), row(paddle_x=100), share)
        assert after["paddle_x"] == pytest.approx(expected)
    assert step(make(frame_skip=3), row(paddle_x=100), RIGHT)[0]["paddle_x"] == pytest.approx(100 + 3 * 620 / 60)
    assert step(make(), row(paddle_x=540, is_half=1), RIGHT)[0]["paddle_x"] == 545


@pytest.mark.parametrize(
    "before, after",
    [  # ball_x, ball_y, vx, vy in units of 256 / 60 at 3-4-5 angles
        ((1, 200, -0.6, -0.8), (0, 200 - 1 / 0.6 * 0.8, 0.6, -0.8)),
        ((542, 200, 0.6, 0.8), (544, 200 + 2 / 0.6 * 0.8, -0.6, 0.8)),
        ((250, 2, 0.6, -0.8), (250 + 2 / 0.8 * 0.6, 0, 0.6, 0.8)),
    ],
)
def test_walls_reflect(before, after):
    x, y, vx, vy = before
    speed = 256 / 60
    got, reward, *_ = step(make(), row(ball_x=x, ball_y=y, ball_vx=vx * speed, ball_vy=vy * speed))
    expected = np.array(after) * [1, 1, speed, speed]
    np.testing.assert_allclose([got[name] for name in ("ball_x", "ball_y", "ball_vx", "ball_vy")], expected, rtol=1e-5)
    assert got["is_half"] == (y == 2) and reward == 0


def test_a_ball_in_the_corner_stays_in_the_field():
    speed = 256 / 60
    state = row(ball_x=1.5, ball_y=2, ball_vx=-0.6 * speed, ball_vy=-0.8 * speed)  # both walls at the same time
    for _ in range(3):
        state = np.array([step(make(), state)[0]])
    assert state["ball_vx"] > 0 and state["ball_vy"] > 0 and 0 < state["ball_x"] < 6 and 0 < state["ball_y"] < 9


def test_the_top_wall_halves_the_paddle_until_the_round_ends():
    env = make()
    _, state = env.reset(KEY, 1)
    after, *_ = step(env, row(ball_y=2, destroyed=range(108), score=432))
    assert after["is_half"] == 1
    state = env.restore(state, after[None].view(np.uint8).reshape(1, -1), np.zeros(1, np.int32))
    assert env.observe(state)[0, 9] == 0.5
    after, *_ = step(env, row(is_half=1, ball_x=10, ball_y=318, ball_vy=256 / 60))
    assert after["is_half"] == 0 and after["lives"] == 4


FACES = {  # ball position just off a face of brick (row 2, column 7), x 224..256, y 74..86, and the direction
    "below": ((224, 88, 0, -1), "ball_vy", 86, "ball_y"),
    "above": ((224, 40, 0, 1), "ball_vy", 42, "ball_y"),
    "left": ((190, 70, 1, 0), "ball_vx", 192, "ball_x"),
    "right": ((258, 70, -1, 0), "ball_vx", 256, "ball_x"),
}


@pytest.mark.parametrize("face", FACES)
def test_bricks_reflect_on_each_face_and_break(face):
    (x, y, dx, dy), component, place, coordinate = FACES[face]
    speed = 256 / 60
    brick = 2 * 18 + 7
    others = set(range(108)) - {brick}
    before = row(ball_x=x, ball_y=y, ball_vx=dx * speed, ball_vy=dy * speed, destroyed=others)
    after, reward, terminated, *_ = step(make(), before)
    assert bricks_of(after) == set(range(108)) and reward == 4 and not terminated and after["score"] == 432
    assert after[component] == -before[component] and after[coordinate] == place
    # Off to the side of it nothing is met.
    shifted = before.copy()
    shifted["ball_x" if dy else "ball_y"] += 32 if dy else 30
    after, reward, *_ = step(make(), shifted)
    assert bricks_of(after) == others and reward == 0 and after[component] == before[component]


def test_of_two_bricks_the_one_behind_the_longer_edge_breaks():
    for x, column in [(200, 6), (215, 7), (208, 6)]:  # the ball spans columns 6 and 7; in the middle the lower index
        after, *_ = step(make(), row(ball_x=x, ball_y=123))
        assert bricks_of(after) == {5 * 18 + column}


def test_points_and_speed_by_row():
    for brick_row, points in enumerate([7, 7, 4, 4, 1, 1]):
        above = {r * 18 + c for r in range(brick_row + 1, 6) for c in range(18)}  # free the way from below
        before = row(ball_x=224, ball_y=63 + 12 * brick_row, destroyed=above)
        after, reward, *_ = step(make(), before)
        assert bricks_of(after) == above | {brick_row * 18 + 7} and reward == points
        assert after["score"] == before["score"] + points and after["earned"] == before["earned"] + points
        assert after["ball_speed"] == (448 if brick_row < 3 else 256)
        assert after["ball_vy"] == pytest.approx(256 / 60)  # the new speed waits for the next bounce
        before["earned"] = before["score"] // 2
        after, reward, *_ = step(make(clip_reward=True), before)
        assert reward == 1 and after["earned"] == before["earned"] + 1 and after["score"] == before["score"] + points


@pytest.mark.parametrize("is_half", [0, 1])
def test_the_paddle_angle_goes_from_edge_to_edge(is_half):
    width = 31 if is_half else 62
    for landing in np.linspace(-0.2, 1.2, 15):
        x = 300 + landing * width - 16
        before = row(ball_x=x, ball_y=278, ball_vy=320 / 60, ball_speed=320, paddle_x=300, is_half=is_half)
        after, reward, *_ = step(make(), before)
        angle = np.deg2rad(-45 + 90 * (np.float64(np.float32(x)) + 16 - 300) / width)
        expected = 320 / 60 * np.array([np.sin(angle), -np.cos(angle)])
        np.testing.assert_allclose([after["ball_vx"], after["ball_vy"]], expected, atol=2e-5)
        assert (after["ball_x"], after["ball_y"]) == (np.float32(x), 278) and reward == 0 and after["hits"] == 1
    missed, *_ = step(make(), row(ball_x=300 + width + 1, ball_y=278, ball_vy=320 / 60, ball_speed=320, paddle_x=300,
                                  is_half=is_half))  # fmt: skip
    assert missed["ball_vy"] > 0 and missed["hits"] == 0


def test_every_fourth_hit_makes_the_next_bounces_faster():
    speeds, state = [], row(paddle_x=272 + 16 - 31, ball_x=272)
    for _ in range(18):
        state["ball_x"], state["ball_y"], state["ball_vx"], state["ball_vy"] = 272, 278, 0, -state["ball_vy"]
        state = np.array([step(make(), state)[0]])
        speeds.append(round(float(-state["ball_vy"][0]) * 60))
    assert speeds == [256] * 4 + [320] * 4 + [384] * 4 + [448] * 6


def test_six_balls():
    env, lives = make(), []
    before = row(ball_x=10, ball_y=318, ball_vy=256 / 60, hits=2, ball_speed=320, destroyed=[0, 1], tick=7)
    for left in range(5, -1, -1):
        before["lives"] = left
        after, reward, terminated, truncated, info = step(env, before)
        assert reward == 0 and not truncated and terminated == (left == 0)
        lives.append(int(after["lives"]))
        assert (after["ball_x"], after["ball_y"], after["paddle_x"]) == (272, 135, 257)
        assert after["ball_speed"] == 256 and not after["hits"] and not after["is_served"] and not after["ball_vy"]
        assert bricks_of(after) == ({0, 1} if left else set()) and after["tick"] == (8 if left else 0)
    assert lives == [4, 3, 2, 1, 0, 5]
    assert info == {
        "episode_return": 14, "episode_length": 8, "score": 14, "perf": pytest.approx(14 / 864)
    }  # fmt: skip


def test_a_board_is_refilled_at_the_paddle_and_two_boards_end_the_game():
    cleared = row(destroyed=range(108), ball_x=272, ball_y=278, ball_vy=256 / 60)
    after, reward, terminated, *_ = step(make(), cleared)
    assert not bricks_of(after) and after["score"] == 432 and reward == 0 and not terminated
    for score, end in ((431, False), (863, True)):
        last = row(destroyed=set(range(108)) - {5 * 18 + 7}, ball_x=224, ball_y=123, score=score)
        after, reward, terminated, _, info = step(make(), last)
        assert reward == 1 and terminated == end and info["perf"] == float(end) and info["score"] == 864 * end
        assert bricks_of(after) == (set() if end else set(range(108)))


def test_a_step_stops_at_the_end_of_its_episode():
    after, _, terminated, _, info = step(make(frame_skip=9), row(lives=0, ball_x=10, ball_y=311, ball_vy=256 / 60))
    assert terminated and info["episode_length"] == 1
    assert after["lives"] == 5 and not after["is_served"] and after["tick"] == 0


def test_time_out():
    env = make(max_steps=50)
    assert step(env, row(tick=48))[3] is False
    after, _, terminated, truncated, info = step(env, row(tick=49, destroyed=[0]))
    assert truncated and not terminated and after["tick"] == 0 and info["episode_length"] == 50 and info["score"] == 7
    *_, terminated, truncated, _ = step(env, row(tick=49, lives=0, ball_x=10, ball_y=318, ball_vy=256 / 60))
    assert terminated and not truncated


def test_render_shows_the_bricks_the_ball_and_the_paddle():
    env = make()
    before = row(ball_x=250, ball_y=200, paddle_x=400, destroyed=[0], is_half=1)
    image = env.render(before.view(np.uint8)[0:52].reshape(-1))
    assert image.shape == (330, 576, 3)
    background, light = image[300, 10], image[210, 260]
    assert (image[56, 16] == background).all() and (image[56, 48] != background).any()
    assert (image[315, 405] == light).all() and (image[315, 435] == background).all()


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "params, error, text",
    [
        ({"frame_skip": 0}, ValueError, r"frame_skip must be an integer in \[1, 64\], got 0"),
        ({"frame_skip": 4.0}, TypeError, "frame_skip must be a static integer"),
        ({"max_steps": 0}, ValueError, "max_steps must be an integer in"),
        ({"clip_reward": 1}, TypeError, "clip_reward must be True or False, got 1"),
        ({"paddle": 1}, ValueError, "breakout has no argument 'paddle'; valid are frame_skip, max_steps, clip_reward"),
    ],
)
def test_make_refuses(params, error, text):
    with pytest.raises(error, match=text):
        envs.make("breakout", **params)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"ball_x": np.nan}, "the ball is outside the field"),
        ({"ball_y": np.inf}, "the ball is outside the field"),
        ({"ball_x": 545}, "the ball is outside the field"),
        ({"ball_y": 320}, "the ball is outside the field"),
        ({"ball_vx": np.nan}, "the velocity of the ball fits none of its speeds"),
        ({"ball_vy": -np.inf}, "the velocity of the ball fits none of its speeds"),
        ({"ball_vy": 448 / 60}, "the velocity of the ball fits none of its speeds"),  # faster than the next bounce
        ({"paddle_x": -1}, "the paddle is outside the field"),
        ({"paddle_x": np.nan}, "the paddle is outside the field"),
        ({"paddle_x": 515}, "the paddle is outside the field"),
        ({"ball_speed": 300}, "the speed of the ball must be"),
        ({"ball_speed": 512}, "the speed of the ball must be"),
        ({"lives": -1}, "lives are out of range"),
        ({"lives": 6}, "lives are out of range"),
        ({"hits": 4}, "a flag or counter is out of range"),
        ({"is_served": 2}, "a flag or counter is out of range"),
        ({"is_served": 0}, "a ball that is not served must rest"),
        ({"score": 1}, "score and bricks contradict each other"),
        ({"destroyed": range(108), "score": 864}, "both boards are already cleared"),
        ({"destroyed": [0], "earned": 8}, "score and rewards contradict each other"),
        ({"tick": 10_000}, "the clock is past the step limit"),
        ({"unused": 1}, "the reserved bytes are not zero"),
    ],
)
def test_restore_refuses_impossible_rows(fields, reason):
    with pytest.raises(REFUSAL, match=rf"rows\[0\] is not a snapshot of this simulator: {reason}"):
        step(make(), row(**fields))


def test_restore_refuses_bricks_outside_the_board():
    before = row()
    before["is_destroyed"][0, 3] = 1 << 12
    with pytest.raises(REFUSAL, match="there are bricks outside the board"):
        step(make(), before)


def test_garbage_never_crashes(survive):
    random = np.random.default_rng(0)
    rows = []
    for trial in range(200):
        garbage = random.integers(0, 256, (1, 52), dtype=np.uint8)
        if trial % 2:  # a ball and a paddle in the field with everything else garbage
            good, place = garbage.view(ROW), row()
            for name in ("ball_x", "ball_y", "ball_vx", "ball_vy", "paddle_x", "ball_speed"):
                good[name] = place[name]
        rows.append(garbage)
    assert survive(make(frame_skip=4), rows) == 300


@pytest.mark.parametrize("bad", [-1.001, 1.001, np.nan, np.inf])
def test_a_share_of_the_speed_is_between_minus_one_and_one(bad):
    env = make(continuous=True)
    _, state = env.reset(KEY, 3)
    shown = "nan" if np.isnan(bad) else f"{bad:g}"
    with pytest.raises(REFUSAL, match=rf"action\[1\] is {shown}, valid are numbers from -1 to 1"):
        jax.block_until_ready(env.step(KEY, state, np.array([[0], [bad], [9]], np.float32)))
    with pytest.raises(TypeError, match=r"breakout.step: action must be float32\[3, 1\], got dtype int32"):
        env.step(KEY, state, np.zeros((3, 1), np.int32))
    with pytest.raises(TypeError, match="breakout: continuous must be True or False, got 1"):
        make(continuous=1)
