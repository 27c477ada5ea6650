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

// The tile that fits the registers, in vectors of one register each: wider ones GCC keeps in memory, and a choice
// between two of them it takes apart into single numbers. The tile is the template argument, never its vector: as an
// argument a vector type loses its attributes, and unaligned memory would be read as if it were aligned.
struct Avx512Tile {
  typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
  static constexpr int kRows = 8, kVecs = 3;
};
struct Avx2Tile {
  typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));
  static constexpr int kRows = 4, kVecs = 2;
};
struct BaselineTile {  // SSE2, NEON
  typedef float Floats __attribute__((vector_size(16), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kRows = 2, kVecs = 4;
};

// Defines a function `name` with these parameters whose body is one call of a PJX_INLINE template over `Tile`, compiled
// for each of the tiles that the architecture may have; the loader picks.
#ifdef PJX_X86_LEVELS
#define PJX_TILED(name, parameters, call)                             \
  PJX_TILED_FOR("arch=x86-64-v4", Avx512Tile, name, parameters, call) \
  PJX_TILED_FOR("arch=x86-64-v3", Avx2Tile, name, parameters, call)   \
  PJX_TILED_FOR("default", BaselineTile, name, parameters, call)
#define PJX_TILED_FOR(level, tile, name, parameters, call) \
  __attribute__((target(level))) void name parameters {    \
    using Tile = tile;                                     \
    call;                                                  \
  }
#else
#define PJX_TILED(name, parameters, call) \
  void name parameters {                  \
    using Tile = BaselineTile;            \
    call;                                 \
  }
#endif

template <typename Tile>
constexpr int64_t kTileLanes = sizeof(typename Tile::Floats) / sizeof(float);

// sum += A B: kRows rows and kVecs vectors stay in registers while the product runs over the `depth` columns of A.
template <typename Tile, int kRows, int kVecs>
PJX_INLINE void AddProduct(Strided a, const float* b, int64_t b_row, int64_t depth,
                           typename Tile::Floats (&sum)[kRows][kVecs]) {
  using Floats = typename Tile::Floats;
  for (int64_t k = 0; k < depth; ++k) {
    Floats right[kVecs];
    for (int v = 0; v < kVecs; ++v) right[v] = reinterpret_cast<const Floats*>(b + k * b_row)[v];
    for (int i = 0; i < kRows; ++i) {
      const float left = a.data[i * a.row + k * a.column];
      for (int v = 0; v < kVecs; ++v) sum[i][v] += left * right[v];
    }
  }
}

// One tile of C.
template <typename Tile, int kRows, int kVecs>
PJX_INLINE void MatmulTile(Strided a, const float* b, int64_t b_row, int64_t depth, bool add, float* c, int64_t c_row) {
  using Floats = typename Tile::Floats;
  Floats sum[kRows][kVecs];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) sum[i][v] = add ? reinterpret_cast<const Floats*>(c + i * c_row)[v] : Floats{};
  }
  AddProduct<Tile>(a, b, b_row, depth, sum);
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) reinterpret_cast<Floats*>(c + i * c_row)[v] = sum[i][v];
  }
}

template <typename Tile, int kRows, int kVecs>
PJX_INLINE void MatmulPanel(Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth, bool add, float* c,
                            int64_t c_row) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    MatmulTile<Tile, kRows, kVecs>({a.data + i * a.row, a.row, a.column}, b, b_row, depth, add, c + i * c_row, c_row);
  }
  if constexpr (kRows > 1) {
    if (i < rows) {
      MatmulPanel<Tile, kRows / 2, kVecs>({a.data + i * a.row, a.row, a.column}, b, b_row, rows - i, depth, add,
                                          c + i * c_row, c_row);
    }
  }
}

// C[rows, vecs] (+)= A[rows, depth] B[depth, vecs], `vecs` vectors of the tile's type. Panels of B come first: one
// stays in the first-level cache for all rows. Every element of C is one chain of additions in the order of k, whatever
// the tile.
template <typename Tile, int kRows, int kVecs>
PJX_INLINE void SmallMatmul(Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth, int64_t vecs,
                            bool add, float* c, int64_t c_row) {
  constexpr int64_t kWidth = kTileLanes<Tile>;
  int64_t v = 0;
  for (; v + kVecs <= vecs; v += kVecs) {
    MatmulPanel<Tile, kRows, kVecs>(a, b + v * kWidth, b_row, rows, depth, add, c + v * kWidth, c_row);
  }
  if constexpr (kVecs > 1) {
    if (v < vecs) {
      SmallMatmul<Tile, kRows, kVecs - 1>(a, b + v * kWidth, b_row, rows, depth, vecs - v, add, c + v * kWidth, c_row);
    }
  }
}

// C[rows, columns] (+)= A[rows, depth] B[depth, columns]; columns are a multiple of 16.
template <typename Tile>
PJX_INLINE void TiledMatmul(Strided a, const float* b, int64_t b_row, int64_t rows, int64_t depth, int64_t columns,
                            bool add, float* c, int64_t c_row) {
  SmallMatmul<Tile, Tile::kRows, Tile::kVecs>(a, b, b_row, rows, depth, columns / kTileLanes<Tile>, add, c, c_row);
}

}  // namespace pjx
