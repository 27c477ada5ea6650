// linear_max and entity_encoder on the GPU, forward, with the tensor cores' products of bfloat16: the kernel's body,
// for up to 16 features and units.
//
// With one pass the factors are rounded to bfloat16. With three they are split into a high part and a low one, which is
// what the high one leaves, and high high, high low and low high are added. Sums are float32 in either case.
//
// A warp takes a row and 128 columns. Its left matrices are 16 columns of the weight each, transposed, its right ones 8
// entities: a lane then has the maxima of 16 columns in registers, each over a quarter of the entities, and only two
// exchanges between lanes are left for the end. (Entities on the left would make it 32 columns and three exchanges.)
//
// Lane 4 g + t reads the features 4 t to 4 t + 3 of entities g and g + 8 of a tile. That is its share of the right
// matrices, once their inner index, and the weight's with it, is permuted to fit; and a first layer, whose left matrix
// is the entities, gives it the units 4 t to 4 t + 3 of the same two, once w1's columns are. So from the features to
// the maxima nothing leaves a lane's registers.
//
// In the place of an absent entity stands the first one present, with its features and its number; beyond the last
// entity, the last one, or the first present again. They cannot win over themselves, whatever the weights are, so that
// scores need no mask.
#pragma once

#include "xla_ops/linear_max/forward_kernel.h"

namespace pjx {

// Two numbers, side by side.
struct Bfloat16Parts {
  uint32_t high, low;
  uint32_t finite;  // the high part, 0 for infinity and NaN: their product with a low part could be another NaN
};

template <int kPasses>
PJX_HD Bfloat16Parts PartsOf(float x, float y) {
  const uint32_t high = Bfloat16PairOf(x, y);
  if (kPasses == 1) return {high, 0, high};
  const float high_x = FloatOfBfloat16(static_cast<uint16_t>(high));
  const float high_y = FloatOfBfloat16(static_cast<uint16_t>(high >> 16));
  const bool is_x_finite = fabsf(high_x) < INFINITY, is_y_finite = fabsf(high_y) < INFINITY;
  const uint32_t low = Bfloat16PairOf(is_x_finite ? x - high_x : 0.0f, is_y_finite ? y - high_y : 0.0f);
  return {high, low, high & ((is_x_finite ? 0xFFFFu : 0u) | (is_y_finite ? 0xFFFF0000u : 0u))};
}

// All else takes the exact kernel, as a lower precision is a permission.
constexpr int kTensorDepth = 16;
inline bool SuitsTensorCores(const EntitySizes& sizes) {
  return sizes.features <= kTensorDepth && sizes.units <= kTensorDepth;
}

// See PlanForward: these blocks are through their rows sooner.
constexpr int64_t kBusyTensorBlocks = 512;

// Block number `block` of args.blocks(). kSaves: args.winner is wanted.
template <bool kHasFirst, int kPasses, bool kSaves>
struct EntityTensorBlock : EntityForwardPart {
  static constexpr int kHalf = 8, kTile = 2 * kHalf;                           // of entities
  static constexpr int kSlots = kColumns / kHalf, kGroups = kColumns / kWarp;  // of a lane's columns
  static constexpr int kLefts = kColumns / 16, kParts = kPasses == 1 ? 1 : 2;
  static_assert(kPasses == 1 || kPasses == 3, "high high, or also high low and low high");

  struct Shared {
    alignas(16) LeftFragment weight[kParts][kLefts][kWarp];
  };

  // Of a lane. Slot j is column 32 (j / 4) + 4 g + j % 4.
  struct Kept {
    float best[kSlots];
    int32_t winner[kSlots];
    float next[2][4];  // features of the tile to come
    bool is_present[2];
    float stand_in[4];  // features of the first entity present
  };
  struct First {
    Bfloat16Parts w1[2][2];  // [units 4 (g / 2) + 2 n + g % 2][two features]
    float b1[4];
  };
  struct Tile {
    int32_t source[2];          // whose features the lane has in the place of entities g and g + 8
    int32_t number[4];          // likewise of the entities 2 t, 2 t + 1, 2 t + 8 and 2 t + 9, whose scores it gets
    float four[2][4];           // features, then units
    Bfloat16Parts parts[2][2];  // of them, [two][g or g + 8]
  };

  PJX_HD EntityTensorBlock(const EntityForwardArgs& all, int64_t block) : EntityForwardPart(all, block) {}

  template <typename Team>
  PJX_HD void Run(const Team& team, Shared& shared) const {
    team.Each([&](int thread) { StageWeight(thread, shared); });
    team.EachWarp([&](const Warp& warp) {
      PerLane<First> first;
      if constexpr (kHasFirst) warp.Each([&](int thread) { LoadFirst(thread, first[thread]); });
      for (int row = warp.index; row < num_rows; row += kRows) RunRow(warp, row, first, shared);
    });
  }

 private:
  // A thread a column; beyond the last column and unit: zeros.
  PJX_HD void StageWeight(int column, Shared& shared) const {
    const int group = column / kWarp, g = column % kWarp / 4, slot = column % 4;
    PJX_UNROLL
    for (int t = 0; t < 4; ++t) {
      float four[4];
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) {
        const bool is_inside = column < num_columns && 4 * t + k < lane.units;
        four[k] = is_inside ? lane.weight[(4 * t + k) * lane.hidden + column] : 0.0f;
      }
      PJX_UNROLL
      for (int two = 0; two < 2; ++two) {
        const Bfloat16Parts parts = PartsOf<kPasses>(four[2 * two], four[2 * two + 1]);
        PJX_UNROLL
        for (int part = 0; part < kParts; ++part) {
          LeftFragment& left = shared.weight[part][2 * group + slot / 2][4 * g + t];
          left.of[2 * two + slot % 2] = part == 0 ? parts.high : parts.low;
        }
      }
    }
  }

  PJX_HD void LoadFirst(int thread, First& first) const {
    const int g = thread / 4, t = thread % 4;
    PJX_UNROLL
    for (int k = 0; k < 4; ++k) first.b1[k] = 4 * t + k < lane.units ? lane.b1[4 * t + k] : 0.0f;
    PJX_UNROLL
    for (int n = 0; n < 2; ++n) {
      const int unit = g / 2 * 4 + 2 * n + g % 2;
      float four[4];
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) {
        const bool is_inside = unit < lane.units && 4 * t + k < lane.features;
        four[k] = is_inside ? lane.w1[(4 * t + k) * lane.units + unit] : 0.0f;
      }
      PJX_UNROLL
      for (int two = 0; two < 2; ++two) first.w1[n][two] = PartsOf<kPasses>(four[2 * two], four[2 * two + 1]);
    }
  }

  PJX_HD void RunRow(const Warp& warp, int row, PerLane<First>& first, const Shared& shared) const {
    // Whole tiles: they begin where memory's sectors do.
    const int first_present = FirstPresent(warp, row), begin = first_present - first_present % kTile;
    PerLane<Kept> kept;
    warp.Each([&](int thread) {
      Kept& mine = kept[thread];
      PJX_UNROLL
      for (int j = 0; j < kSlots; ++j) {
        mine.best[j] = -INFINITY;
        mine.winner[j] = first_present;
      }
      if (first_present < 0) return;
      lane.FourFeatures(Number(row, first_present), thread % 4, mine.stand_in);
      LoadTile(row, begin, thread, mine);
    });
    if (first_present >= 0) {
      PJX_UNROLL_BY(1)
      for (int entity = begin; entity < lane.entities; entity += kTile) {
        PerLane<Tile> tile;
        warp.Each([&](int thread) {
          Take(entity, first_present, thread, kept[thread], tile[thread]);
          if (entity + kTile < lane.entities) LoadTile(row, entity + kTile, thread, kept[thread]);
        });
        if constexpr (kHasFirst) ToUnits(warp, first, tile);
        if (entity + kHalf < lane.entities) {
          AddTile<2>(warp, tile, kept, shared);
        } else {
          AddTile<1>(warp, tile, kept, shared);
        }
      }
    }
    Merge<2>(warp, kept);
    Merge<1>(warp, kept);
    warp.Each([&](int thread) { Store(row, first_present, thread, kept[thread]); });
  }

  // Of a row's entities; -1: there is none.
  PJX_HD int FirstPresent(const Warp& warp, int row) const {
    if (lane.mask == nullptr) return lane.entities == 0 ? -1 : 0;
    PJX_UNROLL_BY(1)
    for (int begin = 0; begin < lane.entities; begin += kWarp) {
      const uint32_t bits = warp.Ballot(
          [&](int thread) { return begin + thread < lane.entities && lane.Has(Number(row, begin + thread)); });
      if (bits != 0) return begin + LowestBit(bits);
    }
    return -1;
  }

  // The entity g + 8 half of the tile from `entity` on; the last one for those beyond.
  PJX_HD int Entity(int entity, int half, int thread) const {
    const int n = entity + half * kHalf + thread / 4;
    return n < lane.entities ? n : lane.entities - 1;
  }

  PJX_HD void LoadTile(int row, int entity, int thread, Kept& mine) const {
    PJX_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t number = Number(row, Entity(entity, half, thread));
      mine.is_present[half] = lane.Has(number);
      lane.FourFeatures(number, thread % 4, mine.next[half]);
    }
  }

  PJX_HD void Take(int entity, int first_present, int thread, const Kept& mine, Tile& tile) const {
    PJX_UNROLL
    for (int half = 0; half < 2; ++half) {
      const bool is_present = mine.is_present[half];
      tile.source[half] = is_present ? Entity(entity, half, thread) : first_present;
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) tile.four[half][k] = is_present ? mine.next[half][k] : mine.stand_in[k];
    }
  }

  PJX_HD void Split(PerLane<Tile>& tile, int thread) const {
    Tile& mine = tile[thread];
    PJX_UNROLL
    for (int two = 0; two < 2; ++two) {
      PJX_UNROLL
      for (int half = 0; half < 2; ++half) {
        mine.parts[two][half] = PartsOf<kPasses>(mine.four[half][2 * two], mine.four[half][2 * two + 1]);
      }
    }
  }

  // The first layer: 16 entities are the rows of the left matrix, 8 units the columns of the right one.
  PJX_HD void ToUnits(const Warp& warp, PerLane<First>& first, PerLane<Tile>& tile) const {
    using Parts = Bfloat16Parts;
    warp.Each([&](int thread) { Split(tile, thread); });
    PJX_UNROLL
    for (int n = 0; n < 2; ++n) {
      PerLane<SumFragment> sums;
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int i = 0; i < 4; ++i) sums[thread].of[i] = first[thread].b1[2 * n + i % 2];
      });
      const auto add = [&](uint32_t Parts::* left, uint32_t Parts::* right) {
        warp.MultiplyAdd(
            sums,
            [&](int thread) {
              const auto& parts = tile[thread].parts;
              return LeftFragment{{parts[0][0].*left, parts[0][1].*left, parts[1][0].*left, parts[1][1].*left}};
            },
            [&](int thread) { return RightFragment{{first[thread].w1[n][0].*right, first[thread].w1[n][1].*right}}; });
      };
      if constexpr (kPasses == 3) {
        add(&Parts::finite, &Parts::low);
        add(&Parts::low, &Parts::finite);
      }
      add(&Parts::high, &Parts::high);
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int i = 0; i < 4; ++i) {  // zeros beyond the last, also where a feature is infinite
          const int k = 2 * n + i % 2;
          tile[thread].four[i / 2][k] = thread % 4 * 4 + k < lane.units ? Relu(sums[thread].of[i]) : 0.0f;
        }
      });
    }
  }

  // The scores of the first kHalves halves of a tile.
  template <int kHalves>
  PJX_HD void AddTile(const Warp& warp, PerLane<Tile>& tile, PerLane<Kept>& kept, const Shared& shared) const {
    using Parts = Bfloat16Parts;
    if constexpr (kSaves) {
      PJX_UNROLL
      for (int i = 0; i < 2 * kHalves; ++i) {
        warp.Shuffle([&](int thread) { return tile[thread].source[i / 2]; },
                     [&](int thread) { return 4 * (thread % 4 * 2 + i % 2); },
                     [&](int thread, int32_t source) { tile[thread].number[i] = source; });
      }
    }
    warp.Each([&](int thread) { Split(tile, thread); });
    PJX_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      if (group * kWarp >= num_columns) break;
      PerLane<SumFragment> sums[2][kHalves];
      PJX_UNROLL
      for (int i = 0; i < 2; ++i) {
        PJX_UNROLL
        for (int half = 0; half < kHalves; ++half) {
          warp.Each([&](int thread) { sums[i][half][thread] = {}; });
          const auto add = [&](int part, uint32_t Parts::* right) {
            warp.MultiplyAdd(
                sums[i][half], [&](int thread) { return shared.weight[part][2 * group + i][thread]; },
                [&](int thread) {
                  const auto& parts = tile[thread].parts;
                  return RightFragment{{parts[0][half].*right, parts[1][half].*right}};
                });
          };
          if constexpr (kPasses == 3) {
            add(1, &Parts::finite);
            add(0, &Parts::low);
          }
          add(0, &Parts::high);
        }
      }
      warp.Each([&](int thread) {
        Kept& mine = kept[thread];
        PJX_UNROLL
        for (int j = 0; j < 4; ++j) {
          PJX_UNROLL
          for (int i = 0; i < 2 * kHalves; ++i) {
            const float score = sums[j / 2][i / 2][thread].of[j % 2 * 2 + i % 2];
            Fold(score, tile[thread].number[i], mine.best[4 * group + j], mine.winner[4 * group + j]);
          }
        }
      });
    }
  }

  // In the order of the numbers.
  PJX_HD static void Fold(float score, int32_t number, float& best, int32_t& winner) {
    const float larger = LargerOrNan(best, score);
    if constexpr (kSaves) winner = SameBits(larger, best) ? winner : number;
    best = larger;
  }

  // Of two slots that differ in the bit kDistance, a lane keeps the one that has this bit if the lane has it too, and
  // gives the other to the lane that differs in it; what it keeps goes where the slot without the bit was. At the end
  // the slot 4 group of each lane stands for the column 32 group + lane, over all entities.
  template <int kDistance>
  PJX_HD void Merge(const Warp& warp, PerLane<Kept>& kept) const {
    struct Found {
      float best;
      int32_t winner;
    };
    const auto from = [](int thread) { return thread ^ kDistance; };
    PJX_UNROLL
    for (int j = 0; j < kSlots; ++j) {
      if ((j & kDistance) != 0 || (kDistance == 1 && (j & 2) != 0)) continue;
      PerLane<Found> own, other;
      warp.Each([&](int thread) {
        Kept& mine = kept[thread];
        const Found without{mine.best[j], mine.winner[j]}, with{mine.best[j | kDistance], mine.winner[j | kDistance]};
        const bool has_bit = (thread & kDistance) != 0;
        own[thread] = has_bit ? with : without;
        other[thread] = has_bit ? without : with;
      });
      warp.Shuffle([&](int thread) { return other[thread].best; }, from,
                   [&](int thread, float best) { other[thread].best = best; });
      if constexpr (kSaves) {
        warp.Shuffle([&](int thread) { return other[thread].winner; }, from,
                     [&](int thread, int32_t winner) { other[thread].winner = winner; });
      }
      warp.Each([&](int thread) {
        const float best = LargerOrNan(own[thread].best, other[thread].best);
        kept[thread].best[j] = best;
        if constexpr (kSaves) {
          const int32_t one = SameBits(best, own[thread].best) ? own[thread].winner : INT32_MAX;
          const int32_t two = SameBits(best, other[thread].best) ? other[thread].winner : INT32_MAX;
          kept[thread].winner[j] = one < two ? one : two;
        }
      });
    }
  }

  PJX_HD void Store(int row, int first_present, int thread, const Kept& mine) const {
    const bool is_empty = first_present < 0;
    PJX_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      const int column = group * kWarp + thread;
      if (column >= num_columns) continue;
      const int64_t index = result + static_cast<int64_t>(row) * lane.hidden + column;
      args.y[index] = is_empty ? 0.0f : mine.best[4 * group] + bias[column];
      if constexpr (kSaves) {
        StoreNumber(is_empty ? 0 : mine.winner[4 * group], NumberBytes(lane.entities), index, args.winner);
      }
    }
  }
};

}  // namespace pjx
