// MiniGrid: rooms, doors, keys, balls, boxes, lava and a goal, seen 7 x 7 cells ahead. The rules of the Python package
// minigrid 3; its levels are drawn in levels.h.
//
// Actions: 0 turn left, 1 turn right, 2 forward (walls, things and doors that are not open block), 3 pick up what is
// ahead (keys, balls, boxes; one at a time), 4 drop it onto an empty cell ahead, 5 toggle what is ahead (a door opens
// and closes, a locked one opens with a key of its colour in hand, which stays there; of a box is left what was in it),
// 6 nothing. An episode ends on the goal, with the task's thing in hand, or with the task's door open: reward
// 1 - 0.9 t / max_steps, t the number of its steps, perf 1. It ends without reward on lava, where the blue door is
// opened before the red one, and after max_steps steps (truncated). score is the return.
//
// The observation is what the package shows as `image`: obs[i, j] = (object, colour, state) of the cell i - 3 to the
// right of the agent and 6 - j ahead of it; unseen cells are (0, 0, 0), outside is wall, and where the agent is there
// is what it carries. Sight is that of envs/common/sight.h: walls and doors that are not open hide what is behind them.
// The mission is not shown: in none of these tasks does anything but the thing to fetch have its type and colour.
#pragma once

#include <cstring>

#include "envs/common/sight.h"
#include "envs/common/simulator.h"

namespace pjx {

struct MiniGrid : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr int kView = Sight::kView;
  static constexpr uint32_t kMaxMaxSteps = 1 << 24, kMaxLevels = 1 << 20;

  enum Family : uint32_t {
    kEmptyRoom,
    kDoorKey,
    kMultiRoom,
    kKeyCorridor,
    kUnlock,
    kUnlockPickup,
    kBlockedUnlockPickup,
    kObstructedMaze,
    kCrossing,
    kRedBlueDoors,
    kNumFamilies
  };
  // What `flags` are sums of. One number means something else in each family.
  static constexpr uint32_t kRandomStart = 1;                           // of the agent, in an empty room
  static constexpr uint32_t kWallsCross = 1;                            // instead of lava
  static constexpr uint32_t kKeysInBoxes = 1, kDoorsBlocked = 2;        // in obstructed mazes
  static constexpr uint32_t kKeysAfterBalls = 4, kStartsAtTheSide = 8;  // likewise

  // Followed in the row by grid_bytes of cells, one byte each, row by row; zeros behind the last.
  struct State {
    uint32_t tick;     // steps since the episode began, [0, max_steps)
    uint8_t x, y;      // y grows downwards
    uint8_t heading;   // 0 east, 1 south, 2 west, 3 north
    uint8_t carrying;  // code of a key, ball or box, or 0
    uint8_t target;    // code of what is to be fetched, or 0
    uint8_t unused[7];
  };
  static_assert(sizeof(State) == 16, "rows stay 16-byte aligned and free of padding");

  struct Params {
    uint32_t family;  // a Family
    uint32_t size;    // side of the grid, or of its rooms with both walls; of several rooms the greatest
    uint32_t rows;    // of rooms
    uint32_t count;   // of rooms one after the other, of crossing rivers, of quarters with doors; or 0
    uint32_t flags;
    uint32_t max_steps;          // 1..kMaxMaxSteps
    uint32_t see_through_walls;  // 0 or 1
    uint32_t num_levels;         // that all environments share; 0: a new one for every episode
    uint64_t seed;               // of these
    const uint8_t* levels;       // [num_levels, row_bytes], states, read-only; null when num_levels is 0
    // Derived.
    uint32_t columns;  // of rooms
    uint32_t width, height, grid_bytes, row_bytes;

    PJX_HD void Derive() {
      const bool is_large = family == kObstructedMaze && count > 0;
      if (family == kObstructedMaze) rows = is_large ? 3 : 1;
      columns = family == kKeyCorridor || is_large ? 3 : 2;
      if (family == kMultiRoom) {
        width = height = 25;
      } else if (family >= kKeyCorridor && family <= kObstructedMaze) {
        width = columns * (size - 1) + 1, height = rows * (size - 1) + 1;
      } else {
        width = family == kRedBlueDoors ? 2 * size : size, height = size;
      }
      // A line of the view is fetched as eight bytes, up to six of them behind the last cell.
      grid_bytes = (width * height + 6 + 15) / 16 * 16;
      row_bytes = static_cast<uint32_t>(sizeof(State)) + grid_bytes;
    }
  };

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {kView, kView, 3}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.max_steps; }
  PJX_HD static int64_t ExtraStateBytes(const Params& p) { return p.grid_bytes; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 7; }

  // --- codes of cells ------------------------------------------------------------------------------------------------
  // A kind times eight plus a colour. What can be seen through has the highest bit, so that an unlocked door changes
  // by it; what can be picked up is above all else.
  static constexpr uint8_t kSeeThrough = 0x80;
  static constexpr uint8_t kWall = 0x00, kClosed = 0x08, kLocked = 0x10;  // doors
  static constexpr uint8_t kFree = 0x80, kOpen = 0x88, kGoal = 0x90, kLava = 0x98;
  static constexpr uint8_t kKey = 0xA0, kBall = 0xA8, kBox = 0xC0;
  static constexpr uint8_t kWithKey = 0x08;  // to a box, times one plus the colour of the key
  static constexpr uint8_t kUnseen = 0xFF;
  enum Colour : uint32_t { kRed, kGreen, kBlue, kPurple, kYellow, kGrey, kColours };

  PJX_HD static uint32_t KindOf(uint32_t code) { return code & 0xF8; }
  PJX_HD static uint32_t ColourOf(uint32_t code) { return code & 7; }
  PJX_HD static uint8_t Coloured(uint8_t kind, uint32_t colour) { return static_cast<uint8_t>(kind + colour); }
  PJX_HD static bool CanEnter(uint32_t code) { return code - kFree < uint32_t{kKey - kFree}; }
  PJX_HD static bool CanPickUp(uint32_t code) { return code >= kKey; }
  PJX_HD static bool IsCode(uint32_t code) {
    const uint32_t kind = KindOf(code);
    if (kind == kWall || kind == kFree || kind == kGoal || kind == kLava) return ColourOf(code) == 0;
    const bool is_kind = kind == kClosed || kind == kLocked || kind == kOpen || kind == kKey || kind == kBall ||
                         (kind >= kBox && kind <= kBox + kWithKey * kColours);
    return is_kind && ColourOf(code) < kColours;
  }

  // Object, colour and state of a code as three bytes, the first the lowest.
  PJX_HD static constexpr uint32_t Shown(uint32_t code) {
    const uint32_t kind = code & 0xF8, colour = (code & 7) << 8;
    return kind == kWall     ? 2 | kGrey << 8
           : kind == kClosed ? 4 | colour | 1 << 16
           : kind == kLocked ? 4 | colour | 2 << 16
           : kind == kFree   ? 1
           : kind == kOpen   ? 4 | colour
           : kind == kGoal   ? 8 | kGreen << 8
           : kind == kLava   ? 9 | kRed << 8
           : kind == kKey    ? 5 | colour
           : kind == kBall   ? 6 | colour
           : kind == 0xF8    ? 0
                             : 7 | colour;
  }

  // --- the grid ------------------------------------------------------------------------------------------------------
  PJX_HD static uint8_t* Cells(State& s) { return reinterpret_cast<uint8_t*>(&s) + sizeof(State); }
  PJX_HD static const uint8_t* Cells(const State& s) { return reinterpret_cast<const uint8_t*>(&s) + sizeof(State); }

  // Two bits per heading hold the displacement plus one.
  PJX_HD static int Dx(uint32_t heading) { return static_cast<int>(0x46u >> (2 * heading) & 3) - 1; }
  PJX_HD static int Dy(uint32_t heading) { return static_cast<int>(0x19u >> (2 * heading) & 3) - 1; }

  PJX_HD static bool IsInside(uint32_t x, uint32_t y, const Params& p) {  // of the border
    return (x - 1 < p.width - 2) & (y - 1 < p.height - 2);
  }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static void Draw(State& s, const Params& p, Philox& random);  // levels.h

  PJX_HD static void Reset(State& s, const Params& p, Philox& random) {
    if (p.num_levels == 0) return Draw(s, p, random);
    CopyWords(&s, p.levels + static_cast<uint64_t>(random.Below(p.num_levels)) * p.row_bytes, p.row_bytes);
  }

  static const uint8_t*& SharedData(Params& p) { return p.levels; }
  static int64_t SharedBytes(const Params& p) { return static_cast<int64_t>(p.num_levels) * p.row_bytes; }

  // Sets the clock to a uniformly random time, so that environments that start together do not time out together.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) { s.tick = random.Below(p.max_steps); }

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& /*random*/, float* rewards) {
    const uint32_t x = s.x + Dx(s.heading), y = s.y + Dy(s.heading);
    uint8_t& ahead = Cells(s)[y * p.width + x];
    bool is_solved = false, is_lost = false;
    switch (actions[0]) {
      case 0:
        s.heading = (s.heading + 3) % 4;
        break;
      case 1:
        s.heading = (s.heading + 1) % 4;
        break;
      case 2:
        if (!CanEnter(ahead) || !IsInside(x, y, p)) break;
        s.x = static_cast<uint8_t>(x), s.y = static_cast<uint8_t>(y);
        is_solved = ahead == kGoal;
        is_lost = ahead == kLava;
        break;
      case 3:
        if (!CanPickUp(ahead) || s.carrying) break;
        s.carrying = ahead;
        ahead = kFree;
        is_solved = s.carrying == s.target;
        break;
      case 4:
        if (ahead != kFree || !s.carrying) break;
        ahead = s.carrying;
        s.carrying = 0;
        break;
      case 5:
        ahead = Toggled(ahead, s.carrying);
        if (KindOf(ahead) == kOpen) {
          is_solved = p.family == kUnlock || (ahead == kOpen + kBlue && HasRedDoorOpen(s, p));
          is_lost = p.family == kRedBlueDoors && ahead == kOpen + kBlue && !is_solved;
        }
        break;
      default:
        break;
    }
    ++s.tick;
    Outcome outcome{};
    outcome.terminated = is_solved | is_lost;
    outcome.truncated = !outcome.terminated && s.tick >= p.max_steps;
    rewards[0] = 0.0f;
    if (is_solved) {
      rewards[0] = static_cast<float>(1.0 - 0.9 * (static_cast<double>(s.tick) / p.max_steps));
      outcome.perf = 1.0f;
    }
    outcome.episode_return = outcome.score = rewards[0];
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  PJX_HD static uint8_t Toggled(uint8_t code, uint8_t carrying) {
    const uint32_t kind = KindOf(code), colour = ColourOf(code);
    if (kind == kClosed || kind == kOpen) return code ^ kSeeThrough;
    if (kind == kLocked) return carrying == kKey + colour ? Coloured(kOpen, colour) : code;
    if (kind < kBox) return code;
    return kind == kBox ? kFree : Coloured(kKey, (kind - kBox) / kWithKey - 1);
  }

  // Of red and blue doors: the red one is in the left wall of the middle room.
  PJX_HD static bool HasRedDoorOpen(const State& s, const Params& p) {
    if (p.family != kRedBlueDoors) return false;
    const uint8_t* const wall = Cells(s) + p.size / 2;
    bool is_open = false;
    for (uint32_t y = 1; y < p.height - 1; ++y) is_open |= wall[y * p.width] == kOpen + kRed;
    return is_open;
  }

  // --- the view ------------------------------------------------------------------------------------------------------
  PJX_HD static uint64_t Reversed(uint64_t bytes) {
#ifdef __CUDA_ARCH__
    const uint64_t low = __byte_perm(static_cast<uint32_t>(bytes >> 32), 0, 0x0123);
    return static_cast<uint64_t>(__byte_perm(static_cast<uint32_t>(bytes), 0, 0x0123)) << 32 | low;
#else
    return __builtin_bswap64(bytes);
#endif
  }

  // Byte j of word i becomes byte i of word j.
  PJX_HD static void Transpose(uint64_t* words) {
    for (int half = 4; half > 0; half /= 2) {
      const uint64_t low = half == 4 ? 0x00000000FFFFFFFF : half == 2 ? 0x0000FFFF0000FFFF : 0x00FF00FF00FF00FF;
      for (int i = 0; i < 8; ++i) {
        if (i & half) continue;
        const uint64_t changed = (words[i] >> (8 * half) ^ words[i + half]) & low;
        words[i + half] ^= changed;
        words[i] ^= changed << (8 * half);
      }
    }
  }

  // The codes of the cells in view: byte j of columns[i] is cell (i, j). The eighth column means nothing.
  PJX_HD static void LookAhead(const State& s, const Params& p, uint64_t* columns) {
    constexpr int kAhead = Sight::kAhead, kSide = Sight::kSide;
    const uint32_t heading = s.heading;
    const bool along_x = heading % 2 == 0;
    const int left = s.x - (heading == 0 ? 0 : heading == 2 ? kAhead : kSide);
    const int top = s.y - (heading == 1 ? 0 : heading == 3 ? kAhead : kSide);
    const int width = static_cast<int>(p.width), height = static_cast<int>(p.height);
    // Columns of the grid outside of it become walls, which are zeros.
    const int past = left + kView - width;
    uint64_t inside = ~uint64_t{0} >> (8 + (past > 0 ? 8 * past : 0));
    if (left < 0) inside &= ~uint64_t{0} << (-8 * left);
    // Looking north, the lines of the grid are the rows of the view; the other ways they are turned.
    const bool bottom_up = heading == 1 || heading == 2, right_to_left = heading < 2;
    const uint8_t* const corner = Cells(s) + top * width + left;
    for (int i = 0; i < kView; ++i) {
      const int line = bottom_up ? kAhead - i : i;
      const bool is_line = static_cast<uint32_t>(top + line) < static_cast<uint32_t>(height);
      uint64_t cells = 0;
      if (is_line) memcpy(&cells, corner + line * width, sizeof(cells));
      cells &= inside;
      columns[i] = right_to_left ? Reversed(cells) >> 8 : cells;
    }
    columns[kView] = 0;
    if (!along_x) Transpose(columns);
  }

  PJX_HD static void Observe(const State& s, const Params& p, Obs* obs) {
    constexpr uint64_t kLowest = 0x0001010101010101;  // bit of each byte
    uint64_t columns[kView + 1];
    LookAhead(s, p, columns);
    uint64_t seen = ~uint64_t{0};  // bit 8 * j + i
    if (!p.see_through_walls) {
      uint64_t walls = 0;
      for (int i = 0; i < kView; ++i) walls |= (~columns[i] >> 7 & kLowest) << i;
      seen = Sight::SeenByRows(walls);
    }
    for (int i = 0; i < kView; ++i) {
      uint64_t codes = columns[i] | ~((seen >> i & kLowest) * 0xFF);  // kUnseen has all bits
      if (i == Sight::kSide) {
        constexpr int kShift = 8 * Sight::kAhead;
        const uint64_t own = s.carrying ? s.carrying : kFree;
        codes = (codes & ~(uint64_t{0xFF} << kShift)) | own << kShift;
      }
      Write(codes, obs + 3 * kView * i, i == kView - 1);
    }
  }

  // Of a column.
  PJX_HD static void Write(uint64_t codes, Obs* out, bool is_last) {
#ifdef PJX_GPU_FORMS
    for (int j = 0; j < kView; ++j, codes >>= 8, out += 3) {
      const uint32_t shown = Shown(codes & 0xFF);
      for (int i = 0; i < 3; ++i) out[i] = static_cast<uint8_t>(shown >> (8 * i));
    }
    (void)is_last;
#else
    struct Table {
      uint32_t shown[256];
      constexpr Table() : shown() {
        for (uint32_t code = 0; code < 256; ++code) shown[code] = Shown(code);
      }
    };
    static constexpr Table kTable;
    // The fourth byte of each cell is where the next one begins, which is written afterwards; not that of the last.
    for (int j = 0; j < kView - 1; ++j, codes >>= 8, out += 3) memcpy(out, &kTable.shown[codes & 0xFF], 4);
    memcpy(out, &kTable.shown[codes & 0xFF], is_last ? 3 : 4);
#endif
  }

  // --- trust ---------------------------------------------------------------------------------------------------------
  PJX_HD static bool IsSafe(const State& s, const Params& p) { return IsInside(s.x, s.y, p) & (s.heading < 4); }

  // Why a snapshot cannot have come from this simulator with these parameters, or null.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    if (!IsInside(s.x, s.y, p)) return "the agent is outside the grid";
    if (s.heading >= 4) return "the heading is not 0 to 3";
    if (s.tick >= p.max_steps) return "the clock is past the step limit";
    for (const uint8_t byte : s.unused) {
      if (byte) return "the reserved bytes are not zero";
    }
    const uint8_t* const cells = Cells(s);
    const uint32_t num_cells = p.width * p.height;
    uint32_t goals = 0;
    bool has_open_door = false, has_blue_door_open = false;
    for (uint32_t y = 0, i = 0; y < p.height; ++y) {
      for (uint32_t x = 0; x < p.width; ++x, ++i) {
        const uint32_t code = cells[i];
        if (!IsCode(code)) return "a cell holds what there is not";
        const bool may_be_border = code == kWall || (p.family == kMultiRoom && code == kFree);
        if (!IsInside(x, y, p) && !may_be_border) return "the border is not of walls";
        goals += code == kGoal;
        has_open_door |= KindOf(code) == kOpen;
        has_blue_door_open |= code == kOpen + kBlue;
      }
    }
    for (uint32_t i = num_cells; i < p.grid_bytes; ++i) {
      if (cells[i]) return "the reserved bytes are not zero";
    }
    const uint32_t under = cells[s.y * p.width + s.x];
    if (under == kGoal) return "the agent is already at the goal";
    if (under != kFree && KindOf(under) != kOpen) return "the agent is where it cannot stand";
    if (goals != (HasGoal(p) ? 1u : 0u)) return "the goal contradicts the task";
    if (!IsTarget(s.target, p)) return "the target contradicts the task";
    if (s.carrying && (!CanPickUp(s.carrying) || !IsCode(s.carrying))) return "what is carried cannot be";
    if (s.carrying && s.carrying == s.target) return "the agent already has the target";
    if (p.family == kUnlock && has_open_door) return "the door is already open";
    if (p.family == kRedBlueDoors && has_blue_door_open) return "the blue door is already open";
    return nullptr;
  }

  PJX_HD static bool HasGoal(const Params& p) {
    return p.family == kEmptyRoom || p.family == kDoorKey || p.family == kMultiRoom || p.family == kCrossing;
  }
  PJX_HD static bool IsTarget(uint32_t code, const Params& p) {
    const bool has_colour = ColourOf(code) < kColours;
    if (p.family == kKeyCorridor) return KindOf(code) == kBall && has_colour;
    if (p.family == kUnlockPickup || p.family == kBlockedUnlockPickup) return KindOf(code) == kBox && has_colour;
    return code == (p.family == kObstructedMaze ? uint32_t{kBall} + kBlue : 0u);
  }
};

}  // namespace pjx
