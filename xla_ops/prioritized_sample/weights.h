// The integer weight of a priority. Integers make the prefix sum associative, hence the same for any number of threads
// and on any platform. The weight of a float is floor(priority * 2^k): exact in double, whose product with a power of
// two does not round; for denormals it is taken from the bits, because XLA's CPU threads read them as zero.
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

class Weights {
 public:
  // The largest positive finite priority is that of `top_bits`; alpha > 0. Weights are below 2^width and that of the
  // largest priority is at least 2^(width - 1); 24 <= width <= 62.
  PJX_HD Weights(const float* priorities, uint32_t top_bits, float alpha, int32_t width)
      : priorities_(priorities), alpha_(alpha), linear_(alpha == 1.0f) {
    const Normalised top(top_bits);
    top_exponent_ = top.exponent;
    top_log2_ = top.FractionLog2();
    SetWidth(width);
  }

  PJX_HD void SetWidth(int32_t width) {
    width_ = width;
    // Powers are relative to the largest priority, whose power is 1.
    const int32_t top = linear_ ? top_exponent_ : 127;
    scale_ = ldexp(1.0, width - 1 - (top - 127));
    denormal_shift_ = width - 24 - (top - 1);
  }
  PJX_HD int32_t width() const { return width_; }

  // The bits of a float if it is positive and finite, else 0.
  PJX_HD static uint32_t PositiveBits(float priority) {
    int32_t bits;
    memcpy(&bits, &priority, sizeof(bits));
    return bits > 0 && bits < 0x7F800000 ? static_cast<uint32_t>(bits) : 0;
  }

  // 0 for what must not be drawn, else at least 1.
  PJX_HD uint64_t operator()(int64_t index) const {
    const uint32_t bits = PositiveBits(priorities_[index]);
    if (bits == 0) return 0;
    uint64_t weight;
    if (!linear_) {
      const Normalised p(bits);
      const double log2_ratio = (p.exponent - top_exponent_) + (p.FractionLog2() - top_log2_);
      weight = static_cast<uint64_t>(static_cast<int64_t>(exp2(alpha_ * log2_ratio) * scale_));
    } else if (bits >= 0x00800000u) {
      weight = static_cast<uint64_t>(static_cast<int64_t>(static_cast<double>(priorities_[index]) * scale_));
    } else if (denormal_shift_ >= 0) {
      weight = static_cast<uint64_t>(bits) << denormal_shift_;
    } else {
      weight = bits >> (denormal_shift_ > -31 ? -denormal_shift_ : 31);
    }
    return weight > 0 ? weight : 1;
  }

 private:
  const float* priorities_;
  float alpha_;
  bool linear_;
  int32_t width_, top_exponent_, denormal_shift_;
  double top_log2_, scale_;
};

}  // namespace pjx
