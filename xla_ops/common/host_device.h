// PJX_HD marks a function that runs on the CPU and, compiled by nvcc, on the GPU. Includes little.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define PJX_HD __host__ __device__ inline
#else
#define PJX_HD inline
#endif

// Where a GPU does the same another way, that way is for it, and for the tests that compile it for the host.
#if defined(__CUDA_ARCH__) && !defined(PJX_GPU_FORMS)
#define PJX_GPU_FORMS
#endif

// One that the CPU calls in vector loops (PJX_INLINE in simd.h says why).
#if defined(__GNUC__) || defined(__clang__)
#define PJX_HD_INLINE PJX_HD __attribute__((always_inline))
#else
#define PJX_HD_INLINE PJX_HD
#endif

// Before a loop whose arrays must stay in registers on the GPU; and before one of which more than so many turns at once
// would take the registers from the others.
#define PJX_PRAGMA(text) _Pragma(#text)
#ifdef __CUDA_ARCH__
#define PJX_UNROLL _Pragma("unroll")
#define PJX_UNROLL_BY(turns) PJX_PRAGMA(unroll turns)
#else
#define PJX_UNROLL
#define PJX_UNROLL_BY(turns)
#endif

namespace pjx {

// memcpy of a multiple of 4 bytes between addresses that are multiples of 4: a GPU, which cannot know that of bytes,
// would load and store them one by one.
PJX_HD void CopyWords(void* to, const void* from, uint64_t bytes) {
#ifdef PJX_GPU_FORMS
  for (uint64_t i = 0; i < bytes / 4; ++i) static_cast<uint32_t*>(to)[i] = static_cast<const uint32_t*>(from)[i];
#else
  memcpy(to, from, bytes);
#endif
}

// memset to zero, likewise.
PJX_HD void ZeroWords(void* to, uint64_t bytes) {
#ifdef PJX_GPU_FORMS
  for (uint64_t i = 0; i < bytes / 4; ++i) static_cast<uint32_t*>(to)[i] = 0;
#else
  memset(to, 0, bytes);
#endif
}

// As many steps of time as a GPU thread reads before it computes the first: the reads then wait for memory together. A
// kernel that walks time has one thread per column, and often too few columns to hide that wait behind each other.
constexpr int kStepsAhead = 16;

}  // namespace pjx
