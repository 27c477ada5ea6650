// The bodies of the CUDA kernels, for a Team of threads (common/team.h). Two ways to the same draws:
//
// - few entries and draws: one block of threads does it all, each thread holding the sum of up to 16 entries;
// - else five passes. The largest priority; the sums of tiles of 4,096 entries, with prefix sums over the 64 blocks of
//   64 entries inside each tile; prefix sums over the tiles; both once more where the weights need more bits (else
//   these launches return at once); the draws: a search over the tiles, one over the blocks of a tile, a walk of at
//   most 64 entries. Each pass but the last reads what memory must give at least once: 4 bytes per entry, twice.
//
// The handler cannot look at `size` and `alpha`, which lie on the device; SampleLane makes them usable.
#pragma once

#include "xla_ops/common/team.h"
#include "xla_ops/prioritized_sample/operands.h"

namespace pjx {

// --- one launch ------------------------------------------------------------------------------------------------------

struct OneBlock {
  static constexpr int kThreads = 1024;
  static constexpr int64_t kMaxEntries = 16 * kThreads, kMaxDraws = 16 * kThreads;
  struct Shared {
    uint64_t sums[kThreads], spare[kThreads];
    uint32_t top;
  };

  PJX_HD static bool Suits(int64_t capacity, int64_t num_samples) {
    return capacity <= kMaxEntries && num_samples <= kMaxDraws;
  }

  template <typename Team>
  PJX_HD static void Run(const Team& team, const SampleOperands& operands, int64_t lane_index, Shared& shared) {
    const SampleLane lane(operands, lane_index);
    const int64_t size = lane.size;
    team.Each([&](int thread) {
      if (thread == 0) shared.top = 0;
    });
    team.Each([&](int thread) {
      uint32_t mine = 0;
      for (int64_t i = thread; i < size; i += kThreads) {
        const uint32_t bits = Weights::PositiveBits(lane.priorities[i]);
        mine = bits > mine ? bits : mine;
      }
      team.Max(&shared.top, mine);
    });
    const uint32_t top = lane.alpha > 0 ? shared.top : 0;
    if (top == 0) {
      team.Each([&](int thread) {
        for (int64_t draw = thread; draw < operands.num_samples; draw += kThreads) {
          lane.Write(draw, DrawUniform(lane.words, draw, size));
        }
      });
      return;
    }
    const int64_t block = (size + kThreads - 1) / kThreads;
    // The sum is at least 2^(first width - 1) = 2^47, which needs no second width.
    static_assert(kMaxEntries <= 1 << 14, "above 2^15 entries it may");
    const Weights weights(lane.priorities, top, lane.alpha, FirstWidth(size));
    team.Each([&](int thread) {
      uint64_t sum = 0;
      const int64_t begin = thread * block, end = begin + block < size ? begin + block : size;
      for (int64_t i = begin; i < end; ++i) sum += weights(i);
      shared.sums[thread] = sum;
    });
    InclusiveScan(team, shared.sums, shared.spare);
    const uint64_t total = shared.sums[kThreads - 1];
    const double scale = Scale(size, total);
    team.Each([&](int thread) {
      for (int64_t draw = thread; draw < operands.num_samples; draw += kThreads) {
        uint64_t target = Target(lane.words, draw, total);
        const int64_t found = TakeBlock(shared.sums, kThreads, &target);
        lane.Write(draw, Walk(weights, found * block, target, scale));
      }
    });
  }
};

// --- many blocks -----------------------------------------------------------------------------------------------------

struct ManyBlocks {
  static constexpr int kThreads = 256, kScanThreads = 1024;
  static constexpr int64_t kPerThread = 16, kTile = kThreads * kPerThread;
  static constexpr int64_t kBlock = 64, kTileBlocks = kTile / kBlock, kBlockThreads = kBlock / kPerThread;
  static constexpr int64_t kTopEntries = 8192, kMaxTopBlocks = 1024;  // per block of threads; of threads per lane

  // What a lane's passes leave to the next ones. All zero at the beginning.
  struct State {
    uint64_t total;
    uint32_t top;  // bits of the largest priority; 0: every draw is uniform
    int32_t width;
    bool needs_second;
  };

  // In scratch memory.
  struct Scratch {
    State* states;           // [lanes]
    uint64_t* tile_prefix;   // [lanes, tiles]
    uint64_t* block_prefix;  // [lanes, tiles, kTileBlocks]: within the tile
    int64_t tiles;
  };

  PJX_HD static int64_t Tiles(int64_t entries) { return (entries + kTile - 1) / kTile; }
  PJX_HD static int64_t ScratchBytes(int64_t lanes, int64_t tiles) {
    return lanes * static_cast<int64_t>(sizeof(State)) + lanes * tiles * (1 + kTileBlocks) * 8;
  }
  PJX_HD static Scratch Divide(void* memory, int64_t lanes, int64_t tiles) {
    auto* states = static_cast<State*>(memory);
    static_assert(sizeof(State) % 8 == 0, "sums follow the states");
    auto* tile_prefix = reinterpret_cast<uint64_t*>(states + lanes);
    return {states, tile_prefix, tile_prefix + lanes * tiles, tiles};
  }

  PJX_HD static int64_t TopBlocks(int64_t capacity) {
    const int64_t blocks = (capacity + kTopEntries - 1) / kTopEntries;
    return blocks < kMaxTopBlocks ? blocks : kMaxTopBlocks;
  }

  // Block `index` of lanes * TopBlocks(M).
  template <typename Team>
  PJX_HD static void FindTop(const Team& team, const SampleOperands& operands, const Scratch& scratch, int64_t index) {
    const int64_t blocks = TopBlocks(operands.capacity), lane_index = index / blocks, first = index % blocks;
    const SampleLane lane(operands, lane_index);
    if (!(lane.alpha > 0)) return;
    team.Each([&](int thread) {
      uint32_t mine = 0;
      for (int64_t i = first * kThreads + thread; i < lane.size; i += blocks * kThreads) {
        const uint32_t bits = Weights::PositiveBits(lane.priorities[i]);
        mine = bits > mine ? bits : mine;
      }
      team.Max(&scratch.states[lane_index].top, mine);
    });
  }

  struct TileShared {
    uint32_t bits[kTile + kThreads];  // with a gap after every thread's entries, see Slot
    uint64_t sums[kThreads], spare[kThreads];
  };
  // Where entry i of a tile is kept: threads that read their own entries in step meet different banks.
  PJX_HD static int Slot(int i) { return i + i / static_cast<int>(kPerThread); }

  // Block `index` of lanes * tiles.
  template <typename Team>
  PJX_HD static void SumTile(const Team& team, const SampleOperands& operands, const Scratch& scratch, int64_t index,
                             bool is_second, TileShared& shared) {
    const int64_t lane_index = index / scratch.tiles, first = index % scratch.tiles * kTile;
    const SampleLane lane(operands, lane_index);
    const State& state = scratch.states[lane_index];
    if (state.top == 0 || first >= lane.size || (is_second && !state.needs_second)) return;
    const Weights weights(lane.priorities, state.top, lane.alpha, is_second ? state.width : FirstWidth(lane.size));
    team.Each([&](int thread) {  // in the order of memory
      PJX_UNROLL
      for (int j = 0; j < kPerThread; ++j) {
        const int i = j * kThreads + thread;
        shared.bits[Slot(i)] = first + i < lane.size ? Weights::PositiveBits(lane.priorities[first + i]) : 0;
      }
    });
    team.Each([&](int thread) {
      uint64_t sum = 0;
      for (int j = 0; j < kPerThread; ++j) {
        sum += weights.OfBits(shared.bits[Slot(thread * static_cast<int>(kPerThread) + j)]);
      }
      shared.sums[thread] = sum;
    });
    InclusiveScan(team, shared.sums, shared.spare);
    team.Each([&](int thread) {
      if (thread % kBlockThreads == kBlockThreads - 1) {
        scratch.block_prefix[index * kTileBlocks + thread / kBlockThreads] = shared.sums[thread];
      }
      if (thread == kThreads - 1) scratch.tile_prefix[index] = shared.sums[thread];
    });
  }

  struct ScanShared {
    uint64_t sums[kScanThreads], spare[kScanThreads], before;
  };

  // Sums of tiles to prefix sums, one block per lane; decides on the second round of sums after the first.
  template <typename Team>
  PJX_HD static void ScanTiles(const Team& team, const SampleOperands& operands, const Scratch& scratch,
                               int64_t lane_index, bool is_second, ScanShared& shared) {
    const SampleLane lane(operands, lane_index);
    State& state = scratch.states[lane_index];
    if (state.top == 0 || (is_second && !state.needs_second)) return;
    uint64_t* const prefix = scratch.tile_prefix + lane_index * scratch.tiles;
    const int64_t tiles = Tiles(lane.size);
    team.Each([&](int thread) {
      if (thread == 0) shared.before = 0;
    });
    for (int64_t first = 0; first < tiles; first += kScanThreads) {
      team.Each([&](int thread) { shared.sums[thread] = first + thread < tiles ? prefix[first + thread] : 0; });
      InclusiveScan(team, shared.sums, shared.spare);
      team.Each([&](int thread) {
        if (first + thread < tiles) prefix[first + thread] = shared.before + shared.sums[thread];
      });
      team.Each([&](int thread) {
        if (thread == 0) shared.before += shared.sums[kScanThreads - 1];
      });
    }
    team.Each([&](int thread) {
      if (thread != 0) return;
      const uint64_t total = shared.before;
      state.total = total;
      if (is_second) return;
      state.needs_second = NeedsMoreWidth(total, lane.size);
      state.width = FirstWidth(lane.size);
      if (state.needs_second) state.width = SecondWidth(state.width, total, lane.size);
    });
  }

  // Draw `index` of lanes * K.
  PJX_HD static void Draw(const SampleOperands& operands, const Scratch& scratch, int64_t index) {
    const int64_t lane_index = index / operands.num_samples, draw = index % operands.num_samples;
    const SampleLane lane(operands, lane_index);
    const State state = scratch.states[lane_index];
    if (state.top == 0) return lane.Write(draw, DrawUniform(lane.words, draw, lane.size));
    const Weights weights(lane.priorities, state.top, lane.alpha, state.width);
    uint64_t target = Target(lane.words, draw, state.total);
    const int64_t first_tile = lane_index * scratch.tiles;
    const int64_t tile = TakeBlock(scratch.tile_prefix + first_tile, Tiles(lane.size), &target);
    const int64_t block = TakeBlock(scratch.block_prefix + (first_tile + tile) * kTileBlocks, kTileBlocks, &target);
    lane.Write(draw, Walk(weights, tile * kTile + block * kBlock, target, Scale(lane.size, state.total)));
  }
};

}  // namespace pjx
