// linear_max and entity_encoder over rows of a batch: the vectorised part of the CPU handlers.
//
// A row's entities come in blocks that stay in the first-level cache, absent ones left out. Tiles of scores, entities
// by hidden units, are computed in registers and folded into the running maximum there, so no score is ever stored.
// Backward needs only the winners: it lists the distinct ones of a row, computes their units again, and sends each
// hidden unit's cotangent to its winner.
#pragma once

#include <cmath>
#include <limits>

#include "xla_ops/common/bfloat16.h"
#include "xla_ops/common/scratch.h"
#include "xla_ops/common/simd.h"
#include "xla_ops/common/small_matmul.h"
#include "xla_ops/linear_max/rules.h"

namespace pjx {

// Rows of weights and of scratch arrays are padded with zeros to whole vectors; the arrays of a call are not.
struct EntityLayer : EntitySizes {
  bool has_first;

  int64_t padded_features() const { return RoundUpToLanes(features); }
  int64_t padded_units() const { return RoundUpToLanes(units); }
  int64_t padded_hidden() const { return RoundUpToLanes(hidden); }
  int64_t winners() const { return std::min(entities, hidden); }  // at most, of a row
  // Entities that are scored together.
  int64_t block() const { return std::clamp<int64_t>(4096 / std::max({features, padded_units(), int64_t{1}}), 8, 128); }
};

// One lane's entities: x [rows, entities, features], float32 or bfloat16; mask [rows, entities], null: all are present.
struct EntityInputs {
  const void* x;
  bool is_bfloat16;
  const bool* mask;

  EntityInputs Row(const EntityLayer& layer, int64_t r) const {
    const int64_t offset = r * layer.entities * layer.features * (is_bfloat16 ? 2 : 4);
    return {static_cast<const char*>(x) + offset, is_bfloat16, mask == nullptr ? nullptr : mask + r * layer.entities};
  }
};

struct FirstLayer {
  const float *w1, *b1;  // [features, padded units], [padded units]
};

struct EntityForward {
  EntityInputs inputs;
  FirstLayer first;
  const float *weight, *bias;  // [units, padded hidden], [hidden]
  bool is_tame;                // of weight: see kTame
  float* y;                    // [rows, hidden]
  void* winner;                // [rows, hidden], the type by NumberBytes; null: not wanted
};

struct EntityBackward {
  EntityInputs inputs;
  FirstLayer first;
  const float* w1_transposed;      // [units, padded features]
  const float* weight_transposed;  // [hidden, padded units]
  const void* winner;              // of forward, checked to be below `entities`
  const float* y_bar;
  void* x_bar;                              // like x
  float *weight_transposed_bar, *bias_bar;  // are added to
  float *w1_bar, *b1_bar;                   // likewise
};

// Numbers up to this size, times up to as many weights of that size, add up to a finite sum: none of the scores is NaN,
// and the comparison that NaN needs can be left out.
constexpr float kTame = 1e12f;

PJX_INLINE bool AreTame(const float* x, int64_t size) {
  int wild = 0;
  for (int64_t i = 0; i < size; ++i) wild |= !(std::fabs(x[i]) <= kTame);
  return wild == 0;
}

// The numbers of the entities present among [begin, end), in order; `numbers` has room for one more.
PJX_INLINE int64_t Present(const bool* mask, int64_t begin, int64_t end, int32_t* numbers) {
  if (mask == nullptr) {
    for (int64_t i = 0; i < end - begin; ++i) numbers[i] = static_cast<int32_t>(begin + i);
    return end - begin;
  }
  int64_t count = 0;
  for (int64_t n = begin; n < end; ++n) {
    numbers[count] = static_cast<int32_t>(n);
    count += mask[n];
  }
  return count;
}

// The features of these entities of a row as float32, rows of `copy` being `stride` apart.
PJX_INLINE void CopyFeatures(const EntityInputs& row, const int32_t* numbers, int64_t count, int64_t features,
                             float* copy, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t offset = numbers[i] * features;
    if (row.is_bfloat16) {
      const uint16_t* x = static_cast<const uint16_t*>(row.x) + offset;
      for (int64_t d = 0; d < features; ++d) copy[i * stride + d] = FloatOfBfloat16(x[d]);
    } else {
      const float* x = static_cast<const float*>(row.x) + offset;
      for (int64_t d = 0; d < features; ++d) copy[i * stride + d] = x[d];
    }
  }
}

// units [count, padded units] = relu(features · w1 + b1).
template <typename Level>
PJX_INLINE void ApplyFirst(const EntityLayer& layer, const FirstLayer& first, const float* features, int64_t stride,
                           int64_t count, float* units) {
  const int64_t padded = layer.padded_units();
  TiledMatmul<Level>({features, stride, 1}, first.w1, padded, count, layer.features, padded, /*add=*/false, units,
                     padded);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t p = 0; p < padded; ++p) units[i * padded + p] = Relu(units[i * padded + p] + first.b1[p]);
  }
}

// --- forward ---------------------------------------------------------------------------------------------------------
template <typename Level, int kRows, int kVecs, bool kSave>
PJX_INLINE void MaxTile(Strided a, const int32_t* numbers, const float* b, int64_t b_row, int64_t depth, float* best,
                        int32_t* winner) {
  using Floats = typename Level::Floats;
  using Ints = typename Level::Ints;
  Floats score[kRows][kVecs] = {}, top[kVecs];
  Ints number[kVecs];
  AddProduct<Level>(a, b, b_row, depth, score);
  for (int v = 0; v < kVecs; ++v) {
    top[v] = reinterpret_cast<const Floats*>(best)[v];
    number[v] = reinterpret_cast<const Ints*>(winner)[v];
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVecs; ++v) {
      if (kSave) number[v] = score[i][v] > top[v] ? numbers[i] + Ints{} : number[v];
      top[v] = score[i][v] > top[v] ? score[i][v] : top[v];
    }
  }
  for (int v = 0; v < kVecs; ++v) {
    reinterpret_cast<Floats*>(best)[v] = top[v];
    reinterpret_cast<Ints*>(winner)[v] = number[v];
  }
}

template <typename Level, int kRows, int kVecs, bool kSave>
PJX_INLINE void MaxPanel(Strided a, const int32_t* numbers, int64_t rows, const float* b, int64_t b_row, int64_t depth,
                         float* best, int32_t* winner) {
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    MaxTile<Level, kRows, kVecs, kSave>({a.data + i * a.row, a.row, a.column}, numbers + i, b, b_row, depth, best,
                                        winner);
  }
  if constexpr (kRows > 1) {
    if (i < rows) {
      MaxPanel<Level, kRows / 2, kVecs, kSave>({a.data + i * a.row, a.row, a.column}, numbers + i, rows - i, b, b_row,
                                               depth, best, winner);
    }
  }
}

// Folds the scores A B of `rows` entities into best and winner [columns]; none of them may be NaN.
template <typename Level, int kVecs, bool kSave>
PJX_INLINE void FoldTame(Strided a, const int32_t* numbers, int64_t rows, const float* b, int64_t b_row, int64_t depth,
                         int64_t columns, float* best, int32_t* winner) {
  constexpr int64_t kWidth = kVecs * kLevelLanes<Level>;
  int64_t h = 0;
  for (; h + kWidth <= columns; h += kWidth) {
    MaxPanel<Level, Level::kRows, kVecs, kSave>(a, numbers, rows, b + h, b_row, depth, best + h, winner + h);
  }
  if constexpr (kVecs > 1) {
    if (h < columns) {
      FoldTame<Level, kVecs - 1, kSave>(a, numbers, rows, b + h, b_row, depth, columns - h, best + h, winner + h);
    }
  }
}

// As FoldTame for any scores. `scores` holds those of one entity.
template <typename Level>
PJX_INLINE void FoldAny(Strided a, const int32_t* numbers, int64_t rows, const float* b, int64_t b_row, int64_t depth,
                        int64_t columns, float* best, int32_t* winner, float* scores) {
  for (int64_t i = 0; i < rows; ++i) {
    TiledMatmul<Level>({a.data + i * a.row, a.row, a.column}, b, b_row, 1, depth, columns, /*add=*/false, scores, 0);
    for (int64_t h = 0; h < columns; ++h) {
      const bool takes = Takes(scores[h], best[h]);
      winner[h] = takes ? numbers[i] : winner[h];
      best[h] = takes ? scores[h] : best[h];
    }
  }
}

struct ForwardScratch {
  Scratch<float> features, units, best, scores;
  Scratch<int32_t> numbers, winner;

  explicit ForwardScratch(const EntityLayer& layer)
      : features(AllocateScratch<float>(layer.block() * layer.features)),
        units(AllocateScratch<float>(layer.has_first ? layer.block() * layer.padded_units() : 0)),
        best(AllocateScratch<float>(layer.padded_hidden())),
        scores(AllocateScratch<float>(layer.padded_hidden())),
        numbers(AllocateScratch<int32_t>(layer.block() + 1)),
        winner(AllocateScratch<int32_t>(layer.padded_hidden())) {}
  bool ok() const { return features && units && best && scores && numbers && winner; }
};

// The best scores of a row and their entities, in scratch; false: no entity is present.
template <typename Level>
PJX_INLINE bool ForwardRow(const EntityLayer& layer, const EntityForward& call, const EntityInputs& row,
                           const ForwardScratch& scratch) {
  const int64_t padded_hidden = layer.padded_hidden(), block = layer.block();
  bool found = false;
  for (int64_t begin = 0; begin < layer.entities; begin += block) {
    const int64_t end = std::min(begin + block, layer.entities);
    const int64_t count = Present(row.mask, begin, end, scratch.numbers.get());
    if (count == 0) continue;
    if (!found) {
      for (int64_t h = 0; h < padded_hidden; ++h) scratch.best[h] = -std::numeric_limits<float>::infinity();
      for (int64_t h = 0; h < padded_hidden; ++h) scratch.winner[h] = scratch.numbers[0];
      found = true;
    }
    const float* a = static_cast<const float*>(row.x) + begin * layer.features;
    if (row.is_bfloat16 || count < end - begin) {
      CopyFeatures(row, scratch.numbers.get(), count, layer.features, scratch.features.get(), layer.features);
      a = scratch.features.get();
    }
    int64_t stride = layer.features;
    if (layer.has_first) {
      ApplyFirst<Level>(layer, call.first, a, stride, count, scratch.units.get());
      a = scratch.units.get();
      stride = layer.padded_units();
    }
    const Strided matrix{a, stride, 1};
    float* const best = scratch.best.get();
    int32_t *const numbers = scratch.numbers.get(), *const winner = scratch.winner.get();
    if (!call.is_tame || !AreTame(a, count * stride)) {
      FoldAny<Level>(matrix, numbers, count, call.weight, padded_hidden, layer.units, padded_hidden, best, winner,
                     scratch.scores.get());
    } else if (call.winner != nullptr) {
      FoldTame<Level, Level::kVecs, true>(matrix, numbers, count, call.weight, padded_hidden, layer.units,
                                          padded_hidden, best, winner);
    } else {
      FoldTame<Level, Level::kVecs, false>(matrix, numbers, count, call.weight, padded_hidden, layer.units,
                                           padded_hidden, best, winner);
    }
  }
  return found;
}

template <typename Number>
PJX_INLINE void StoreNumbers(const int32_t* from, int64_t size, int64_t row, void* to) {
  for (int64_t h = 0; h < size; ++h) static_cast<Number*>(to)[row * size + h] = static_cast<Number>(from[h]);
}

template <typename Level>
PJX_INLINE void ForwardTiled(const EntityLayer& layer, const EntityForward& call, int64_t begin, int64_t end,
                             const ForwardScratch& scratch) {
  for (int64_t r = begin; r < end; ++r) {
    const EntityInputs row = call.inputs.Row(layer, r);
    float* const y = call.y + r * layer.hidden;
    if (ForwardRow<Level>(layer, call, row, scratch)) {
      for (int64_t h = 0; h < layer.hidden; ++h) y[h] = scratch.best[h] + call.bias[h];
    } else {
      std::memset(y, 0, layer.hidden * sizeof(float));
      std::memset(scratch.winner.get(), 0, layer.hidden * sizeof(int32_t));
    }
    if (call.winner == nullptr) continue;
    switch (NumberBytes(layer.entities)) {
      case 1:
        StoreNumbers<uint8_t>(scratch.winner.get(), layer.hidden, r, call.winner);
        break;
      case 2:
        StoreNumbers<uint16_t>(scratch.winner.get(), layer.hidden, r, call.winner);
        break;
      default:
        StoreNumbers<int32_t>(scratch.winner.get(), layer.hidden, r, call.winner);
    }
  }
}

// --- backward --------------------------------------------------------------------------------------------------------
struct BackwardScratch {
  Scratch<float> features, units, units_bar, features_bar;  // of the winners, rows padded
  Scratch<int32_t> numbers;                                 // the distinct winners, and room for one more
  Scratch<int32_t> last;                                    // [entities]: the last hidden unit that each won, or -1
  Scratch<int32_t> before;                                  // [hidden]: the one that the same entity won before

  explicit BackwardScratch(const EntityLayer& layer)
      : features(AllocateScratch<float>(layer.winners() * layer.padded_features())),
        units(AllocateScratch<float>(layer.has_first ? layer.winners() * layer.padded_units() : 0)),
        units_bar(AllocateScratch<float>(layer.winners() * layer.padded_units())),
        features_bar(AllocateScratch<float>(layer.has_first ? layer.winners() * layer.padded_features() : 0)),
        numbers(AllocateScratch<int32_t>(layer.winners() + 1)),
        last(AllocateScratch<int32_t>(layer.entities)),
        before(AllocateScratch<int32_t>(layer.hidden)) {
    if (last) std::fill_n(last.get(), layer.entities, -1);
  }
  bool ok() const { return features && units && units_bar && features_bar && numbers && last && before; }
};

// Lists the distinct winners of a row, and the hidden units of each as a chain that begins at `last`. No branch: which
// winners are new is noise. Their features are far apart in memory, so they are asked for at once.
template <typename Number>
PJX_INLINE int64_t ListWinners(const EntityLayer& layer, const void* winners, int64_t r, const EntityInputs& row,
                               const BackwardScratch& scratch) {
  const Number* const winner = static_cast<const Number*>(winners) + r * layer.hidden;
  const int64_t entity_bytes = layer.features * (row.is_bfloat16 ? 2 : 4);
  int32_t *const numbers = scratch.numbers.get(), *const last = scratch.last.get();
  int32_t* const before = scratch.before.get();
  int64_t count = 0;
  for (int64_t h = 0; h < layer.hidden; ++h) {
    const int64_t n = winner[h];
    Prefetch(static_cast<const char*>(row.x) + n * entity_bytes);
    before[h] = last[n];
    numbers[count] = static_cast<int32_t>(n);
    count += last[n] < 0;
    last[n] = static_cast<int32_t>(h);
  }
  return count;
}

// Along each winner's chain: the hidden units' cotangents go to its units (with a first layer, to what came into their
// ReLU and to b1), and with its units to their weights. Leaves `last` as it was before ListWinners.
template <typename Level>
PJX_INLINE void ToWinners(const EntityLayer& layer, const EntityBackward& call, const float* y_bar, const float* units,
                          int64_t count, const BackwardScratch& scratch) {
  using Floats = typename Level::Floats;
  const int64_t padded = layer.padded_units(), vecs = padded / kLevelLanes<Level>;
  const Floats* const unit = reinterpret_cast<const Floats*>(units);
  const Floats* const weight = reinterpret_cast<const Floats*>(call.weight_transposed);
  Floats* const unit_bar = reinterpret_cast<Floats*>(scratch.units_bar.get());
  Floats* const weight_bar = reinterpret_cast<Floats*>(call.weight_transposed_bar);
  for (int64_t i = 0; i < count; ++i) {
    int32_t* const last = &scratch.last[scratch.numbers[i]];
    for (int64_t v = 0; v < vecs; ++v) {
      const Floats value = unit[i * vecs + v];
      Floats sum{};
      for (int64_t h = *last; h >= 0; h = scratch.before[h]) {
        sum += y_bar[h] * weight[h * vecs + v];
        weight_bar[h * vecs + v] += y_bar[h] * value;
      }
      unit_bar[i * vecs + v] = sum;
    }
    if (layer.has_first) {
      for (int64_t p = 0; p < padded; ++p) {
        float* const cotangent = &scratch.units_bar[i * padded + p];
        *cotangent = ReluBackward(units[i * padded + p], *cotangent);
        call.b1_bar[p] += *cotangent;
      }
    }
    *last = -1;
  }
}

PJX_INLINE void StoreFeatures(const float* from, int64_t stride, const int32_t* numbers, int64_t count,
                              int64_t features, bool is_bfloat16, void* row) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t offset = numbers[i] * features;
    if (is_bfloat16) {
      uint16_t* to = static_cast<uint16_t*>(row) + offset;
      for (int64_t d = 0; d < features; ++d) to[d] = Bfloat16Of(from[i * stride + d]);
    } else {
      float* to = static_cast<float*>(row) + offset;
      for (int64_t d = 0; d < features; ++d) to[d] = from[i * stride + d];
    }
  }
}

template <typename Level>
PJX_INLINE void BackwardRow(const EntityLayer& layer, const EntityBackward& call, int64_t r, const EntityInputs& row,
                            void* x_bar, const BackwardScratch& scratch) {
  const int64_t padded_features = layer.padded_features(), padded = layer.padded_units();
  const float* const y_bar = call.y_bar + r * layer.hidden;
  const int number_bytes = NumberBytes(layer.entities);
  const int64_t count = number_bytes == 1   ? ListWinners<uint8_t>(layer, call.winner, r, row, scratch)
                        : number_bytes == 2 ? ListWinners<uint16_t>(layer, call.winner, r, row, scratch)
                                            : ListWinners<int32_t>(layer, call.winner, r, row, scratch);
  CopyFeatures(row, scratch.numbers.get(), count, layer.features, scratch.features.get(), padded_features);
  const float* units = scratch.features.get();
  if (layer.has_first) {
    ApplyFirst<Level>(layer, call.first, units, padded_features, count, scratch.units.get());
    units = scratch.units.get();
  }
  for (int64_t h = 0; h < layer.hidden; ++h) call.bias_bar[h] += y_bar[h];
  ToWinners<Level>(layer, call, y_bar, units, count, scratch);
  const float* features_bar = scratch.units_bar.get();
  if (layer.has_first) {
    const float* const units_bar = scratch.units_bar.get();
    TiledMatmul<Level>({scratch.features.get(), 1, padded_features}, units_bar, padded, layer.features, count, padded,
                       /*add=*/true, call.w1_bar, padded);
    TiledMatmul<Level>({units_bar, padded, 1}, call.w1_transposed, padded_features, count, layer.units, padded_features,
                       /*add=*/false, scratch.features_bar.get(), padded_features);
    features_bar = scratch.features_bar.get();
  }
  StoreFeatures(features_bar, padded_features, scratch.numbers.get(), count, layer.features, row.is_bfloat16, x_bar);
}

template <typename Level>
PJX_INLINE void BackwardTiled(const EntityLayer& layer, const EntityBackward& call, int64_t begin, int64_t end,
                              const BackwardScratch& scratch) {
  const int64_t row_bytes = layer.entities * layer.features * (call.inputs.is_bfloat16 ? 2 : 4);
  for (int64_t r = begin; r < end; ++r) {
    const EntityInputs row = call.inputs.Row(layer, r);
    void* const x_bar = static_cast<char*>(call.x_bar) + r * row_bytes;
    std::memset(x_bar, 0, row_bytes);
    if (row.mask == nullptr || std::find(row.mask, row.mask + layer.entities, true) != row.mask + layer.entities) {
      BackwardRow<Level>(layer, call, r, row, x_bar, scratch);
    }
  }
}

}  // namespace pjx
