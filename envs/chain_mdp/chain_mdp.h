// A chain of states with a small reward beside the start and a large one at the far end.
//
// `num_states` states in a row; an episode begins in state 1. Actions: 0 left, 1 right; the ends stop a move. The
// reward of a step is 0.001 if it ends in state 0, 1 if it ends in the last state, else 0. Episodes are truncated after
// num_states + 9 steps: enough to reach the last state and to stay there for 12 steps, or to err a few times. perf is 1
// if the last step was rewarded with 1. The observation is the number of the state.
#pragma once

#include "envs/common/simulator.h"

namespace pjx {

struct ChainMdp : SimulatorDefaults {
  using Obs = uint8_t;
  static constexpr int kMinStates = 3, kMaxStates = 256;

  struct Params {
    uint32_t num_states;  // kMinStates..kMaxStates
    uint32_t step_limit;  // derived

    PJX_HD void Derive() { step_limit = num_states + 9; }
  };

  struct State {
    uint32_t tick;         // steps since the episode began, [0, step_limit)
    uint32_t thousandths;  // of reward since the episode began
    uint32_t position;     // [0, num_states)
  };
  static_assert(sizeof(State) == 12, "rows are free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {1}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.step_limit; }
  PJX_HD static int32_t NumActions(const Params&, int /*head*/) { return 2; }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static void Reset(State& s, const Params&, Philox& /*random*/) { s = State{0, 0, 1}; }

  // Sets the clock to a uniformly random time: all episodes are equally long, and would end together for ever.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) { s.tick = random.Below(p.step_limit); }

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& /*random*/, float* rewards) {
    const uint32_t last = p.num_states - 1;
    // No branch on the action, which is unpredictable.
    const uint32_t right = static_cast<uint32_t>(actions[0]) & (s.position < last);
    const uint32_t left = (1u - static_cast<uint32_t>(actions[0])) & (s.position > 0);
    s.position = s.position + right - left;
    const uint32_t thousandths = (s.position == 0 ? 1u : 0u) + (s.position == last ? 1000u : 0u);
    s.thousandths += thousandths;
    ++s.tick;
    rewards[0] = static_cast<float>(thousandths) / 1000.0f;
    Outcome outcome{};
    outcome.truncated = s.tick >= p.step_limit;
    outcome.episode_return = outcome.score = static_cast<float>(s.thousandths) / 1000.0f;
    outcome.perf = s.position == last ? 1.0f : 0.0f;
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  PJX_HD static void Observe(const State& s, const Params&, Obs* obs) { obs[0] = static_cast<uint8_t>(s.position); }

  // --- trust ---------------------------------------------------------------------------------------------------------
  PJX_HD static bool IsSafe(const State& s, const Params& p) { return s.position < p.num_states; }

  // Why a snapshot cannot have come from this simulator with these parameters, or null. A restart may have set the
  // clock back to 0, so the reward may be more than the clock has seen.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    if (s.position >= p.num_states) return "the position is not on the chain";
    if (s.tick >= p.step_limit) return "the clock is past the step limit";
    return nullptr;
  }
};

}  // namespace pjx
