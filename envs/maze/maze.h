// A perfect maze seen through a small window, with one reward: 1 at the goal.
//
// A square of odd side `size`; the agent starts at (1, 1), the goal is (size - 2, size - 2). Actions: 0 stay, 1 east
// (+x), 2 north (-y), 3 west (-x), 4 south (+y); walls block without a penalty. An episode ends with reward 1 at the
// goal (terminated) or after 2 * size * size steps (truncated). The observation is the vision x vision window centred
// on the agent, row-major: 0 empty or outside, 1 wall, 2 agent, 4 goal.
//
// Levels are grown by the growing-tree rule on odd coordinates: each level draws a difficulty d in [0, 1); before each
// carving step, with probability 1 - d, a random active cell becomes the top of the stack. d near 1 gives long
// corridors (depth-first), d near 0 bushy mazes.
#pragma once

#include <cstring>

#include "envs/common/bits.h"
#include "envs/common/simulator.h"
#include "xla_ops/common/cpu_level.h"

#ifdef PJX_X86_LEVELS
#include <immintrin.h>
#endif

namespace pjx {

struct Maze : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr int kMinSize = 5, kMaxSize = 127;
  static constexpr int kMaxMazes = 1 << 20;
  static constexpr int kMinVision = 3, kMaxVision = 31;
  static constexpr int kMaxCells = (kMaxSize / 2) * (kMaxSize / 2);

  struct Params {
    uint32_t size;       // side, odd, 5..127
    uint32_t num_mazes;  // levels shared by all environments; 0: a new maze for every episode, kept in the state
    uint64_t seed;
    uint32_t vision;        // side of the window, odd, 3..31
    const uint8_t* levels;  // [num_mazes, level_bytes], read-only; null when num_mazes is 0
    // Derived, so that the inner loop does no division. Walls are one bit per cell in rows of `stride` bytes, framed by
    // vision / 2 empty cells so that a window never needs a bounds check; 8 spare bytes let any window row be fetched
    // by one 64-bit load.
    uint32_t frame, stride, level_bytes, step_limit;

    PJX_HD void Derive() {
      frame = vision / 2;
      stride = (size + 2 * frame + 7) / 8;
      level_bytes = ((size + 2 * frame) * stride + 8 + 15) / 16 * 16;
      step_limit = 2 * size * size;
    }
  };

  // Followed in the row by level_bytes of walls when num_mazes is 0.
  struct State {
    uint32_t level;  // [0, num_mazes); 0 when num_mazes is 0
    uint32_t tick;   // steps since the episode began, [0, step_limit)
    uint16_t x, y;   // [1, size - 2], never a wall, never the goal
    uint32_t unused;
  };
  static_assert(sizeof(State) == 16, "rows stay 16-byte aligned and free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params& p) { return {p.vision, p.vision}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.step_limit; }
  PJX_HD static int64_t ExtraStateBytes(const Params& p) { return p.num_mazes ? 0 : p.level_bytes; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 5; }

  // --- walls ---------------------------------------------------------------------------------------------------------
  PJX_HD static const uint8_t* Walls(const State& s, const Params& p) {
    return p.num_mazes ? p.levels + static_cast<uint64_t>(s.level) * p.level_bytes
                       : reinterpret_cast<const uint8_t*>(&s) + sizeof(State);
  }
  PJX_HD static bool IsWall(const uint8_t* walls, const Params& p, uint32_t x, uint32_t y) {
    const uint32_t column = x + p.frame;
    return walls[(y + p.frame) * p.stride + column / 8] >> (column % 8) & 1;
  }
  PJX_HD static bool IsInside(uint32_t x, uint32_t y, const Params& p) {  // of the border
    return (x - 1 < p.size - 2) & (y - 1 < p.size - 2);
  }
  PJX_HD static void Carve(uint8_t* walls, const Params& p, uint32_t x, uint32_t y) {
    const uint32_t column = x + p.frame;
    walls[(y + p.frame) * p.stride + column / 8] &= static_cast<uint8_t>(~(1u << (column % 8)));
  }

  // `work` is as long as WorkBytes says.
  PJX_HD static void Grow(uint8_t* walls, const Params& p, Philox& random, uint16_t* work) {
    Fill(walls, p);
    uint16_t* const active = work;  // y << 8 | x of each cell that may still have unvisited neighbours
    const float difficulty = random.Uniform();
    active[0] = 1 << 8 | 1;
    Carve(walls, p, 1, 1);
    for (uint32_t count = 1; count > 0;) {
      if (random.Uniform() >= difficulty) {
        const uint32_t chosen = random.Below(count);
        const uint16_t cell = active[chosen];
        active[chosen] = active[count - 1];
        active[count - 1] = cell;
      }
      const uint32_t top = active[count - 1], x = top & 0xFF, y = top >> 8;
      // The directions of unvisited neighbours two cells away, a byte each. What is outside is no wall.
      uint32_t open = 0, num_open = 0;
      for (int direction = 1; direction <= 4; ++direction) {
        if (!IsWall(walls, p, x + 2 * Dx(direction), y + 2 * Dy(direction))) continue;
        open |= static_cast<uint32_t>(direction) << (8 * num_open++);
      }
      if (num_open == 0) {
        --count;
        continue;
      }
      const int chosen = static_cast<int>(open >> (8 * random.Below(num_open)) & 0xFF);
      const uint32_t dx = Dx(chosen), dy = Dy(chosen);
      Carve(walls, p, x + dx, y + dy);
      Carve(walls, p, x + 2 * dx, y + 2 * dy);
      active[count++] = static_cast<uint16_t>((y + 2 * dy) << 8 | (x + 2 * dx));
    }
  }

  // Nothing but walls inside, and nothing in the frame.
  PJX_HD static void Fill(uint8_t* walls, const Params& p) {
    const uint32_t begin = p.frame, end = p.frame + p.size;
    uint8_t* out = walls;
    for (uint32_t row = 0; row < p.size + 2 * p.frame; ++row) {
      const uint32_t inside = row - begin < p.size ? 0xFF : 0;
      for (uint32_t column = 0; column < 8 * p.stride; column += 8) {
        const uint32_t after_begin = column + 8 <= begin ? 0 : column >= begin ? 0xFF : 0xFF << (begin - column);
        const uint32_t before_end = column >= end ? 0 : column + 8 <= end ? 0xFF : 0xFF >> (column + 8 - end);
        *out++ = static_cast<uint8_t>(inside & after_begin & before_end);
      }
    }
    while (out < walls + p.level_bytes) *out++ = 0;
  }

  // --- the simulator -------------------------------------------------------------------------------------------------
  // Two bits per action hold the displacement plus one.
  PJX_HD static int Dx(int action) { return static_cast<int>(0x119u >> (2 * action) & 3) - 1; }
  PJX_HD static int Dy(int action) { return static_cast<int>(0x245u >> (2 * action) & 3) - 1; }

  PJX_HD static void Reset(State& s, const Params& p, Philox& random) {
    uint16_t work[kMaxCells];
    Reset(s, p, random, p.num_mazes ? nullptr : work);
  }
  PJX_HD static void Reset(State& s, const Params& p, Philox& random, uint16_t* work) {
    s = State{0, 0, 1, 1, 0};
    if (work == nullptr) {
      s.level = random.Below(p.num_mazes);
    } else {
      Grow(reinterpret_cast<uint8_t*>(&s) + sizeof(State), p, random, work);
    }
  }
  PJX_HD static int64_t WorkBytes(const Params& p) {
    return p.num_mazes ? 0 : static_cast<int64_t>(sizeof(uint16_t)) * (p.size / 2) * (p.size / 2);
  }

  // Sets the clock to a uniformly random time, so that environments that start together do not time out together.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) { s.tick = random.Below(p.step_limit); }

  // Steps since the episode began: all that tells apart two visits to one cell of one level.
  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& /*random*/, float* rewards) {
    const int dx = Dx(actions[0]), dy = Dy(actions[0]);
    const uint32_t x = s.x + dx, y = s.y + dy;
    // Shared levels are closed by walls. A maze that came with the state may be malformed, and must not lead outside.
    const bool is_inside = p.num_mazes || IsInside(x, y, p);
    // No branch on the wall: half of a random agent's moves are blocked, unpredictably.
    const int is_free = is_inside & !IsWall(Walls(s, p), p, x, y);
    s.x = static_cast<uint16_t>(s.x + (dx & -is_free));
    s.y = static_cast<uint16_t>(s.y + (dy & -is_free));
    ++s.tick;
    Outcome outcome{};
    outcome.terminated = (s.x == p.size - 2) & (s.y == p.size - 2);
    outcome.truncated = !outcome.terminated && s.tick >= p.step_limit;
    rewards[0] = outcome.terminated ? 1.0f : 0.0f;
    outcome.episode_return = outcome.score = outcome.perf = rewards[0];
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  PJX_HD static void Observe(const State& s, const Params& p, Obs* obs) {
    Window(Walls(s, p) + s.y * p.stride + s.x / 8, p.stride, s.x % 8, p.vision, obs);
    const uint32_t vision = p.vision, half = vision / 2;
    const uint32_t goal_x = p.size - 2 - s.x + half, goal_y = p.size - 2 - s.y + half;
    if (goal_x < vision && goal_y < vision) obs[goal_y * vision + goal_x] = 4;
    obs[half * vision + half] = 2;
  }

  // obs[i, j] = bit `shift` + j of the i-th of `vision` rows of walls.
  PJX_HD static void Window(const uint8_t* row, uint32_t stride, uint32_t shift, uint32_t vision, Obs* obs) {
#ifdef PJX_X86_LEVELS
    if (LevelInUse() == CpuLevel::kAvx512) return WindowAvx512(row, stride, shift, vision, obs);
#endif
    SpreadWindow(row, stride, shift, vision, obs);
  }

#ifdef PJX_X86_LEVELS
  // A row of the usual window is one register: bits to bytes by a mask. It runs into the next row of the window, which
  // is written afterwards; the last row must not run on.
  PJX_AVX512 static void WindowAvx512(const uint8_t* row, uint32_t stride, uint32_t shift, uint32_t vision, Obs* obs) {
    constexpr uint32_t kVision = 11;
    if (vision != kVision) return SpreadWindow(row, stride, shift, vision, obs);
    const __m128i one = _mm_set1_epi8(1);
#pragma GCC unroll 10
    for (uint32_t i = 0; i + 1 < kVision; ++i, row += stride, obs += kVision) {
      const auto bits = static_cast<__mmask16>(Load64(row) >> shift);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(obs), _mm_maskz_mov_epi8(bits, one));
    }
    const auto bits = static_cast<__mmask16>(Load64(row) >> shift);
    _mm_mask_storeu_epi8(obs, (1u << kVision) - 1, _mm_maskz_mov_epi8(bits, one));
  }
#endif

  PJX_HD static void SpreadWindow(const uint8_t* row, uint32_t stride, uint32_t shift, uint32_t vision, Obs* obs) {
    switch (vision) {
      case 3:
        return SpreadRows<3>(row, stride, shift, vision, obs);
      case 11:
        return SpreadRows<11>(row, stride, shift, vision, obs);  // the usual size, unrolled by the compiler
      default:
        return SpreadRows<0>(row, stride, shift, vision, obs);
    }
  }

  template <uint32_t kVision>
  PJX_HD static void SpreadRows(const uint8_t* row, uint32_t stride, uint32_t shift, uint32_t any_vision, Obs* obs) {
    const uint32_t vision = kVision ? kVision : any_vision;
#ifdef PJX_GPU_FORMS
    PJX_UNROLL  // of the usual size: its loads wait together
        for (uint32_t i = 0; i < vision; ++i, row += stride, obs += vision) {
      const uint32_t bits = LoadBits(row, shift);
      for (uint32_t j = 0; j < vision; ++j) obs[j] = static_cast<uint8_t>(bits >> j & 1);
    }
#else
    uint8_t* out = obs;
    // Whole words may run into the next row of the window, which is written afterwards; the last row must not.
    for (uint32_t i = 0; i + 1 < vision; ++i, row += stride, out += vision) {
      uint64_t bits = Load64(row) >> shift;
      for (uint32_t j = 0; j < vision; j += 8, bits >>= 8) {
        // Two rows at least are left here; only the word of a window of side 3 could reach past both.
        const uint64_t cells = SpreadBits(bits & 0xFF);
        memcpy(out + j, &cells, kVision == 3 ? 6 : 8);
      }
    }
    uint64_t bits = Load64(row) >> shift;
    uint32_t j = 0;
    for (; j + 8 <= vision; j += 8, bits >>= 8) {
      const uint64_t cells = SpreadBits(bits & 0xFF);
      memcpy(out + j, &cells, 8);
    }
    for (; j < vision; ++j, bits >>= 1) out[j] = bits & 1;
#endif
  }

  // The 31 bits, or more, from bit `shift` < 8 on, by two aligned words: those of a window's row and of the spare
  // bytes.
  PJX_HD static uint32_t LoadBits(const uint8_t* from, uint32_t shift) {
    const uint32_t ahead = reinterpret_cast<uintptr_t>(from) % 4;  // walls begin at an aligned address
    const auto* words = reinterpret_cast<const uint32_t*>(from - ahead);
    const uint64_t both = static_cast<uint64_t>(words[1]) << 32 | words[0];
    return static_cast<uint32_t>(both >> (8 * ahead + shift));
  }

  PJX_HD static uint64_t Load64(const uint8_t* from) {
    uint64_t word;
    memcpy(&word, from, sizeof(word));
    return word;
  }

  // Where Step and Observe will read outside the state, so that the executor can fetch it early. The state may still be
  // anything here: this computes an address and reads nothing. A maze of its own lies in the state, which is read in
  // order.
  PJX_HD static uintptr_t ReadsSoon(const State& s, const Params& p) {
    return reinterpret_cast<uintptr_t>(p.levels) + static_cast<uint64_t>(s.level) * p.level_bytes + s.y * p.stride;
  }

  static const uint8_t*& SharedData(Params& p) { return p.levels; }
  static int64_t SharedBytes(const Params& p) { return static_cast<int64_t>(p.num_mazes) * p.level_bytes; }

  // --- trust ---------------------------------------------------------------------------------------------------------
  // What step and observe need so as never to leave their memory, whatever bytes the caller calls a state.
  PJX_HD static bool IsSafe(const State& s, const Params& p) {
    return IsInside(s.x, s.y, p) && (p.num_mazes == 0 || s.level < p.num_mazes);
  }

  // Why a snapshot cannot have come from this simulator with these parameters, or null.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    if (p.num_mazes ? s.level >= p.num_mazes : s.level != 0) return "level is out of range";
    if (!IsInside(s.x, s.y, p)) return "the agent is outside the grid";
    if (s.tick >= p.step_limit) return "the clock is past the step limit";
    if (s.unused != 0) return "the reserved bytes are not zero";
    const uint8_t* walls = Walls(s, p);
    if (p.num_mazes == 0) {
      for (uint32_t i = 0; i < p.size; ++i) {
        if (!IsWall(walls, p, i, 0) || !IsWall(walls, p, i, p.size - 1) || !IsWall(walls, p, 0, i) ||
            !IsWall(walls, p, p.size - 1, i)) {
          return "the maze is not closed by walls";
        }
      }
      if (IsWall(walls, p, p.size - 2, p.size - 2)) return "the goal is in a wall";
      uint32_t inside = 0, total = 0;
      for (uint32_t y = 0; y < p.size; ++y) {
        for (uint32_t x = 0; x < p.size; ++x) inside += IsWall(walls, p, x, y);
      }
      for (uint32_t i = 0; i < p.level_bytes; ++i) {
        for (uint32_t bits = walls[i]; bits; bits &= bits - 1) ++total;
      }
      if (total != inside) return "there are walls outside the maze";
    }
    if (IsWall(walls, p, s.x, s.y)) return "the agent is in a wall";
    if (s.x == p.size - 2 && s.y == p.size - 2) return "the agent is already at the goal";
    return nullptr;
  }
};

}  // namespace pjx
