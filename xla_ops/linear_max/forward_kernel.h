// linear_max and entity_encoder on the GPU, forward: the kernel's body, for a Team of threads (common/team.h).
//
// A warp takes a row, a thread four of 128 columns of the weight. The entities come in tiles of kEntities: a tile's
// units, 16 at a time, and the weight's 16 x 128 numbers for them are in shared memory, the tile's scores in registers,
// 4 kEntities of them in each thread, and there they are folded into the running maximum, entities in their order. So
// neither a unit nor a score reaches memory. Up to 16 units the weight is read once by a block, for all of its rows.
//
// A score is one chain of fused multiply-adds in the order of the units, a unit one in the order of the features: what
// the CPU computes where it has such an instruction.
#pragma once

#include <cmath>
#include <type_traits>

#include "xla_ops/common/team.h"
#include "xla_ops/linear_max/entity_arrays.h"

namespace pjx {

// How the work is cut into blocks of threads.
struct EntityForwardGrid {
  static constexpr int kThreads = 128, kWarp = 32, kRows = kThreads / kWarp, kVectors = 4, kColumns = kVectors * kWarp;
  int64_t rows_per_block, row_blocks, column_blocks;
  int64_t warps_per_row = 1;  // more than one: a block's rows are as many as its warps then have
};

struct EntityForwardArgs {
  EntityArrays arrays;
  LaneArray<const float> bias;  // [H]
  float* y;                     // [lanes, R, H]
  char* winner;                 // [lanes, R, H]; null: not wanted
  EntityForwardGrid grid;

  int64_t blocks() const { return arrays.lanes.count * grid.row_blocks * grid.column_blocks; }
};

// Lanes with the same weights become rows of one lane: a block's rows share the weights that it reads.
inline void MergeLanes(EntityForwardArgs* args) {
  EntityArrays& arrays = args->arrays;
  const Lanes& lanes = arrays.lanes;
  const EntitySizes& sizes = arrays.sizes;
  const int64_t feature_bytes = arrays.is_bfloat16 ? 2 : 4;
  int64_t rows = sizes.rows;
  bool shares_weights = true, has_own_rows = true;
  for (int64_t i = lanes.num_axes; i-- > 0; rows *= lanes.sizes[i]) {
    if (lanes.sizes[i] == 1) continue;
    for (const auto& weights : {arrays.w1, arrays.b1, arrays.weight, args->bias}) {
      shares_weights &= weights.strides[i] == 0;
    }
    const int64_t entities = rows * sizes.entities;
    has_own_rows &= arrays.x.strides[i] == entities * sizes.features * feature_bytes;
    has_own_rows &= arrays.mask.data == nullptr || arrays.mask.strides[i] == entities;
  }
  if (!shares_weights || !has_own_rows) return;
  arrays.sizes.rows = rows;
  arrays.lanes = LanesOf(nullptr, 0);
}

// Merges lanes where it can; sets the grid. Each block reads the weights: it has more rows where there are more than
// `busy` blocks, as many as keep a GPU busy.
inline void PlanForward(EntityForwardArgs* args, int64_t busy = 1024) {
  MergeLanes(args);
  using Grid = EntityForwardGrid;
  const int64_t rows = args->arrays.sizes.rows, groups = (rows + Grid::kRows - 1) / Grid::kRows;
  const int64_t column_blocks = (args->arrays.sizes.hidden + Grid::kColumns - 1) / Grid::kColumns;
  const int64_t share = args->arrays.lanes.count * groups * column_blocks / busy;
  const int64_t rows_per_block = Grid::kRows * (share < 1 ? 1 : share > 16 ? 16 : share);
  args->grid = {rows_per_block, (rows + rows_per_block - 1) / rows_per_block, column_blocks};
}

// The rows and columns of block number `block` of args.blocks().
struct EntityForwardPart : EntityForwardGrid {
  int num_rows, num_columns;
  EntityLane lane;  // from the block's first row and column on, like bias
  const float* bias;
  const EntityForwardArgs& args;
  int64_t result;  // the first in y

  PJX_HD EntityForwardPart(const EntityForwardArgs& all, int64_t block)
      : lane(all.arrays, block / all.grid.column_blocks / all.grid.row_blocks),
        bias(all.bias.Lane(all.arrays.lanes, block / all.grid.column_blocks / all.grid.row_blocks)),
        args(all) {
    const EntitySizes& sizes = all.arrays.sizes;
    const int64_t lane_index = block / all.grid.column_blocks / all.grid.row_blocks;
    const int64_t row = block / all.grid.column_blocks % all.grid.row_blocks * all.grid.rows_per_block;
    const int64_t column = block % all.grid.column_blocks * kColumns;
    const int64_t rows_left = sizes.rows - row, columns_left = sizes.hidden - column;
    num_rows = static_cast<int>(rows_left < all.grid.rows_per_block ? rows_left : all.grid.rows_per_block);
    num_columns = static_cast<int>(columns_left < kColumns ? columns_left : kColumns);
    lane.SkipTo(row);
    lane.weight += column;
    bias += column;
    result = (lane_index * sizes.rows + row) * sizes.hidden + column;
  }

 protected:
  PJX_HD bool IsInside(int row, int entity) const { return row < num_rows && entity < lane.entities; }

  PJX_HD int64_t Number(int row, int entity) const { return static_cast<int64_t>(row) * lane.entities + entity; }
};

// kSaves: args.winner is wanted.
template <bool kHasFirst, int kEntities, bool kSaves>
struct EntityForwardBlock : EntityForwardPart {
  static constexpr int kDepth = 16, kQuads = kEntities * kDepth / 4 / kWarp;  // of units that a thread computes
  static_assert(kThreads == kColumns && kEntities * kDepth % (4 * kWarp) == 0, "what a thread reads and computes");

  struct alignas(16) Quad {
    float of[4];
  };
  struct FirstLayer {
    float w1[kDepth][kDepth], b1[kDepth];          // [feature][unit]
    float features[kRows][kEntities][kDepth + 1];  // one more: threads of successive entities meet different banks
  };
  struct NoFirstLayer {};
  struct Shared {
    alignas(16) float weight[kDepth][kColumns];
    alignas(16) float units[kRows][kEntities][kDepth + 4];  // 4 more: likewise
    bool present[kRows][kEntities];
    std::conditional_t<kHasFirst, FirstLayer, NoFirstLayer> first;
  };

  // What a thread keeps while it goes through the entities of its row.
  struct Kept {
    float score[kEntities][kVectors], best[kVectors];
    int32_t winner[kVectors], first_present;  // -1: none yet
    float unit[kQuads][4];
  };

  PJX_HD EntityForwardBlock(const EntityForwardArgs& all, int64_t block) : EntityForwardPart(all, block) {}

  template <typename Team>
  PJX_HD void Run(const Team& team, Shared& shared) const {
    PerThread<Kept, kThreads> kept;
    int weight_unit = -1, first_unit = -1, first_feature = -1;  // what is in shared memory
    for (int row = 0; row < num_rows; row += kRows) {
      team.Each([&](int thread) {
        Kept& mine = kept[thread];
        PJX_UNROLL
        for (int j = 0; j < kVectors; ++j) {
          mine.best[j] = -INFINITY;
          mine.winner[j] = -1;
        }
        mine.first_present = -1;
      });
      for (int entity = 0; entity < lane.entities; entity += kEntities) {
        int unit = 0;
        do {  // also where there is no unit: all scores are 0 then
          if constexpr (kHasFirst) {
            int feature = 0;
            do {
              team.Each([&](int thread) {
                if (feature == 0) StagePresent(row, entity, thread, shared);
                if (weight_unit != unit) StageWeight(unit, thread, shared);
                if (first_unit != unit || first_feature != feature) StageFirst(unit, feature, thread, shared);
                StageFeatures(row, entity, feature, thread, shared);
              });
              weight_unit = first_unit = unit;
              first_feature = feature;
              team.Each([&](int thread) { ComputeUnits(unit, feature, thread, kept[thread], shared); });
              feature += kDepth;
            } while (feature < lane.features);
          } else {
            team.Each([&](int thread) {
              if (unit == 0) StagePresent(row, entity, thread, shared);
              if (weight_unit != unit) StageWeight(unit, thread, shared);
              StageUnits(row, entity, unit, thread, shared);
            });
            weight_unit = unit;
          }
          team.Each([&](int thread) {
            AddProduct(unit, thread, kept[thread], shared);
            if (unit + kDepth >= lane.units) Fold(entity, thread, kept[thread], shared);
          });
          unit += kDepth;
        } while (unit < lane.units);
      }
      team.Each([&](int thread) { Store(row + thread / kWarp, thread, kept[thread]); });
    }
  }

 private:
  PJX_HD static int Least(int size, int limit) { return size < limit ? size : limit; }

  PJX_HD void StagePresent(int row, int entity, int thread, Shared& shared) const {
    PJX_UNROLL_BY(1)
    for (int i = thread; i < kRows * kEntities; i += kThreads) {
      const int r = row + i / kEntities, n = entity + i % kEntities;
      shared.present[i / kEntities][i % kEntities] = IsInside(r, n) && lane.Has(Number(r, n));
    }
  }

  PJX_HD void StageWeight(int unit, int thread, Shared& shared) const {
    PJX_UNROLL_BY(4)
    for (int k = 0; k < kDepth; ++k) {
      const bool is_inside = unit + k < lane.units && thread < num_columns;
      shared.weight[k][thread] = is_inside ? lane.weight[(unit + k) * lane.hidden + thread] : 0.0f;
    }
  }

  PJX_HD void StageFirst(int unit, int feature, int thread, Shared& shared) const {
    PJX_UNROLL_BY(1)
    for (int i = thread; i < kDepth * kDepth; i += kThreads) {
      const int d = feature + i / kDepth, p = unit + i % kDepth;
      const bool is_inside = d < lane.features && p < lane.units;
      shared.first.w1[i / kDepth][i % kDepth] = is_inside ? lane.w1[d * lane.units + p] : 0.0f;
    }
    if (thread < kDepth) shared.first.b1[thread] = unit + thread < lane.units ? lane.b1[unit + thread] : 0.0f;
  }

  // Each warp its own row's, in the order of memory.
  PJX_HD void StageFeatures(int row, int entity, int feature, int thread, Shared& shared) const {
    const int width = Least(lane.features - feature, kDepth), warp = thread / kWarp;
    PJX_UNROLL_BY(2)
    for (int i = thread % kWarp; i < kEntities * width; i += kWarp) {
      const int r = row + warp, n = entity + i / width;
      shared.first.features[warp][i / width][i % width] =
          IsInside(r, n) ? lane.Feature(Number(r, n) * lane.features + feature + i % width) : 0.0f;
    }
  }

  // Likewise where the features are the units; zeros up to a whole quad.
  PJX_HD void StageUnits(int row, int entity, int unit, int thread, Shared& shared) const {
    const int width = 4 * NumQuads(unit), warp = thread / kWarp;
    PJX_UNROLL_BY(2)
    for (int i = thread % kWarp; i < kEntities * width; i += kWarp) {
      const int r = row + warp, n = entity + i / width, k = unit + i % width;
      shared.units[warp][i / width][i % width] =
          IsInside(r, n) && k < lane.units ? lane.Feature(Number(r, n) * lane.units + k) : 0.0f;
    }
  }

  PJX_HD int NumQuads(int unit) const { return (Least(lane.units - unit, kDepth) + 3) / 4; }

  // Four units of kQuads entities: the features from `feature` on are added; after the last the units are stored.
  PJX_HD void ComputeUnits(int unit, int feature, int thread, Kept& mine, Shared& shared) const {
    const int width = Least(lane.features - feature, kDepth), warp = thread / kWarp;
    PJX_UNROLL
    for (int j = 0; j < kQuads; ++j) {
      const int quad = thread % kWarp + j * kWarp, e = quad / (kDepth / 4), p = quad % (kDepth / 4) * 4;
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) mine.unit[j][k] = feature == 0 ? 0.0f : mine.unit[j][k];
      PJX_UNROLL_BY(2)
      for (int d = 0; d < width; ++d) {
        const float x = shared.first.features[warp][e][d];
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) mine.unit[j][k] = fmaf(x, shared.first.w1[d][p + k], mine.unit[j][k]);
      }
      if (feature + kDepth < lane.features) continue;
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) {  // zeros beyond the last, also where a feature is infinite
        const float value = Relu(mine.unit[j][k] + shared.first.b1[p + k]);
        shared.units[warp][e][p + k] = unit + p + k < lane.units ? value : 0.0f;
      }
    }
  }

  // The units from `unit` on are added to the scores.
  PJX_HD void AddProduct(int unit, int thread, Kept& mine, const Shared& shared) const {
    const int warp = thread / kWarp, column = thread % kWarp, num_quads = NumQuads(unit);
    if (unit == 0) {
      PJX_UNROLL
      for (int e = 0; e < kEntities; ++e) {
        PJX_UNROLL
        for (int j = 0; j < kVectors; ++j) mine.score[e][j] = 0.0f;
      }
    }
    PJX_UNROLL_BY(1)
    for (int quad = 0; quad < num_quads; ++quad) {
      float right[4][kVectors];
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) {
        PJX_UNROLL
        for (int j = 0; j < kVectors; ++j) right[k][j] = shared.weight[4 * quad + k][j * kWarp + column];
      }
      PJX_UNROLL
      for (int e = 0; e < kEntities; ++e) {
        const Quad left = *reinterpret_cast<const Quad*>(&shared.units[warp][e][4 * quad]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          PJX_UNROLL
          for (int j = 0; j < kVectors; ++j) mine.score[e][j] = fmaf(left.of[k], right[k][j], mine.score[e][j]);
        }
      }
    }
  }

  PJX_HD void Fold(int entity, int thread, Kept& mine, const Shared& shared) const {
    PJX_UNROLL
    for (int e = 0; e < kEntities; ++e) {
      if (!shared.present[thread / kWarp][e]) continue;
      const int32_t number = entity + e;
      mine.first_present = mine.first_present < 0 ? number : mine.first_present;
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) FoldScore<kSaves>(mine.score[e][j], number, mine.best[j], mine.winner[j]);
    }
  }

  PJX_HD void Store(int row, int thread, const Kept& mine) const {
    if (row >= num_rows) return;
    const bool is_empty = mine.first_present < 0;
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const int column = j * kWarp + thread % kWarp;
      if (column >= num_columns) continue;
      const int64_t index = result + static_cast<int64_t>(row) * lane.hidden + column;
      args.y[index] = is_empty ? 0.0f : mine.best[j] + bias[column];
      if constexpr (kSaves) {
        // No score above minus infinity: the first one present.
        const int32_t number = is_empty ? 0 : mine.winner[j] < 0 ? mine.first_present : mine.winner[j];
        StoreNumber(number, NumberBytes(lane.entities), index, args.winner);
      }
    }
  }
};

}  // namespace pjx
