// PJX_HD marks a function that runs on the CPU and, compiled by nvcc, on the GPU. Includes nothing but <cstdint>.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PJX_HD __host__ __device__ inline
#else
#define PJX_HD inline
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

// As many steps of time as a GPU thread reads before it computes the first: the reads then wait for memory together. A
// kernel that walks time has one thread per column, and often too few columns to hide that wait behind each other.
constexpr int kStepsAhead = 16;

}  // namespace pjx
