// A float32, or a vector of them, as its bits, and back.
#pragma once

#include <cstring>

#include "xla_ops/common/host_device.h"

namespace pjx {

// Integers as wide as F, a float or a vector of them.
template <typename F>
struct BitsType {
  typedef int32_t Int __attribute__((vector_size(sizeof(F))));
  typedef uint32_t Unsigned __attribute__((vector_size(sizeof(F))));
};
template <>
struct BitsType<float> {
  using Int = int32_t;
  using Unsigned = uint32_t;
};

template <typename To, typename From>
PJX_HD_INLINE To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

PJX_HD_INLINE uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

PJX_HD_INLINE float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace pjx
