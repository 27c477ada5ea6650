// A float32 as its bits, and back.
#pragma once

#include <cstring>

#include "xla_ops/common/host_device.h"

namespace pjx {

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
