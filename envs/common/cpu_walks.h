// Random walks on XLA's thread pool, kAbreast environments at a time on each thread.
#pragma once

#include <algorithm>
#include <vector>

#include "envs/common/cpu_rows.h"
#include "envs/common/random_walk.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

// The snapshots are zeros. Threads have rings of their own, which stay in their caches.
template <typename E>
ffi::Error RandomWalk(ffi::ThreadPool& pool, const EnvBatch<E>& batch, const uint32_t* keys, uint8_t* states,
                      int64_t num_steps, const WalkMemory& memory, const WalkResults& results) {
  constexpr int64_t kAbreast = 8;
  const int64_t kept = memory.capacity * batch.stride;  // bytes per row
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
      WalkAbreast(batch.params, batch.stride, walkers.data(), static_cast<int>(last - first), num_steps, memory,
                  [&](typename E::State& s, Philox& random) { E::Reset(s, batch.params, random); });
      for (int64_t row = first; row < last; ++row) {
        results.counts[row] = walkers[row - first].count;
        results.rewarded[row] = walkers[row - first].rewarded;
      }
    }
  });
  return AllAreStates("random_walk", bad_row);
}

}  // namespace pjx
