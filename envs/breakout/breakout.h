// Breakout: a square ball, a paddle, and two boards of 6 x 18 bricks, one after the other.
//
// The field is 576 x 330 pixels, y down; a frame is 1/60 s and a step `frame_skip` frames with one action. Actions:
// 0 nothing, 1 left, 2 right (the paddle moves 620 pixels per second); of SteeredBreakout, a number from -1 to 1: the
// share of that speed to the right. An episode has six balls and ends (terminated) when the last is lost or both boards
// are cleared, or after max_steps steps (truncated). A round begins with the ball at rest above the centred, full
// paddle; its first frame serves the ball downwards to a random side, and the paddle stands still for that frame.
//
// In every frame the ball meets what it would reach first: a brick's face, a side wall, the top wall, or the top of the
// paddle; of two at the same time the one it would touch along the longer edge. A wall or a brick stops it at the
// contact and reverses the velocity across that face; the rest of the frame's motion is dropped. The paddle sends it
// off at -45 to 45 degrees from vertical (a little more at the overhanging edges), by where it lands; every fourth hit
// of a round makes later bounces faster (256, 320, 384, 448 pixels per second), a brick of the upper three rows makes
// them 448, and the top wall halves the paddle for the rest of the round.
//
// Bricks are worth 7, 7, 4, 4, 1, 1 points by row from the top: 432 a board. The second board appears at the first
// paddle hit after the first is cleared. The reward of a step is its points, or with clip_reward 1 if there were any.
//
// Departures from the original: a step ends with its episode instead of playing the remaining frames in the next one,
// there is a time limit, a ball that touches a side and the top wall at once cannot slip out of the field, and the
// velocity is observed per second: per frame it is a hundredth of the other numbers, and a network takes long to see
// it.
//
// All arithmetic is +, -, * and / on 32-bit floats in the order written, so results do not depend on the machine.
#pragma once

#include <cstring>

#include "envs/common/simulator.h"
#include "envs/common/sine.h"
#include "xla_ops/common/cpu_level.h"

#ifdef PJX_X86_LEVELS
#include <immintrin.h>
#endif

namespace pjx {

struct Breakout : SimulatorDefaults {
  using Obs = float;
  static constexpr int kRows = 6, kColumns = 18, kBricks = kRows * kColumns;
  static constexpr int kLives = 5;
  static constexpr int kBoardPoints = 432, kMaxPoints = 2 * kBoardPoints;
  static constexpr int kFirstSpeed = 256, kSpeedStep = 64, kTopSpeed = 448;  // pixels per second
  static constexpr int kHitsPerSpeed = 4;
  static constexpr float kWidth = 576, kHeight = 330;
  static constexpr float kBrickWidth = 32, kBrickHeight = 12, kBricksTop = 50;
  static constexpr float kBricksBottom = kBricksTop + kRows * kBrickHeight;
  static constexpr float kBall = 32;
  static constexpr float kPaddleWidth = 62, kPaddleTop = 312, kPaddleBottom = 320;
  static constexpr float kPaddleStep = 620.0f / 60.0f;  // pixels per frame
  static constexpr float kStartX = (kWidth - kBall) / 2, kStartY = kHeight / 2 - 30;
  static constexpr float kServeSin = 0.82298387f, kServeCos = 0.56806475f;  // of pi / 3.25, from vertical
  static constexpr float kMaxMotion = 8;                                    // more than any velocity, pixels per frame

  struct Params {
    uint32_t frame_skip;
    uint32_t max_steps;
    uint32_t clip_reward;  // 0 or 1
  };

  struct State {
    float ball_x, ball_y;      // left and top edge; [0, 544], [0, 320)
    float ball_vx, ball_vy;    // pixels per frame; 0 until served
    float paddle_x;            // left edge, [0, 576 - width]
    uint32_t is_destroyed[4];  // one bit per brick, row by row from the top; 108 in use
    uint32_t tick;             // steps since the episode began, [0, max_steps)
    uint16_t score;            // points, [0, 864)
    uint16_t earned;           // rewards of the episode so far
    uint16_t ball_speed;       // of the next bounce
    int8_t lives;              // balls left besides this one, [0, 5]
    uint8_t hits;              // of the paddle in this round, modulo 4
    uint8_t is_served, is_half;
    uint16_t unused;
  };
  static_assert(sizeof(State) == 52, "no padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {10 + kBricks}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.max_steps; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 3; }

  // --- the parts -----------------------------------------------------------------------------------------------------
  PJX_HD static float PaddleWidth(const State& s) { return s.is_half ? kPaddleWidth / 2 : kPaddleWidth; }
  PJX_HD static bool IsDestroyed(const State& s, int brick) { return s.is_destroyed[brick / 32] >> (brick % 32) & 1; }
  PJX_HD static int PointsOfRow(int row) { return 7 - 3 * (row / 2); }
  PJX_HD static float Min(float a, float b) { return a < b ? a : b; }
  PJX_HD static float Max(float a, float b) { return a > b ? a : b; }

  PJX_HD static void StartRound(State& s) {
    s.ball_x = kStartX, s.ball_y = kStartY;
    s.ball_vx = s.ball_vy = 0;
    s.paddle_x = (kWidth - kPaddleWidth) / 2;
    s.ball_speed = kFirstSpeed;
    s.hits = s.is_served = s.is_half = 0;
  }

  PJX_HD static void Serve(State& s, Philox& random) {
    const float speed = static_cast<float>(s.ball_speed) / 60.0f;
    s.ball_vx = random.Below(2) ? speed * kServeSin : -(speed * kServeSin);
    s.ball_vy = speed * kServeCos;
    s.is_served = 1;
  }

  PJX_HD static void Bounce(State& s) {
    const float landing = (s.ball_x + kBall / 2 - s.paddle_x) / PaddleWidth(s);
    const float angle = (landing - 0.5f) * 1.57079633f;
    const float speed = static_cast<float>(s.ball_speed) / 60.0f;
    s.ball_vx = speed * Sin(angle);
    s.ball_vy = -(speed * Cos(angle));
    s.hits = (s.hits + 1) % kHitsPerSpeed;
    if (s.hits == 0 && s.ball_speed < kTopSpeed) s.ball_speed += kSpeedStep;
    if (s.score == kBoardPoints) {
      for (uint32_t& word : s.is_destroyed) word = 0;
    }
  }

  PJX_HD static int Destroy(State& s, int brick) {
    s.is_destroyed[brick / 32] |= 1u << (brick % 32);
    const int row = brick / kColumns, points = PointsOfRow(row);
    if (row < kRows / 2) s.ball_speed = kTopSpeed;
    s.score = static_cast<uint16_t>(s.score + points);
    return points;
  }

  // --- collisions ----------------------------------------------------------------------------------------------------
  enum : int { kNothing = -4, kSideWall, kTopWall, kPaddle };  // or a brick, 0 to 107

  struct Contact {
    float time = 2;  // share of the frame before it
    float overlap = 0;
    int with = kNothing;
    bool is_across = false;  // the face is vertical: it stops motion in x
    float at = 0;            // the ball's x if is_across, else its y

    PJX_HD void Consider(float new_time, float new_overlap, int new_with, bool new_is_across, float new_at) {
      if (new_time < time || (new_time == time && new_overlap > overlap)) {
        time = new_time, overlap = new_overlap, with = new_with, is_across = new_is_across, at = new_at;
      }
    }
  };

  PJX_HD static int Floor(float x) {
    const int truncated = static_cast<int>(x);
    return truncated - (x < static_cast<float>(truncated));
  }

  // In a frame the ball moves less than a brick is high, so each of its leading edges crosses one line of faces at
  // most.
  PJX_HD static void MeetBricks(const State& s, Contact& contact) {
    if (s.ball_vy != 0) {
      const bool up = s.ball_vy < 0;
      const float edge = up ? s.ball_y : s.ball_y + kBall;
      // The next line ahead of the edge; line k is the top of row k and the bottom of row k - 1.
      int line = Floor((edge - kBricksTop) / kBrickHeight);
      if (up) {
        if (kBricksTop + kBrickHeight * line >= edge) --line;
        line = line < kRows ? line : kRows;
      } else {
        if (kBricksTop + kBrickHeight * line <= edge) ++line;
        line = line > 0 ? line : 0;
      }
      const float face = kBricksTop + kBrickHeight * line;
      const int row = up ? line - 1 : line;
      if (row >= 0 && row < kRows && (up ? face - edge >= s.ball_vy : face - edge <= s.ball_vy)) {
        const float time = (face - edge) / s.ball_vy;
        const float left = s.ball_x + s.ball_vx * time, right = left + kBall;
        const int first = Floor(left / kBrickWidth);
        for (int column = first; column <= first + 1; ++column) {
          if (column < 0 || column >= kColumns || IsDestroyed(s, row * kColumns + column)) continue;
          const float overlap = Min(right, kBrickWidth * (column + 1)) - Max(left, kBrickWidth * column);
          if (overlap > 0) {
            contact.Consider(time, overlap, row * kColumns + column, false, up ? face : face - kBall);
          }
        }
      }
    }
    if (s.ball_vx != 0) {
      const bool right = s.ball_vx > 0;
      const float edge = right ? s.ball_x + kBall : s.ball_x;
      int line = Floor(edge / kBrickWidth);  // line k is the left face of column k and the right face of column k - 1
      if (right || kBrickWidth * line >= edge) line += right ? 1 : -1;
      const float face = kBrickWidth * line;
      const int column = right ? line : line - 1;
      if (column >= 0 && column < kColumns && (right ? face - edge <= s.ball_vx : face - edge >= s.ball_vx)) {
        const float time = (face - edge) / s.ball_vx;
        const float top = s.ball_y + s.ball_vy * time, bottom = top + kBall;
        for (int row = 0; row < kRows; ++row) {
          const float row_top = kBricksTop + kBrickHeight * row;
          const float overlap = Min(bottom, row_top + kBrickHeight) - Max(top, row_top);
          if (overlap > 0 && !IsDestroyed(s, row * kColumns + column)) {
            contact.Consider(time, overlap, row * kColumns + column, true, right ? face - kBall : face);
          }
        }
      }
    }
  }

  PJX_HD static Contact Meet(const State& s) {
    Contact contact;
    if (s.ball_y < kBricksBottom + kMaxMotion) MeetBricks(s, contact);
    // A ball in the corner may already touch the wall that it did not bounce off: time 0 counts.
    if (s.ball_vx < 0 && s.ball_x <= -s.ball_vx) {
      contact.Consider((0 - s.ball_x) / s.ball_vx, kBall, kSideWall, true, 0);
    }
    if (s.ball_vx > 0 && kWidth - kBall - s.ball_x <= s.ball_vx) {
      contact.Consider((kWidth - kBall - s.ball_x) / s.ball_vx, kBall, kSideWall, true, kWidth - kBall);
    }
    if (s.ball_vy < 0 && s.ball_y <= -s.ball_vy) {
      contact.Consider((0 - s.ball_y) / s.ball_vy, kBall, kTopWall, false, 0);
    }
    const float gap = kPaddleTop - (s.ball_y + kBall);
    if (s.ball_vy > 0 && gap > 0 && gap <= s.ball_vy) {
      const float time = gap / s.ball_vy;
      const float left = s.ball_x + s.ball_vx * time;
      const float overlap = Min(left + kBall, s.paddle_x + PaddleWidth(s)) - Max(left, s.paddle_x);
      if (overlap > 0) contact.Consider(time, overlap, kPaddle, false, 0);
    }
    return contact;
  }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static void Reset(State& s, const Params&, Philox& /*random*/) {
    s = State{};
    s.lives = kLives;
    StartRound(s);
  }

  // Sets the clock to a uniformly random time, so that environments that start together do not time out together.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) { s.tick = random.Below(p.max_steps); }

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  // `direction` is the share of the paddle's speed to the right, -1 to 1, here and below.
  PJX_HD static void MovePaddle(State& s, float direction) {
    s.paddle_x = Min(Max(s.paddle_x + direction * kPaddleStep, 0), kWidth - PaddleWidth(s));
  }

  // Returns the points earned. Lives fall below 0 when the last ball is lost.
  PJX_HD static int Frame(State& s, float direction, Philox& random) {
    if (s.is_served) {
      MovePaddle(s, direction);
    } else {
      Serve(s, random);
    }
    int points = 0;
    const Contact contact = Meet(s);
    if (contact.with == kNothing) {
      s.ball_x += s.ball_vx;
      s.ball_y += s.ball_vy;
    } else if (contact.with == kPaddle) {
      Bounce(s);
    } else {
      if (contact.is_across) {
        s.ball_x = contact.at;
        s.ball_y += s.ball_vy * contact.time;
        s.ball_vx = -s.ball_vx;
      } else {
        s.ball_x += s.ball_vx * contact.time;
        s.ball_y = contact.at;
        s.ball_vy = -s.ball_vy;
      }
      if (contact.with == kTopWall) s.is_half = 1;
      if (contact.with >= 0) points = Destroy(s, contact.with);
    }
    s.ball_x = Min(Max(s.ball_x, 0), kWidth - kBall);  // against rounding at a wall
    s.ball_y = Max(s.ball_y, 0);
    if (s.ball_y >= kPaddleBottom) {
      --s.lives;
      StartRound(s);
    }
    return points;
  }

  // Whether the ball cannot meet anything in the next frames, though it may meet nothing even so. One pixel is more
  // than what rounding adds up to.
  PJX_HD static bool IsFree(const State& s, float frames) {
    const float x = s.ball_x + frames * s.ball_vx, y = s.ball_y + frames * s.ball_vy;
    return (s.is_served != 0) & (x > 1) & (x < kWidth - kBall - 1) &
           (Min(s.ball_y, y) > kBricksBottom + kMaxMotion + 1) & (Max(s.ball_y, y) < kPaddleTop - kBall - 1);
  }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& random, float* rewards) {
    return Advance(s, p, static_cast<float>((actions[0] == 2) - (actions[0] == 1)), random, rewards);
  }

  PJX_HD static Outcome Advance(State& s, const Params& p, float direction, Philox& random, float* rewards) {
    int points = 0;
    Outcome outcome{};
    if (IsFree(s, static_cast<float>(p.frame_skip))) {
      for (uint32_t frame = 0; frame < p.frame_skip; ++frame) {
        MovePaddle(s, direction);
        s.ball_x += s.ball_vx;
        s.ball_y += s.ball_vy;
      }
    } else {
      for (uint32_t frame = 0; frame < p.frame_skip && !outcome.terminated; ++frame) {
        points += Frame(s, direction, random);
        outcome.terminated = s.lives < 0 || s.score >= kMaxPoints;
      }
    }
    ++s.tick;
    outcome.truncated = !outcome.terminated && s.tick >= p.max_steps;
    const int reward = p.clip_reward ? points > 0 : points;
    s.earned = static_cast<uint16_t>(s.earned + reward);
    rewards[0] = static_cast<float>(reward);
    outcome.episode_return = s.earned;
    outcome.score = s.score;
    outcome.perf = outcome.score / kMaxPoints;
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  // 10 numbers of order 1, then one per brick: 1 if it is destroyed.
  PJX_HD static void Observe(const State& s, const Params&, Obs* obs) {
    obs[0] = s.paddle_x / kWidth;
    obs[1] = kPaddleTop / kHeight;
    obs[2] = s.ball_x / kWidth;
    obs[3] = s.ball_y / kHeight;
    obs[4] = s.ball_vx * 60.0f / 512.0f;  // pixels per second over 512
    obs[5] = s.ball_vy * 60.0f / 512.0f;
    obs[6] = s.is_served / 5.0f;
    obs[7] = static_cast<float>(s.score) / kMaxPoints;
    obs[8] = static_cast<float>(s.lives) / kLives;
    obs[9] = PaddleWidth(s) / kPaddleWidth;
    ObserveBricks(s.is_destroyed, obs + 10);
  }

  PJX_HD static void ObserveBricks(const uint32_t* is_destroyed, Obs* obs) {
#ifdef PJX_X86_LEVELS
    if (LevelInUse() == CpuLevel::kAvx512) return ObserveBricksAvx512(is_destroyed, obs);
#endif
    for (int i = 0; i < kBricks; i += 4) SpreadToFloats(is_destroyed[i / 32] >> (i % 32) & 15, obs + i);
  }

#ifdef PJX_X86_LEVELS
  // Bits to floats by a mask. Eight at a time: rows are not aligned, and twice as many would straddle two cache lines
  // in every store.
  PJX_AVX512 static void ObserveBricksAvx512(const uint32_t* is_destroyed, Obs* obs) {
    constexpr int kWhole = kBricks / 8 * 8;
    static_assert(kBricks - kWhole == 4, "one store of four is left");
#pragma GCC unroll 13
    for (int i = 0; i < kWhole; i += 8) {
      const auto bits = static_cast<__mmask8>(is_destroyed[i / 32] >> (i % 32));
      _mm256_storeu_ps(obs + i, _mm256_maskz_mov_ps(bits, _mm256_set1_ps(1)));
    }
    const auto bits = static_cast<__mmask8>(is_destroyed[kWhole / 32] >> (kWhole % 32));
    _mm_storeu_ps(obs + kWhole, _mm_maskz_mov_ps(bits, _mm_set1_ps(1)));
  }
#endif

  // Four bits to four numbers 0 or 1, from a table of 256 bytes on the CPU.
  PJX_HD static void SpreadToFloats(uint32_t bits, float* out) {
#ifdef PJX_GPU_FORMS
    for (int i = 0; i < 4; ++i) out[i] = static_cast<float>(bits >> i & 1);
#else
    struct Table {
      float rows[16][4];
      constexpr Table() : rows() {
        for (int row = 0; row < 16; ++row) {
          for (int i = 0; i < 4; ++i) rows[row][i] = static_cast<float>(row >> i & 1);
        }
      }
    };
    static constexpr Table kTable;
    memcpy(out, kTable.rows[bits], sizeof(kTable.rows[bits]));
#endif
  }

  // --- trust ---------------------------------------------------------------------------------------------------------
  PJX_HD static bool IsBallInside(const State& s) {  // false for NaN
    return (s.ball_x >= 0) & (s.ball_x <= kWidth - kBall) & (s.ball_y >= 0) & (s.ball_y < kPaddleBottom);
  }
  PJX_HD static bool IsPaddleInside(const State& s) {
    return (s.paddle_x >= 0) & (s.paddle_x <= kWidth - PaddleWidth(s));
  }

  // What step and observe need so as never to leave their memory or compute without meaning, whatever bytes the caller
  // calls a state.
  PJX_HD static bool IsSafe(const State& s, const Params&) {
    const bool is_slow = (s.ball_vx >= -kMaxMotion) & (s.ball_vx <= kMaxMotion) & (s.ball_vy >= -kMaxMotion) &
                         (s.ball_vy <= kMaxMotion) & (s.ball_speed <= kTopSpeed);
    return IsBallInside(s) & IsPaddleInside(s) & is_slow;
  }

  // Why a snapshot cannot have come from this simulator with these parameters, or null.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    if (s.is_served > 1 || s.is_half > 1 || s.hits >= kHitsPerSpeed) return "a flag or counter is out of range";
    if (!IsBallInside(s)) return "the ball is outside the field";
    if (!IsPaddleInside(s)) return "the paddle is outside the field";
    if (s.ball_speed < kFirstSpeed || s.ball_speed > kTopSpeed || s.ball_speed % kSpeedStep) {
      return "the speed of the ball must be 256, 320, 384 or 448";
    }
    if (s.is_served) {
      const float squared = s.ball_vx * s.ball_vx + s.ball_vy * s.ball_vy;
      bool is_known = false;
      for (int speed = kFirstSpeed; speed <= s.ball_speed; speed += kSpeedStep) {
        const float ratio = squared / (static_cast<float>(speed * speed) / 3600.0f);
        is_known |= (ratio > 0.9999f) & (ratio < 1.0001f);
      }
      if (!is_known) return "the velocity of the ball fits none of its speeds";
    } else {
      const bool is_start = s.ball_x == kStartX && s.ball_y == kStartY && s.ball_vx == 0 && s.ball_vy == 0 &&
                            s.paddle_x == (kWidth - kPaddleWidth) / 2 && s.ball_speed == kFirstSpeed && !s.hits &&
                            !s.is_half;
      if (!is_start) return "a ball that is not served must rest at the start of its round";
    }
    if (s.lives < 0 || s.lives > kLives) return "lives are out of range";
    if (s.is_destroyed[3] >> (kBricks - 96)) return "there are bricks outside the board";
    int points = 0;
    for (int brick = 0; brick < kBricks; ++brick) points += IsDestroyed(s, brick) ? PointsOfRow(brick / kColumns) : 0;
    if (s.score != points && s.score != points + kBoardPoints) return "score and bricks contradict each other";
    if (s.score >= kMaxPoints) return "both boards are already cleared";
    if (p.clip_reward ? s.earned > s.score : s.earned != s.score) return "score and rewards contradict each other";
    if (s.tick >= p.max_steps) return "the clock is past the step limit";
    if (s.unused != 0) return "the reserved bytes are not zero";
    return nullptr;
  }
};

// The same game with the paddle's velocity as its action.
struct SteeredBreakout : Breakout {
  using Action = float;
  PJX_HD static float ActionLow(const Params&, int /*head*/) { return -1; }
  PJX_HD static float ActionHigh(const Params&, int /*head*/) { return 1; }

  PJX_HD static Outcome Step(State& s, const Params& p, const float* actions, Philox& random, float* rewards) {
    return Advance(s, p, actions[0], random, rewards);
  }
};

}  // namespace pjx
