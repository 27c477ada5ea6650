// The level of vector instructions that the kernels of this module run with, on this machine and in this process.
#pragma once

#include <algorithm>
#include <atomic>
#include <string>

// Where kernels are compiled for more than the baseline. Not under nvcc, which takes one version of a function, nor
// with PJX_BASELINE_ONLY, by which tests compile what nvcc would.
#if defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 12) && defined(__x86_64__) && !defined(__CUDACC__) && \
    !defined(PJX_BASELINE_ONLY)
#define PJX_X86_LEVELS
#define PJX_AVX2 __attribute__((target("arch=x86-64-v3")))
#define PJX_AVX512 __attribute__((target("arch=x86-64-v4")))
#endif

namespace pjx {

// In rising order: SSE2 on x86-64 or NEON on aarch64; AVX2 and FMA (x86-64-v3); AVX-512 (x86-64-v4).
enum class CpuLevel { kBaseline, kAvx2, kAvx512 };
inline const char* NameOf(CpuLevel level) {
  return level == CpuLevel::kAvx512 ? "avx512" : level == CpuLevel::kAvx2 ? "avx2" : "baseline";
}

// The highest level that both this build and this machine have.
inline CpuLevel HighestLevel() {
#ifdef PJX_X86_LEVELS
  __builtin_cpu_init();
  const bool is_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                     __builtin_cpu_supports("bmi2");
  if (!is_v3) return CpuLevel::kBaseline;
  const bool is_v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512vl");
  return is_v4 ? CpuLevel::kAvx512 : CpuLevel::kAvx2;
#else
  return CpuLevel::kBaseline;
#endif
}

// The level of this module's kernels: the highest, until Python lowers it (PUFFERJAX_MAX_ISA, see xla_ops/ffi.py).
inline std::atomic<CpuLevel> level_in_use{HighestLevel()};
inline CpuLevel LevelInUse() { return level_in_use.load(std::memory_order_relaxed); }

// Runs no kernel above `name` from now on, nor above what the machine has. False: it names no level.
inline bool LimitLevel(const std::string& name) {
  const CpuLevel highest = HighestLevel();
  for (const CpuLevel level : {CpuLevel::kBaseline, CpuLevel::kAvx2, CpuLevel::kAvx512}) {
    if (name != NameOf(level)) continue;
    level_in_use = std::min(level, highest);
    return true;
  }
  return false;
}

}  // namespace pjx
