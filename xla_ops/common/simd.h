// Vector code in a module that must run on any machine of its architecture.
#pragma once

#include <algorithm>
#include <cstdint>  // also brings __GLIBC__
#include <cstring>

// PJX_MULTIVERSION before a plain function (no template, no lambda) compiles it for AVX-512, AVX2 and the baseline; the
// loader picks one when the module is loaded. Functions called inside must be PJX_INLINE, or they stay baseline code.
// All versions give the same bits: the build forbids contraction (-ffp-contract=off) and nothing here reassociates.
// Only where the mechanism (GNU ifunc) exists: GCC 12 or later, x86-64, glibc. Not under ThreadSanitizer: the loader
// would pick before its runtime is up, and crash; races do not depend on the version.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__ELF__) && \
    defined(__GLIBC__) && !defined(__SANITIZE_THREAD__)
#define PJX_X86_LEVELS  // also by hand: one function for target("default"), its namesake for target("arch=x86-64-v4")
#define PJX_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PJX_MULTIVERSION
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PJX_INLINE inline __attribute__((always_inline))
#else
#define PJX_INLINE inline
#endif

// Before a loop whose iterations are independent, though an output may be the same array as an input.
#if defined(__clang__)
#define PJX_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define PJX_INDEPENDENT _Pragma("GCC ivdep")
#else
#define PJX_INDEPENDENT
#endif

namespace pjx {

// Asks for the line of memory at any address whatever, into the second-level cache (2) or the first as well (3). GCC
// takes a function with no effect but this for pure, and drops the call, unless it is inlined.
template <int kLocality = 3>
PJX_INLINE void Prefetch(const void* address) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(address, /*rw=*/0, kLocality);
#else
  (void)address;
#endif
}

// 16 floats: one AVX-512 register, two of AVX2, four of SSE or NEON. Need not be aligned.
typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kLanes = 16;

PJX_INLINE uint32_t BitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

PJX_INLINE float FloatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 1 / (1 + exp(-x)) without branches, so that loops over it vectorise. Relative error below 4e-7 for x > -87.3; 0
// below about -88.4, where the true value is subnormal; right at both infinities; NaN stays NaN.
PJX_INLINE float Sigmoid(float x) {
  // exp(-x) = 2^n exp(-r), n = round(-x / ln 2), r = x + n ln 2, |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an
  // integer and leaves it in the low bits; + 127 is the exponent's bias.
  constexpr float kShift = 12582912.0f + 127.0f;
  const float shifted = FloatOf(static_cast<uint32_t>(std::min<int32_t>(
      static_cast<int32_t>(BitsOf(kShift - x * 1.44269504f)), 0x4B4000FF)));  // n <= 128, where 2^n is infinity
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
