// linear_max and entity_encoder on the GPU, backward, for up to 16 features and units and 256 hidden units: the body of
// the one kernel that takes the place of EntityToInputs and EntityToWeights (backward_kernels.h) there.
//
// The cotangents of x become zeros, then a warp takes a row and visits only the entities that have won: it numbers them
// (slots, in the order of the entities), and 32 slots at a time
//
// - their features come into shared memory, and lane 4 g + t computes the units 4 t to 4 t + 3 of the slots g, g + 8,
// ...
//   and, from the hidden units that each has won, in their order, the cotangents of those units;
// - each lane adds the units that its hidden units meet to its sums of the cotangents of weight and bias, in registers,
//   and a slot's share to those of w1 and b1.
//
// The sums of a block's warps are added in a fixed order, and are a part's sums.
#pragma once

#include <type_traits>

#include "xla_ops/linear_max/backward_kernels.h"

namespace pjx {

constexpr int kBackwardDepth = 16;
inline bool SuitsBackwardRows(const EntitySizes& sizes) {
  return sizes.features <= kBackwardDepth && sizes.units <= kBackwardDepth && sizes.hidden <= 256;
}

// kVectors: hidden units of a lane, the units lane, lane + 32, ...
template <bool kHasFirst, int kVectors>
struct EntityBackwardRows : EntityPart {
  static constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp, kDepth = kBackwardDepth;
  static constexpr int kColumns = kVectors * kWarp, kSlots = 32, kWindow = 32 * kWarp;  // entities numbered together
  // Sums that a lane keeps: of weight [kVectors][kDepth], bias [kVectors], w1 (8 units of a feature) and b1 (4 units).
  static constexpr int kBias = kVectors * kDepth, kFirst = kBias + kVectors, kFirstBias = kFirst + 8;
  static constexpr int kSums = kHasFirst ? kFirstBias + 4 : kFirst;

  struct alignas(16) Quad {
    float of[4];
  };
  // Rows of kDepth + 4: threads of successive ones meet different banks.
  struct FirstLayer {
    alignas(16) float unit_bar[kSlots][kDepth + 4];
    float features[kSlots][kDepth + 1];
  };
  struct NoFirstLayer {};
  struct RowShared {
    alignas(16) float units[kSlots][kDepth + 4];
    alignas(16) uint32_t won[kSlots][kVectors];  // bit i of word j: hidden unit 32 j + i
    int32_t entity[kSlots];
    // Of hidden unit 32 j + i, [j][i]; -1: none, or none of this window.
    float y_bar[kVectors][kWarp];
    int32_t winner[kVectors][kWarp], slot[kVectors][kWarp];
    uint32_t same[kVectors][kWarp];  // bit k: hidden unit 32 j + k has the same winner
    uint32_t has_won[kWarp];         // bit i of word j: entity 32 j + i of the window
    int32_t before[kWarp + 1];       // winners in the words before
    std::conditional_t<kHasFirst, FirstLayer, NoFirstLayer> first;
  };
  struct Shared {
    alignas(16) float weight[kColumns][kDepth + 4];  // [hidden unit][unit]
    alignas(16) float w1[kDepth][kDepth + 4];        // [feature][unit]
    alignas(16) float b1[kDepth];
    union {
      RowShared rows[kWarps];
      float sums[kWarps / 2][kSums][kWarp];
    };
  };

  struct Kept {
    float sums[kSums];
    int32_t next_winner[kVectors];  // as forward has saved it, of the row to come
    float next_y_bar[kVectors];
  };
  // Block number `block` of lanes * parts.
  PJX_HD EntityBackwardRows(const EntityBackwardArgs& args, int64_t block)
      : EntityPart(args, block / args.parts, block % args.parts, kHasFirst) {}

  template <typename Team>
  PJX_HD void Run(const Team& team, Shared& shared) const {
    PerThread<Kept, kThreads> kept;
    team.Each([&](int thread) {
      ClearEntities(thread);
      StageWeights(thread, shared);
    });
    team.EachWarp([&](const Warp& warp) {
      const auto of = [&](int thread) -> Kept& { return kept[warp.index * kWarp + thread]; };
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int i = 0; i < kSums; ++i) of(thread).sums[i] = 0.0f;
        LoadRow(row_begin + warp.index, thread, of(thread));
      });
      for (int64_t row = row_begin + warp.index; row < row_end; row += kWarps) {
        RunRow(warp, row, of, shared, shared.rows[warp.index]);
      }
    });
    PJX_UNROLL
    for (int half = kWarps / 2; half > 0; half /= 2) {
      team.EachWarp([&](const Warp& warp) {
        if (warp.index < half || warp.index >= 2 * half) return;
        warp.Each([&](int thread) {
          PJX_UNROLL
          for (int i = 0; i < kSums; ++i) {
            shared.sums[warp.index - half][i][thread] = kept[warp.index * kWarp + thread].sums[i];
          }
        });
      });
      team.EachWarp([&](const Warp& warp) {
        if (warp.index >= half) return;
        warp.Each([&](int thread) {
          PJX_UNROLL
          for (int i = 0; i < kSums; ++i) {
            kept[warp.index * kWarp + thread].sums[i] += shared.sums[warp.index][i][thread];
          }
        });
      });
    }
    team.EachWarp([&](const Warp& warp) {
      if (warp.index == 0) StoreSums(warp, kept);
    });
  }

 private:
  // x_bar of all the part's entities <- 0, 16 bytes at a time.
  PJX_HD void ClearEntities(int thread) const {
    const int64_t rows = args.arrays.sizes.rows, row_bytes = int64_t{lane.entities} * lane.features * FeatureBytes();
    char* const begin = args.x_bar + (lane_index * rows + row_begin) * row_bytes;
    char* const end = args.x_bar + (lane_index * rows + row_end) * row_bytes;
    const int64_t bytes = end - begin;
    const int64_t misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin) % sizeof(Quad));
    const int64_t head = misaligned == 0 ? 0 : sizeof(Quad) - misaligned,
                  quads = bytes < head ? 0 : (bytes - head) / 16;
    PJX_UNROLL_BY(4)
    for (int64_t i = thread; i < quads; i += kThreads) reinterpret_cast<Quad*>(begin + head)[i] = Quad{};
    // What is before the first 16 bytes and behind the last, two at a time.
    const int64_t rest = quads == 0 ? bytes : head, tail = quads == 0 ? bytes : head + quads * 16;
    for (int64_t i = 2 * thread; i < rest; i += 2 * kThreads) *reinterpret_cast<uint16_t*>(begin + i) = 0;
    for (int64_t i = tail + 2 * thread; i < bytes; i += 2 * kThreads) *reinterpret_cast<uint16_t*>(begin + i) = 0;
  }

  PJX_HD int FeatureBytes() const { return lane.is_bfloat16 ? 2 : 4; }

  // Zeros beyond the last.
  PJX_HD void StageWeights(int thread, Shared& shared) const {
    PJX_UNROLL_BY(4)
    for (int i = thread; i < kColumns * kDepth; i += kThreads) {
      const int h = i % kColumns, p = i / kColumns;
      shared.weight[h][p] = h < lane.hidden && p < lane.units ? lane.weight[p * lane.hidden + h] : 0.0f;
    }
    if constexpr (kHasFirst) {
      static_assert(kDepth * kDepth == kThreads, "one for each thread");
      const int d = thread / kDepth, p = thread % kDepth;
      shared.w1[d][p] = d < lane.features && p < lane.units ? lane.w1[d * lane.units + p] : 0.0f;
      if (thread < kDepth) shared.b1[thread] = thread < lane.units ? lane.b1[thread] : 0.0f;
    }
  }

  PJX_HD void LoadRow(int64_t row, int thread, Kept& mine) const {
    const int bytes = NumberBytes(lane.entities);
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const int h = j * kWarp + thread;
      const int64_t index = row * lane.hidden + h;
      const bool is_inside = h < lane.hidden && row < row_end;
      mine.next_winner[j] = is_inside ? static_cast<int32_t>(LoadNumber(winner, bytes, index)) : -1;
      mine.next_y_bar[j] = is_inside ? y_bar[index] : 0.0f;
    }
  }

  template <typename Of>
  PJX_HD void RunRow(const Warp& warp, int64_t row, const Of& of, const Shared& shared, RowShared& own) const {
    const int64_t first = row * lane.entities;
    warp.Each([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int32_t number = of(thread).next_winner[j];
        const bool is_entity = number >= 0 && number < lane.entities && lane.Has(first + number);
        own.winner[j][thread] = is_entity ? number : -1;
        own.y_bar[j][thread] = of(thread).next_y_bar[j];
      }
      LoadRow(row + kWarps, thread, of(thread));
    });
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      warp.Match([&](int thread) { return own.winner[j][thread]; },
                 [&](int thread, uint32_t same) { own.same[j][thread] = same; });
    }
    PJX_UNROLL_BY(1)
    for (int begin = 0; begin < lane.entities; begin += kWindow) {
      NumberWinners(warp, begin, own);
      const int count = own.before[kWarp];
      PJX_UNROLL_BY(1)
      for (int slot = 0; slot < count; slot += kSlots) {
        RunSlots(warp, first, slot, count - slot < kSlots ? count - slot : kSlots, of, shared, own);
      }
    }
  }

  // Slots for the winners of the window from entity `begin` on.
  PJX_HD void NumberWinners(const Warp& warp, int begin, RowShared& own) const {
    warp.EachAndWait([&](int thread) { own.has_won[thread] = 0; });
    warp.EachAndWait([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int n = InWindow(own.winner[j][thread], begin);
        if (n >= 0 && LowestBit(own.same[j][thread]) == thread) warp.Or(&own.has_won[n / kWarp], 1u << (n % kWarp));
      }
    });
    PerLane<int> sums;
    warp.Each([&](int thread) { sums[thread] = CountBits(own.has_won[thread]); });
    PJX_UNROLL
    for (int distance = 1; distance < kWarp; distance *= 2) {
      warp.Shuffle([&](int thread) { return sums[thread]; },
                   [&](int thread) { return thread < distance ? thread : thread - distance; },
                   [&](int thread, int before) { sums[thread] += thread < distance ? 0 : before; });
    }
    warp.EachAndWait([&](int thread) {
      own.before[thread + 1] = sums[thread];
      if (thread == 0) own.before[0] = 0;
    });
    warp.Each([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int n = InWindow(own.winner[j][thread], begin);
        const uint32_t below = n < 0 ? 0 : (1u << (n % kWarp)) - 1;
        own.slot[j][thread] = n < 0 ? -1 : own.before[n / kWarp] + CountBits(own.has_won[n / kWarp] & below);
      }
    });
  }

  PJX_HD static int InWindow(int32_t winner, int begin) {
    return winner < begin || winner - begin >= kWindow ? -1 : winner - begin;
  }

  PJX_HD static int InSlots(int slot, int base) { return slot < base || slot - base >= kSlots ? -1 : slot - base; }

  // The slots from `base` on; `first`: the row's first entity.
  template <typename Of>
  PJX_HD void RunSlots(const Warp& warp, int64_t first, int base, int count, const Of& of, const Shared& shared,
                       RowShared& own) const {
    warp.EachAndWait([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) own.won[thread][j] = 0;
    });
    warp.EachAndWait([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int slot = InSlots(own.slot[j][thread], base);
        if (slot < 0 || LowestBit(own.same[j][thread]) != thread) continue;
        own.won[slot][j] = own.same[j][thread];
        own.entity[slot] = own.winner[j][thread];
      }
    });
    warp.EachAndWait([&](int thread) { StageFeatures(first, count, thread, own); });
    warp.EachAndWait([&](int thread) {
      PJX_UNROLL_BY(1)
      for (int eight = 0; eight < count; eight += 8) ToUnits(first, eight, count, thread, of(thread), shared, own);
    });
    warp.EachAndWait([&](int thread) {
      AddToWeights(base, thread, of(thread), own);
      if constexpr (kHasFirst) {
        PJX_UNROLL_BY(1)
        for (int eight = 0; eight < count; eight += 8)
          StoreEntity(first, eight + thread / 4, count, thread, shared, own);
        AddToFirst(count, thread, of(thread), own);
      }
    });
  }

  PJX_HD void StageFeatures(int64_t first, int count, int thread, RowShared& own) const {
    const int d = thread % kDepth;
    PJX_UNROLL_BY(4)
    for (int slot = thread / kDepth; slot < count; slot += kWarp / kDepth) {
      const float value = d < lane.features ? lane.Feature((first + own.entity[slot]) * lane.features + d) : 0.0f;
      if constexpr (kHasFirst) {
        own.first.features[slot][d] = value;
      } else {
        own.units[slot][d] = value;
      }
    }
  }

  // Four units of the slot eight + thread / 4 and their cotangents, which without a first layer are those of x.
  PJX_HD void ToUnits(int64_t first, int eight, int count, int thread, Kept& mine, const Shared& shared,
                      RowShared& own) const {
    const int slot = eight + thread / 4, begin = thread % 4 * 4;
    float bar[4] = {};
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      PJX_UNROLL_BY(1)
      for (uint32_t bits = own.won[slot][j]; bits != 0; bits &= bits - 1) {
        const int bit = LowestBit(bits);
        const float y = own.y_bar[j][bit];
        const Quad weight = *reinterpret_cast<const Quad*>(&shared.weight[j * kWarp + bit][begin]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) bar[k] = fmaf(y, weight.of[k], bar[k]);
      }
    }
    if constexpr (kHasFirst) {
      float unit[4] = {};
      PJX_UNROLL_BY(4)
      for (int d = 0; d < lane.features; ++d) {
        const float x = own.first.features[slot][d];
        const Quad w1 = *reinterpret_cast<const Quad*>(&shared.w1[d][begin]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) unit[k] = fmaf(x, w1.of[k], unit[k]);
      }
      Quad units, bars;
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) {
        units.of[k] = Relu(unit[k] + shared.b1[begin + k]);
        bars.of[k] = slot < count ? ReluBackward(units.of[k], bar[k]) : 0.0f;
        mine.sums[kFirstBias + k] += bars.of[k];
      }
      *reinterpret_cast<Quad*>(&own.units[slot][begin]) = units;
      *reinterpret_cast<Quad*>(&own.first.unit_bar[slot][begin]) = bars;
    } else if (slot < count) {
      const int64_t index = Result(first, own.entity[slot]) + begin;
      PJX_UNROLL
      for (int k = 0; k < 4; ++k) {
        if (begin + k < lane.features) StoreFeature(lane.is_bfloat16, index + k, bar[k], args.x_bar);
      }
    }
  }

  // Where an entity begins in x_bar.
  PJX_HD int64_t Result(int64_t first, int32_t entity) const {
    return (lane_index * args.arrays.sizes.rows * lane.entities + first + entity) * lane.features;
  }

  // Each hidden unit's winner, if it has one of these slots.
  PJX_HD void AddToWeights(int base, int thread, Kept& mine, const RowShared& own) const {
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const int slot = InSlots(own.slot[j][thread], base);
      if (slot < 0) continue;
      const float y = own.y_bar[j][thread];
      mine.sums[kBias + j] += y;
      PJX_UNROLL
      for (int quad = 0; quad < kDepth / 4; ++quad) {
        const Quad units = *reinterpret_cast<const Quad*>(&own.units[slot][4 * quad]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          float& sum = mine.sums[j * kDepth + 4 * quad + k];
          sum = fmaf(y, units.of[k], sum);
        }
      }
    }
  }

  // The features t, t + 4, ... of a slot's cotangent of x.
  PJX_HD void StoreEntity(int64_t first, int slot, int count, int thread, const Shared& shared,
                          const RowShared& own) const {
    if (slot >= count) return;
    const int64_t index = Result(first, own.entity[slot]);
    Quad bar[kDepth / 4];
    PJX_UNROLL
    for (int quad = 0; quad < kDepth / 4; ++quad) {
      bar[quad] = *reinterpret_cast<const Quad*>(&own.first.unit_bar[slot][4 * quad]);
    }
    PJX_UNROLL_BY(1)
    for (int d = thread % 4; d < lane.features; d += 4) {
      float sum = 0.0f;
      PJX_UNROLL
      for (int quad = 0; quad < kDepth / 4; ++quad) {
        const Quad w1 = *reinterpret_cast<const Quad*>(&shared.w1[d][4 * quad]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) sum = fmaf(bar[quad].of[k], w1.of[k], sum);
      }
      StoreFeature(lane.is_bfloat16, index + d, sum, args.x_bar);
    }
  }

  // Eight units of the feature thread / 2.
  PJX_HD void AddToFirst(int count, int thread, Kept& mine, const RowShared& own) const {
    const int d = thread / 2, begin = thread % 2 * 8;
    PJX_UNROLL_BY(2)
    for (int slot = 0; slot < count; ++slot) {
      const float x = own.first.features[slot][d];
      PJX_UNROLL
      for (int quad = 0; quad < 2; ++quad) {
        const Quad bar = *reinterpret_cast<const Quad*>(&own.first.unit_bar[slot][begin + 4 * quad]);
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          float& sum = mine.sums[kFirst + 4 * quad + k];
          sum = fmaf(x, bar.of[k], sum);
        }
      }
    }
  }

  // Of the part.
  PJX_HD void StoreSums(const Warp& warp, PerThread<Kept, kThreads>& kept) const {
    const EntitySums at(args.arrays.sizes, kHasFirst);
    warp.Each([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int h = j * kWarp + thread;
        if (h >= lane.hidden) continue;
        PJX_UNROLL
        for (int k = 0; k < kDepth; ++k) {
          if (k < lane.units) sums[k * lane.hidden + h] = kept[thread].sums[j * kDepth + k];
        }
        sums[at.bias + h] = kept[thread].sums[kBias + j];
      }
    });
    if constexpr (kHasFirst) {
      PJX_UNROLL
      for (int distance = 4; distance < kWarp; distance *= 2) {
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          warp.Shuffle([&](int thread) { return kept[thread].sums[kFirstBias + k]; },
                       [&](int thread) { return thread ^ distance; },
                       [&](int thread, float other) { kept[thread].sums[kFirstBias + k] += other; });
        }
      }
      warp.Each([&](int thread) {
        const int d = thread / 2;
        PJX_UNROLL
        for (int k = 0; k < 8; ++k) {
          const int p = thread % 2 * 8 + k;
          if (d < lane.features && p < lane.units) sums[at.w1 + d * lane.units + p] = kept[thread].sums[kFirst + k];
        }
        PJX_UNROLL
        for (int k = 0; k < 4; ++k) {
          if (thread < 4 && 4 * thread + k < lane.units)
            sums[at.b1 + 4 * thread + k] = kept[thread].sums[kFirstBias + k];
        }
      });
    }
  }
};

}  // namespace pjx
