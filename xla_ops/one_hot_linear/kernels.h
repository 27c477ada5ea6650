// one_hot_linear on the GPU: the kernels' bodies, for a Team of threads (common/team.h). A code above K contributes
// nothing, as in the twin.
//
// H is cut into tiles of 64. Half a warp covers one, four numbers to a thread, so that both halves together take two
// table rows, or two cotangents, at a time.
#pragma once

#include "xla_ops/common/lane_arrays.h"
#include "xla_ops/common/team.h"
#include "xla_ops/one_hot_linear/operands.h"

namespace pjx {

// Four neighbours along H; loaded and stored as one vector where H is a multiple of four.
struct alignas(16) HiddenFour {
  float of[4];
};

struct HiddenTiles {
  static constexpr int kTile = 64, kVec = 4, kHalf = kTile / kVec;

  PJX_HD static int64_t Count(int64_t num_hidden) { return (num_hidden + kTile - 1) / kTile; }
  // The first of `thread`'s numbers.
  PJX_HD static int64_t Column(int64_t tile, int thread) { return tile * kTile + thread % kHalf * kVec; }
  PJX_HD static int Half(int thread) { return thread % Warp::kLanes / kHalf; }

  // Of the four numbers at row[h]; zeros beyond the end of the row.
  template <bool kIsAligned>
  PJX_HD static HiddenFour Load(const float* row, int64_t h, int64_t num_hidden) {
    HiddenFour four{};
    if constexpr (kIsAligned) {
      if (h < num_hidden) four = *reinterpret_cast<const HiddenFour*>(row + h);
    } else {
      PJX_UNROLL
      for (int i = 0; i < kVec; ++i) {
        if (h + i < num_hidden) four.of[i] = row[h + i];
      }
    }
    return four;
  }

  template <bool kIsAligned>
  PJX_HD static void Store(const HiddenFour& four, float* row, int64_t h, int64_t num_hidden) {
    if constexpr (kIsAligned) {
      if (h >= num_hidden) return;
#ifdef __CUDA_ARCH__  // nvcc stores the members of a struct one by one
      *reinterpret_cast<float4*>(row + h) = make_float4(four.of[0], four.of[1], four.of[2], four.of[3]);
#else
      *reinterpret_cast<HiddenFour*>(row + h) = four;
#endif
    } else {
      PJX_UNROLL
      for (int i = 0; i < kVec; ++i) {
        if (h + i < num_hidden) row[h + i] = four.of[i];
      }
    }
  }

  PJX_HD static void Add(const HiddenFour& terms, HiddenFour& sums) {
    PJX_UNROLL
    for (int i = 0; i < kVec; ++i) sums.of[i] += terms.of[i];
  }

  // In the first half of the warp: sums += those of the other half.
  PJX_HD static void AddHalves(const Warp& warp, PerLane<HiddenFour>& sums) {
    PJX_UNROLL
    for (int i = 0; i < kVec; ++i) {
      warp.Shuffle([&](int lane) { return sums[lane].of[i]; }, [](int lane) { return lane ^ kHalf; },
                   [&](int lane, float other) {
                     if (Half(lane) == 0) sums[lane].of[i] += other;
                   });
    }
  }
};

// --- forward ---------------------------------------------------------------------------------------------------------

struct OneHotForwardArgs {
  OneHotSizes sizes;
  Lanes lanes;
  LaneArray<const uint8_t> x;     // [R, C]
  LaneArray<const float> weight;  // [C, K, H]
  LaneArray<const float> bias;    // [H]
  float* y;                       // [lanes, R, H]
};

// A warp takes a row and a tile. It lists the table rows that the row selects in shared memory, then one half of it
// adds up the list's even entries and the other the odd ones, in their order: what the CPU does, to the bit. The tiles
// come one after the other, so that the part of the table that is in use fits the first-level cache.
template <bool kIsAligned>
struct OneHotForward : HiddenTiles {
  static constexpr int kThreads = 256, kWarps = kThreads / Warp::kLanes;
  static constexpr int kCodes = 4, kCells = kCodes * Warp::kLanes;  // that a thread and a warp look at together

  struct Shared {
    int32_t selected[kWarps][kCells];
  };
  struct Codes {
    int of[kCodes];
  };

  PJX_HD static int64_t RowBlocks(const OneHotForwardArgs& args) {
    return (args.lanes.count * args.sizes.num_rows + kWarps - 1) / kWarps;
  }
  PJX_HD static int64_t Blocks(const OneHotForwardArgs& args) { return RowBlocks(args) * Count(args.sizes.num_hidden); }

  template <typename Team>
  PJX_HD static void Run(const Team& team, const OneHotForwardArgs& args, int64_t block, Shared& shared) {
    team.EachWarp([&](const Warp& warp) {
      const int64_t row_blocks = RowBlocks(args), row = block % row_blocks * kWarps + warp.index;
      if (row < args.lanes.count * args.sizes.num_rows) Row(warp, args, row, block / row_blocks, shared);
    });
  }

 private:
  PJX_HD static void Row(const Warp& warp, const OneHotForwardArgs& args, int64_t row, int64_t tile, Shared& shared) {
    const OneHotSizes& sizes = args.sizes;
    const int64_t lane_index = row / sizes.num_rows;
    const uint8_t* const x = args.x.Lane(args.lanes, lane_index) + row % sizes.num_rows * sizes.num_cells;
    const float* const weight = args.weight.Lane(args.lanes, lane_index);
    const float* const bias = args.bias.Lane(args.lanes, lane_index);
    int32_t* const selected = shared.selected[warp.index];
    const int64_t num_hidden = sizes.num_hidden;
    PerLane<HiddenFour> sums;
    warp.Each([&](int thread) {
      sums[thread] = HiddenFour{};
      if (Half(thread) == 0) sums[thread] = Load<kIsAligned>(bias, Column(tile, thread), num_hidden);
    });
    int num_before = 0;  // entries of the whole list before `selected`: even or odd
    for (int64_t first = 0; first < sizes.num_cells; first += kCells) {
      PerLane<Codes> codes;
      warp.Each([&](int thread) {
        PJX_UNROLL
        for (int i = 0; i < kCodes; ++i) {
          const int64_t cell = first + i * Warp::kLanes + thread;
          const int code = cell < sizes.num_cells ? x[cell] : 0;
          codes[thread].of[i] = code <= sizes.num_codes ? code : 0;
        }
      });
      int count = 0;
      PJX_UNROLL
      for (int i = 0; i < kCodes; ++i) {
        const uint32_t taken = warp.Ballot([&](int thread) { return codes[thread].of[i] != 0; });
        warp.EachAndWait([&](int thread) {
          if ((taken >> thread & 1u) == 0) return;
          const int64_t cell = first + i * Warp::kLanes + thread;
          const int before = CountBits(taken & ((1u << thread) - 1u));
          selected[count + before] = static_cast<int32_t>(cell * sizes.num_codes + codes[thread].of[i] - 1);
        });
        count += CountBits(taken);
      }
      warp.EachAndWait([&](int thread) {  // before the next list is written
        const int64_t column = Column(tile, thread);
        HiddenFour sum = sums[thread];
        PJX_UNROLL_BY(4)
        for (int i = (Half(thread) + num_before) & 1; i < count; i += 2) {
          Add(Load<kIsAligned>(weight + selected[i] * num_hidden, column, num_hidden), sum);
        }
        sums[thread] = sum;
      });
      num_before += count;
    }
    AddHalves(warp, sums);
    warp.Each([&](int thread) {
      if (Half(thread) == 0)
        Store<kIsAligned>(sums[thread], args.y + row * num_hidden, Column(tile, thread), num_hidden);
    });
  }
};

// --- backward --------------------------------------------------------------------------------------------------------

struct OneHotBackwardArgs {
  OneHotSizes sizes;
  Lanes lanes;
  int64_t num_parts;                 // of the rows of a lane
  LaneArray<const uint8_t> x;        // [R, C]
  LaneArray<const float> cotangent;  // [R, H]
  float* sums;                       // [lanes, parts, C K + 1, H]: of dweight and, last, of dbias
  float* dweight;                    // [lanes, C, K, H]
  float* dbias;                      // [lanes, H]

  PJX_HD int64_t table_rows() const { return sizes.num_cells * sizes.num_codes + 1; }
};

// The sums of one part of the rows. A warp has eight codes of one cell, and their sums in registers; dbias is a cell
// that has code 1 everywhere. The block holds 64 rows of a tile of cotangents in shared memory at a time, and each warp
// adds those with its codes, one half of it every other one: in an order that nothing but the sizes decides.
template <bool kIsAligned>
struct OneHotPartSums : HiddenTiles {
  static constexpr int kThreads = 512, kWarps = kThreads / Warp::kLanes;
  static constexpr int kCodes = 8, kRows = 64, kWords = kRows / Warp::kLanes;
  static constexpr int kCodeStride = kRows + 4;  // threads that write the codes of successive cells meet other banks

  struct Work {
    int cell;       // num_cells: dbias
    int table_row;  // of first_code
    int first_code, num_codes;
  };
  struct Shared {
    HiddenFour cotangent[kRows][kHalf];
    uint8_t codes[kWarps][kCodeStride];
    Work works[kWarps];
  };

  PJX_HD static int64_t Chunks(const OneHotSizes& sizes) { return (sizes.num_codes + kCodes - 1) / kCodes; }
  PJX_HD static int64_t NumWorks(const OneHotSizes& sizes) { return sizes.num_cells * Chunks(sizes) + 1; }
  // Those beyond the last are nothing.
  PJX_HD static Work WorkOf(const OneHotSizes& sizes, int64_t index) {
    const int chunks = static_cast<int>(Chunks(sizes)), num_cells = static_cast<int>(sizes.num_cells);
    const int num_codes = static_cast<int>(sizes.num_codes);
    if (index >= NumWorks(sizes) - 1) return {num_cells, num_cells * num_codes, 1, index < NumWorks(sizes) ? 1 : 0};
    const int cell = static_cast<int>(index / chunks), first = static_cast<int>(index % chunks) * kCodes;
    const int left = num_codes - first;
    return {cell, cell * num_codes + first, first + 1, left < kCodes ? left : kCodes};
  }

  PJX_HD static int64_t WorkBlocks(const OneHotSizes& sizes) { return (NumWorks(sizes) + kWarps - 1) / kWarps; }
  PJX_HD static int64_t Blocks(const OneHotBackwardArgs& args) {
    return args.lanes.count * args.num_parts * Count(args.sizes.num_hidden) * WorkBlocks(args.sizes);
  }

  struct Sums {
    HiddenFour of[kCodes];
  };

  template <typename Team>
  PJX_HD static void Run(const Team& team, const OneHotBackwardArgs& args, int64_t block, Shared& shared) {
    const OneHotSizes& sizes = args.sizes;
    const int64_t num_hidden = sizes.num_hidden, num_cells = sizes.num_cells;
    // Blocks that read the same cotangents come one after the other.
    const int64_t first_work = block % WorkBlocks(sizes) * kWarps;
    block /= WorkBlocks(sizes);
    const int64_t tile = block % Count(num_hidden);
    block /= Count(num_hidden);
    const int64_t part = block % args.num_parts, lane_index = block / args.num_parts;
    const int64_t row_begin = sizes.num_rows * part / args.num_parts;
    const uint8_t* x = args.x.Lane(args.lanes, lane_index) + row_begin * num_cells;
    const float* cotangent = args.cotangent.Lane(args.lanes, lane_index) + row_begin * num_hidden;
    PerThread<Sums, kThreads> sums;
    team.EachWarp([&](const Warp& warp) {
      warp.Each([&](int lane) {
        sums[warp.index * Warp::kLanes + lane] = Sums{};
        if (lane == 0) shared.works[warp.index] = WorkOf(sizes, first_work + warp.index);
      });
    });
    int64_t left = sizes.num_rows * (part + 1) / args.num_parts - row_begin;
    for (; left > 0; left -= kRows, x += kRows * num_cells, cotangent += kRows * num_hidden) {
      const int num_rows = left < kRows ? static_cast<int>(left) : kRows;
      team.Each([&](int thread) {
        PJX_UNROLL
        for (int i = 0; i < kRows * kHalf / kThreads; ++i) {
          const int r = i * (kThreads / kHalf) + thread / kHalf;
          if (r >= num_rows) continue;
          shared.cotangent[r][thread % kHalf] =
              Load<kIsAligned>(cotangent + r * num_hidden, Column(tile, thread), num_hidden);
        }
        const int cell = shared.works[thread % kWarps].cell;
        PJX_UNROLL
        for (int i = 0; i < kRows * kWarps / kThreads; ++i) {
          const int r = i * (kThreads / kWarps) + thread / kWarps;
          const bool is_row = r < num_rows;
          shared.codes[thread % kWarps][r] = !is_row ? 0 : cell < num_cells ? x[r * num_cells + cell] : 1;
        }
      });
      team.EachWarp([&](const Warp& warp) {
        const Work work = shared.works[warp.index];
        const uint8_t* const own_codes = shared.codes[warp.index];
        PJX_UNROLL_BY(1)
        for (int word = 0; word < kWords; ++word) {
          PerLane<int> codes;
          warp.Each([&](int lane) { codes[lane] = own_codes[word * Warp::kLanes + lane] - work.first_code; });
          PJX_UNROLL
          for (int code = 0; code < kCodes; ++code) {
            if (code >= work.num_codes) continue;
            const uint32_t rows = warp.Ballot([&](int lane) { return codes[lane] == code; });
            warp.Each([&](int lane) {
              HiddenFour sum = sums[warp.index * Warp::kLanes + lane].of[code];
              uint32_t own = rows;
              if (Half(lane) == 1) own &= own - 1;
              while (own != 0) {
                Add(shared.cotangent[word * Warp::kLanes + LowestBit(own)][lane % kHalf], sum);
                own &= own - 1;
                own &= own - 1;
              }
              sums[warp.index * Warp::kLanes + lane].of[code] = sum;
            });
          }
        }
      });
    }
    team.EachWarp([&](const Warp& warp) {
      const Work work = shared.works[warp.index];
      float* const rows =
          args.sums + ((lane_index * args.num_parts + part) * args.table_rows() + work.table_row) * num_hidden;
      PJX_UNROLL
      for (int code = 0; code < kCodes; ++code) {
        if (code >= work.num_codes) continue;
        PerLane<HiddenFour> sum;
        warp.Each([&](int lane) { sum[lane] = sums[warp.index * Warp::kLanes + lane].of[code]; });
        AddHalves(warp, sum);
        warp.Each([&](int lane) {
          if (Half(lane) == 0) Store<kIsAligned>(sum[lane], rows + code * num_hidden, Column(tile, lane), num_hidden);
        });
      }
    });
  }
};

// Number `index` of all lanes' dweight and dbias: the sum of its parts, in their order.
struct OneHotAddParts {
  static constexpr int kThreads = 256;

  PJX_HD static int64_t Size(const OneHotBackwardArgs& args) { return args.table_rows() * args.sizes.num_hidden; }

  PJX_HD static void Run(const OneHotBackwardArgs& args, int64_t index) {
    const int64_t size = Size(args), lane = index / size, at = index % size, table = args.sizes.table();
    const float* const parts = args.sums + lane * args.num_parts * size + at;
    float sum = 0.0f;
    PJX_UNROLL_BY(16)
    for (int64_t part = 0; part < args.num_parts; ++part) sum += parts[part * size];
    if (at < table) {
      args.dweight[lane * table + at] = sum;
    } else {
      args.dbias[lane * args.sizes.num_hidden + at - table] = sum;
    }
  }
};

}  // namespace pjx
