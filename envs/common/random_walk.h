// Uniformly random actions without observations or a policy: where do they meet a reward, and from which states?
//
// The state is remembered at the start of an episode and before every `interval`-th step from there, the last
// `num_snapshots` of the episode are kept, and those at hand when a reward comes are the result, oldest first; what
// counts as a reward is in reward_vote.h. A later reward replaces an earlier one. One step of one environment is a
// chain of dependent instructions, so a thread walks kAbreast environments at a time; each has its own random stream,
// so the grouping shows in no result.
#pragma once

#include <cstring>
#include <vector>

#include "envs/common/cpu_handlers.h"
#include "envs/common/cpu_rows.h"
#include "envs/common/reward_vote.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

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

  Walker(State* s, const Philox& stream, uint8_t* own_ring, uint8_t* result)
      : state(s), choices(0), ring(own_ring), snapshots(result), random(stream) {
    const uint64_t high = random.Next();
    choices = ChoiceRandom(high << 32 | random.Next());
  }

  void Remember(const WalkMemory& memory, int64_t stride) {
    CopyRow(ring + slot * stride, state, stride);
    if (++slot == memory.capacity) slot = 0;
    remembered = std::min(remembered + 1, memory.capacity);
    next_snapshot += memory.interval;
  }

  void KeepSnapshots(const WalkMemory& memory, int64_t stride) {
    const int64_t capacity = memory.capacity;
    ++rewarded;
    count = static_cast<int32_t>(remembered);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = slot - count + i;
      CopyRow(snapshots + i * stride, ring + (from < 0 ? from + capacity : from) * stride, stride);
    }
    std::memset(snapshots + count * stride, 0, (capacity - count) * stride);
  }

 private:
  // The usual size is known to the compiler.
  static void CopyRow(void* to, const void* from, int64_t stride) {
    if (stride == sizeof(State)) {
      std::memcpy(to, from, sizeof(State));
    } else {
      std::memcpy(to, from, stride);
    }
  }
};

// Walkers [0, width) through all steps, in lockstep.
template <typename E>
void WalkAbreast(const EnvBatch<E>& batch, Walker<E>* walkers, int width, int64_t num_steps, WalkMemory memory) {
  constexpr int kActions = E::kNumAgents * E::kNumHeads;
  const typename E::Params params = batch.params;  // see EnvsOnPool::Step
  const int64_t stride = batch.stride;
  for (int64_t t = 0; t < num_steps; t += ChoiceRandom::kPerDraw) {
    const int steps = static_cast<int>(std::min<int64_t>(ChoiceRandom::kPerDraw, num_steps - t));
    if constexpr (kActions == 1) {
      for (int g = 0; g < width; ++g) walkers[g].choices.Draw();
    }
    for (int k = 0; k < steps; ++k) {
      for (int g = 0; g < width; ++g) {
        Walker<E>& w = walkers[g];
        if (w.next_snapshot == t + k) w.Remember(memory, stride);
        int32_t action[kActions];
        for (int i = 0; i < kActions; ++i) {
          if constexpr (kActions > 1) {
            if ((k * kActions + i) % ChoiceRandom::kPerDraw == 0) w.choices.Draw();
          }
          action[i] = static_cast<int32_t>(w.choices.Below(E::NumActions(params, i % E::kNumHeads)));
        }
        float rewards[E::kNumAgents];
        const auto outcome = E::Step(*w.state, params, action, w.random, rewards);
        bool is_reward = false;
        for (const float reward : rewards) is_reward |= w.vote.Counts(reward, t + k);
        if (is_reward) w.KeepSnapshots(memory, stride);
        if (outcome.terminated || outcome.truncated) {
          E::Reset(*w.state, batch.params, w.random);
          w.slot = w.remembered = 0;
          w.next_snapshot = t + k + 1;
        }
      }
    }
  }
}

template <typename E>
ffi::Error RandomWalk(ffi::ThreadPool& pool, const EnvBatch<E>& batch, const uint32_t* keys, uint8_t* states,
                      int64_t num_steps, const WalkMemory& memory, const WalkResults& results) {
  constexpr int64_t kAbreast = 8;
  const int64_t kept = memory.capacity * batch.stride;  // bytes per row
  std::memset(results.snapshots, 0, batch.rows * kept);
  Lowest bad_row;
  ParallelFor(pool, (batch.rows + kAbreast - 1) / kAbreast, /*grain=*/1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> rings(kAbreast * kept);
    std::vector<Walker<E>> walkers;
    walkers.reserve(kAbreast);
    Streams streams(keys, batch, begin * kAbreast);
    for (int64_t group = begin; group < end; ++group) {
      walkers.clear();
      const int64_t first = group * kAbreast, last = std::min(first + kAbreast, batch.rows);
      for (int64_t row = first; row < last; ++row) {
        typename E::State& s = RowAt(states, batch, row);
        if (!E::IsSafe(s, batch.params)) return bad_row.Note(row);
        walkers.emplace_back(&s, streams.Next(), &rings[(row - first) * kept], results.snapshots + row * kept);
      }
      WalkAbreast(batch, walkers.data(), static_cast<int>(last - first), num_steps, memory);
      for (int64_t row = first; row < last; ++row) {
        results.counts[row] = walkers[row - first].count;
        results.rewarded[row] = walkers[row - first].rewarded;
      }
    }
  });
  return AllAreStates("random_walk", bad_row);
}

}  // namespace pjx
