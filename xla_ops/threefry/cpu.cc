// The Threefry2x32 hash (20 rounds) of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): the bits
// of jax.random. As one call, because XLA takes a tenth of a second to compile the loop that JAX makes of each.
#include "xla_ops/common/ffi.h"
#include "xla_ops/common/simd.h"

namespace pjx {
namespace {

PJX_INLINE void Rounds(uint32_t& x0, uint32_t& x1, int r0, int r1, int r2, int r3) {
  const auto round = [&](int r) {
    x0 += x1;
    x1 = (x1 << r) | (x1 >> (32 - r));
    x1 ^= x0;
  };
  round(r0), round(r1), round(r2), round(r3);
}

PJX_INLINE void HashOne(uint32_t k0, uint32_t k1, uint32_t x0, uint32_t x1, uint32_t* y0, uint32_t* y1) {
  const uint32_t k2 = k0 ^ k1 ^ 0x1BD11BDAu;
  x0 += k0, x1 += k1;
  Rounds(x0, x1, 13, 15, 26, 6);
  x0 += k1, x1 += k2 + 1;
  Rounds(x0, x1, 17, 29, 16, 24);
  x0 += k2, x1 += k0 + 2;
  Rounds(x0, x1, 13, 15, 26, 6);
  x0 += k0, x1 += k1 + 3;
  Rounds(x0, x1, 17, 29, 16, 24);
  x0 += k1, x1 += k2 + 4;
  Rounds(x0, x1, 13, 15, 26, 6);
  *y0 = x0 + k2, *y1 = x1 + k0 + 5;
}

PJX_KERNEL(HashWithOneKey,
           (uint32_t k0, uint32_t k1, const uint32_t* x0, const uint32_t* x1, uint32_t* y0, uint32_t* y1,
            int64_t count),
           {
             for (int64_t i = 0; i < count; ++i) HashOne(k0, k1, x0[i], x1[i], y0 + i, y1 + i);
           })

PJX_KERNEL(HashWithKeys,
           (const uint32_t* k0, const uint32_t* k1, const uint32_t* x0, const uint32_t* x1, uint32_t* y0, uint32_t* y1,
            int64_t count),
           {
             for (int64_t i = 0; i < count; ++i) HashOne(k0[i], k1[i], x0[i], x1[i], y0 + i, y1 + i);
           })

// Keys: one for all counters, or one each.
ffi::Error Threefry(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> key0, ffi::Buffer<ffi::U32> key1,
                    ffi::Buffer<ffi::U32> counter0, ffi::Buffer<ffi::U32> counter1, ffi::ResultBuffer<ffi::U32> bits0,
                    ffi::ResultBuffer<ffi::U32> bits1) {
  const int64_t count = counter0.element_count();
  const bool one_key = key0.element_count() == 1;
  if (auto error = CheckCounts("threefry2x32", {{"key0", key0.element_count(), one_key ? 1 : count},
                                                {"key1", key1.element_count(), one_key ? 1 : count},
                                                {"counter1", counter1.element_count(), count},
                                                {"bits0", bits0->element_count(), count},
                                                {"bits1", bits1->element_count(), count}});
      error.failure()) {
    return error;
  }
  const uint32_t *k0 = key0.typed_data(), *k1 = key1.typed_data();
  const uint32_t *x0 = counter0.typed_data(), *x1 = counter1.typed_data();
  uint32_t *y0 = bits0->typed_data(), *y1 = bits1->typed_data();
  ParallelFor(pool, count, 65536, [&](int64_t i, int64_t end) {
    if (one_key) {
      HashWithOneKey(*k0, *k1, x0 + i, x1 + i, y0 + i, y1 + i, end - i);
    } else {
      HashWithKeys(k0 + i, k1 + i, x0 + i, x1 + i, y0 + i, y1 + i, end - i);
    }
  });
  return ffi::Error::Success();
}

PJX_REGISTER("pufferjax.threefry2x32", HandlerOf<Threefry>);

}  // namespace
}  // namespace pjx
