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
  // Sums that a lane keeps: of weight [kVectors][kDepth], bias [kVectors], w1 (8 units of a feature) and b1 (8 units);
  // of those of w1 and b1 there are few additions, so that they are in shared memory until the last row.
  static constexpr int kBias = kVectors * kDepth, kFirst = kBias + kVectors, kFirstBias = kFirst + 8;
  static constexpr int kSums = kHasFirst ? kFirstBias + 8 : kFirst;

  struct alignas(16) Quad {
    float of[4];
  };
  // Rows of kDepth + 4: threads of successive ones meet different banks.
  struct FirstLayer {
    alignas(16) float unit_bar[kSlots][kDepth + 4];
    float features[kSlots][kDepth + 1];
    float sums[16][kWarp];
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
        for (int i = 0; i < kFirst; ++i) of(thread).sums[i] = 0.0f;
        if constexpr (kHasFirst) {
          PJX_UNROLL
          for (int i = 0; i < kSums - kFirst; ++i) shared.rows[warp.index].first.sums[i][thread] = 0.0f;
        }
      });
      for (int64_t row = row_begin + warp.index; row < row_end && lane.entities > 0; row += kWarps) {
        RunRow(warp, row, of, shared, shared.rows[warp.index]);
      }
      if constexpr (kHasFirst) {
        warp.Each([&](int thread) {
          PJX_UNROLL
          for (int i = kFirst; i < kSums; ++i) {
            of(thread).sums[i] = shared.rows[warp.index].first.sums[i - kFirst][thread];
          }
        });
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

  PJX_HD void LoadRow(int64_t row, int thread, RowShared& own) const {
    int32_t number[kVectors];
    float bar[kVectors];
    switch (NumberBytes(lane.entities)) {  // one branch for all loads, which then wait for memory together
      case 1:
        LoadHidden(reinterpret_cast<const uint8_t*>(winner), row, thread, number);
        break;
      case 2:
        LoadHidden(reinterpret_cast<const uint16_t*>(winner), row, thread, number);
        break;
      default:
        LoadHidden(reinterpret_cast<const int32_t*>(winner), row, thread, number);
    }
    LoadHidden(y_bar, row, thread, bar);
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const bool is_number = j * kWarp + thread < lane.hidden && number[j] >= 0 && number[j] < lane.entities;
      own.winner[j][thread] = is_number && lane.Has(row * lane.entities + number[j]) ? number[j] : -1;
      own.y_bar[j][thread] = bar[j];
    }
  }

  // to[j] = from[row, 32 j + thread], [R, H]; 0 beyond the last.
  template <typename From, typename To>
  PJX_HD void LoadHidden(const From* from, int64_t row, int thread, To (&to)[kVectors]) const {
    from += row * lane.hidden + thread;
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      to[j] = j * kWarp + thread < lane.hidden ? static_cast<To>(from[j * kWarp]) : To{};
    }
  }

  template <typename Of>
  PJX_HD void RunRow(const Warp& warp, int64_t row, const Of& of, const Shared& shared, RowShared& own) const {
    const int64_t first = row * lane.entities;
    warp.Each([&](int thread) { LoadRow(row, thread, own); });
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      warp.Match([&](int thread) { return own.winner[j][thread]; },
                 [&](int thread, uint32_t same) { own.same[j][thread] = same; });
    }
    PJX_UNROLL_BY(1)
    for (int begin = 0; begin < lane.entities; begin += kWindow) {
      const int count = lane.entities <= kWarp ? NumberFewWinners(warp, own) : NumberWinners(warp, begin, own);
      PJX_UNROLL_BY(1)
      for (int slot = 0; slot < count; slot += kSlots) {
        RunSlots(warp, first, slot, count - slot < kSlots ? count - slot : kSlots, of, shared, own);
      }
    }
  }

  // Slots for the winners, where one word has a bit for every entity; how many there are.
  PJX_HD int NumberFewWinners(const Warp& warp, RowShared& own) const {
    const uint32_t has_won = warp.AllBits([&](int thread) {
      uint32_t bits = 0;
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) bits |= own.winner[j][thread] < 0 ? 0 : 1u << own.winner[j][thread];
      return bits;
    });
    warp.Each([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int n = own.winner[j][thread];
        own.slot[j][thread] = n < 0 ? -1 : CountBits(has_won & ((1u << n) - 1));
      }
    });
    return CountBits(has_won);
  }

  // Slots for the winners of the window from entity `begin` on; how many there are.
  PJX_HD int NumberWinners(const Warp& warp, int begin, RowShared& own) const {
    warp.EachAndWait([&](int thread) { own.has_won[thread] = 0; });
    warp.EachAndWait([&](int thread) {
      PJX_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        const int n = InWindow(own.winner[j][thread], begin);
        if (n >= 0 && IsFirst(own.same[j][thread], thread)) warp.Or(&own.has_won[n / kWarp], 1u << (n % kWarp));
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
    return own.before[kWarp];
  }

  PJX_HD static bool IsFirst(uint32_t lanes, int thread) { return (lanes & ((1u << thread) - 1)) == 0; }

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
        if (slot < 0 || !IsFirst(own.same[j][thread], thread)) continue;
        own.won[slot][j] = own.same[j][thread];
        own.entity[slot] = own.winner[j][thread];
      }
    });
    warp.EachAndWait([&](int thread) {
      if (lane.is_bfloat16) {
        StageFeatures(reinterpret_cast<const uint16_t*>(lane.x), first, count, thread, own);
      } else {
        StageFeatures(reinterpret_cast<const float*>(lane.x), first, count, thread, own);
      }
    });
    warp.EachAndWait([&](int thread) {
      PJX_UNROLL_BY(1)
      for (int i = 0; i < count; i += kWarp / 2) ToUnits(first, i, count, thread, shared, own);
    });
    warp.EachAndWait([&](int thread) {
      AddToWeights(base, thread, of(thread), own);
      if constexpr (kHasFirst) {
        PJX_UNROLL_BY(1)
        for (int eight = 0; eight < count; eight += 8)
          StoreEntity(first, eight + thread / 4, count, thread, shared, own);
        AddToFirst(count, thread, own);
      }
    });
  }

  // Zeros up to kDepth.
  template <typename T>
  PJX_HD void StageFeatures(const T* x, int64_t first, int count, int thread, RowShared& own) const {
    constexpr int kAhead = 8, kTogether = kWarp / kDepth;
    const int d = thread % kDepth;
    const auto features = static_cast<uint32_t>(lane.features);  // unsigned: one instruction for the product
    x += first * lane.features + d;
    PJX_UNROLL_BY(1)
    for (int slot = thread / kDepth; slot < count; slot += kAhead * kTogether) {
      T values[kAhead];
      PJX_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        const int other = slot + i * kTogether;
        const bool is_inside = other < count && d < lane.features;
        values[i] = is_inside ? x[uint64_t{static_cast<uint32_t>(own.entity[other])} * features] : T{};
      }
      PJX_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        if constexpr (kHasFirst) {
          own.first.features[slot + i * kTogether][d] = Widen(values[i]);
        } else {
          own.units[slot + i * kTogether][d] = Widen(values[i]);
        }
      }
    }
  }

  // Eight units of the slot begin + thread / 2 and their cotangents, which without a first layer are those of x.
  PJX_HD void ToUnits(int64_t first, int begin, int count, int thread, const Shared& shared, RowShared& own) const {
    const int slot = begin + thread / 2, unit = thread % 2 * 8;
    float bar[8] = {};
    PJX_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      PJX_UNROLL_BY(1)
      for (uint32_t bits = own.won[slot][j]; bits != 0; bits &= bits - 1) {
        const int bit = LowestBit(bits);
        const float y = own.y_bar[j][bit];
        const float* const weight = &shared.weight[j * kWarp + bit][unit];
        AddQuad(y, weight, bar);
        AddQuad(y, weight + 4, bar + 4);
      }
    }
    if constexpr (kHasFirst) {
      float units[8] = {};
      PJX_UNROLL_BY(2)
      for (int d = 0; d < lane.features; ++d) {
        const float x = own.first.features[slot][d];
        AddQuad(x, &shared.w1[d][unit], units);
        AddQuad(x, &shared.w1[d][unit + 4], units + 4);
      }
      PJX_UNROLL
      for (int k = 0; k < 8; ++k) {
        units[k] = Relu(units[k] + shared.b1[unit + k]);
        bar[k] = slot < count ? ReluBackward(units[k], bar[k]) : 0.0f;
        own.first.sums[kFirstBias - kFirst + k][thread] += bar[k];
      }
      StoreQuad(units, &own.units[slot][unit]);
      StoreQuad(units + 4, &own.units[slot][unit + 4]);
      StoreQuad(bar, &own.first.unit_bar[slot][unit]);
      StoreQuad(bar + 4, &own.first.unit_bar[slot][unit + 4]);
    } else if (slot < count) {
      const int64_t index = Result(first, own.entity[slot]) + unit;
      PJX_UNROLL
      for (int k = 0; k < 8; ++k) {
        if (unit + k < lane.features) StoreFeature(lane.is_bfloat16, index + k, bar[k], args.x_bar);
      }
    }
  }

  // sums [4] += x times four numbers of shared memory.
  PJX_HD static void AddQuad(float x, const float* from, float* sums) {
    const Quad quad = *reinterpret_cast<const Quad*>(from);
    PJX_UNROLL
    for (int k = 0; k < 4; ++k) sums[k] = fmaf(x, quad.of[k], sums[k]);
  }
  PJX_HD static void StoreQuad(const float* from, float* to) {
    *reinterpret_cast<Quad*>(to) = Quad{{from[0], from[1], from[2], from[3]}};
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
      for (int k = 0; k < kDepth; k += 4) AddQuad(y, &own.units[slot][k], &mine.sums[j * kDepth + k]);
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
  PJX_HD void AddToFirst(int count, int thread, RowShared& own) const {
    const int d = thread / 2, begin = thread % 2 * 8;
    float sums[8];
    PJX_UNROLL
    for (int k = 0; k < 8; ++k) sums[k] = own.first.sums[k][thread];
    PJX_UNROLL_BY(2)
    for (int slot = 0; slot < count; ++slot) {
      const float x = own.first.features[slot][d];
      AddQuad(x, &own.first.unit_bar[slot][begin], sums);
      AddQuad(x, &own.first.unit_bar[slot][begin + 4], sums + 4);
    }
    PJX_UNROLL
    for (int k = 0; k < 8; ++k) own.first.sums[k][thread] = sums[k];
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
      for (int distance = 2; distance < kWarp; distance *= 2) {
        PJX_UNROLL
        for (int k = 0; k < 8; ++k) {
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
          if (p >= lane.units) continue;
          if (d < lane.features) sums[at.w1 + d * lane.units + p] = kept[thread].sums[kFirst + k];
          if (thread < 2) sums[at.b1 + p] = kept[thread].sums[kFirstBias + k];
        }
      });
    }
  }
};

}  // namespace pjx
