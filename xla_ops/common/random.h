// Counter-based random numbers: the same (key, stream, counter) gives the same bits on every platform and for every
// number of threads. Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

struct Philox {
  uint32_t key[2];
  uint32_t counter[4];  // counter[0] counts blocks; [1..3] name the stream
  uint32_t block[4];
  uint32_t used = 4;

  PJX_HD Philox(uint32_t key0, uint32_t key1, uint32_t stream0, uint32_t stream1 = 0)
      : key{key0, key1}, counter{0, stream0, stream1, 0}, block{0, 0, 0, 0} {}

  PJX_HD uint32_t Next() {
    if (used == 4) {
      Refill();
      used = 0;
    }
    const uint32_t next = used++;
#ifdef PJX_GPU_FORMS  // an array with a variable index would leave the registers
    return next == 0 ? block[0] : next == 1 ? block[1] : next == 2 ? block[2] : block[3];
#else
    return block[next];
#endif
  }

  // Uniform on {0, ..., n - 1}; the bias is below n / 2^32.
  PJX_HD uint32_t Below(uint32_t n) { return static_cast<uint32_t>((static_cast<uint64_t>(Next()) * n) >> 32); }

  // Uniform on [0, 1), a multiple of 2^-24.
  PJX_HD float Uniform() { return static_cast<float>(Next() >> 8) * (1.0f / 16777216.0f); }

 private:
  PJX_HD void Refill() {
    uint32_t x0 = counter[0], x1 = counter[1], x2 = counter[2], x3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * x0;
      const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * x2;
      const uint32_t y0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
      const uint32_t y2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
      x1 = static_cast<uint32_t>(p1);
      x3 = static_cast<uint32_t>(p0);
      x0 = y0;
      x2 = y2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    block[0] = x0, block[1] = x1, block[2] = x2, block[3] = x3;
    ++counter[0];
  }
};

// Choices for inner loops that make one every step: xorshift64* (Vigna 2016) drawn once for kPerDraw choices, which are
// the successive digits of the drawn fraction. Call Draw before every kPerDraw-th Below.
struct ChoiceRandom {
  static constexpr int kPerDraw = 4;
  uint64_t state, fraction = 0;

  PJX_HD explicit ChoiceRandom(uint64_t seed) : state(seed | 1) {}

  PJX_HD void Draw() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    fraction = state * 0x2545F4914F6CDD1DULL;
  }

  // Uniform on {0, ..., n - 1}; the bias over kPerDraw choices is below n^4 / 2^64.
  PJX_HD uint32_t Below(uint32_t n) {
#ifdef __CUDA_ARCH__
    const uint64_t digit = __umul64hi(fraction, n);
#else
    const auto digit = static_cast<uint64_t>((static_cast<unsigned __int128>(fraction) * n) >> 64);
#endif
    fraction *= n;
    return static_cast<uint32_t>(digit);
  }
};

}  // namespace pjx
