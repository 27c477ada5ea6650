// The integer weight of a priority. Integers make the prefix sum associative, hence the same for any number of threads
// and on any platform; and they are read from the float's bits because XLA's CPU threads treat denormals as zero.
#pragma once

#include <cmath>
#include <cstring>

#include "xla_ops/common/host_device.h"

namespace pjx {

// A positive float is mantissa * 2^(exponent - 150) with mantissa in [2^23, 2^24), denormals included.
struct Normalised {
  uint32_t mantissa;
  int32_t exponent;

  PJX_HD explicit Normalised(uint32_t bits)
      : mantissa((bits & 0x7FFFFFu) | 0x800000u), exponent(static_cast<int32_t>(bits >> 23)) {
    if (exponent != 0) return;
    mantissa = bits;
    for (exponent = 1; mantissa < 0x800000u; --exponent) mantissa <<= 1;
  }
  // log2(mantissa * 2^-23), in [0, 1).
  PJX_HD double FractionLog2() const { return log2(static_cast<double>(mantissa) * (1.0 / 8388608.0)); }
};

struct Weights {
  const float* priorities;
  uint32_t top_bits;  // of the largest positive finite priority
  float alpha;        // > 0
  int32_t width;      // in bits: weights are below 2^width, that of the largest priority is at least 2^(width - 1)
  int32_t top_exponent;
  double top_log2;

  PJX_HD Weights(const float* priorities, uint32_t top_bits, float alpha, int32_t width)
      : priorities(priorities), top_bits(top_bits), alpha(alpha), width(width) {
    const Normalised top(top_bits);
    top_exponent = top.exponent;
    top_log2 = top.FractionLog2();
  }

  // The bits of a float if it is positive and finite, else 0.
  PJX_HD static uint32_t PositiveBits(float priority) {
    int32_t bits;
    memcpy(&bits, &priority, sizeof(bits));
    return bits > 0 && bits < 0x7F800000 ? static_cast<uint32_t>(bits) : 0;
  }

  PJX_HD uint64_t operator()(int64_t index) const {
    uint32_t bits = PositiveBits(priorities[index]);
    if (bits == 0) return 0;
    int32_t top = top_exponent;
    if (alpha != 1.0f) {
      const Normalised p(bits);
      const double log2_ratio = (p.exponent - top_exponent) + (p.FractionLog2() - top_log2);
      const float ratio = static_cast<float>(exp2(alpha * log2_ratio));
      memcpy(&bits, &ratio, sizeof(bits));
      if (bits < 0x00800000u) return 1;  // below 2^-126
      top = 127;
    }
    const Normalised p(bits);
    const int32_t shift = width - 24 - (top - p.exponent);
    const uint64_t weight = shift >= 0    ? static_cast<uint64_t>(p.mantissa) << shift
                            : shift > -32 ? p.mantissa >> -shift
                                          : 0;
    return weight > 0 ? weight : 1;  // whatever is positive can be drawn
  }
};

}  // namespace pjx
