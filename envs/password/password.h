// A secret word guessed symbol by symbol, where the first wrong guess ends the episode.
//
// The word has `length` symbols out of nine and is the same for ever: x <- 1664525 x + 1013904223 mod 2^32 from x = 42,
// each symbol is 1 + x mod 9. Action a guesses symbol 1 + a. Right: reward 1, and the episode ends with the last
// symbol. Wrong: reward -1 and the end. The observation is the word as far as it is known, 0 beyond. Random play knows
// k symbols with probability 9^-k, so the depth of the end of an episode measures exploration.
#pragma once

#include <cstring>

#include "envs/common/simulator.h"

namespace pjx {

struct Password : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr int kNumSymbols = 9;
  static constexpr int kMaxLength = 512;

  struct Params {
    uint32_t length;             // 1..kMaxLength
    uint8_t secret[kMaxLength];  // derived; 0 from `length` on

    PJX_HD void Derive() {
      uint32_t x = 42;
      for (uint32_t i = 0; i < kMaxLength; ++i) {
        x = 1664525u * x + 1013904223u;
        secret[i] = i < length ? static_cast<uint8_t>(1 + x % kNumSymbols) : 0;
      }
    }
  };

  struct State {
    uint32_t tick;      // steps since the episode began
    uint32_t position;  // symbols known, [0, length)
  };
  static_assert(sizeof(State) == 8, "rows are free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params& p) { return {p.length}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.length; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return kNumSymbols; }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static void Reset(State& s, const Params&, Philox& /*random*/) { s = State{0, 0}; }

  // Every step reveals a symbol or ends the episode: there is no time limit that episodes could reach together.
  PJX_HD static void Stagger(State&, const Params&, Philox& /*random*/) {}

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& /*random*/, float* rewards) {
    const bool is_right = actions[0] + 1 == p.secret[s.position];
    s.position += is_right;
    ++s.tick;
    rewards[0] = is_right ? 1.0f : -1.0f;
    Outcome outcome{};
    outcome.terminated = !is_right || s.position == p.length;
    // What the snapshot of a restored episode knew counts as guessed: return and depth are those of the whole word.
    outcome.episode_return = static_cast<float>(static_cast<int32_t>(s.position) - !is_right);
    outcome.episode_length = static_cast<int32_t>(s.tick);
    outcome.score = static_cast<float>(s.position);
    outcome.perf = static_cast<float>(s.position) / static_cast<float>(p.length);
    return outcome;
  }

  PJX_HD static void Observe(const State& s, const Params& p, Obs* obs) {
    memcpy(obs, p.secret, s.position);
    memset(obs + s.position, 0, p.length - s.position);
  }

  // --- trust ---------------------------------------------------------------------------------------------------------
  PJX_HD static bool IsSafe(const State& s, const Params& p) { return s.position < p.length; }

  // Why a snapshot cannot have come from this simulator with these parameters, or null. A restart may have set the
  // clock back to 0, so it may be behind the position.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    if (s.position >= p.length) return "the position is not inside the word";
    if (s.tick > s.position) return "the clock is ahead of the position";
    return nullptr;
  }
};

}  // namespace pjx
