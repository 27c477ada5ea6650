// bfloat16 as bits, for code that stores it and computes in float32.
#pragma once

#include "xla_ops/common/float_bits.h"

namespace pjx {

PJX_HD float FloatOfBfloat16(uint16_t half) { return FloatOf(static_cast<uint32_t>(half) << 16); }

// The nearest one, ties to even, as XLA converts; NaN stays NaN.
PJX_HD uint16_t Bfloat16Of(float x) {
  const uint32_t bits = BitsOf(x);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(x != x ? (bits >> 16) | 0x40u : rounded);
}

// Two of them in a word, `low` in its lower half.
PJX_HD uint32_t Bfloat16PairOf(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return Bfloat16Of(low) | static_cast<uint32_t>(Bfloat16Of(high)) << 16;
#endif
}

// For code that is a template over how numbers are stored: as float or as the bits of a bfloat16.
PJX_HD float Widen(float x) { return x; }
PJX_HD float Widen(uint16_t half) { return FloatOfBfloat16(half); }
PJX_HD void Narrow(float x, float* to) { *to = x; }
PJX_HD void Narrow(float x, uint16_t* to) { *to = Bfloat16Of(x); }

}  // namespace pjx
