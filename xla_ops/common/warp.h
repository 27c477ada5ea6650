// A warp of GPU threads, or a loop over its lanes that stands in for it on the host: what team.h is for a block. Lanes
// exchange values through the functions here alone, so a phase of a warp waits for nobody; EachAndWait is for those
// that go through memory.
#pragma once

#include <cmath>

#include "xla_ops/common/bfloat16.h"
#include "xla_ops/common/host_device.h"

namespace pjx {

// What each thread keeps for itself from one phase to the next: in registers on the GPU.
template <typename T, int kThreads>
class PerThread {
 public:
#ifdef __CUDA_ARCH__
  PJX_HD T& operator[](int) { return value_; }

 private:
  T value_;
#else
  PJX_HD T& operator[](int thread) { return values_[thread]; }

 private:
  T values_[kThreads];
#endif
};

template <typename T>
using PerLane = PerThread<T, 32>;

PJX_HD int CountBits(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __popc(bits);
#else
  int count = 0;
  for (; bits != 0; bits &= bits - 1) ++count;
  return count;
#endif
}

// -1 where there is none.
PJX_HD int LowestBit(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __ffs(static_cast<int>(bits)) - 1;
#else
  int bit = bits == 0 ? -1 : 0;
  while (bits != 0 && (bits >> bit & 1u) == 0) ++bit;
  return bit;
#endif
}

// A lane's share of the matrices of MultiplyAdd; two bfloat16 to a word, the first in its lower half.
struct LeftFragment {
  uint32_t of[4];
};
struct RightFragment {
  uint32_t of[2];
};
struct SumFragment {
  float of[4];
};

// The bits of `value` are set in *cell, which is shared, by any thread of those that share it.
PJX_HD void OrInto(uint32_t* cell, uint32_t value) {
#ifdef __CUDA_ARCH__
  atomicOr(cell, value);
#else
  *cell |= value;
#endif
}

struct Warp {
  static constexpr int kLanes = 32;
  int index;               // in its block
  bool backwards = false;  // on the host: the order in which lanes take their turns

  template <typename Phase>
  PJX_HD void Each(const Phase& phase) const {
#ifdef __CUDA_ARCH__
    phase(static_cast<int>(threadIdx.x % kLanes));
#else
    for (int i = 0; i < kLanes; ++i) phase(backwards ? kLanes - 1 - i : i);
#endif
  }

  // Each, whose writes to memory all lanes see in the next phase.
  template <typename Phase>
  PJX_HD void EachAndWait(const Phase& phase) const {
    Each(phase);
#ifdef __CUDA_ARCH__
    __syncwarp();
#endif
  }

  // Bit i: whether holds(i).
  template <typename Holds>
  PJX_HD uint32_t Ballot(const Holds& holds) const {
#ifdef __CUDA_ARCH__
    return __ballot_sync(0xFFFFFFFFu, holds(static_cast<int>(threadIdx.x % kLanes)));
#else
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(holds(i)) << i;
    return bits;
#endif
  }

  // The bits that any value(lane) has.
  template <typename Value>
  PJX_HD uint32_t AllBits(const Value& value) const {
#ifdef __CUDA_ARCH__
    return __reduce_or_sync(0xFFFFFFFFu, value(static_cast<int>(threadIdx.x % kLanes)));
#else
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= value(i);
    return bits;
#endif
  }

  // take(lane, offer(from(lane))) in every lane.
  template <typename Offer, typename From, typename Take>
  PJX_HD void Shuffle(const Offer& offer, const From& from, const Take& take) const {
#ifdef __CUDA_ARCH__
    const int lane = static_cast<int>(threadIdx.x % kLanes);
    take(lane, __shfl_sync(0xFFFFFFFFu, offer(lane), from(lane)));
#else
    decltype(offer(0)) offered[kLanes];
    for (int i = 0; i < kLanes; ++i) offered[i] = offer(i);
    Each([&](int lane) { take(lane, offered[from(lane)]); });
#endif
  }

  // take(lane, bits) in every lane, bit i: whether value(i) == value(lane).
  template <typename Value, typename Take>
  PJX_HD void Match(const Value& value, const Take& take) const {
#ifdef __CUDA_ARCH__
    const int lane = static_cast<int>(threadIdx.x % kLanes);
    take(lane, __match_any_sync(0xFFFFFFFFu, value(lane)));
#else
    decltype(value(0)) values[kLanes];
    for (int i = 0; i < kLanes; ++i) values[i] = value(i);
    Each([&](int lane) {
      uint32_t bits = 0;
      for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(values[i] == values[lane]) << i;
      take(lane, bits);
    });
#endif
  }

  // By any lane, in a phase: as OrInto.
  PJX_HD void Or(uint32_t* cell, uint32_t value) const { OrInto(cell, value); }

  // sum [16, 8] += left [16, 16] right [16, 8] on the tensor cores. The lane 4 g + t has
  //
  //   left:  of[0] (g, 2t) (g, 2t+1);  of[1] (g+8, 2t) (g+8, 2t+1);  of[2] (g, 2t+8) (g, 2t+9);  of[3] (g+8, 2t+8) ...
  //   right: of[0] (2t, g) (2t+1, g);  of[1] (2t+8, g) (2t+9, g)
  //   sum:   of[0] (g, 2t);  of[1] (g, 2t+1);  of[2] (g+8, 2t);  of[3] (g+8, 2t+1)
  //
  // The hardware's order of the additions and their rounding, at least those of float32, are not documented; the host
  // adds exactly and rounds once.
  template <typename Left, typename Right>
  PJX_HD void MultiplyAdd(PerLane<SumFragment>& sums, const Left& left, const Right& right) const {
#ifdef __CUDA_ARCH__
    const int lane = static_cast<int>(threadIdx.x % kLanes);
    const LeftFragment a = left(lane);
    const RightFragment b = right(lane);
    float (&sum)[4] = sums[lane].of;
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.of[0]), "r"(a.of[1]), "r"(a.of[2]), "r"(a.of[3]), "r"(b.of[0]), "r"(b.of[1]));
#else
    float a[16][16], b[8][16];  // b transposed
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const LeftFragment left_words = left(lane);
      const RightFragment right_words = right(lane);
      for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][2 * t + half + i / 2 * 8] = Half(left_words.of[i], half);
        for (int i = 0; i < 2; ++i) b[g][2 * t + half + i * 8] = Half(right_words.of[i], half);
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const float *const row = a[lane / 4 + i / 2 * 8], *const column = b[lane % 4 * 2 + i % 2];
        double sum = sums[lane].of[i];
        for (int k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * column[k];
        sums[lane].of[i] = static_cast<float>(sum);
      }
    }
#endif
  }

 private:
  static float Half(uint32_t word, int half) { return FloatOfBfloat16(static_cast<uint16_t>(word >> 16 * half)); }
};

}  // namespace pjx
