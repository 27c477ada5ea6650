// Vector code in a module that must run on any machine of its architecture.
#pragma once

#include <algorithm>
#include <cstdint>  // also brings __GLIBC__

// PJX_MULTIVERSION before a plain function (no template, no lambda) compiles it for AVX-512, AVX2 and the baseline; the
// loader picks one when the module is loaded. Functions called inside must be PJX_INLINE, or they stay baseline code.
// All versions give the same bits: the build forbids contraction (-ffp-contract=off) and nothing here reassociates.
// Only where the mechanism (GNU ifunc) exists: GCC 12 or later, x86-64, glibc. Not under ThreadSanitizer: the loader
// would pick before its runtime is up, and crash; races do not depend on the version. Nor under nvcc, which takes one
// version of a function, nor with PJX_BASELINE_ONLY, by which tests compile what nvcc would.
// Where the versions are written by hand: PJX_BASELINE_VERSION before the one, and under #ifdef PJX_X86_LEVELS
// PJX_AVX512_VERSION (or PJX_AVX2_VERSION) before its namesake.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__ELF__) && \
    defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && !defined(__CUDACC__) && !defined(PJX_BASELINE_ONLY)
#define PJX_X86_LEVELS
#define PJX_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define PJX_BASELINE_VERSION __attribute__((target("default")))
#define PJX_AVX2_VERSION __attribute__((target("arch=x86-64-v3")))
#define PJX_AVX512_VERSION __attribute__((target("arch=x86-64-v4")))
#else
#define PJX_MULTIVERSION
#define PJX_BASELINE_VERSION
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

}  // namespace pjx
