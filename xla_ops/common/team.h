// A block of GPU threads, or a loop that stands in for it on the host: a kernel's body is written once, as a function
// of a Team, and its index arithmetic is tested without a GPU.
//
// The body alternates phases and uniform code. A phase is one call of Each: every thread runs it, then waits for the
// others. Within a phase a thread must not read what another writes; what outlives a phase is in shared memory. Uniform
// code, between phases, is the same in all threads; it may read shared memory, which the phase after it must then not
// overwrite.
#pragma once

#include "xla_ops/common/host_device.h"
#include "xla_ops/common/warp.h"

namespace pjx {

template <int kNumThreads>
struct Team {
  static constexpr int kThreads = kNumThreads;
  bool backwards = false;  // on the host: the order in which threads take their turns

  template <typename Phase>
  PJX_HD void Each(const Phase& phase) const {
#ifdef __CUDA_ARCH__
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
#else
    for (int i = 0; i < kThreads; ++i) phase(backwards ? kThreads - 1 - i : i);
#endif
  }

  // A phase in which every warp calls body(warp) once; within it, warps are to each other what threads are in Each.
  template <typename Body>
  PJX_HD void EachWarp(const Body& body) const {
#ifdef __CUDA_ARCH__
    body(Warp{static_cast<int>(threadIdx.x / Warp::kLanes)});
    __syncthreads();
#else
    constexpr int kWarps = kThreads / Warp::kLanes;
    for (int i = 0; i < kWarps; ++i) body(Warp{backwards ? kWarps - 1 - i : i, backwards});
#endif
  }

  // Inside a phase, by all threads: *cell, shared or global, becomes the largest of itself and their values.
  PJX_HD void Max(uint32_t* cell, uint32_t value) const {
#ifdef __CUDA_ARCH__
    for (int distance = 16; distance > 0; distance /= 2) {
      const uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, value, distance);
      value = other > value ? other : value;
    }
    if (threadIdx.x % 32 == 0) atomicMax(cell, value);
#else
    if (value > *cell) *cell = value;
#endif
  }

  // Inside a phase, by one thread: as Max. It looks first, because those who change one cell wait for each other.
  PJX_HD void Raise(uint32_t* cell, uint32_t value) const {
#ifdef __CUDA_ARCH__
    if (value > *static_cast<volatile uint32_t*>(cell)) atomicMax(cell, value);
#else
    if (value > *cell) *cell = value;
#endif
  }

  // Inside a phase, by any thread: as OrInto.
  PJX_HD void Or(uint32_t* cell, uint32_t value) const { OrInto(cell, value); }
};

// In every lane: the sum of its number and of those of all lanes before it, modulo 2^64.
PJX_HD void InclusiveScan(const Warp& warp, PerLane<uint64_t>& sums) {
  PJX_UNROLL
  for (int distance = 1; distance < Warp::kLanes; distance *= 2) {
    warp.Shuffle([&](int lane) { return sums[lane]; },
                 [&](int lane) { return lane < distance ? lane : lane - distance; },
                 [&](int lane, uint64_t before) {
                   if (lane >= distance) sums[lane] += before;
                 });
  }
}

// sums[i] <- sums[0] + ... + sums[i], modulo 2^64; `totals` has room for one number of each warp. Both in shared
// memory.
template <typename AnyTeam>
PJX_HD void InclusiveScan(const AnyTeam& team, uint64_t* sums, uint64_t* totals) {
  static_assert(AnyTeam::kThreads / Warp::kLanes <= Warp::kLanes, "a lane takes the total of a warp");
  team.EachWarp([&](const Warp& warp) {
    uint64_t* const own = sums + warp.index * Warp::kLanes;
    PerLane<uint64_t> sum;
    warp.Each([&](int lane) { sum[lane] = own[lane]; });
    InclusiveScan(warp, sum);
    warp.Each([&](int lane) {
      own[lane] = sum[lane];
      if (lane == Warp::kLanes - 1) totals[warp.index] = sum[lane];
    });
  });
  team.EachWarp([&](const Warp& warp) {
    PerLane<uint64_t> before;
    warp.Each([&](int lane) { before[lane] = lane < warp.index ? totals[lane] : 0; });
    PJX_UNROLL
    for (int distance = 1; distance < Warp::kLanes; distance *= 2) {
      warp.Shuffle([&](int lane) { return before[lane]; }, [&](int lane) { return lane ^ distance; },
                   [&](int lane, uint64_t others) { before[lane] += others; });
    }
    warp.Each([&](int lane) { sums[warp.index * Warp::kLanes + lane] += before[lane]; });
  });
}

}  // namespace pjx
