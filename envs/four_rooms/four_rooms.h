// Four rooms, a random goal, and a view of 7 x 7 cells ahead, as in MiniGrid's FourRooms.
//
// A square of odd side `size`, closed by walls and cut in four by a middle column and a middle row of walls, with one
// gap at a random place in each of the four inner walls. Agent, heading and goal are random; agent and goal are never
// on one cell, but may be in a gap. Actions: 0 turn left, 1 turn right, 2 forward (walls block), 3 to 6 nothing. The
// episode ends on the goal (terminated) with reward 1 - 0.9 t / step_limit, t the number of its steps, or is truncated
// after step_limit = 4 * size steps. perf is 1 if the goal was reached, score the return.
//
// The observation is what MiniGrid shows: obs[i, j] = (object, colour, state) of the cell i - 3 to the right of the
// agent and 6 - j ahead of it, unseen (0, 0, 0), empty (1, 0, 0), wall (2, 5, 0), goal (8, 1, 0); outside is wall.
// Sight spreads row by row away from the agent, through cells that are no walls: from a seen one to its neighbours in
// the row, to the cell ahead, and to the cells diagonally ahead.
#pragma once

#include <cstring>

#include "envs/common/sight.h"
#include "envs/common/simulator.h"

namespace pjx {

struct FourRooms : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr int kMinSize = 5, kMaxSize = 49;
  static constexpr int kView = Sight::kView, kSide = Sight::kSide, kAhead = Sight::kAhead;
  static constexpr int kGaps = 4;

  struct Params {
    uint32_t size;  // side, odd, kMinSize..kMaxSize
    // Derived.
    uint32_t half, step_limit;
    uint64_t lines;     // bit kAhead + x: column (or row) x is all wall but for the gaps; likewise outside
    uint64_t mirrored;  // bit 63 - b of this is bit b of `lines`

    PJX_HD void Derive() {
      half = size / 2;
      step_limit = 4 * size;
      lines = mirrored = 0;
      for (uint32_t bit = 0; bit < 64; ++bit) {
        const uint32_t x = bit - kAhead;  // wraps below 0
        if (x - 1 < size - 2 && x != half) continue;
        lines |= uint64_t{1} << bit;
        mirrored |= uint64_t{1} << (63 - bit);
      }
    }
  };

  struct State {
    uint32_t tick;    // steps since the episode began, [0, step_limit)
    uint8_t x, y;     // y grows downwards
    uint8_t heading;  // 0 east, 1 south, 2 west, 3 north
    uint8_t goal_x, goal_y;
    uint8_t gaps[kGaps];  // y of the upper and lower one in the middle column, x of the left and right one in the row
    uint8_t unused[3];
  };
  static_assert(sizeof(State) == 16, "rows stay 16-byte aligned and free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {kView, kView, 3}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.step_limit; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 7; }

  // --- the grid ------------------------------------------------------------------------------------------------------
  // Two bits per heading hold the displacement plus one.
  PJX_HD static int Dx(uint32_t heading) { return static_cast<int>(0x46u >> (2 * heading) & 3) - 1; }
  PJX_HD static int Dy(uint32_t heading) { return static_cast<int>(0x19u >> (2 * heading) & 3) - 1; }

  PJX_HD static bool IsInside(uint32_t x, uint32_t y, const Params& p) {  // of the border
    return (x - 1 < p.size - 2) & (y - 1 < p.size - 2);
  }
  PJX_HD static bool IsWall(const State& s, const Params& p, uint32_t x, uint32_t y) {
    const bool in_column = (x == p.half) & (y != s.gaps[0]) & (y != s.gaps[1]);
    const bool in_row = (y == p.half) & (x != s.gaps[2]) & (x != s.gaps[3]);
    return !IsInside(x, y, p) | in_column | in_row;
  }

  // The cells that are no walls, numbered: the four rooms from left to right and top to bottom, each by rows, then the
  // gaps.
  PJX_HD static void Cell(const State& s, const Params& p, uint32_t index, uint8_t* x, uint8_t* y) {
    const uint32_t side = p.half - 1, room = index / (side * side), within = index % (side * side);
    if (room < 4) {
      *x = static_cast<uint8_t>(1 + within % side + (room % 2) * p.half);
      *y = static_cast<uint8_t>(1 + within / side + (room / 2) * p.half);
    } else {
      const uint32_t gap = index - 4 * side * side;
      *x = gap < 2 ? static_cast<uint8_t>(p.half) : s.gaps[gap];
      *y = gap < 2 ? s.gaps[gap] : static_cast<uint8_t>(p.half);
    }
  }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static void Reset(State& s, const Params& p, Philox& random) {
    s = State{};
    const uint32_t side = p.half - 1, num_cells = 4 * side * side + kGaps;
    for (uint32_t i = 0; i < kGaps; ++i) s.gaps[i] = static_cast<uint8_t>(1 + (i % 2) * p.half + random.Below(side));
    const uint32_t agent = random.Below(num_cells), goal = random.Below(num_cells - 1);
    Cell(s, p, agent, &s.x, &s.y);
    Cell(s, p, goal + (goal >= agent), &s.goal_x, &s.goal_y);
    s.heading = static_cast<uint8_t>(random.Below(4));
  }

  // Sets the clock to a uniformly random time, so that environments that start together do not time out together.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) { s.tick = random.Below(p.step_limit); }

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& /*random*/, float* rewards) {
    const int32_t action = actions[0];
    const uint32_t x = s.x + Dx(s.heading), y = s.y + Dy(s.heading);
    const bool moves = (action == 2) & !IsWall(s, p, x, y);
    s.x = static_cast<uint8_t>(moves ? x : s.x);
    s.y = static_cast<uint8_t>(moves ? y : s.y);
    s.heading = (s.heading + 3 * (action == 0) + (action == 1)) % 4;
    ++s.tick;
    Outcome outcome{};
    outcome.terminated = moves & (s.x == s.goal_x) & (s.y == s.goal_y);
    outcome.truncated = !outcome.terminated && s.tick >= p.step_limit;
    rewards[0] = 0.0f;
    if (outcome.terminated) {
      rewards[0] = static_cast<float>(1.0 - 0.9 * (static_cast<double>(s.tick) / p.step_limit));
      outcome.perf = 1.0f;
    }
    outcome.episode_return = outcome.score = rewards[0];
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  // --- the view ------------------------------------------------------------------------------------------------------
  // Sets of its cells as words, as in Sight.
  static constexpr uint64_t kRow = Sight::kRow, kColumn = Sight::kColumn;

  // Seven entries of a line of walls: entry k is coordinate `from` + k, or `from` - k if backwards.
  PJX_HD static uint64_t Entries(const Params& p, int from, bool backwards) {
    return (backwards ? p.mirrored >> (63 - kAhead - from) : p.lines >> (kAhead + from)) & kColumn;
  }

  // Bit i to the whole column i.
  PJX_HD static uint64_t Columns(uint64_t bits) {
    // A copy of the lower six bits every six places leaves bit i at place 7 i of the i-th.
    const uint64_t spread = ((bits & 0x3F) * 0x0000000041041041ULL) & kRow;
    return (spread | (bits >> 6) << (kView * kAhead)) * kColumn;
  }

  // (i, j) of a cell of the grid as a set: empty if it is out of view.
  PJX_HD static uint64_t InView(const State& s, uint32_t x, uint32_t y) {
    const int dx = static_cast<int>(x) - s.x, dy = static_cast<int>(y) - s.y;
    const int forward_x = Dx(s.heading), forward_y = Dy(s.heading);
    const auto i = static_cast<uint32_t>(kSide + dy * forward_x - dx * forward_y);
    const auto j = static_cast<uint32_t>(kAhead - dx * forward_x - dy * forward_y);
    return i < kView && j < kView ? uint64_t{1} << (i * kView + j) : 0;
  }

  PJX_HD static uint64_t WallsInView(const State& s, const Params& p) {
    // East and west look along x: the rows of the view are columns of the grid. j counts against the heading, i along
    // the right hand.
    const bool along_x = s.heading % 2 == 0;
    const int ahead = along_x ? s.x : s.y, beside = along_x ? s.y : s.x;
    const bool forwards = s.heading < 2, right_forwards = s.heading == 0 || s.heading == 3;
    const uint64_t rows = Entries(p, forwards ? ahead + kAhead : ahead - kAhead, forwards);
    const uint64_t columns = Entries(p, right_forwards ? beside - kSide : beside + kSide, !right_forwards);
    uint64_t walls = rows * kRow | Columns(columns);
    for (int gap = 0; gap < kGaps; ++gap) {
      const uint32_t x = gap < 2 ? p.half : s.gaps[gap], y = gap < 2 ? s.gaps[gap] : p.half;
      walls &= ~InView(s, x, y);
    }
    return walls;
  }

  // The bytes of a column of seven cells, three each: `object` and `colour` in those chosen (bit j: cell j), else 0.
  struct ColumnBytes {
    uint64_t words[3];  // 21 bytes, little-endian
    constexpr ColumnBytes() : words() {}
    constexpr ColumnBytes(uint32_t chosen, uint64_t object, uint64_t colour) : words() {
      for (uint32_t j = 0; j < kView; ++j) {
        const uint32_t byte = 3 * j;
        if (!(chosen >> j & 1)) continue;
        words[byte / 8] |= object << (byte % 8 * 8);
        words[(byte + 1) / 8] |= colour << ((byte + 1) % 8 * 8);
      }
    }
  };
  // Every seen cell is shown as empty, and what a wall is more is added; both from tables, which is 1.7 times as fast
  // for a whole step.
  static ColumnBytes Shown(uint32_t seen, uint32_t walls) {
    struct Tables {
      ColumnBytes empty[128], more[128];
      constexpr Tables() : empty(), more() {
        for (uint32_t chosen = 0; chosen < 128; ++chosen) {
          empty[chosen] = ColumnBytes(chosen, 1, 0);
          more[chosen] = ColumnBytes(chosen, 1, 5);
        }
      }
    };
    static constexpr Tables kTables;
    ColumnBytes shown = kTables.empty[seen];
    const ColumnBytes& more = kTables.more[walls];
    for (int i = 0; i < 3; ++i) shown.words[i] += more.words[i];
    return shown;
  }

  PJX_HD static void Observe(const State& s, const Params& p, Obs* obs) {
    const uint64_t walls = WallsInView(s, p), seen = Sight::Seen(walls);
    for (int i = 0; i < kView; ++i) {
      const auto seen_column = static_cast<uint32_t>(seen >> (i * kView) & kColumn);
      const uint32_t wall_column = static_cast<uint32_t>(walls >> (i * kView)) & seen_column;
#ifdef PJX_GPU_FORMS
      for (int j = 0; j < kView; ++j) {
        uint8_t* const cell = obs + 3 * (i * kView + j);
        const uint32_t is_wall = wall_column >> j & 1;
        cell[0] = static_cast<uint8_t>((seen_column >> j & 1) + is_wall);
        cell[1] = static_cast<uint8_t>(5 * is_wall);
        cell[2] = 0;
      }
#else
      const ColumnBytes shown = Shown(seen_column, wall_column);
      // The words of a column end in the next one, which is written afterwards; those of the last must not.
      memcpy(obs + i * 3 * kView, shown.words, i < kView - 1 ? 24 : 21);
#endif
    }
    if (const uint64_t goal = InView(s, s.goal_x, s.goal_y) & seen) {
      int cell = 0;
      while (!(goal >> cell & 1)) ++cell;
      obs[3 * cell] = 8, obs[3 * cell + 1] = 1;
    }
  }

  // --- trust ---------------------------------------------------------------------------------------------------------
  PJX_HD static bool IsSafe(const State& s, const Params& p) { return IsInside(s.x, s.y, p) & (s.heading < 4); }

  // Why a snapshot cannot have come from this simulator with these parameters, or null.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    for (uint32_t i = 0; i < kGaps; ++i) {
      if (s.gaps[i] - 1u - (i % 2) * p.half >= p.half - 1) return "a gap is outside its wall";
    }
    if (!IsInside(s.x, s.y, p)) return "the agent is outside the grid";
    if (s.heading >= 4) return "the heading is not 0 to 3";
    if (IsWall(s, p, s.x, s.y)) return "the agent is in a wall";
    if (IsWall(s, p, s.goal_x, s.goal_y)) return "the goal is in a wall";
    if (s.x == s.goal_x && s.y == s.goal_y) return "the agent is already at the goal";
    if (s.tick >= p.step_limit) return "the clock is past the step limit";
    if (s.unused[0] | s.unused[1] | s.unused[2]) return "the reserved bytes are not zero";
    return nullptr;
  }
};

}  // namespace pjx
