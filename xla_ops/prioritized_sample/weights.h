// The integer weight of a priority. Integers make the prefix sum associative, hence the same for any number of threads
// and on any platform. Powers are taken in single precision from additions, products and one quotient alone, each of
// which rounds the same everywhere as long as the compiler fuses none of them (-ffp-contract=off, -fmad=false); the C
// library's would differ between machines. Priorities are read as bits, because XLA's CPU threads take denormals for
// zero.
#pragma once

#include "xla_ops/common/float_bits.h"

namespace pjx {

PJX_HD int32_t BitLength(uint64_t x) {
#ifdef __CUDA_ARCH__
  return 64 - __clzll(static_cast<int64_t>(x));
#else
  return x == 0 ? 0 : 64 - __builtin_clzll(x);
#endif
}

// A positive float is mantissa * 2^(exponent - 150) with mantissa in [2^23, 2^24), denormals included.
struct Normalised {
  uint32_t mantissa;
  int32_t exponent;

  // A denormal's bits are its mantissa alone, and as a number they are a normal float. No branch: loops vectorise.
  PJX_HD_INLINE explicit Normalised(uint32_t bits) {
    const bool is_normal = bits >= 0x800000u;
    const uint32_t normal = is_normal ? bits : BitsOf(static_cast<float>(static_cast<int32_t>(bits)));
    mantissa = (normal & 0x7FFFFFu) | 0x800000u;
    exponent = static_cast<int32_t>(normal >> 23) - (is_normal ? 0 : 149);
  }
};

// exponent + fraction = log2(x) + 150 - 23, the fraction in [-1/2, 1/2] to within 1.2e-7.
struct Log2 {
  int32_t exponent;
  float fraction;

  PJX_HD_INLINE explicit Log2(const Normalised& x) : exponent(x.exponent) {
    // m in [sqrt(1/2), sqrt(2)], without a branch, which nothing could predict.
    const uint32_t is_high = x.mantissa > 11863283u;  // 2^23 sqrt(2)
    exponent += static_cast<int32_t>(is_high);
    const float m = FloatOf((127u - is_high) << 23 | (x.mantissa & 0x7FFFFFu));
    // 2 artanh((m - 1) / (m + 1)) / ln(2); the first term left out is below 2e-9.
    const float s = (m - 1.0f) / (m + 1.0f), z = s * s;
    const float high = 0.57707802f + z * 0.41219858f + (z * z) * 0.32059890f;
    fraction = s * ((2.8853901f + z * 0.96179669f) + (z * z) * high);
  }
};

// 2^x for |x| <= 1/2, relative error below 2e-7: the exponential series, whose first term left out is below 6e-9.
PJX_HD_INLINE float Exp2Fraction(float x) {
  // By pairs of terms: half as many operations wait for each other.
  const float z = x * x;
  float y = 1.5403530e-4f + x * 1.5252734e-5f;
  y = (9.6181291e-3f + x * 1.3333558e-3f) + z * y;
  y = (2.4022651e-1f + x * 5.5504109e-2f) + z * y;
  return (1.0f + x * 6.9314718e-1f) + z * y;
}

// alpha as the weights take it: 0 for what is not a positive normal finite number.
PJX_HD float UsableAlpha(float alpha) { return alpha >= 1.17549435e-38f && alpha <= 3.40282347e38f ? alpha : 0.0f; }

// The first width that `size` >= 1 weights are computed with: below 2^width each, they sum to less than 2^62.
PJX_HD int32_t FirstWidth(int64_t size) { return 62 - BitLength(static_cast<uint64_t>(size - 1)); }

// Each weight is rounded by less than one unit. Where that could move 2^-30 of the probability (a spike among a great
// many), the bits that the small sum left free are used; 2^spare * (total + size) bounds the new sum.
PJX_HD bool NeedsMoreWidth(uint64_t total, int64_t size) { return total < static_cast<uint64_t>(size) << 30; }
PJX_HD int32_t SecondWidth(int32_t width, uint64_t total, int64_t size) {
  return width + 62 - BitLength(total + static_cast<uint64_t>(size));
}

class Weights {
 public:
  // The largest positive finite priority is that of `top_bits`; alpha > 0, usable. Weights are below 2^width and that
  // of the largest priority is at least 2^(width - 1); 24 <= width <= 62.
  PJX_HD Weights(const float* priorities, uint32_t top_bits, float alpha, int32_t width)
      : priorities_(priorities), alpha_(alpha), linear_(alpha == 1.0f), width_(width), top_(Normalised(top_bits)) {
    // Powers are relative to the largest priority, whose power is 1.
    largest_exponent_ = linear_ ? Normalised(top_bits).exponent : 127;
  }

  PJX_HD void SetWidth(int32_t width) { width_ = width; }
  PJX_HD int32_t width() const { return width_; }

  // The bits of a float if it is positive and finite, else 0.
  PJX_HD_INLINE static uint32_t PositiveBits(float priority) {
    const auto bits = static_cast<int32_t>(BitsOf(priority));
    return bits > 0 && bits < 0x7F800000 ? static_cast<uint32_t>(bits) : 0;
  }

  // Whether alpha is 1, and a weight the priority itself.
  PJX_HD bool is_linear() const { return linear_; }

  // Of the priority with these PositiveBits: 0 for what must not be drawn, else at least 1.
  template <bool kLinear>
  PJX_HD_INLINE uint64_t OfBits(uint32_t bits) const {
    const uint64_t weight = OfPower(kLinear ? Normalised(bits) : Power(bits));
    return bits == 0 ? 0 : weight;
  }
  PJX_HD uint64_t OfBits(uint32_t bits) const { return linear_ ? OfBits<true>(bits) : OfBits<false>(bits); }

  // The same in two steps, of which the first is nearly all the work: what PowerBits gives may be kept.
  PJX_HD uint32_t PowerBits(uint32_t bits) const {
    if (linear_ || bits == 0) return bits;
    const Normalised power = Power(bits);
    return static_cast<uint32_t>(power.exponent) << 23 | (power.mantissa & 0x7FFFFFu);
  }
  PJX_HD uint64_t OfPowerBits(uint32_t power_bits) const {
    return power_bits == 0 ? 0 : OfPower(Normalised(power_bits));
  }

  PJX_HD uint64_t operator()(int64_t index) const { return OfBits(PositiveBits(priorities_[index])); }

 private:
  // mantissa * 2^(width - 24 - distance), rounded down, but at least 1. Above the largest, where the sums are known to
  // be useless, it is anything.
  PJX_HD_INLINE uint64_t OfPower(const Normalised& power) const {
    const auto shift = static_cast<uint32_t>(62 - width_ + largest_exponent_ - power.exponent);
    const uint64_t weight = static_cast<uint64_t>(power.mantissa) << 38 >> (shift < 63 ? shift : 63);
    return weight > 0 ? weight : 1;
  }

  // (priority / largest)^alpha, a normal float above 2^-101.
  PJX_HD_INLINE Normalised Power(uint32_t bits) const {
    const Log2 p{Normalised(bits)};
    const double log2_ratio =
        static_cast<double>(p.exponent - top_.exponent) + static_cast<double>(p.fraction - top_.fraction);
    double log2_power = static_cast<double>(alpha_) * log2_ratio;
    if (!(log2_power < 0.0)) log2_power = 0.0;                  // by an error of the fractions
    if (log2_power < -100.0) log2_power = -100.0;               // whose weight is 1 at any width
    const int32_t n = -static_cast<int32_t>(0.5 - log2_power);  // the nearest integer
    Normalised power(BitsOf(Exp2Fraction(static_cast<float>(log2_power - n))));
    power.exponent += n;
    return power;
  }

  const float* priorities_;
  float alpha_;
  bool linear_;
  int32_t width_, largest_exponent_;
  Log2 top_;
};

}  // namespace pjx
