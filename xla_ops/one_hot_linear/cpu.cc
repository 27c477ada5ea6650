// one_hot_linear on the CPU. Both directions turn a row of codes into the list of the table rows it selects, then walk
// that list for one block of H after another: forward sums the table rows in registers, backward adds the row's
// cotangent, held in registers, to each of them.
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "xla_ops/common/ffi.h"
#include "xla_ops/common/lanes.h"
#include "xla_ops/common/ordered_parts.h"
#include "xla_ops/common/simd.h"
#include "xla_ops/one_hot_linear/handlers.h"

#ifdef PJX_X86_LEVELS
#include <immintrin.h>
#endif

namespace pjx {
namespace {

using Sizes = OneHotSizes;

// Writes the indices of the table rows that `x` selects and returns their number; `selected` has room for
// `Room(sizes)`. Neither version branches on a cell: which cells are empty is noise, and a wrong guess costs more than
// the cell.
int64_t Room(const Sizes& sizes) { return sizes.num_cells + 16; }

template <typename Level>
PJX_INLINE int64_t SelectRows(const uint8_t* x, const Sizes& sizes, int32_t* selected) {
  const int64_t num_cells = sizes.num_cells;
  const int32_t num_codes = static_cast<int32_t>(sizes.num_codes);
  int32_t before = -1;
  int64_t count = 0;
  for (int64_t c = 0; c < num_cells; ++c) {
    selected[count] = before + x[c];
    count += x[c] != 0;
    before += num_codes;
  }
  return count;
}

#ifdef PJX_X86_LEVELS
// For every set of eight cells the numbers of those in it, lowest first, a byte each: what AVX2 has no instruction for.
struct Compressions {
  uint64_t order[256];
  constexpr Compressions() : order() {
    for (int set = 0; set < 256; ++set) {
      int count = 0;
      for (int cell = 0; cell < 8; ++cell) {
        if (set >> cell & 1) order[set] |= static_cast<uint64_t>(cell) << (8 * count++);
      }
    }
  }
};
constexpr Compressions kCompressions;

template <>
PJX_AVX2 int64_t SelectRows<Avx2>(const uint8_t* x, const Sizes& sizes, int32_t* selected) {
  const int32_t num_codes = static_cast<int32_t>(sizes.num_codes);
  const __m256i step = _mm256_set1_epi32(8 * num_codes);
  __m256i before =
      _mm256_sub_epi32(_mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(num_codes)),
                       _mm256_set1_epi32(1));
  int64_t count = 0;
  for (int64_t c = 0; c < sizes.num_cells; c += 8) {
    uint64_t cells = 0;
    std::memcpy(&cells, x + c, std::min<int64_t>(8, sizes.num_cells - c));
    const __m128i bytes = _mm_cvtsi64_si128(static_cast<int64_t>(cells));
    const int empty = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128()));
    const int taken = ~empty & 0xff;
    const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kCompressions.order[taken])));
    const __m256i rows = _mm256_permutevar8x32_epi32(_mm256_add_epi32(before, _mm256_cvtepu8_epi32(bytes)), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(selected + count), rows);
    count += __builtin_popcount(taken);
    before = _mm256_add_epi32(before, step);
  }
  return count;
}

// The compiler does not find the compress instruction; with it the search for non-empty cells all but vanishes (before,
// it took half of the forward time).
template <>
PJX_AVX512 int64_t SelectRows<Avx512>(const uint8_t* x, const Sizes& sizes, int32_t* selected) {
  const int32_t num_codes = static_cast<int32_t>(sizes.num_codes);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i step = _mm512_set1_epi32(16 * num_codes);
  __m512i before = _mm512_sub_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(num_codes)), _mm512_set1_epi32(1));
  int64_t count = 0;
  for (int64_t c = 0; c < sizes.num_cells; c += 16) {
    const int64_t left = sizes.num_cells - c;
    const __mmask16 inside = left >= 16 ? 0xffff : static_cast<__mmask16>((1 << left) - 1);
    // Not the unmasked form: GCC 12 warns in its own header (-Wmaybe-uninitialized).
    const __m512i codes = _mm512_maskz_cvtepu8_epi32(inside, _mm_maskz_loadu_epi8(inside, x + c));
    const __mmask16 taken = _mm512_test_epi32_mask(codes, codes);
    _mm512_storeu_si512(selected + count, _mm512_maskz_compress_epi32(taken, _mm512_add_epi32(before, codes)));
    count += __builtin_popcount(taken);
    before = _mm512_add_epi32(before, step);
  }
  return count;
}
#endif

// y[0 : kVecs vectors) = bias + the selected rows. Two sums, of the even and of the odd entries, because one would wait
// for the latency of the addition.
template <typename Level, int kVecs>
PJX_INLINE void SumBlock(const float* table, const int32_t* selected, int64_t count, int64_t num_hidden,
                         const float* bias, float* y) {
  using Floats = typename Level::Floats;
  Floats even[kVecs], odd[kVecs];
  for (int v = 0; v < kVecs; ++v) {
    even[v] = reinterpret_cast<const Floats*>(bias)[v];
    odd[v] = Floats{};
  }
  int64_t i = 0;
  for (; i + 1 < count; i += 2) {
    const Floats* a = reinterpret_cast<const Floats*>(table + selected[i] * num_hidden);
    const Floats* b = reinterpret_cast<const Floats*>(table + selected[i + 1] * num_hidden);
    for (int v = 0; v < kVecs; ++v) even[v] += a[v];
    for (int v = 0; v < kVecs; ++v) odd[v] += b[v];
  }
  if (i < count) {
    const Floats* a = reinterpret_cast<const Floats*>(table + selected[i] * num_hidden);
    for (int v = 0; v < kVecs; ++v) even[v] += a[v];
  }
  for (int v = 0; v < kVecs; ++v) reinterpret_cast<Floats*>(y)[v] = even[v] + odd[v];
}

template <typename Level>
PJX_INLINE void ForwardRowsAt(const uint8_t* x, const float* weight, const float* bias, Sizes sizes, int64_t num_rows,
                              int32_t* selected, float* y) {
  constexpr int64_t kVec = kLevelLanes<Level>;
  const int64_t num_hidden = sizes.num_hidden;
  for (int64_t r = 0; r < num_rows; ++r, x += sizes.num_cells, y += num_hidden) {
    const int64_t count = SelectRows<Level>(x, sizes, selected);
    int64_t h = 0;
    for (; h + 4 * kVec <= num_hidden; h += 4 * kVec) {
      SumBlock<Level, 4>(weight + h, selected, count, num_hidden, bias + h, y + h);
    }
    for (; h + kVec <= num_hidden; h += kVec) {
      SumBlock<Level, 1>(weight + h, selected, count, num_hidden, bias + h, y + h);
    }
    for (; h < num_hidden; ++h) {  // in the order of SumBlock
      float even = bias[h], odd = 0.0f;
      int64_t i = 0;
      for (; i + 1 < count; i += 2) {
        even += weight[selected[i] * num_hidden + h];
        odd += weight[selected[i + 1] * num_hidden + h];
      }
      if (i < count) even += weight[selected[i] * num_hidden + h];
      y[h] = even + odd;
    }
  }
}

template <typename Level, int kVecs>
PJX_INLINE void ScatterBlock(const float* cotangent, const int32_t* selected, int64_t count, int64_t num_hidden,
                             float* table, float* bias) {
  using Floats = typename Level::Floats;
  Floats g[kVecs];
  for (int v = 0; v < kVecs; ++v) g[v] = reinterpret_cast<const Floats*>(cotangent)[v];
  for (int64_t i = 0; i < count; ++i) {
    Floats* row = reinterpret_cast<Floats*>(table + selected[i] * num_hidden);
    for (int v = 0; v < kVecs; ++v) row[v] += g[v];
  }
  for (int v = 0; v < kVecs; ++v) reinterpret_cast<Floats*>(bias)[v] += g[v];
}

template <typename Level>
PJX_INLINE void BackwardRowsAt(const uint8_t* x, const float* cotangent, Sizes sizes, int64_t num_rows,
                               int32_t* selected, float* dweight, float* dbias) {
  constexpr int64_t kVec = kLevelLanes<Level>;
  constexpr int kMost = kVec == 16 ? 4 : 8;  // vectors of the cotangent in registers: of 64 numbers if there is room
  const int64_t num_hidden = sizes.num_hidden;
  for (int64_t r = 0; r < num_rows; ++r, x += sizes.num_cells, cotangent += num_hidden) {
    const int64_t count = SelectRows<Level>(x, sizes, selected);
    int64_t h = 0;
    for (; h + kMost * kVec <= num_hidden; h += kMost * kVec) {
      ScatterBlock<Level, kMost>(cotangent + h, selected, count, num_hidden, dweight + h, dbias + h);
    }
    for (; h + kVec <= num_hidden; h += kVec) {
      ScatterBlock<Level, 1>(cotangent + h, selected, count, num_hidden, dweight + h, dbias + h);
    }
    if (h == num_hidden) continue;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = h; j < num_hidden; ++j) dweight[selected[i] * num_hidden + j] += cotangent[j];
    }
    for (int64_t j = h; j < num_hidden; ++j) dbias[j] += cotangent[j];
  }
}

PJX_KERNEL(ForwardRows,
           (const uint8_t* x, const float* weight, const float* bias, Sizes sizes, int64_t num_rows, int32_t* selected,
            float* y),
           ForwardRowsAt<Level>(x, weight, bias, sizes, num_rows, selected, y))
PJX_KERNEL(BackwardRows,
           (const uint8_t* x, const float* cotangent, Sizes sizes, int64_t num_rows, int32_t* selected, float* dweight,
            float* dbias),
           BackwardRowsAt<Level>(x, cotangent, sizes, num_rows, selected, dweight, dbias))

PJX_KERNEL(LargestCode, (const uint8_t* x, int64_t size), {
  uint8_t largest = 0;
  for (int64_t i = 0; i < size; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
})

// Codes index memory: nothing is computed from them before this has passed.
ffi::Error CheckCodes(ffi::ThreadPool& pool, ffi::Buffer<ffi::U8> x, const Sizes& sizes) {
  const int64_t size = x.element_count(), num_codes = sizes.num_codes;
  std::atomic<bool> bad{false};
  ParallelFor(pool, size, /*grain=*/1 << 20, [&](int64_t begin, int64_t end) {
    if (LargestCode(x.typed_data() + begin, end - begin) > num_codes) bad = true;
  });
  if (!bad) return ffi::Error::Success();
  const uint8_t* first = x.typed_data();
  while (*first <= num_codes) ++first;
  const int64_t num_cells = sizes.num_cells, index = first - x.typed_data();
  return InvalidArgument("one_hot_linear: x has code ", static_cast<int>(*first), " in row ", index / num_cells,
                         ", cell ", index % num_cells, "; valid codes are 0..", num_codes, " (K = ", num_codes,
                         " is the second axis of weight)");
}

// Operands and results as CheckOneHotForward has them.
ffi::Error OneHotLinearFwdCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::U8> x, ffi::Buffer<ffi::F32> weight,
                              ffi::Buffer<ffi::F32> bias, ffi::ResultBuffer<ffi::F32> y) {
  const auto dims = y->dimensions(), weight_dims = weight.dimensions();
  Sizes sizes;
  auto error = CheckOneHotForward(x.dimensions(), weight_dims, bias.dimensions(), dims, &sizes);
  if (error.success()) error = CheckCodes(pool, x, sizes);
  if (error.failure()) return error;
  const auto lanes = dims.first(dims.size() - 2);
  const int64_t num_lanes = LeadingSize(dims, 2), num_rows = sizes.num_rows;
  ParallelFor(pool, num_lanes * num_rows, /*grain=*/32, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> selected(Room(sizes));
    while (begin < end) {
      const int64_t lane = begin / num_rows, first = begin % num_rows;
      const int64_t count = std::min(num_rows - first, end - begin);
      const int64_t x_row = LaneIndex(lane, x.dimensions(), lanes) * num_rows + first;
      ForwardRows(x.typed_data() + x_row * sizes.num_cells,
                  weight.typed_data() + LaneIndex(lane, weight_dims, lanes) * sizes.table(),
                  bias.typed_data() + LaneIndex(lane, bias.dimensions(), lanes) * sizes.num_hidden, sizes, count,
                  selected.data(), y->typed_data() + begin * sizes.num_hidden);
      begin += count;
    }
  });
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.one_hot_linear.fwd", HandlerOf<OneHotLinearFwdCpu>);

// Each part has its own table, whose clearing and adding must be worth it.
int64_t RowsPerPart(int64_t num_codes) { return std::max<int64_t>(512, 64 * num_codes); }

// Operands and results as CheckOneHotBackward has them.
ffi::Error OneHotLinearBwdCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::U8> x, ffi::Buffer<ffi::F32> cotangent,
                              ffi::ResultBuffer<ffi::F32> dweight, ffi::ResultBuffer<ffi::F32> dbias) {
  const auto dims = dweight->dimensions(), x_dims = x.dimensions();
  Sizes sizes;
  auto error = CheckOneHotBackward(x_dims, cotangent.dimensions(), dims, dbias->dimensions(), &sizes);
  if (error.success()) error = CheckCodes(pool, x, sizes);
  if (error.failure()) return error;
  const auto lanes = dims.first(dims.size() - 3);
  const int64_t num_lanes = LeadingSize(dims, 3), num_rows = sizes.num_rows;
  const OrderedParts parts(num_lanes, num_rows, RowsPerPart(sizes.num_codes));
  const int64_t table = sizes.table(), num_hidden = sizes.num_hidden, num_others = parts.count() - 1;
  // Part 0 works in the result itself; the others in [num_lanes, num_others] blocks of one table and one bias.
  // Blocks start at a cache line: a vector across two lines takes twice the time.
  const int64_t block = (table + num_hidden + kLanes - 1) / kLanes * kLanes;
  size_t space = (num_lanes * num_others * block + kLanes) * sizeof(float);
  std::unique_ptr<char[]> scratch(new (std::nothrow) char[space]);
  if (scratch == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "one_hot_linear: no memory for the gradient's partial sums");
  }
  void* aligned = scratch.get();
  float* const blocks = static_cast<float*>(std::align(64, space - 64, aligned, space));
  const auto others_of = [&](int64_t lane) { return blocks + lane * num_others * block; };
  const auto make_work = [&] {
    return [&, selected = std::make_unique<int32_t[]>(Room(sizes))](int64_t lane, int64_t part, int64_t first,
                                                                    int64_t stop) {
      float* weight_sum = dweight->typed_data() + lane * table;
      float* bias_sum = dbias->typed_data() + lane * num_hidden;
      if (part > 0) {
        weight_sum = others_of(lane) + (part - 1) * block;
        bias_sum = weight_sum + table;
      }
      std::memset(weight_sum, 0, table * sizeof(float));
      std::memset(bias_sum, 0, num_hidden * sizeof(float));
      const int64_t x_row = LaneIndex(lane, x_dims, lanes) * num_rows + first;
      const int64_t cotangent_row = LaneIndex(lane, cotangent.dimensions(), lanes) * num_rows + first;
      BackwardRows(x.typed_data() + x_row * sizes.num_cells, cotangent.typed_data() + cotangent_row * num_hidden, sizes,
                   stop - first, selected.get(), weight_sum, bias_sum);
    };
  };
  parts.ForEach(pool, 128 * parts.count() / std::max<int64_t>(num_rows, 1), make_work);
  if (num_others == 0) return ffi::Error::Success();
  for (int64_t lane = 0; lane < num_lanes; ++lane) {
    const float* const others = others_of(lane);
    ParallelFor(pool, table, /*grain=*/4096, [&](int64_t begin, int64_t end) {
      parts.AddOthers(dweight->typed_data() + lane * table + begin, others + begin, block, end - begin);
    });
    parts.AddOthers(dbias->typed_data() + lane * num_hidden, others + table, block, num_hidden);
  }
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.one_hot_linear.bwd", HandlerOf<OneHotLinearBwdCpu>);

}  // namespace
}  // namespace pjx
