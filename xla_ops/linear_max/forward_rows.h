// linear_max and entity_encoder on the GPU, forward, exact, for up to 16 features and units: the kernel's body. It
// computes what forward_kernel.h does, but no warp waits for another.
//
// A warp takes a row and 128 columns of the weight. Its halves take every other entity, a lane eight columns, whose
// 8 x 16 weights it has in registers: for 128 multiply-adds it reads only the 16 units of an entity. The entities come
// in tiles of 32: while the units of one are computed, eight in each lane, into shared memory and multiplied from
// there, the features of the next are on their way (entity_tiles.h).
//
// In the place of an absent entity stands the first one of the tile that is present, with its number. It cannot win
// over itself, whatever the weights are, so that scores need no mask.
#pragma once

#include "xla_ops/linear_max/entity_tiles.h"
#include "xla_ops/linear_max/forward_kernel.h"

namespace pjx {

constexpr int kForwardRowsDepth = 16;
inline bool SuitsForwardRows(const EntitySizes& sizes) {
  return sizes.features <= kForwardRowsDepth && sizes.units <= kForwardRowsDepth;
}

// Block number `block` of args.blocks(). kSaves: args.winner is wanted.
template <bool kHasFirst, bool kSaves>
struct EntityForwardRows : EntityForwardPart {
  static constexpr int kDepth = kForwardRowsDepth, kTile = kWarp, kHalf = kWarp / 2, kOwn = kColumns / kHalf;
  using Tiles = EntityTiles<kTile, kDepth, 2>;
  using Place = typename Tiles::Place;

  struct alignas(16) Quad {
    float of[4];
  };
  struct FirstLayer {
    alignas(16) float w1[kDepth][kDepth], b1[kDepth];  // [feature][unit]
  };
  struct NoFirstLayer {};
  struct Row {
    typename Tiles::Shared tiles;
    alignas(16) float units[kTile][kDepth + 4];  // 4 more: threads of successive entities meet different banks
    int32_t number[kTile];
  };
  struct Shared {
    alignas(16) float weight[kDepth][kColumns];
    std::conditional_t<kHasFirst, FirstLayer, NoFirstLayer> first;
    Row rows[kRows];
  };

  // Of a lane. Column j is 64 (j / 4) + 4 (lane % 16) + j % 4.
  struct Kept {
    float weight[kDepth][kOwn], best[kOwn];
    int32_t winner[kOwn];  // -1: none yet
    uint8_t is_present;    // entity number lane of the tile to come, 1 or 0
  };

  PJX_HD EntityForwardRows(const EntityForwardArgs& all, int64_t block) : EntityForwardPart(all, block) {}

  template <typename Team>
  PJX_HD void Run(const Team& team, Shared& shared) const {
    team.Each([&](int thread) {
      StageWeight(thread, shared);
      if constexpr (kHasFirst) StageFirst(thread, shared);
    });
    team.EachWarp([&](const Warp& warp) { RunRows(warp, shared, shared.rows[warp.index]); });
  }

 private:
  // A thread a column; zeros beyond the last column and unit.
  PJX_HD void StageWeight(int column, Shared& shared) const {
    static_assert(kThreads == kColumns, "one for each thread");
    PJX_UNROLL
    for (int p = 0; p < kDepth; ++p) {
      const bool is_inside = column < num_columns && p < lane.units;
      shared.weight[p][column] = is_inside ? lane.weight[p * lane.hidden + column] : 0.0f;
    }
  }

  PJX_HD void StageFirst(int thread, Shared& shared) const {
    PJX_UNROLL
    for (int i = thread; i < kDepth * kDepth; i += kThreads) {
      const int d = i / kDepth, p = i % kDepth;
      shared.first.w1[d][p] = d < lane.features && p < lane.units ? lane.w1[d * lane.units + p] : 0.0f;
    }
    if (thread < kDepth) shared.first.b1[thread] = thread < lane.units ? lane.b1[thread] : 0.0f;
  }

  PJX_HD void RunRows(const Warp& warp, const Shared& shared, Row& own) const {
    const Tiles tiles{lane, num_rows, kRows, 0, lane.entities};
    PerLane<Kept> kept;
    Place place = tiles.First(warp.index);
    warp.Each([&](int thread) {
      Kept& mine = kept[thread];
      tiles.Fetch(place, thread, own.tiles);
      mine.is_present = tiles.IsPresent(place, thread);
      PJX_UNROLL
      for (int p = 0; p < kDepth; ++p) {
        PJX_UNROLL
        for (int j = 0; j < kOwn; j += 4) {
          const Quad quad = *reinterpret_cast<const Quad*>(&shared.weight[p][Column(j, thread)]);
          PJX_UNROLL
          for (int k = 0; k < 4; ++k) mine.weight[p][j + k] = quad.of[k];
        }
      }
    });
    PJX_UNROLL_BY(1)
    for (int row = warp.index; row < num_rows; row += kRows) {
      int32_t first_present = -1;
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int j = 0; j < kOwn; ++j) {
          kept[thread].best[j] = -INFINITY;
          kept[thread].winner[j] = -1;
        }
      });
      PJX_UNROLL_BY(1)
      for (int entity = 0; entity < lane.entities; entity += kTile) {
        const uint32_t present = warp.Ballot([&](int thread) { return kept[thread].is_present != 0; });
        const Place next = tiles.Next(place);
        warp.EachAndWait([&](int thread) {
          tiles.Fetch(next, thread, own.tiles);
          kept[thread].is_present = tiles.IsPresent(next, thread);
          WaitForCopies<1>();
        });
        if (present != 0) {
          if (first_present < 0) first_present = entity + LowestBit(present);
          warp.EachAndWait(
              [&](int thread) { ToUnits(tiles.Features(place, own.tiles), entity, present, thread, shared, own); });
          warp.EachAndWait([&](int thread) { AddTile(tiles.Count(place), thread, kept[thread], own); });
        }
        place = next;
      }
      Merge(warp, kept);
      warp.Each([&](int thread) { Store(row, first_present, thread, kept[thread]); });
    }
  }

  PJX_HD static int Column(int j, int thread) { return 64 * (j / 4) + 4 * (thread % kHalf) + j % 4; }

  // A tile's units, zeros beyond the last unit.
  PJX_HD void ToUnits(const char* features, int entity, uint32_t present, int thread, const Shared& shared,
                      Row& own) const {
    PJX_UNROLL_BY(1)
    for (int e = 0; e < kTile && entity + e < lane.entities; e += 16) {
      if (lane.is_bfloat16) {
        ToUnits(reinterpret_cast<const uint16_t*>(features), entity, e, present, thread, shared, own);
      } else {
        ToUnits(reinterpret_cast<const float*>(features), entity, e, present, thread, shared, own);
      }
    }
  }

  // The units 4 t to 4 t + 3 of its entities first + g and first + g + 8, by lane 4 g + t.
  template <typename T>
  PJX_HD void ToUnits(const T* features, int entity, int first, uint32_t present, int thread, const Shared& shared,
                      Row& own) const {
    const int g = first + thread / 4, begin = thread % 4 * 4;
    const T* x[2];
    PJX_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int e = g + 8 * i, source = (present >> e & 1u) != 0 ? e : LowestBit(present);
      x[i] = features + source * lane.features;
      if (kSaves && begin == 0) own.number[e] = entity + source;
    }
    Quad units[2] = {};
    if constexpr (kHasFirst) {
      PJX_UNROLL_BY(4)
      for (int d = 0; d < lane.features; ++d) {
        const Quad w1 = *reinterpret_cast<const Quad*>(&shared.first.w1[d][begin]);
        PJX_UNROLL
        for (int i = 0; i < 2; ++i) {
          const float value = Widen(x[i][d]);
          PJX_UNROLL
          for (int k = 0; k < 4; ++k) units[i].of[k] = fmaf(value, w1.of[k], units[i].of[k]);
        }
      }
      const Quad b1 = *reinterpret_cast<const Quad*>(&shared.first.b1[begin]);
      PJX_UNROLL
      for (int i = 0; i < 2; ++i) {
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {  // zeros also where a feature is infinite
          units[i].of[k] = begin + k < lane.units ? Relu(units[i].of[k] + b1.of[k]) : 0.0f;
        }
      }
    } else {
      PJX_UNROLL
      for (int i = 0; i < 2; ++i) {
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) units[i].of[k] = begin + k < lane.units ? Widen(x[i][begin + k]) : 0.0f;
      }
    }
    PJX_UNROLL
    for (int i = 0; i < 2; ++i) *reinterpret_cast<Quad*>(&own.units[g + 8 * i][begin]) = units[i];
  }

  PJX_HD void AddTile(int count, int thread, Kept& mine, const Row& own) const {
    if (lane.units > 12) {
      AddTile<4>(count, thread, mine, own);
    } else if (lane.units > 8) {
      AddTile<3>(count, thread, mine, own);
    } else if (lane.units > 4) {
      AddTile<2>(count, thread, mine, own);
    } else {
      AddTile<1>(count, thread, mine, own);
    }
  }

  // The scores of every other one of `count` entities and what stands behind them, by 4 kQuads units, folded in their
  // order.
  template <int kQuads>
  PJX_HD void AddTile(int count, int thread, Kept& mine, const Row& own) const {
    PJX_UNROLL_BY(2)
    for (int i = 0; i < count; i += 2) {
      const int e = i + thread / kHalf;
      float score[kOwn];
      PJX_UNROLL
      for (int j = 0; j < kOwn; ++j) score[j] = 0.0f;
      PJX_UNROLL
      for (int q = 0; q < kQuads; ++q) {
        const Quad units = *reinterpret_cast<const Quad*>(&own.units[e][4 * q]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          PJX_UNROLL
          for (int j = 0; j < kOwn; ++j) score[j] = fmaf(units.of[k], mine.weight[4 * q + k][j], score[j]);
        }
      }
      const int32_t number = kSaves ? own.number[e] : 0;
      PJX_UNROLL
      for (int j = 0; j < kOwn; ++j) FoldScore<kSaves>(score[j], number, mine.best[j], mine.winner[j]);
    }
  }

  // Lanes that are 16 apart have the same columns and other entities: each keeps four columns, 64 (lane / 16) on, and
  // gives the others away. They end up in the first four places.
  PJX_HD void Merge(const Warp& warp, PerLane<Kept>& kept) const {
    constexpr int kKept = kOwn / 2;
    const auto from = [](int thread) { return thread ^ kHalf; };
    const auto choose = [](bool is_low, auto low, auto high) { return is_low ? low : high; };
    PJX_UNROLL
    for (int j = 0; j < kKept; ++j) {
      PerLane<float> best;
      PerLane<int32_t> winner;
      warp.Shuffle(
          [&](int thread) { return choose(thread >= kHalf, kept[thread].best[j], kept[thread].best[j + kKept]); }, from,
          [&](int thread, float other) { best[thread] = other; });
      if constexpr (kSaves) {
        warp.Shuffle(
            [&](int thread) { return choose(thread >= kHalf, kept[thread].winner[j], kept[thread].winner[j + kKept]); },
            from, [&](int thread, int32_t other) { winner[thread] = other; });
      }
      warp.Each([&](int thread) {
        Kept& mine = kept[thread];
        const float own = choose(thread < kHalf, mine.best[j], mine.best[j + kKept]);
        const float larger = LargerOrNan(own, best[thread]);
        if constexpr (kSaves) {  // -1, where no score was above minus infinity, is the largest
          const auto one = static_cast<uint32_t>(choose(thread < kHalf, mine.winner[j], mine.winner[j + kKept]));
          const auto two = static_cast<uint32_t>(winner[thread]);
          const uint32_t is_one = SameBits(larger, own) ? one : UINT32_MAX;
          const uint32_t is_two = SameBits(larger, best[thread]) ? two : UINT32_MAX;
          mine.winner[j] = static_cast<int32_t>(is_one < is_two ? is_one : is_two);
        }
        mine.best[j] = larger;
      });
    }
  }

  PJX_HD void Store(int row, int32_t first_present, int thread, const Kept& mine) const {
    const int begin = Column(thread / kHalf * 4, thread), bytes = NumberBytes(lane.entities);
    const int64_t index = result + static_cast<int64_t>(row) * lane.hidden + begin;
    float y[4];
    PJX_UNROLL
    for (int j = 0; j < 4; ++j) {
      const bool is_inside = begin + j < num_columns;
      y[j] = first_present < 0 || !is_inside ? 0.0f : mine.best[j] + bias[begin + j];
      if (kSaves && is_inside) {  // no score above minus infinity: the first one present
        const int32_t number = first_present < 0 ? 0 : mine.winner[j] < 0 ? first_present : mine.winner[j];
        StoreNumber(number, bytes, index + j, args.winner);
      }
    }
    if (lane.hidden % 4 == 0) {
      if (begin < num_columns) *reinterpret_cast<Quad*>(&args.y[index]) = Quad{{y[0], y[1], y[2], y[3]}};
    } else {
      PJX_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (begin + j < num_columns) args.y[index + j] = y[j];
      }
    }
  }
};

}  // namespace pjx
