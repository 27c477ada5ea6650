// 2048 on the 4 x 4 board.
//
// A cell holds the exponent of its tile, 0 if empty. Actions: 0 up, 1 down, 2 left, 3 right. A move slides all tiles to
// that side and merges equal neighbours, from that side on, each tile once. If it changed anything, a tile appears on a
// uniformly random empty cell: exponent 2 with probability 1/10, else 1.
//
// Reward of a move: 0.05 for every merge, and 0.03 j^1.5 (j^1.5 rounded to two decimals) more if its result has the
// exponent 6 + j; -0.05 for a move that changes nothing. When no move is left: another -1 and the end. A game that
// stalls ends as well, without the -1, once it has taken as many steps as its limit, which is 1000 at the start, and
// max(1000 max(1, best - 8), score / 4) once a move has changed something. `score` is that of the original game,
// the sum of 2^exponent over all merges. `best` is the highest exponent ever at the end of an episode of this
// environment: it is part of the state, so it outlives the episodes (Reset keeps it), and a snapshot brings its own.
// Both ends are `terminated`: how long a game may stall is one of its rules.
//
// With scaffolding an episode begins, with that probability, not with two tiles but with one or two large ones, so that
// the late game is met early: exponent max(12 + U{0..4}, best) while best < 14, and from then on, with b = 14 (15 from
// best = 16), one of {b}, {b + 1}, {b, b - 1}, {b + 1, b}. These episodes do not change `best`.
#pragma once

#include <cstring>

#include "envs/common/simulator.h"

namespace pjx {

struct G2048 : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr int kCells = 16;
  // The k-th largest tile is at most 2^(18 - k): to build it, only the other cells are left, and they begin with a 4.
  // That holds after a scaffolding start too. So the fullest board is 2^17, 2^16, ..., 2^2.
  static constexpr int kMaxExponent = 17;
  static constexpr int64_t kMaxSum = (1 << 18) - 4;
  static constexpr int64_t kMaxScore = 3932164;   // of that board, as if it had all grown from 2s
  static constexpr int32_t kRewardUnits = 10000;  // rewards and returns are counted in units of 1e-4
  static constexpr uint32_t kRatioUnits = 1u << 24;

  struct Params {
    uint32_t scaffolding;  // probability of such a start in units of 2^-24, 0..kRatioUnits
  };

  struct State {
    uint8_t cells[kCells];  // exponents, row-major
    uint32_t tick;          // steps since the episode began
    uint32_t score;
    int32_t reward_units;    // since the episode began
    uint8_t best;            // highest exponent at the end of an earlier episode; 0: none yet
    uint8_t has_moved;       // whether a move of this episode changed the board
    uint8_t is_scaffolding;  // whether it began with large tiles
    uint8_t unused;
  };
  static_assert(sizeof(State) == 32, "rows stay 16-byte aligned and free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {4, 4}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params&) { return kMaxScore / 4; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 4; }

  // --- the board -----------------------------------------------------------------------------------------------------
  // Four lines of four cells: byte i of at[k] is the cell of line i that is k-th from the side the tiles move to. All
  // lines move at once, without a branch, one byte of a word each; exponents stay far below 128.
  struct Lines {
    uint32_t at[4];
  };

  // 1 in every byte of x that is not zero, which must be below 128; and 0xFF there.
  PJX_HD static uint32_t NonZeroBytes(uint32_t x) { return (x + 0x7F7F7F7Fu) >> 7 & 0x01010101u; }
  PJX_HD static uint32_t NonZeroMask(uint32_t x) { return NonZeroBytes(x) * 0xFFu; }

  PJX_HD static Lines Transposed(const Lines& m) {
    // Two by two cells, then the cells within.
    const uint32_t a = (m.at[0] & 0x0000FFFFu) | m.at[2] << 16, b = (m.at[1] & 0x0000FFFFu) | m.at[3] << 16;
    const uint32_t c = m.at[0] >> 16 | (m.at[2] & 0xFFFF0000u), d = m.at[1] >> 16 | (m.at[3] & 0xFFFF0000u);
    return {{(a & 0x00FF00FFu) | (b & 0x00FF00FFu) << 8, (a >> 8 & 0x00FF00FFu) | (b & 0xFF00FF00u),
             (c & 0x00FF00FFu) | (d & 0x00FF00FFu) << 8, (c >> 8 & 0x00FF00FFu) | (d & 0xFF00FF00u)}};
  }

  // m transposed if `is_transposed`, without a branch on it; and likewise in reverse order.
  PJX_HD static Lines Turned(const Lines& m, bool is_transposed) {
    const Lines t = Transposed(m);
    const uint32_t mask = 0u - is_transposed;
    Lines out;
    for (int k = 0; k < 4; ++k) out.at[k] = (t.at[k] & mask) | (m.at[k] & ~mask);
    return out;
  }
  PJX_HD static Lines Flipped(const Lines& m, bool is_reversed) {
    const uint32_t mask = 0u - is_reversed;
    Lines out;
    for (int k = 0; k < 4; ++k) out.at[k] = (m.at[3 - k] & mask) | (m.at[k] & ~mask);
    return out;
  }

  // Moves the tile of cell k + 1 to cell k in the lines where k is empty.
  PJX_HD static void Fill(Lines& m, int k) {
    const uint32_t taken = NonZeroMask(m.at[k]);
    m.at[k] |= m.at[k + 1] & ~taken;
    m.at[k + 1] &= taken;
  }

  // Slides and merges; `merged` gets, for k = 0..2, the new exponents of the tiles that cell k + 1 was merged into.
  PJX_HD static void Push(Lines& m, uint32_t merged[3]) {
    Fill(m, 0), Fill(m, 1), Fill(m, 2);
    Fill(m, 0), Fill(m, 1);
    Fill(m, 0);
    for (int k = 0; k < 3; ++k) {
      const uint32_t is_merged = NonZeroMask(m.at[k]) & ~NonZeroMask(m.at[k] ^ m.at[k + 1]);
      m.at[k] += is_merged & 0x01010101u;
      merged[k] = m.at[k] & is_merged;
      // What lies behind moves up by one; the new neighbour of the merged tile meets the tile behind it, not this one.
      for (int i = k + 1; i < 4; ++i) {
        const uint32_t next = i < 3 ? m.at[i + 1] : 0;
        m.at[i] = (next & is_merged) | (m.at[i] & ~is_merged);
      }
    }
  }

  PJX_HD static bool IsOver(const Lines& m) {
    uint32_t free = 0;  // a bit per empty cell or pair of equal neighbours
    for (int k = 0; k < 4; ++k) {
      const uint32_t beside = NonZeroBytes(m.at[k] ^ m.at[k] >> 8) | 0x01000000u;  // the last column has none
      free |= (NonZeroBytes(m.at[k]) & beside) ^ 0x01010101u;
    }
    for (int k = 0; k < 3; ++k) free |= NonZeroBytes(m.at[k] ^ m.at[k + 1]) ^ 0x01010101u;
    return free == 0;
  }

  PJX_HD static Lines Load(const State& s) {
    Lines m;
    CopyWords(m.at, s.cells, sizeof m.at);
    return m;
  }

  // Puts a tile on the empty cell that a random word chooses; there must be one.
  PJX_HD static void Place(State& s, uint32_t exponent, uint32_t word) {
    uint8_t cells[kCells];
    CopyWords(cells, s.cells, sizeof cells);
    uint32_t count = 0;
    for (int i = 0; i < kCells; ++i) count += cells[i] == 0;
    const auto chosen = static_cast<uint32_t>((static_cast<uint64_t>(word) * count) >> 32);
    // No branch on the unpredictable place: it is the number of cells before the chosen empty one.
    uint32_t empty = 0, place = 0;
    for (int i = 0; i < kCells; ++i) {
      empty += cells[i] == 0;
      place += empty <= chosen;
    }
    s.cells[place % kCells] = static_cast<uint8_t>(exponent);
  }

  PJX_HD static void Spawn(State& s, Philox& random) {
    const uint32_t word = random.Next();
    Place(s, random.Below(10) == 0 ? 2 : 1, word);
  }

  // Of a merge, in units of 1e-4.
  PJX_HD static int32_t MergeReward(uint32_t exponent) {
    static constexpr int32_t kPowers[] = {100, 283, 520, 800, 1118, 1470, 1852, 2263, 2700, 3162, 3648};  // 100 j^1.5
    const int j = static_cast<int>(exponent) - 6;
    return j <= 0 ? 500 : 500 + 3 * kPowers[j < 11 ? j - 1 : 10];
  }

  PJX_HD static uint32_t MaxTile(const State& s) {
    uint32_t highest = 0;
    for (int i = 0; i < kCells; ++i) highest = s.cells[i] > highest ? s.cells[i] : highest;
    return highest;
  }

  PJX_HD static uint32_t Limit(const State& s) {
    const uint32_t by_best = s.has_moved && s.best > 9 ? 1000u * (s.best - 8u) : 1000u, by_score = s.score / 4;
    return by_best > by_score ? by_best : by_score;
  }

  // --- the simulator -------------------------------------------------------------------------------------------------
  // Keeps `best`.
  PJX_HD static void Reset(State& s, const Params& p, Philox& random) {
    const uint8_t best = s.best;
    s = State{};
    s.best = best;
    s.is_scaffolding = p.scaffolding && random.Next() >> 8 < p.scaffolding;
    if (!s.is_scaffolding) {
      Spawn(s, random);
      Spawn(s, random);
    } else if (best < 14) {
      const uint32_t exponent = 12 + random.Below(5);
      Place(s, exponent > best ? exponent : best, random.Next());
    } else {
      const uint32_t base = best >= 16 ? 15 : 14, placement = random.Below(4);  // see above, in this order
      const uint32_t first = base + placement % 2, second = placement % 2 ? base : base - 1;
      Place(s, first, random.Next());
      if (placement >= 2) Place(s, second, random.Next());
    }
  }

  // Games have no fixed length and end apart by themselves.
  PJX_HD static void Stagger(State&, const Params&, Philox& /*random*/) {}

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params&, const int32_t* actions, Philox& random, float* rewards) {
    const Lines before = Load(s);
    // Up and down have a row of cells in each word, left and right a column; down and right begin at the other end.
    const bool is_transposed = actions[0] >= 2, is_reversed = actions[0] % 2 == 1;
    Lines m = Flipped(Turned(before, is_transposed), is_reversed);
    uint32_t merged[3];
    Push(m, merged);
    m = Turned(Flipped(m, is_reversed), is_transposed);
    uint32_t changed = 0;
    for (int k = 0; k < 4; ++k) changed |= m.at[k] ^ before.at[k];
    int32_t units = -500;
    bool is_over = false;
    if (changed) {
      units = 0;
      uint32_t score = 0;
      for (uint32_t exponents : merged) {
        for (; exponents; exponents >>= 8) {
          if (const uint32_t exponent = exponents & 0xFF) {
            units += MergeReward(exponent);
            score += 1u << exponent;
          }
        }
      }
      CopyWords(s.cells, m.at, sizeof m.at);
      Spawn(s, random);
      s.score += score;
      s.has_moved = 1;
      is_over = IsOver(Load(s));
      if (is_over) units -= kRewardUnits;
    }
    ++s.tick;
    s.reward_units = static_cast<int32_t>(static_cast<uint32_t>(s.reward_units) + static_cast<uint32_t>(units));
    rewards[0] = static_cast<float>(units) / kRewardUnits;
    Outcome outcome{};
    outcome.terminated = is_over || s.tick >= Limit(s);
    if (outcome.terminated) {
      const uint32_t highest = MaxTile(s);
      if (!s.is_scaffolding && highest > s.best) s.best = static_cast<uint8_t>(highest);
      outcome.episode_return = static_cast<float>(s.reward_units) / kRewardUnits;
      outcome.episode_length = static_cast<int32_t>(s.tick);
      outcome.score = static_cast<float>(1u << (highest & 31));
      outcome.perf = 0.8f * outcome.score / 65536.0f;
      if (outcome.perf > 1.0f) outcome.perf = 1.0f;
    }
    return outcome;
  }

  PJX_HD static void Observe(const State& s, const Params&, Obs* obs) { CopyWords(obs, s.cells, kCells); }

  // --- trust ---------------------------------------------------------------------------------------------------------
  // Whatever the other fields are, nothing is addressed by them; a game that was already over has at least a cell to
  // move to, or changes nothing.
  PJX_HD static bool IsSafe(const State& s, const Params&) {
    const Lines m = Load(s);
    uint32_t above = 0;
    for (const uint32_t row : m.at) above |= (row | (row + 0x6E6E6E6Eu)) & 0x80808080u;  // 0x80 - 0x6E = 18
    return above == 0;
  }

  // Why a snapshot cannot have come from this simulator with these parameters, or null. A restart may have set the
  // clock back to 0.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    uint32_t tiles = 0;
    uint64_t sum = 0, lowest = 0, highest = 0;  // of the tiles; their score if all grew from 4s, and from 2s
    for (const uint8_t exponent : s.cells) {
      if (exponent > kMaxExponent) return "a tile is above 2^17";
      tiles += exponent > 0;
      sum += exponent ? uint64_t{1} << exponent : 0;
      if (exponent >= 2) {
        highest += static_cast<uint64_t>(exponent - 1) << exponent;
        lowest += static_cast<uint64_t>(exponent - 2) << exponent;
      }
    }
    if (s.is_scaffolding > (p.scaffolding ? 1 : 0)) return "it began with scaffolding, which is off";
    if (tiles < (s.is_scaffolding ? 1u : 2u)) return "there are too few tiles";
    if (sum > kMaxSum) return "the tiles are more than a board can hold";
    if (IsOver(Load(s))) return "no move is left";
    if (s.score > highest || s.score % 4 != 0 || (!s.is_scaffolding && s.score < lowest)) {
      return "the score does not fit the board";
    }
    if (s.best > kMaxExponent) return "the best tile is above 2^17";
    if (s.has_moved > 1 || (s.score && !s.has_moved)) return "the score does not fit the moves";
    if (s.tick >= Limit(s)) return "the clock is past the limit";
    if (s.unused != 0) return "the reserved bytes are not zero";
    return nullptr;
  }
};

}  // namespace pjx
