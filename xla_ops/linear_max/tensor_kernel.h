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
// is the entities, gives it the units 4 t to 4 t + 3 of the same two, once w1's columns are. So from the features,
// which come into shared memory tiles ahead of their use (entity_tiles.h), to the maxima nothing leaves a lane's
// registers.
//
// Where there are few rows, two or four warps share one.
//
// In the place of an absent entity stands the first one of the tile that is present, with its number. It cannot win
// over itself, whatever the weights are, so that scores need no mask.
#pragma once

#include "xla_ops/linear_max/entity_tiles.h"
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
constexpr int kTensorDepth = 16, kTensorTile = 16;  // of entities
inline bool SuitsTensorCores(const EntitySizes& sizes) {
  return sizes.features <= kTensorDepth && sizes.units <= kTensorDepth;
}

// As PlanForward, whose blocks are through their rows sooner here. Rows that leave a GPU idle are shared by warps.
inline void PlanTensorForward(EntityForwardArgs* args) {
  PlanForward(args, /*busy=*/512);
  using Grid = EntityForwardGrid;
  const EntitySizes& sizes = args->arrays.sizes;
  const int64_t warps = args->arrays.lanes.count * sizes.rows * args->grid.column_blocks;
  int64_t& share = args->grid.warps_per_row;
  while (share < Grid::kRows && warps * share <= 1152 && sizes.entities > 2 * share * kTensorTile) share *= 2;
  if (share == 1) return;
  args->grid.rows_per_block = Grid::kRows / share;
  args->grid.row_blocks = (sizes.rows + args->grid.rows_per_block - 1) / args->grid.rows_per_block;
}

// Block number `block` of args.blocks(). kSaves: args.winner is wanted.
template <bool kHasFirst, int kPasses, bool kSaves>
struct EntityTensorBlock : EntityForwardPart {
  static constexpr int kHalf = 8, kTile = kTensorTile;                         // of entities
  static constexpr int kSlots = kColumns / kHalf, kGroups = kColumns / kWarp;  // of a lane's columns
  static constexpr int kLefts = kColumns / 16, kParts = kPasses == 1 ? 1 : 2;
  static_assert(kPasses == 1 || kPasses == 3, "high high, or also high low and low high");

  static_assert(kTile == 2 * kHalf, "the rows of a left matrix are entities in the first layer");

  static constexpr int kFetched = kWarp;  // entities that are fetched together, two tiles
  using Tiles = EntityTiles<kFetched, kTensorDepth, 2>;
  using Place = typename Tiles::Place;

  struct Shared {
    alignas(16) LeftFragment weight[kParts][kLefts][kWarp];
    typename Tiles::Shared tiles[kRows];  // of a warp
    // What warps that share a row have found.
    float best[kRows][kColumns];
    int32_t winner[kSaves ? kRows : 1][kColumns], first_present[kRows];
  };

  // Of a lane. Slot j is column 32 (j / 4) + 4 g + j % 4.
  struct Kept {
    float best[kSlots];
    int32_t winner[kSlots];  // -1: none yet
    uint8_t is_present;      // entity number lane of those to come, 1 or 0
  };
  struct First {
    Bfloat16Parts w1[2][2];  // [units 4 (g / 2) + 2 n + g % 2][two features]
    float b1[4];
  };
  struct Tile {
    int32_t number[4];          // of the entities 2 t, 2 t + 1, 2 t + 8 and 2 t + 9, whose scores the lane gets
    float four[2][4];           // features, then units
    Bfloat16Parts parts[2][2];  // of them, [two][g or g + 8]
  };

  PJX_HD EntityTensorBlock(const EntityForwardArgs& all, int64_t block) : EntityForwardPart(all, block) {}

  template <typename Team>
  PJX_HD void Run(const Team& team, Shared& shared) const {
    team.Each([&](int thread) { StageWeight(thread, shared); });
    const int share = static_cast<int>(args.grid.warps_per_row);
    team.EachWarp([&](const Warp& warp) {
      PerLane<First> first;
      if constexpr (kHasFirst) warp.Each([&](int thread) { LoadFirst(thread, first[thread]); });
      RunRows(warp, share, first, shared);
    });
    if (share > 1) team.EachWarp([&](const Warp& warp) { StoreShared(warp, share, shared); });
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

  PJX_HD void RunRows(const Warp& warp, int share, PerLane<First>& first, Shared& shared) const {
    const int part = (lane.entities + kTile * share - 1) / (kTile * share) * kTile, begin = warp.index % share * part;
    const int end = begin + part < lane.entities ? begin + part : lane.entities;
    const Tiles tiles{lane, num_rows, kRows / share, begin, end};
    PerLane<Kept> kept;
    Place place = tiles.First(warp.index / share);
    warp.Each([&](int thread) {
      tiles.Fetch(place, thread, shared.tiles[warp.index]);
      kept[thread].is_present = tiles.IsPresent(place, thread);
    });
    PJX_UNROLL_BY(1)
    for (int row = place.row; row < num_rows; row += tiles.row_step) {
      int32_t first_present = -1;
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int j = 0; j < kSlots; ++j) {
          kept[thread].best[j] = -INFINITY;
          kept[thread].winner[j] = -1;
        }
      });
      PJX_UNROLL_BY(1)
      for (int entity = begin; entity < end; entity += kFetched) {
        const uint32_t present = warp.Ballot([&](int thread) { return kept[thread].is_present != 0; });
        const Place next = tiles.Next(place);
        warp.EachAndWait([&](int thread) {
          tiles.Fetch(next, thread, shared.tiles[warp.index]);
          kept[thread].is_present = tiles.IsPresent(next, thread);
          WaitForCopies<1>();
        });
        if (present != 0) {
          if (first_present < 0) first_present = entity + LowestBit(present);
          const char* const features = tiles.Features(place, shared.tiles[warp.index]);
          PJX_UNROLL_BY(1)
          for (int tile = 0; tile < tiles.Count(place); tile += kTile) {
            RunTile(warp, features, entity, tile, present, first, kept, shared);
          }
          warp.EachAndWait([&](int) {});  // the features have been read
        }
        place = next;
      }
      Merge<2>(warp, kept);
      Merge<1>(warp, kept);
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int group = 0; group < kGroups; ++group) {
          const int column = group * kWarp + thread;
          const float best = kept[thread].best[4 * group];
          const int32_t winner = kept[thread].winner[4 * group];
          if (share == 1) {
            Store(row, column, best, winner, first_present);
          } else {
            shared.best[warp.index][column] = best;
            if constexpr (kSaves) shared.winner[warp.index][column] = winner;
          }
        }
        if (thread == 0) shared.first_present[warp.index] = first_present;
      });
    }
  }

  // The first of the warps that share a row stores what they have found.
  PJX_HD void StoreShared(const Warp& warp, int share, const Shared& shared) const {
    const int row = warp.index / share;
    if (warp.index % share != 0 || row >= num_rows) return;
    warp.Each([&](int thread) {
      PJX_UNROLL
      for (int group = 0; group < kGroups; ++group) {
        const int column = group * kWarp + thread;
        float best = -INFINITY;
        int32_t winner = -1, first_present = -1;
        PJX_UNROLL_BY(1)
        for (int i = warp.index; i < warp.index + share; ++i) {
          first_present = Lower(first_present, shared.first_present[i]);
          Meet(shared.best[i][column], kSaves ? shared.winner[i][column] : -1, best, winner);
        }
        Store(row, column, best, winner, first_present);
      }
    });
  }

  // The entities tile to tile + 15 of those from number `first_entity` on whose features are at `features`; bit i of
  // `present`, which is not 0: entity i of those.
  PJX_HD void RunTile(const Warp& warp, const char* features, int first_entity, int tile_begin, uint32_t present,
                      PerLane<First>& first, PerLane<Kept>& kept, const Shared& shared) const {
    PerLane<Tile> tile;
    const auto source = [&](int i) {
      return (present >> (tile_begin + i) & 1u) != 0 ? tile_begin + i : LowestBit(present);
    };
    warp.Each([&](int thread) {
      const int sources[2] = {source(thread / 4), source(kHalf + thread / 4)};
      if (lane.is_bfloat16) {
        ReadFeatures(reinterpret_cast<const uint16_t*>(features), sources, thread % 4, tile[thread]);
      } else {
        ReadFeatures(reinterpret_cast<const float*>(features), sources, thread % 4, tile[thread]);
      }
      if constexpr (kSaves) {
        PJX_UNROLL
        for (int i = 0; i < 4; ++i) {
          tile[thread].number[i] = first_entity + source(i / 2 * kHalf + thread % 4 * 2 + i % 2);
        }
      }
    });
    if constexpr (kHasFirst) ToUnits(warp, first, tile);
    if (first_entity + tile_begin + kHalf < lane.entities) {
      AddTile<2>(warp, tile, kept, shared);
    } else {
      AddTile<1>(warp, tile, kept, shared);
    }
  }

  // The features 4 t to 4 t + 3 of two entities; zeros beyond the last.
  template <typename T>
  PJX_HD void ReadFeatures(const T* features, const int (&entities)[2], int t, Tile& tile) const {
    struct alignas(4 * sizeof(T)) Quad {
      T of[4];
    };
    const int begin = 4 * t;
    if (lane.features % 4 == 0) {
      PJX_UNROLL
      for (int i = 0; i < 2; ++i) {
        Quad quad{};
        if (begin < lane.features)
          quad = *reinterpret_cast<const Quad*>(features + entities[i] * lane.features + begin);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) tile.four[i][k] = Widen(quad.of[k]);
      }
    } else {
      PJX_UNROLL
      for (int i = 0; i < 2; ++i) {
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          const bool is_inside = begin + k < lane.features;
          tile.four[i][k] = is_inside ? Widen(features[entities[i] * lane.features + begin + k]) : 0.0f;
        }
      }
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
        Meet(other[thread].best, other[thread].winner, own[thread].best, own[thread].winner);
        kept[thread].best[j] = own[thread].best;
        kept[thread].winner[j] = own[thread].winner;
      });
    }
  }

  // Two maxima over different entities become one; of equals the lower number.
  PJX_HD static void Meet(float other, int32_t other_winner, float& best, int32_t& winner) {
    const float larger = LargerOrNan(best, other);
    if constexpr (kSaves) {
      winner = Lower(SameBits(larger, best) ? winner : -1, SameBits(larger, other) ? other_winner : -1);
    }
    best = larger;
  }

  // The lower number; -1 is none.
  PJX_HD static int32_t Lower(int32_t a, int32_t b) {
    const auto one = static_cast<uint32_t>(a), two = static_cast<uint32_t>(b);
    return static_cast<int32_t>(one < two ? one : two);
  }

  // first_present < 0: there is none.
  PJX_HD void Store(int row, int column, float best, int32_t winner, int32_t first_present) const {
    if (column >= num_columns) return;
    const int64_t index = result + static_cast<int64_t>(row) * lane.hidden + column;
    args.y[index] = first_present < 0 ? 0.0f : best + bias[column];
    if constexpr (kSaves) {  // no score above minus infinity: the first one present
      const int32_t number = first_present < 0 ? 0 : winner < 0 ? first_present : winner;
      StoreNumber(number, NumberBytes(lane.entities), index, args.winner);
    }
  }
};

}  // namespace pjx
