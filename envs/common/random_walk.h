// Uniformly random actions without observations or a policy: where do they meet a reward, and from which states?
//
// The state is remembered at the start of an episode and before every `interval`-th step from there, the last
// `num_snapshots` of the episode are kept, and those at hand when a reward comes are the result, oldest first; what
// counts as a reward is in reward_vote.h. A later reward replaces an earlier one. Each environment has its own random
// stream: results depend neither on the batch nor on the platform.
#pragma once

#include "envs/common/env_rows.h"
#include "envs/common/reward_vote.h"

namespace pjx {

// How often a random walk remembers states, and how many of them.
struct WalkMemory {
  int64_t interval, capacity;
};

// What random walks leave.
struct WalkResults {
  uint8_t* snapshots;  // [rows, capacity, stride], zeros beyond the counts
  int32_t* counts;     // [rows], of the snapshots
  int32_t* rewarded;   // [rows], how often
  uint8_t* rings;      // as the snapshots: memory to work in, for those who have no other
};

// One environment on its way.
template <typename E>
struct Walker {
  using State = typename E::State;

  State* state;
  ChoiceRandom choices;
  int64_t next_snapshot = 0;  // the step before which the state is remembered
  int64_t slot = 0;           // of the ring, where the next snapshot goes
  int64_t remembered = 0;     // in the ring, of this episode
  int32_t count = 0;          // of the snapshots that are the result
  int32_t rewarded = 0;
  RewardVote vote;
  uint8_t* ring;       // [capacity, stride]
  uint8_t* snapshots;  // [capacity, stride], the result
  Philox random;

  PJX_HD Walker(State* s, const Philox& stream, uint8_t* own_ring, uint8_t* result)
      : state(s), choices(0), ring(own_ring), snapshots(result), random(stream) {
    const uint64_t high = random.Next();
    choices = ChoiceRandom(high << 32 | random.Next());
  }

  PJX_HD void Remember(const WalkMemory& memory, int64_t stride) {
    CopyRow(ring + slot * stride, state, stride);
    if (++slot == memory.capacity) slot = 0;
    if (remembered < memory.capacity) ++remembered;
    next_snapshot += memory.interval;
  }

  PJX_HD void KeepSnapshots(const WalkMemory& memory, int64_t stride) {
    const int64_t capacity = memory.capacity;
    ++rewarded;
    count = static_cast<int32_t>(remembered);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = slot - count + i;
      CopyRow(snapshots + i * stride, ring + (from < 0 ? from + capacity : from) * stride, stride);
    }
    ZeroWords(snapshots + count * stride, (capacity - count) * stride);
  }

 private:
  // The usual size is known to the compiler.
  PJX_HD static void CopyRow(void* to, const void* from, int64_t stride) {
    if (stride == sizeof(State)) {
      CopyWords(to, from, sizeof(State));
    } else {
      CopyWords(to, from, stride);
    }
  }
};

// Walkers [0, width) through all steps, in lockstep. One step of one environment is a chain of dependent instructions:
// a thread of the CPU walks several at a time. begin(state, random) begins an episode.
template <typename E, typename Begin>
PJX_HD void WalkAbreast(const typename E::Params& given, int64_t stride, Walker<E>* walkers, int width,
                        int64_t num_steps, WalkMemory memory, const Begin& begin) {
  constexpr int kActions = E::kNumAgents * E::kNumHeads;
#ifdef PJX_GPU_FORMS
  const typename E::Params& params = given;  // of the kernel, which nothing can alias
#else
  const typename E::Params params = given;  // a copy that no byte written below can alias, so it stays in registers
#endif
  for (int64_t t = 0; t < num_steps; t += ChoiceRandom::kPerDraw) {
    const int64_t left = num_steps - t;
    const int steps = static_cast<int>(left < ChoiceRandom::kPerDraw ? left : ChoiceRandom::kPerDraw);
    if constexpr (kActions == 1) {
      for (int g = 0; g < width; ++g) walkers[g].choices.Draw();
    }
    for (int k = 0; k < steps; ++k) {
      for (int g = 0; g < width; ++g) {
        Walker<E>& w = walkers[g];
        if (w.next_snapshot == t + k) w.Remember(memory, stride);
        typename E::Action action[kActions];
        for (int i = 0; i < kActions; ++i) {
          if constexpr (kActions > 1) {
            if ((k * kActions + i) % ChoiceRandom::kPerDraw == 0) w.choices.Draw();
          }
          action[i] = RandomAction<E>(params, i % E::kNumHeads, w.choices);
        }
        float rewards[E::kNumAgents];
        const auto outcome = E::Step(*w.state, params, action, w.random, rewards);
        bool is_reward = false;
        for (const float reward : rewards) is_reward |= w.vote.Counts(reward, t + k);
        if (is_reward) w.KeepSnapshots(memory, stride);
        if (outcome.terminated || outcome.truncated) {
          begin(*w.state, w.random);
          w.slot = w.remembered = 0;
          w.next_snapshot = t + k + 1;
        }
      }
    }
  }
}

}  // namespace pjx
