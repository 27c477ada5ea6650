// What one GPU thread does for one environment, over any simulator (simulator.h).
//
// A thread cannot raise an error. A row that is no state of the simulator stays as it is, is seen as zeros, and its
// reward is NaN; so is the reward of an action outside its range, which changes nothing. A random walk from such a row
// was rewarded -1 times. A snapshot that the simulator cannot have produced, or for an environment that is not there,
// is not restored.
#pragma once

#include <cmath>
#include <cstring>

#include "envs/common/simulator.h"

namespace pjx {

// Where the steps of a batch put what they say.
struct StepResults {
  float* rewards;                // [rows * kNumAgents]
  bool *terminated, *truncated;  // [rows * kNumAgents]
  float* episode_return;         // [rows]
  int32_t* episode_length;       // [rows]
  float *score, *perf;           // [rows]

  // Whether the episode of the row has ended, once this is written.
  template <int kNumAgents>
  PJX_HD bool HasEnded(int64_t row) const {
    return terminated[row * kNumAgents] || truncated[row * kNumAgents];
  }

  // All but the rewards, which the simulator writes. Returns whether the episode has ended.
  template <int kNumAgents>
  PJX_HD bool Write(int64_t row, const Outcome& outcome) const {
    const bool ended = outcome.terminated || outcome.truncated;
    for (int agent = 0; agent < kNumAgents; ++agent) {
      terminated[row * kNumAgents + agent] = outcome.terminated;
      truncated[row * kNumAgents + agent] = outcome.truncated;
    }
    episode_return[row] = ended ? outcome.episode_return : 0.0f;
    episode_length[row] = ended ? outcome.episode_length : 0;
    score[row] = ended ? outcome.score : 0.0f;
    perf[row] = ended ? outcome.perf : 0.0f;
    return ended;
  }
};

template <typename E>
struct EnvRows {
  using State = typename E::State;
  using Obs = typename E::Obs;

  typename E::Params params;
  int64_t num_envs, stride;  // per lane; bytes per row

  PJX_HD State& At(uint8_t* states, int64_t row) const { return *reinterpret_cast<State*>(states + row * stride); }
  PJX_HD const State& At(const uint8_t* states, int64_t row) const {
    return *reinterpret_cast<const State*>(states + row * stride);
  }
  PJX_HD Philox Stream(const uint32_t* keys, int64_t row) const {
    const uint32_t* key = keys + row / num_envs * 2;
    return Philox(key[0], key[1], static_cast<uint32_t>(row % num_envs));
  }
  PJX_HD int64_t ObsSize() const { return E::ObsShape(params).size() * E::kNumAgents; }  // of a row

  // Begins an episode. `work` is what the simulator's WorkBytes asks for, null for 0.
  PJX_HD void Reset(State& s, Philox& random, void* work) const {
    if constexpr (contract::kOffers<contract::WorkBytes, E>) {
      E::Reset(s, params, random, static_cast<uint16_t*>(work));
    } else {
      E::Reset(s, params, random);
    }
  }

  // `obs` is that of the row.
  PJX_HD void Observe(const uint8_t* states, Obs* obs, int64_t row) const {
    const State& s = At(states, row);
    if (E::IsSafe(s, params)) return E::Observe(s, params, obs);
    for (int64_t i = 0; i < ObsSize(); ++i) obs[i] = Obs{};
  }

  // Without an observation. An episode that ends begins anew, unless that needs working memory.
  template <bool kNeedsWork>
  PJX_HD void Step(const uint32_t* keys, uint8_t* states, const typename E::Action* actions, const StepResults& results,
                   int64_t row) const {
    State& s = At(states, row);
    const typename E::Action* action = actions + row * (E::kNumAgents * E::kNumHeads);
    float* const rewards = results.rewards + row * E::kNumAgents;
    Outcome outcome{};
    bool is_valid = E::IsSafe(s, params);
    for (int i = 0; i < E::kNumAgents * E::kNumHeads; ++i) {
      is_valid &= IsAction<E>(params, i % E::kNumHeads, action[i]);
    }
    Philox random = Stream(keys, row);
    if (is_valid) {
      outcome = E::Step(s, params, action, random, rewards);
    } else {
      for (int agent = 0; agent < E::kNumAgents; ++agent) rewards[agent] = NAN;
    }
    const bool has_ended = results.template Write<E::kNumAgents>(row, outcome);
    if constexpr (!kNeedsWork) {
      if (has_ended) Reset(s, random, nullptr);
    }
  }

  // Snapshot `index` of lanes * count into its environment. Of several for the same one the last counts, as on the CPU.
  PJX_HD void Restore(uint8_t* states, const uint8_t* snapshots, const int32_t* env_ids, int64_t count,
                      int64_t index) const {
    const int64_t lane = index / count;
    const int32_t env = env_ids[index];
    if (env < 0 || env >= num_envs) return;
    for (int64_t later = index + 1; later < (lane + 1) * count; ++later) {
      if (env_ids[later] == env) return;
    }
    const uint8_t* from = snapshots + index * stride;
    if (E::Impossible(*reinterpret_cast<const State*>(from), params) != nullptr) return;
    CopyWords(states + (lane * num_envs + env) * stride, from, stride);
  }

  PJX_HD void Stagger(const uint32_t* keys, uint8_t* states, int64_t row) const {
    State& s = At(states, row);
    Philox random = Stream(keys, row);
    if (E::IsSafe(s, params)) E::Stagger(s, params, random);
  }

  // `timeless` begins as a copy of the states, which may be anything.
  PJX_HD void Clock(uint8_t* timeless, int32_t* times, int64_t row) const {
    uint32_t& clock = E::Clock(At(timeless, row));
    times[row] = static_cast<int32_t>(clock);
    clock = 0;
  }
};

}  // namespace pjx
