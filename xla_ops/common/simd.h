// Vector code in a module that must run on any machine of its architecture.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "xla_ops/common/cpu_level.h"

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

// Numbers in the widest vector of any level.
constexpr int64_t kLanes = 16;

// What a kernel must know of the level it is compiled for: vectors of one register each, Values in one and Floats and
// Ints in memory (wider ones GCC keeps in memory, and a choice between two of them it takes apart into single numbers),
// and the tile of a product, rows by vectors, that fits the registers beside one row of the right matrix. A template's
// argument is the level, never its vector in memory: as an argument such a type loses its attributes, and unaligned
// memory would be read as if it were aligned.
struct Avx512 {
  typedef float Values __attribute__((vector_size(64)));
  typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
  static constexpr int kRows = 8, kVecs = 3;
};
struct Avx2 {
  typedef float Values __attribute__((vector_size(32)));
  typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));
  static constexpr int kRows = 4, kVecs = 3;
};
struct Baseline {  // SSE2, NEON
  typedef float Values __attribute__((vector_size(16)));
  typedef float Floats __attribute__((vector_size(16), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kRows = 4, kVecs = 3;
};

template <typename Level>
constexpr int64_t kLevelLanes = sizeof(typename Level::Floats) / sizeof(float);

// PJX_KERNEL(Name, (parameters), body) defines a function Name whose body, a statement that may use the type `Level`,
// is compiled for every level; a call runs the one of this process. What the body calls must be PJX_INLINE, or it stays
// baseline code. Where contraction is forbidden (-ffp-contract=off) all versions give the same bits: nothing here
// reassociates.
#ifdef PJX_X86_LEVELS
#define PJX_KERNEL(Name, parameters, ...)                                      \
  struct Name##AtLevel {                                                       \
    static PJX_AVX512 auto Avx512 parameters {                                 \
      using Level [[maybe_unused]] = pjx::Avx512;                              \
      __VA_ARGS__;                                                             \
    }                                                                          \
    static PJX_AVX2 auto Avx2 parameters {                                     \
      using Level [[maybe_unused]] = pjx::Avx2;                                \
      __VA_ARGS__;                                                             \
    }                                                                          \
    static auto Baseline parameters {                                          \
      using Level [[maybe_unused]] = pjx::Baseline;                            \
      __VA_ARGS__;                                                             \
    }                                                                          \
  };                                                                           \
  template <typename... Arguments>                                             \
  inline auto Name(Arguments&&... arguments) {                                 \
    switch (pjx::LevelInUse()) {                                               \
      case pjx::CpuLevel::kAvx512:                                             \
        return Name##AtLevel::Avx512(std::forward<Arguments>(arguments)...);   \
      case pjx::CpuLevel::kAvx2:                                               \
        return Name##AtLevel::Avx2(std::forward<Arguments>(arguments)...);     \
      default:                                                                 \
        return Name##AtLevel::Baseline(std::forward<Arguments>(arguments)...); \
    }                                                                          \
  }
#else
#define PJX_KERNEL(Name, parameters, ...)         \
  inline auto Name parameters {                   \
    using Level [[maybe_unused]] = pjx::Baseline; \
    __VA_ARGS__;                                  \
  }
#endif

}  // namespace pjx
