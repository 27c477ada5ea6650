// Sine and cosine of +, -, * on 32-bit floats in the order written, so that they have the same bits on every platform;
// those of the standard library have not.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

// Taylor polynomials, off by less than 2e-7 for |x| <= 1.6.
PJX_HD float Sin(float x) {
  const float y = x * x;
  float sum = -1.0f / 39916800.0f;
  sum = sum * y + 1.0f / 362880.0f;
  sum = sum * y - 1.0f / 5040.0f;
  sum = sum * y + 1.0f / 120.0f;
  sum = sum * y - 1.0f / 6.0f;
  sum = sum * y + 1.0f;
  return sum * x;
}
PJX_HD float Cos(float x) {
  const float y = x * x;
  float sum = 1.0f / 479001600.0f;
  sum = sum * y - 1.0f / 3628800.0f;
  sum = sum * y + 1.0f / 40320.0f;
  sum = sum * y - 1.0f / 720.0f;
  sum = sum * y + 1.0f / 24.0f;
  sum = sum * y - 0.5f;
  return sum * y + 1.0f;
}

// Both of an angle in [-pi, pi], off by less than 4e-7.
struct Direction {
  float cos, sin;
};
PJX_HD Direction DirectionOf(float angle) {
  constexpr float kPi = 3.14159265358979f;
  const float size = angle < 0 ? -angle : angle;
  const bool is_backwards = size > kPi / 2;
  const float folded = is_backwards ? kPi - size : size;
  const float cos = Cos(folded), sin = Sin(folded);
  return {is_backwards ? -cos : cos, angle < 0 ? -sin : sin};
}

}  // namespace pjx
