// Boxoban: Sokoban on 10 x 10 cells with four boxes and four targets.
//
// Actions: 0 stay, 1 down, 2 up, 3 left, 4 right. The agent moves onto free cells and pushes one box ahead of it if the
// cell behind is free. An episode ends with reward 1 when every target has a box (terminated), or after max_steps steps
// (truncated) with timeout_reward. Before that, covering a target for the first time in the episode earns int_r_coeff,
// and a box that leaves a target costs target_loss_penalty: with both 0 the only reward is that of the solution.
//
// The observation is four planes of 10 x 10 cells, 0 or 1: the agent, walls, boxes, targets. With egocentric they are
// rolled, what leaves on one side entering on the other, until the agent is in cell (5, 5): then what is beside the
// agent is always in the same place, which a network without convolutions cannot work out. Levels are shared by all
// environments; where they come from is levels.h. Cells are numbered 10 * y + x, y down, and sets of cells are bit
// sets.
//
// Departure from the original: the time limit is a truncation, not a terminal, and costs nothing unless timeout_reward
// says so (the original's is -1).
#pragma once

#include <cstring>

#include "envs/common/bits.h"
#include "envs/common/simulator.h"

namespace pjx {

struct Boxoban : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr uint32_t kSide = 10, kCells = kSide * kSide, kWords = 4;
  static constexpr uint32_t kCentre = 5 * kSide + 5;  // where an egocentric observation has the agent
  static constexpr uint32_t kBoxes = 4;
  static constexpr int64_t kMaxLevels = 1 << 20, kMaxMaxSteps = 65535;

  struct alignas(64) Level {
    uint32_t walls[kWords], targets[kWords], boxes[kWords];  // the border is all walls
    uint8_t target_cells[kBoxes];                            // ascending
    uint8_t agent;
    uint8_t covered;  // bit i: target_cells[i] has a box from the start
    uint8_t unused[10];
  };
  static_assert(sizeof(Level) == 64, "one cache line");

  struct Params {
    const Level* levels;  // [num_levels], read-only
    uint32_t num_levels;
    uint32_t max_steps;
    float int_r_coeff, target_loss_penalty, timeout_reward;
    uint32_t egocentric;  // 0 or 1
  };

  struct State {
    uint32_t level;          // [0, num_levels)
    uint32_t tick;           // steps since the episode began, [0, max_steps)
    uint32_t boxes[kWords];  // four cells
    uint8_t agent;           // cell, inside the border
    uint8_t covered;         // bit i: target i of the level has been covered in this episode, or was from the start
    uint16_t losses;         // times a box has left a target
    uint32_t unused;
  };
  static_assert(sizeof(State) == 32, "rows stay 16-byte aligned and free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {4, kSide, kSide}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.max_steps; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 5; }

  // --- sets of cells -------------------------------------------------------------------------------------------------
  PJX_HD static bool Has(const uint32_t* set, uint32_t cell) { return set[cell / 32] >> (cell % 32) & 1; }
  PJX_HD static void Flip(uint32_t* set, uint32_t cell) { set[cell / 32] ^= 1u << (cell % 32); }
  PJX_HD static uint32_t Count(uint32_t bits) {
    uint32_t count = 0;
    for (; bits; bits &= bits - 1) ++count;
    return count;
  }
  PJX_HD static bool IsInside(uint32_t cell) {  // of the border
    return (cell < kCells) & (cell / kSide - 1 < kSide - 2) & (cell % kSide - 1 < kSide - 2);
  }
  PJX_HD static bool IsSolved(const State& s, const Level& level) {
    uint32_t uncovered = 0;
    for (uint32_t i = 0; i < kWords; ++i) uncovered |= level.targets[i] & ~s.boxes[i];
    return uncovered == 0;
  }
  // The bit of a target in `covered`; 0 if the cell is no target.
  PJX_HD static uint32_t TargetBit(const Level& level, uint32_t cell) {
    uint32_t bit = 0;
    for (uint32_t i = 0; i < kBoxes; ++i) bit |= static_cast<uint32_t>(level.target_cells[i] == cell) << i;
    return bit;
  }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static int Offset(int action) {
    const int side = static_cast<int>(kSide);
    return action == 1 ? side : action == 2 ? -side : action == 3 ? -1 : action == 4 ? 1 : 0;
  }

  PJX_HD static void Reset(State& s, const Params& p, Philox& random) {
    s = State{};
    s.level = random.Below(p.num_levels);
    const Level& level = p.levels[s.level];
    for (uint32_t i = 0; i < kWords; ++i) s.boxes[i] = level.boxes[i];
    s.agent = level.agent;
    s.covered = level.covered;
  }

  // Sets the clock to a uniformly random time, so that environments that start together do not time out together.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) { s.tick = random.Below(p.max_steps); }

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& /*random*/, float* rewards) {
    const Level& level = p.levels[s.level];
    const int offset = Offset(actions[0]);
    float reward = 0;
    bool is_solved = false;
    // The agent is inside the border, and what is not a wall is inside too: two cells ahead there is still a cell.
    const uint32_t next = s.agent + offset;
    if (offset && !Has(level.walls, next)) {
      if (!Has(s.boxes, next)) {
        s.agent = static_cast<uint8_t>(next);
      } else if (const uint32_t behind = next + offset; !Has(level.walls, behind) && !Has(s.boxes, behind)) {
        s.agent = static_cast<uint8_t>(next);
        Flip(s.boxes, next);
        Flip(s.boxes, behind);
        if (TargetBit(level, next)) {
          ++s.losses;
          reward -= p.target_loss_penalty;
        }
        if (const uint32_t bit = TargetBit(level, behind)) {
          if (!(s.covered & bit)) reward += p.int_r_coeff;
          s.covered = static_cast<uint8_t>(s.covered | bit);
          is_solved = IsSolved(s, level);
        }
      }
    }
    ++s.tick;
    Outcome outcome{};
    outcome.terminated = is_solved;
    outcome.truncated = !is_solved && s.tick >= p.max_steps;
    const float last = is_solved ? 1.0f : outcome.truncated ? p.timeout_reward : 0.0f;
    rewards[0] = reward + last;
    const auto hits = static_cast<float>(Count(s.covered) - Count(level.covered));
    outcome.episode_return = p.int_r_coeff * hits - p.target_loss_penalty * static_cast<float>(s.losses) + last;
    outcome.score = outcome.perf = is_solved ? 1.0f : 0.0f;
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  PJX_HD static void Observe(const State& s, const Params& p, Obs* obs) {
    const Level& level = p.levels[s.level];
    memset(obs, 0, kCells);
    obs[p.egocentric ? kCentre : s.agent] = 1;
    for (int plane = 1; plane < 4; ++plane) {
      const uint32_t* const set = plane == 1 ? level.walls : plane == 2 ? s.boxes : level.targets;
      obs += kCells;
      if (p.egocentric) {
        uint32_t rolled[kWords];
        Roll(set, s.agent, rolled);
        Plane(rolled, obs);
      } else {
        Plane(set, obs);
      }
    }
  }

  PJX_HD static void Plane(const uint32_t* set, uint8_t* out) {
    for (uint32_t word = 0; word < kCells / 32; ++word) {
      for (uint32_t byte = 0; byte < 4; ++byte, out += 8) {
        const uint64_t cells = SpreadBits(set[word] >> (8 * byte) & 0xFF);
        CopyWords(out, &cells, 8);
      }
    }
    const uint64_t cells = SpreadBits(set[kCells / 32] & 0xF);
    CopyWords(out, &cells, kCells % 32);
  }

  // The set rolled until the cell `agent` is at kCentre: all rows at once, as one number with a row for each ten bits.
  PJX_HD static void Roll(const uint32_t* set, uint32_t agent, uint32_t* rolled) {
    using Rows = unsigned __int128;
    static_assert(sizeof(Rows) == kWords * sizeof(uint32_t), "a set is one number");
    constexpr Rows kAll = (Rows{1} << kCells) - 1, kFirstColumn = kAll / ((1u << kSide) - 1);
    const uint32_t right = (agent % kSide + kSide - kCentre % kSide) % kSide;
    const uint32_t down = (agent / kSide + kSide - kCentre / kSide) % kSide * kSide;
    Rows rows;
    CopyWords(&rows, set, sizeof(rows));
    rows = (rows >> down | rows << (kCells - down)) & kAll;
    const Rows stay = kFirstColumn * ((1u << (kSide - right)) - 1);  // columns that get nothing from the far side
    rows = (rows >> right & stay) | (rows << (kSide - right) & kAll & ~stay);
    CopyWords(rolled, &rows, sizeof(rows));
  }

  // Where Step and Observe will read outside the state; computes an address and reads nothing.
  PJX_HD static uintptr_t ReadsSoon(const State& s, const Params& p) {
    return reinterpret_cast<uintptr_t>(p.levels) + static_cast<uint64_t>(s.level) * sizeof(Level);
  }

  static const Level*& SharedData(Params& p) { return p.levels; }
  static int64_t SharedBytes(const Params& p) { return static_cast<int64_t>(p.num_levels) * sizeof(Level); }

  // --- trust ---------------------------------------------------------------------------------------------------------
  // What step and observe need so as never to leave their memory, whatever bytes the caller calls a state.
  PJX_HD static bool IsSafe(const State& s, const Params& p) { return s.level < p.num_levels && IsInside(s.agent); }

  // Why a snapshot cannot have come from this simulator with these parameters, or null.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    if (s.level >= p.num_levels) return "level is out of range";
    if (!IsInside(s.agent)) return "the agent is outside the grid";
    if (s.tick >= p.max_steps) return "the clock is past the step limit";
    if (s.unused != 0) return "the reserved bytes are not zero";
    const Level& level = p.levels[s.level];
    if (Has(level.walls, s.agent)) return "the agent is in a wall";
    if (Has(s.boxes, s.agent)) return "the agent is in a box";
    if (s.boxes[kWords - 1] >> (kCells % 32)) return "a box is outside the grid";
    uint32_t count = 0, covered = level.covered;
    for (uint32_t i = 0; i < kWords; ++i) {
      if (s.boxes[i] & level.walls[i]) return "a box is in a wall";
      count += Count(s.boxes[i]);
    }
    if (count != kBoxes) return "there are not four boxes";
    if (IsSolved(s, level)) return "the level is already solved";
    for (uint32_t i = 0; i < kBoxes; ++i) covered |= static_cast<uint32_t>(Has(s.boxes, level.target_cells[i])) << i;
    if (s.covered >> kBoxes || (covered & ~s.covered)) return "the targets covered so far contradict the boxes";
    return nullptr;
  }
};

}  // namespace pjx
