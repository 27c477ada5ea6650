// What a maximum over entities is, for every platform: which score wins, and how the winner's number is stored.
#pragma once

#include <cmath>

#include "xla_ops/common/float_bits.h"

namespace pjx {

// Of one lane. Without a first layer the units are the features.
struct EntitySizes {
  int64_t rows, entities, features, units, hidden;  // R, N, D, P, H
};

// Whether a score takes over from the best so far, entities coming in the order of their numbers. A tie keeps the
// lowest number; NaN beats every number, and the first NaN keeps its place. The best so far begins as minus infinity
// with the number of the first entity present.
PJX_HD bool Takes(float score, float best) { return (score > best) | ((score != score) & (best == best)); }

// For kernels that fold with one instruction: the larger of two; if one is NaN, NaN of always the same bits. A score
// takes over where these bits differ from the best's: as Takes has it, but that 0 beats -0.
PJX_HD float LargerOrNan(float a, float b) {
#ifdef __CUDA_ARCH__
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#else
  if (a != a || b != b) return NAN;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
#endif
}
PJX_HD bool SameBits(float a, float b) { return BitsOf(a) == BitsOf(b); }

// Takes and its consequences in one instruction, or four where the winner's number is wanted; -0 is made 0 before, so
// that equals have equal bits. NaN loses its bits.
template <bool kSaves>
PJX_HD void FoldScore(float score, int32_t number, float& best, int32_t& winner) {
  if constexpr (kSaves) {
    const float larger = LargerOrNan(best, score + 0.0f);
    winner = SameBits(larger, best) ? winner : number;
    best = larger;
  } else {
    best = LargerOrNan(best, score);
  }
}

// As jnp.maximum(x, 0): NaN stays NaN. Its derivative is 1 where the result is positive, else 0, also at 0 and NaN.
PJX_HD float Relu(float x) { return x <= 0.0f ? 0.0f : x; }
PJX_HD float ReluBackward(float result, float cotangent) { return result > 0.0f ? cotangent : 0.0f; }

// Bytes of the unsigned type that numbers entities: u8, u16, or i32, whose values are then all positive.
PJX_HD int NumberBytes(int64_t num_entities) { return num_entities <= 256 ? 1 : num_entities <= 65536 ? 2 : 4; }

}  // namespace pjx
