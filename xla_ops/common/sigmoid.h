// The logistic function, the same on the CPU and the GPU but for contracted multiply-adds.
#pragma once

#include "xla_ops/common/float_bits.h"

namespace pjx {

// 1 / (1 + exp(-x)) without branches. F: float, or a vector of them. Relative error below 4e-7 for x > -87.3; 0 below
// about -88.4, where the true value is subnormal; right at both infinities; NaN stays NaN.
template <typename F>
PJX_HD_INLINE F Sigmoid(F x) {
  using Int = typename BitsType<F>::Int;
  using Unsigned = typename BitsType<F>::Unsigned;
  // exp(-x) = 2^n exp(-r), n = round(-x / ln 2), r = x + n ln 2, |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an
  // integer and leaves it in the low bits; + 127 is the exponent's bias.
  constexpr float kShift = 12582912.0f + 127.0f;
  const Int bits = BitCast<Int>(kShift - x * 1.44269504f), most = Int{} + 0x4B4000FF;
  const F shifted = BitCast<F>(bits < most ? bits : most);  // n <= 128: 2^n = inf
  const F n = shifted - kShift;
  F r = x + n * 0.693359375f;  // ln 2 in two parts: the first product is exact
  r = r + n * -2.12194440e-4f;
  // exp(-r): the polynomial of least relative error (9e-8) with constant term 1, fitted by Lawson's iteration.
  F exp_r = r * -0.008290272206068039f + 0.04189816117286682f;
  exp_r = exp_r * r - 0.1666763871908188f;
  exp_r = exp_r * r + 0.4999914765357971f;
  exp_r = exp_r * r - 0.9999997019767761f;
  exp_r = exp_r * r + 1.0f;
  const F one = F{} + 1.0f, result = one / (exp_r * BitCast<F>(BitCast<Unsigned>(shifted) << 23) + 1.0f);
  return x > 87.0f ? one : result;  // above that, n leaves the range of exponents
}

}  // namespace pjx
