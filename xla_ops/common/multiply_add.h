// How fast this machine multiplies and adds: the roof of an op that is arithmetic.
#pragma once

#include <chrono>
#include <cstring>

#include "xla_ops/common/simd.h"

namespace pjx {

// kChains sums that do not wait for each other: enough for the latency of the instruction on every core, few enough for
// the registers of every level.
template <typename Level>
PJX_INLINE float MultiplyAdds(int64_t turns, float factor) {
  using F = typename Level::Values;
  constexpr int kChains = 12;
  F sum[kChains], factors = F{} + factor;
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = F{} + static_cast<float>(i);
  for (int64_t turn = 0; turn < turns; ++turn) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * factors + factors;
  }
  F total{};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) total += sum[i];
  float first;
  std::memcpy(&first, &total, sizeof first);
  return first;
}
PJX_KERNEL(MultiplyAddsAt, (int64_t turns, float factor, float* result, int64_t* per_turn), {
  *result = MultiplyAdds<Level>(turns, factor);
  *per_turn = 12 * 2 * kLevelLanes<Level>;
})

// Floating-point operations per second of the calling thread with vectors of the level in use, over about `seconds`.
inline double MultiplyAddSpeed(double seconds) {
  using Clock = std::chrono::steady_clock;
  volatile float factor = 0.5f;  // unknown to the compiler
  [[maybe_unused]] volatile float sink = 0.0f;
  const auto begin = Clock::now();
  for (int64_t turns = 0;;) {
    constexpr int64_t kTurns = 1 << 16;
    float result;
    int64_t per_turn;
    MultiplyAddsAt(kTurns, float{factor}, &result, &per_turn);
    sink = result;
    turns += kTurns;
    const double passed = std::chrono::duration<double>(Clock::now() - begin).count();
    if (passed >= seconds) return static_cast<double>(turns * per_turn) / passed;
  }
}

}  // namespace pjx
