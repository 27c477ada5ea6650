// The logistic function, the same on the CPU and the GPU but for contracted multiply-adds.
#pragma once

#include "xla_ops/common/float_bits.h"

namespace pjx {

// 1 / (1 + exp(-x)) without branches, so that loops over it vectorise. Relative error below 4e-7 for x > -87.3; 0
// below about -88.4, where the true value is subnormal; right at both infinities; NaN stays NaN.
PJX_HD_INLINE float Sigmoid(float x) {
  // exp(-x) = 2^n exp(-r), n = round(-x / ln 2), r = x + n ln 2, |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an
  // integer and leaves it in the low bits; + 127 is the exponent's bias.
  constexpr float kShift = 12582912.0f + 127.0f;
  const int32_t bits = static_cast<int32_t>(BitsOf(kShift - x * 1.44269504f));
  const float shifted = FloatOf(static_cast<uint32_t>(bits < 0x4B4000FF ? bits : 0x4B4000FF));  // n <= 128: 2^n = inf
  const float n = shifted - kShift;
  float r = x + n * 0.693359375f;  // ln 2 in two parts: the first product is exact
  r = r + n * -2.12194440e-4f;
  // exp(-r): the polynomial of least relative error (9e-8) with constant term 1, fitted by Lawson's iteration.
  float exp_r = -0.008290272206068039f;
  exp_r = exp_r * r + 0.04189816117286682f;
  exp_r = exp_r * r - 0.1666763871908188f;
  exp_r = exp_r * r + 0.4999914765357971f;
  exp_r = exp_r * r - 0.9999997019767761f;
  exp_r = exp_r * r + 1.0f;
  const float result = 1.0f / (1.0f + exp_r * FloatOf(BitsOf(shifted) << 23));
  return x > 87.0f ? 1.0f : result;  // above that, n leaves the range of exponents
}

}  // namespace pjx
