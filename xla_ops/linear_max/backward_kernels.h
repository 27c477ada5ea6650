// linear_max and entity_encoder on the GPU, backward: the kernels' bodies. Only the entities that forward has saved as
// winners are looked at. Three launches, whose sums all have a fixed order; nothing is added atomically:
//
// - EntityToInputs, a block per part of a lane's rows: the cotangents of x, an entity's by one thread from the hidden
//   units that it has won, and with a first layer the part's sums of those of w1 and b1;
// - EntityToWeights, a thread per hidden unit and part: the part's sums of those of weight and bias;
// - EntityAddParts: the sums of all parts.
//
// What the handler cannot see, the winners lying on the device: one that is not the number of an entity present passes
// no cotangent on. Forward saves such numbers for rows without entities, and only there.
#pragma once

#include <cmath>

#include "xla_ops/common/team.h"
#include "xla_ops/linear_max/entity_arrays.h"

namespace pjx {

// Where the sums of a part lie, in floats from its beginning; the results follow the same order.
struct EntitySums {
  int64_t bias, w1, b1, size;  // weight [P or D, H] at 0, [H], [D, P], [P]

  PJX_HD EntitySums(const EntitySizes& sizes, bool has_first)
      : bias(sizes.units * sizes.hidden),
        w1(bias + sizes.hidden),
        b1(w1 + (has_first ? sizes.features * sizes.units : 0)),
        size(b1 + (has_first ? sizes.units : 0)) {}
};

struct EntityBackwardArgs {
  EntityArrays arrays;
  LaneArray<const char> winner;  // [R, H], strides in bytes
  LaneArray<const float> y_bar;  // [R, H]
  char* x_bar;                   // like x, with all the lanes
  float *weight_bar, *bias_bar;  // likewise
  float *w1_bar, *b1_bar;        // likewise, where there is a first layer
  float* sums;                   // scratch memory [lanes, parts, EntitySums::size]
  int64_t parts;                 // of a lane's rows
};

// By the sizes alone: the results have the same bits on every GPU. The sums of all parts stay below 16 MiB where they
// can, and 8 rows are what a part is worth. `scratch_floats` in entities.py says the same of one lane.
inline int64_t NumEntityParts(const EntitySizes& sizes, int64_t lanes, int64_t sums_size) {
  int64_t parts = 1024 / (lanes < 1 ? 1 : lanes);
  const int64_t lane_size = lanes * sums_size, affordable = lane_size == 0 ? parts : (int64_t{1} << 22) / lane_size;
  parts = parts < affordable ? parts : affordable;
  parts = parts < sizes.rows / 8 ? parts : sizes.rows / 8;
  return parts < 1 ? 1 : parts;
}

// A part of a lane's rows.
struct EntityPart {
  const EntityBackwardArgs& args;
  EntityLane lane;
  const char* winner;
  const float* y_bar;
  int64_t lane_index, row_begin, row_end;
  float* sums;

  PJX_HD EntityPart(const EntityBackwardArgs& all, int64_t lane_number, int64_t part, bool has_first)
      : args(all),
        lane(all.arrays, lane_number),
        winner(all.winner.Lane(all.arrays.lanes, lane_number)),
        y_bar(all.y_bar.Lane(all.arrays.lanes, lane_number)),
        lane_index(lane_number),
        row_begin(all.arrays.sizes.rows * part / all.parts),
        row_end(all.arrays.sizes.rows * (part + 1) / all.parts),
        sums(all.sums + (lane_number * all.parts + part) * EntitySums(all.arrays.sizes, has_first).size) {}

  // The entity that won hidden unit h of row r; -1: none.
  PJX_HD int64_t Winner(int64_t r, int h) const {
    const int64_t number = LoadNumber(winner, NumberBytes(lane.entities), r * lane.hidden + h);
    if (number < 0 || number >= lane.entities || !lane.Has(r * lane.entities + number)) return -1;
    return r * lane.entities + number;
  }
};

constexpr int kUnitChunk = 16;  // units, or features, that a thread takes at a time
PJX_HD int ChunkWidth(int left) { return left < kUnitChunk ? left : kUnitChunk; }

// value = units [unit, unit + kUnitChunk) of some entities, as forward has them; zeros beyond the last, and for -1.
template <bool kHasFirst, int kCount>
PJX_HD void UnitsOf(const EntityLane& lane, const int64_t (&entities)[kCount], int unit,
                    float (&value)[kCount][kUnitChunk]) {
  const int width = ChunkWidth(lane.units - unit);
  PJX_UNROLL
  for (int i = 0; i < kCount; ++i) {
    PJX_UNROLL
    for (int k = 0; k < kUnitChunk; ++k) value[i][k] = 0.0f;
  }
  if constexpr (!kHasFirst) {
    PJX_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (entities[i] < 0) continue;
      PJX_UNROLL
      for (int k = 0; k < kUnitChunk; ++k) {
        if (k < width) value[i][k] = lane.Feature(entities[i] * lane.units + unit + k);
      }
    }
  } else {
    PJX_UNROLL_BY(1)
    for (int d = 0; d < lane.features; ++d) {
      float x[kCount];
      PJX_UNROLL
      for (int i = 0; i < kCount; ++i) x[i] = entities[i] < 0 ? 0.0f : lane.Feature(entities[i] * lane.features + d);
      PJX_UNROLL
      for (int k = 0; k < kUnitChunk; ++k) {
        if (k >= width) continue;
        const float w = lane.w1[d * lane.units + unit + k];
        PJX_UNROLL
        for (int i = 0; i < kCount; ++i) value[i][k] = fmaf(x[i], w, value[i][k]);
      }
    }
    PJX_UNROLL
    for (int k = 0; k < kUnitChunk; ++k) {
      if (k >= width) continue;
      const float b = lane.b1[unit + k];
      PJX_UNROLL
      for (int i = 0; i < kCount; ++i) value[i][k] = entities[i] < 0 ? 0.0f : Relu(value[i][k] + b);
    }
  }
}

// --- cotangents of x, w1 and b1 --------------------------------------------------------------------------------------

template <bool kHasFirst>
struct EntityToInputs : EntityPart {
  static constexpr int kThreads = 128, kBits = 32;
  static constexpr int kWords = 2048, kMaxHidden = kWords * kBits;

  struct Shared {
    uint32_t won[kWords];  // [word][entity of the window]: bit b of word w stands for hidden unit 32 w + b
    // Of each entity, one column more than a chunk has, or four: threads of successive entities meet different banks.
    float features[kThreads][kUnitChunk + 1];
    float unit_bar[kThreads][kUnitChunk + 4];  // with a first layer, of what came into its ReLU
  };

  PJX_HD static int Words(int hidden) { return hidden < kBits ? 1 : (hidden + kBits - 1) / kBits; }
  // Entities that a block looks at together; at least one up to kMaxHidden.
  PJX_HD static int Window(int hidden) {
    const int fit = kWords / Words(hidden);
    return fit < kThreads ? fit : kThreads;
  }

  struct Kept {
    float feature_bar[kUnitChunk];
  };

  int words, window;

  // Block number `block` of lanes * parts.
  PJX_HD EntityToInputs(const EntityBackwardArgs& args, int64_t block)
      : EntityPart(args, block / args.parts, block % args.parts, kHasFirst),
        words(Words(lane.hidden)),
        window(Window(lane.hidden)) {}

  template <typename Team>
  PJX_HD void Run(const Team& team, Shared& shared) const {
    const EntitySums at(args.arrays.sizes, kHasFirst);
    PerThread<Kept, kThreads> kept;
    team.Each([&](int thread) {
      for (int64_t i = at.w1 + thread; i < at.size; i += kThreads) sums[i] = 0.0f;
    });
    const int64_t end = row_end * lane.entities;
    for (int64_t begin = row_begin * lane.entities; begin < end; begin += window) {
      const int count = static_cast<int>(end - begin < window ? end - begin : window);
      team.Each([&](int thread) {
        for (int i = thread; i < words * window; i += kThreads) shared.won[i] = 0;
      });
      team.Each([&](int thread) { Mark(team, begin, count, thread, shared); });
      if constexpr (kHasFirst) {
        int feature = 0;
        do {  // also where there is no feature: b1 has a cotangent
          team.Each([&](int thread) {
            PJX_UNROLL
            for (int d = 0; d < kUnitChunk; ++d) kept[thread].feature_bar[d] = 0.0f;
          });
          for (int unit = 0; unit < lane.units; unit += kUnitChunk) {
            team.Each([&](int thread) { ToUnits(begin, count, feature, unit, thread, shared); });
            team.Each([&](int thread) {
              AddToFirst(count, feature, unit, thread, shared);
              if (thread < count) AddToFeatures(feature, unit, thread, kept[thread], shared);
            });
          }
          team.Each([&](int thread) {
            PJX_UNROLL
            for (int d = 0; d < kUnitChunk; ++d) shared.features[thread][d] = kept[thread].feature_bar[d];
          });
          team.Each([&](int thread) { Store(begin, count, feature, thread, shared.features); });
          feature += kUnitChunk;
        } while (feature < lane.features);
      } else {
        for (int unit = 0; unit < lane.units; unit += kUnitChunk) {
          team.Each([&](int thread) {
            if (thread < count) ToFeatures(begin, unit, thread, shared);
          });
          team.Each([&](int thread) { Store(begin, count, unit, thread, shared.features); });
        }
      }
    }
  }

 private:
  // Which hidden units each entity of the window has won.
  template <typename Team>
  PJX_HD void Mark(const Team& team, int64_t begin, int count, int thread, Shared& shared) const {
    for (int64_t r = begin / lane.entities; r * lane.entities < begin + count; ++r) {
      for (int h = thread; h < lane.hidden; h += kThreads) {
        const int64_t entity = Winner(r, h);
        if (entity < begin || entity >= begin + count) continue;
        team.Or(&shared.won[h / kBits * window + (entity - begin)], 1u << (h % kBits));
      }
    }
  }

  // unit_bar[k] = sum over the hidden units h that the entity has won of y_bar[h] weight[unit + k, h], in the order of
  // h; zeros beyond the last unit. Whether it has won any.
  PJX_HD bool FromHidden(int64_t begin, int unit, int item, const Shared& shared, float (&unit_bar)[kUnitChunk]) const {
    const float* const row_bar = y_bar + (begin + item) / lane.entities * lane.hidden;
    const int width = ChunkWidth(lane.units - unit);
    PJX_UNROLL
    for (int k = 0; k < kUnitChunk; ++k) unit_bar[k] = 0.0f;
    bool is_winner = false;
    PJX_UNROLL_BY(1)
    for (int word = 0; word < words; ++word) {
      PJX_UNROLL_BY(1)
      for (uint32_t bits = shared.won[word * window + item]; bits != 0; bits &= bits - 1) {
        is_winner = true;
        const int h = word * kBits + LowestBit(bits);
        PJX_UNROLL
        for (int k = 0; k < kUnitChunk; ++k) {
          if (k < width) unit_bar[k] = fmaf(row_bar[h], lane.weight[(unit + k) * lane.hidden + h], unit_bar[k]);
        }
      }
    }
    return is_winner;
  }

  PJX_HD void ToFeatures(int64_t begin, int unit, int item, Shared& shared) const {
    float unit_bar[kUnitChunk];
    FromHidden(begin, unit, item, shared, unit_bar);
    PJX_UNROLL
    for (int k = 0; k < kUnitChunk; ++k) shared.features[item][k] = unit_bar[k];
  }

  // Features of the entity and cotangents of what came into its ReLU; zeros for one that has won nothing.
  PJX_HD void ToUnits(int64_t begin, int count, int feature, int unit, int item, Shared& shared) const {
    if (item >= count) return;
    float unit_bar[kUnitChunk], value[1][kUnitChunk];
    const bool is_winner = FromHidden(begin, unit, item, shared, unit_bar);
    const int width = ChunkWidth(lane.features - feature);
    const int64_t entity[1] = {is_winner ? begin + item : -1};
    if (is_winner) UnitsOf<true>(lane, entity, unit, value);
    PJX_UNROLL
    for (int k = 0; k < kUnitChunk; ++k) {
      shared.unit_bar[item][k] = is_winner ? ReluBackward(value[0][k], unit_bar[k]) : 0.0f;
      shared.features[item][k] = is_winner && k < width ? lane.Feature(entity[0] * lane.features + feature + k) : 0.0f;
    }
  }

  // The window's entities are added to the part's sums, in their order; each sum by one thread, always the same.
  PJX_HD void AddToFirst(int count, int feature, int unit, int thread, const Shared& shared) const {
    const EntitySums at(args.arrays.sizes, kHasFirst);
    constexpr int kQuads = kUnitChunk / 4;
    if (thread < kUnitChunk * kQuads) {  // four units of a feature
      const int d = thread / kQuads, k = thread % kQuads * 4;
      if (feature + d >= lane.features) return;
      float sum[4] = {};
      for (int item = 0; item < count; ++item) {
        PJX_UNROLL
        for (int j = 0; j < 4; ++j) {
          sum[j] = fmaf(shared.features[item][d], shared.unit_bar[item][k + j], sum[j]);
        }
      }
      PJX_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (unit + k + j < lane.units) sums[at.w1 + (feature + d) * lane.units + unit + k + j] += sum[j];
      }
    } else if (feature == 0 && thread < kUnitChunk * (kQuads + 1)) {
      const int k = thread - kUnitChunk * kQuads;
      if (unit + k >= lane.units) return;
      float sum = 0.0f;
      for (int item = 0; item < count; ++item) sum += shared.unit_bar[item][k];
      sums[at.b1 + unit + k] += sum;
    }
  }

  PJX_HD void AddToFeatures(int feature, int unit, int item, Kept& mine, const Shared& shared) const {
    const int num_units = ChunkWidth(lane.units - unit), num_features = ChunkWidth(lane.features - feature);
    PJX_UNROLL_BY(1)
    for (int k = 0; k < num_units; ++k) {
      const float unit_bar = shared.unit_bar[item][k];
      const float* const w1 = lane.w1 + feature * lane.units + unit + k;
      PJX_UNROLL
      for (int d = 0; d < kUnitChunk; ++d) {
        if (d < num_features) mine.feature_bar[d] = fmaf(unit_bar, w1[d * lane.units], mine.feature_bar[d]);
      }
    }
  }

  // A chunk of the window's cotangents of x, in the order of memory.
  PJX_HD void Store(int64_t begin, int count, int feature, int thread,
                    const float (&from)[kThreads][kUnitChunk + 1]) const {
    const int features = lane.features;
    const int width = ChunkWidth(features - feature);
    const int64_t first = (lane_index * args.arrays.sizes.rows * lane.entities + begin) * features + feature;
    for (int i = thread; i < count * width; i += kThreads) {
      const int item = i / width, d = i % width;
      StoreFeature(lane.is_bfloat16, first + static_cast<int64_t>(item) * lane.features + d, from[item][d], args.x_bar);
    }
  }
};

// --- cotangents of weight and bias -----------------------------------------------------------------------------------

struct EntityToWeightsGrid {
  static constexpr int kThreads = 128, kRowsAhead = 4;  // rows whose winners a thread looks for together
  int64_t column_blocks, unit_chunks;
  PJX_HD explicit EntityToWeightsGrid(const EntitySizes& sizes)
      : column_blocks((sizes.hidden + kThreads - 1) / kThreads),
        unit_chunks(sizes.units < 1 ? 1 : (sizes.units + kUnitChunk - 1) / kUnitChunk) {}
  PJX_HD int64_t per_part() const { return column_blocks * unit_chunks; }
};

// Thread `thread` of block number `block` of lanes * parts * per_part().
template <bool kHasFirst>
PJX_HD void EntityToWeights(const EntityBackwardArgs& args, int64_t block, int thread) {
  constexpr int kRowsAhead = EntityToWeightsGrid::kRowsAhead;
  const EntityToWeightsGrid grid(args.arrays.sizes);
  const int64_t part_index = block / grid.per_part();
  const int unit = static_cast<int>(block % grid.per_part() / grid.column_blocks) * kUnitChunk;
  const int h = static_cast<int>(block % grid.column_blocks) * EntityToWeightsGrid::kThreads + thread;
  const EntityPart part(args, part_index / args.parts, part_index % args.parts, kHasFirst);
  const EntityLane& lane = part.lane;
  if (h >= lane.hidden) return;
  float weight_bar[kUnitChunk], bias_bar = 0.0f;
  PJX_UNROLL
  for (int k = 0; k < kUnitChunk; ++k) weight_bar[k] = 0.0f;
  for (int64_t row = part.row_begin; row < part.row_end; row += kRowsAhead) {
    int64_t entities[kRowsAhead];
    float y_bar[kRowsAhead], value[kRowsAhead][kUnitChunk];
    PJX_UNROLL
    for (int i = 0; i < kRowsAhead; ++i) {
      const bool is_row = row + i < part.row_end;
      entities[i] = is_row ? part.Winner(row + i, h) : -1;
      y_bar[i] = is_row ? part.y_bar[(row + i) * lane.hidden + h] : 0.0f;
    }
    UnitsOf<kHasFirst>(lane, entities, unit, value);
    PJX_UNROLL
    for (int i = 0; i < kRowsAhead; ++i) {
      if (entities[i] < 0) continue;
      bias_bar += y_bar[i];
      PJX_UNROLL
      for (int k = 0; k < kUnitChunk; ++k) weight_bar[k] = fmaf(y_bar[i], value[i][k], weight_bar[k]);
    }
  }
  const int width = ChunkWidth(lane.units - unit);
  PJX_UNROLL
  for (int k = 0; k < kUnitChunk; ++k) {
    if (k < width) part.sums[(unit + k) * lane.hidden + h] = weight_bar[k];
  }
  if (unit == 0) part.sums[EntitySums(args.arrays.sizes, kHasFirst).bias + h] = bias_bar;
}

// --- sums of all parts -----------------------------------------------------------------------------------------------

// Eight warps add an eighth of the parts each, then one adds those eight.
struct EntityAddParts {
  static constexpr int kThreads = 256, kWarp = 32, kSlices = kThreads / kWarp, kAhead = 8;
  struct Shared {
    float sums[kSlices][kWarp];
  };

  PJX_HD static int64_t BlocksPerLane(int64_t size) { return (size + kWarp - 1) / kWarp; }

  // Block number `block` of lanes * BlocksPerLane.
  template <typename Team>
  PJX_HD static void Run(const Team& team, const EntityBackwardArgs& args, int64_t block, Shared& shared) {
    const EntitySizes& sizes = args.arrays.sizes;
    const EntitySums at(sizes, args.arrays.has_first != 0);
    const int64_t blocks = BlocksPerLane(at.size), lane = block / blocks, first = block % blocks * kWarp;
    const float* const sums = args.sums + lane * args.parts * at.size + first;
    team.Each([&](int thread) {
      const int slice = thread / kWarp, i = thread % kWarp;
      const int64_t end = args.parts * (slice + 1) / kSlices;
      float sum = 0.0f;
      for (int64_t part = args.parts * slice / kSlices; part < end && first + i < at.size; part += kAhead) {
        float terms[kAhead];
        PJX_UNROLL
        for (int j = 0; j < kAhead; ++j) terms[j] = part + j < end ? sums[(part + j) * at.size + i] : 0.0f;
        PJX_UNROLL
        for (int j = 0; j < kAhead; ++j) sum += terms[j];
      }
      shared.sums[slice][i] = sum;
    });
    team.Each([&](int thread) {
      const int64_t i = first + thread;
      if (thread >= kWarp || i >= at.size) return;
      float sum = 0.0f;
      for (int slice = 0; slice < kSlices; ++slice) sum += shared.sums[slice][thread];
      if (i < at.bias) {
        args.weight_bar[lane * at.bias + i] = sum;
      } else if (i < at.w1) {
        args.bias_bar[lane * sizes.hidden + i - at.bias] = sum;
      } else if (i < at.b1) {
        args.w1_bar[lane * (at.b1 - at.w1) + i - at.w1] = sum;
      } else {
        args.b1_bar[lane * sizes.units + i - at.b1] = sum;
      }
    });
  }
};

}  // namespace pjx
