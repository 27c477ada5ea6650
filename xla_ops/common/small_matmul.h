// Products of matrices small enough to stay in cache, for use inside a kernel: C (+)= A B, row-major, float32.
#pragma once

#include <cstdint>

#include "xla_ops/common/simd.h"

namespace pjx {

constexpr int64_t RoundUpToLanes(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

// A matrix whose element (i, j) is at data[i * row + j * column].
struct Strided {
  const float* data;
  int64_t row, column;
};

// Arrays that the code after a product will read or write. The product asks for them as it goes, a line for each step
// along its depth, so that the wait for memory is over when they are needed.
class Ahead {
 public:
  static constexpr int64_t kLine = 64;
  struct Lines {
    uintptr_t first;
    int64_t step;
    PJX_INLINE const void* operator[](int64_t i) const { return reinterpret_cast<const void*>(first + i * step); }
  };

  // Up to kMost arrays.
  PJX_INLINE void Add(const float* array, int64_t size) {
    arrays_[count_++] = {reinterpret_cast<uintptr_t>(array), reinterpret_cast<uintptr_t>(array + size)};
  }

  // The next `count` lines of one array, or more than it has left: any address will do. After the last array one line
  // that is in the cache.
  PJX_INLINE Lines Take(int64_t count) {
    if (taken_ == count_) return {reinterpret_cast<uintptr_t>(this), 0};
    Array& array = arrays_[taken_];
    const Lines lines{array.next, kLine};
    array.next += count * kLine;
    if (array.next >= array.end) ++taken_;
    return lines;
  }

 private:
  static constexpr int kMost = 8;
  struct Array {
    uintptr_t next, end;
  };
  Array arrays_[kMost];
  int count_ = 0, taken_ = 0;
};

// sum += A B: kRows rows and kVecs vectors stay in registers while the product runs over the `depth` columns of A.
template <typename Level, int kRows, int kVecs>
PJX_INLINE void AddProduct(Strided a, const float* b, int64_t b_row, int64_t depth,
                           typename Level::Floats (&sum)[kRows][kVecs], Ahead* ahead = nullptr) {
  using Floats = typename Level::Floats;
  const Ahead::Lines lines = ahead == nullptr ? Ahead::Lines{} : ahead->Take(depth);
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; ++k) {
    if (ahead != nullptr) Prefetch<2>(lines[k]);
    Floats right[kVecs];
    for (int v = 0; v < kVecs; ++v) right[v] = reinterpret_cast<const Floats*>(b + k * b_row)[v];
    for (int i = 0; i < kRows; ++i) {
      const float left = a.data[i * a.row + k * a.column];
      for (int v = 0; v < kVecs; ++v) sum[i][v] += left * right[v];
    }
  }
}

// One tile of C.
template <typename Level, int kRows, int kVecs>
PJX_INLINE void MatmulTile(Strided a, const float* b, int64_t b_row, int64_t depth, bool add, float* c, int64_t c_row,
                           Ahead* ahead) {
  using Floats = typename Level::Floats;
  Floats sum[kRows][kVecs];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) sum[i][v] = add ? reinterpret_cast<const Floats*>(c + i * c_row)[v] : Floats{};
  }
  AddProduct<Level>(a, b, b_row, depth, sum, ahead);
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) reinterpret_cast<Floats*>(c + i * c_row)[v] = sum[i][v];
  }
}

template <typename Level, int kRows, int kVecs>
PJX_INLINE void MatmulPanel(Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth, bool add, float* c,
                            int64_t c_row, Ahead* ahead) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    MatmulTile<Level, kRows, kVecs>({a.data + i * a.row, a.row, a.column}, b, b_row, depth, add, c + i * c_row, c_row,
                                    ahead);
  }
  if constexpr (kRows > 1) {
    if (i < rows) {
      MatmulPanel<Level, kRows / 2, kVecs>({a.data + i * a.row, a.row, a.column}, b, b_row, rows - i, depth, add,
                                           c + i * c_row, c_row, ahead);
    }
  }
}

// C[rows, vecs] (+)= A[rows, depth] B[depth, vecs], `vecs` vectors of the tile's type. Panels of B come first: one
// stays in the first-level cache for all rows. Every element of C is one chain of additions in the order of k, whatever
// the tile. `ahead` may be null.
template <typename Level, int kRows, int kVecs>
PJX_INLINE void SmallMatmul(Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth, int64_t vecs,
                            bool add, float* c, int64_t c_row, Ahead* ahead) {
  constexpr int64_t kWidth = kLevelLanes<Level>;
  int64_t v = 0;
  for (; v + kVecs <= vecs; v += kVecs) {
    MatmulPanel<Level, kRows, kVecs>(a, b + v * kWidth, b_row, rows, depth, add, c + v * kWidth, c_row, ahead);
  }
  if constexpr (kVecs > 1) {
    if (v < vecs) {
      SmallMatmul<Level, kRows, kVecs - 1>(a, b + v * kWidth, b_row, rows, depth, vecs - v, add, c + v * kWidth, c_row,
                                           ahead);
    }
  }
}

// C[rows, columns] (+)= A[rows, depth] B[depth, columns]; columns are a multiple of 16.
template <typename Level>
PJX_INLINE void TiledMatmul(Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth, int64_t columns,
                            bool add, float* c, int64_t c_row, Ahead* ahead = nullptr) {
  SmallMatmul<Level, Level::kRows, Level::kVecs>(a, b, b_row, rows, depth, columns / kLevelLanes<Level>, add, c, c_row,
                                                 ahead);
}

}  // namespace pjx
