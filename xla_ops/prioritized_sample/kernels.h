// The bodies of the CUDA kernels, for a Team of threads (common/team.h). Two ways to the same draws:
//
// - few entries and draws: one launch, whose blocks of threads each make some of the draws, with the powers of the
//   priorities in shared memory;
// - else a launch for each of these passes. The largest priority; the sums of tiles of 4,096 entries, with prefix sums
//   over the 64 blocks of 64 entries inside each tile; prefix sums over the tiles; the draws, a warp for each: a search
//   over the tiles, one over the blocks of a tile, one inside the block.
//
// With alpha = 1 only the exponent of the largest priority matters, and of a great many entries a sample mostly has the
// same one: the first pass looks at a sample, and the sums, which read every entry, also find the largest. So memory is
// read once. Where the sample was wrong, or the weights need more bits, the passes with the sums run again; launches
// for that are made in any case, and return at once, because the handler cannot look at what lies on the device. Nor
// can it look at `size` and `alpha`: SampleLane makes them usable.
#pragma once

#include "xla_ops/common/team.h"
#include "xla_ops/prioritized_sample/operands.h"

namespace pjx {

// --- one launch ------------------------------------------------------------------------------------------------------

struct OneLaunch {
  static constexpr int kThreads = 1024, kPerThread = 16;
  static constexpr int64_t kMaxEntries = kPerThread * kThreads, kMaxDraws = 16 * kThreads;
  static constexpr int64_t kPartDraws = 512;
  // Where entry i is kept: threads with 16 entries each that read them in step meet different banks.
  PJX_HD static int Slot(int i) { return i + i / Warp::kLanes; }

  struct Shared {
    uint32_t powers[kMaxEntries + kMaxEntries / Warp::kLanes];
    uint64_t sums[kThreads], totals[Warp::kLanes];
    uint32_t top;
  };

  // The weight of an entry whose power is in shared memory.
  struct KeptWeights {
    const Weights& weights;
    const uint32_t* powers;
    PJX_HD uint64_t operator()(int64_t i) const { return weights.OfPowerBits(powers[Slot(static_cast<int>(i))]); }
  };

  PJX_HD static bool Suits(int64_t capacity, int64_t num_samples) {
    return capacity <= kMaxEntries && num_samples <= kMaxDraws;
  }

  // How many blocks of threads share the draws of a lane. Each finds all the sums for itself: on the processors of a
  // GPU that would have nothing to do this takes no longer, and a draw is a search and a walk, one after the other.
  PJX_HD static int64_t Parts(int64_t num_samples) { return (num_samples + kPartDraws - 1) / kPartDraws; }

  // Block `index` of lanes * Parts(K).
  template <typename Team>
  PJX_HD static void Run(const Team& team, const SampleOperands& operands, int64_t index, Shared& shared) {
    const int64_t parts = Parts(operands.num_samples), first_draw = index % parts * kPartDraws;
    const int64_t last_draw =
        first_draw + kPartDraws < operands.num_samples ? first_draw + kPartDraws : operands.num_samples;
    const SampleLane lane(operands, index / parts);
    const int size = static_cast<int>(lane.size);
    team.Each([&](int thread) {
      if (thread == 0) shared.top = 0;
    });
    if (lane.alpha > 0) {
      team.Each([&](int thread) {
        uint32_t mine = 0;
        PJX_UNROLL
        for (int j = 0; j < kPerThread; ++j) {
          const int i = j * kThreads + thread;
          if (i >= size) continue;
          const uint32_t bits = Weights::PositiveBits(lane.priorities[i]);
          shared.powers[Slot(i)] = bits;
          mine = bits > mine ? bits : mine;
        }
        team.Max(&shared.top, mine);
      });
    }
    const uint32_t top = shared.top;
    if (top == 0) {
      team.Each([&](int thread) {
        for (int64_t draw = first_draw + thread; draw < last_draw; draw += kThreads) {
          lane.Write(draw, DrawUniform(lane.words, draw, size));
        }
      });
      return;
    }
    const int block = (size + kThreads - 1) / kThreads;
    // The sum is at least 2^(first width - 1) = 2^47, which needs no second width.
    static_assert(kMaxEntries <= 1 << 14, "above 2^15 entries it may");
    const Weights weights(lane.priorities, top, lane.alpha, FirstWidth(size));
    team.Each([&](int thread) {
      uint64_t sum = 0;
      const int begin = thread * block, end = begin + block < size ? begin + block : size;
      for (int i = begin; i < end; ++i) {
        uint32_t& power = shared.powers[Slot(i)];
        power = weights.PowerBits(power);
        sum += weights.OfPowerBits(power);
      }
      shared.sums[thread] = sum;
    });
    InclusiveScan(team, shared.sums, shared.totals);
    const uint64_t total = shared.sums[kThreads - 1];
    const double scale = Scale(size, total);
    const KeptWeights kept{weights, shared.powers};
    team.Each([&](int thread) {
      for (int64_t draw = first_draw + thread; draw < last_draw; draw += kThreads) {
        uint64_t target = Target(lane.words, draw, total);
        const int64_t found = TakeBlock(shared.sums, kThreads, &target);
        lane.Write(draw, Walk(kept, found * block, target, scale));
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
  static constexpr int64_t kMaxAgainBlocks = 1024;                    // of threads, for sums that are not always needed
  // Of more entries than this, which the second-level cache no longer holds, the first pass reads one line in 32.
  static constexpr int64_t kMaxRead = int64_t{1} << 22, kLine = 32, kSampleEvery = 32;

  // What a lane's passes leave to the next ones. All zero at the beginning.
  struct State {
    uint64_t total;
    uint32_t top;    // bits of the largest priority, or before the end of round 0 of a sample's; 0: draws are uniform
    uint32_t found;  // of the largest priority that the sums of round 0 came across, where `top` is a sample's
    int32_t width;   // of round `round`
    int32_t round;   // of sums that is to be run; the draws follow where no launch for it is left
  };

  // In scratch memory.
  struct Scratch {
    State* states;           // [lanes]
    uint64_t* tile_prefix;   // [lanes, tiles]
    uint64_t* block_prefix;  // [lanes, tiles, kTileBlocks]: within the tile
    int64_t lanes, tiles;
  };

  PJX_HD static int64_t Tiles(int64_t entries) { return (entries + kTile - 1) / kTile; }
  PJX_HD static int64_t ScratchBytes(int64_t lanes, int64_t tiles) {
    return lanes * static_cast<int64_t>(sizeof(State)) + lanes * tiles * (1 + kTileBlocks) * 8;
  }
  PJX_HD static Scratch Divide(void* memory, int64_t lanes, int64_t tiles) {
    auto* states = static_cast<State*>(memory);
    static_assert(sizeof(State) % 8 == 0, "sums follow the states");
    auto* tile_prefix = reinterpret_cast<uint64_t*>(states + lanes);
    return {states, tile_prefix, tile_prefix + lanes * tiles, lanes, tiles};
  }

  PJX_HD static int64_t TopBlocks(int64_t capacity) {
    const int64_t blocks = (capacity + kTopEntries - 1) / kTopEntries;
    return blocks < kMaxTopBlocks ? blocks : kMaxTopBlocks;
  }
  // Rounds of sums that there must be launches for, and blocks of threads of each.
  PJX_HD static int Rounds(int64_t capacity) { return capacity > kMaxRead ? 3 : 2; }
  PJX_HD static int64_t SumBlocks(int64_t lanes, int64_t tiles, int round) {
    const int64_t all = lanes * tiles;
    return round == 0 || all < kMaxAgainBlocks ? all : kMaxAgainBlocks;
  }

  PJX_HD static bool IsSampled(const SampleLane& lane) { return lane.alpha == 1.0f && lane.size > kMaxRead; }

  // Block `index` of lanes * TopBlocks(M).
  template <typename Team>
  PJX_HD static void FindTop(const Team& team, const SampleOperands& operands, const Scratch& scratch, int64_t index) {
    const int64_t blocks = TopBlocks(operands.capacity), lane_index = index / blocks, first = index % blocks;
    const SampleLane lane(operands, lane_index);
    if (!(lane.alpha > 0)) return;
    const int64_t every = IsSampled(lane) ? kSampleEvery : 1, count = lane.size / every;
    team.Each([&](int thread) {
      uint32_t mine = 0;
      PJX_UNROLL_BY(4)
      for (int64_t i = first * kThreads + thread; i < count; i += blocks * kThreads) {
        const int64_t entry = i / kLine * kLine * every + i % kLine;
        const uint32_t bits = entry < lane.size ? Weights::PositiveBits(lane.priorities[entry]) : 0;
        mine = bits > mine ? bits : mine;
      }
      team.Max(&scratch.states[lane_index].top, mine);
    });
  }

  struct TileShared {
    uint32_t bits[kTile + kThreads];  // with a gap after every thread's entries, see Slot
    uint64_t sums[kThreads], totals[Warp::kLanes];
    uint32_t top;
  };
  // Where entry i of a tile is kept: threads that read their own entries in step meet different banks.
  PJX_HD static int Slot(int i) { return i + i / static_cast<int>(kPerThread); }

  // Block `block` of SumBlocks(lanes, tiles, round).
  template <typename Team>
  PJX_HD static void SumTiles(const Team& team, const SampleOperands& operands, const Scratch& scratch, int64_t block,
                              int round, TileShared& shared) {
    const int64_t all = scratch.lanes * scratch.tiles, blocks = SumBlocks(scratch.lanes, scratch.tiles, round);
    for (int64_t index = block; index < all; index += blocks) SumTile(team, operands, scratch, index, round, shared);
  }

  template <typename Team>
  PJX_HD static void SumTile(const Team& team, const SampleOperands& operands, const Scratch& scratch, int64_t index,
                             int round, TileShared& shared) {
    const int64_t lane_index = index / scratch.tiles, first = index % scratch.tiles * kTile;
    const SampleLane lane(operands, lane_index);
    State& state = scratch.states[lane_index];
    const bool finds_top = round == 0 && IsSampled(lane);
    if (state.round != round || first >= lane.size || (state.top == 0 && !finds_top)) return;
    const Weights weights(lane.priorities, state.top, lane.alpha, round == 0 ? FirstWidth(lane.size) : state.width);
    team.Each([&](int thread) {  // in the order of memory
      if (thread == 0) shared.top = 0;
      PJX_UNROLL
      for (int j = 0; j < kPerThread; ++j) {
        const int i = j * kThreads + thread;
        shared.bits[Slot(i)] = first + i < lane.size ? Weights::PositiveBits(lane.priorities[first + i]) : 0;
      }
    });
    team.Each([&](int thread) {
      uint64_t sum = 0;
      uint32_t mine = 0;
      for (int j = 0; j < kPerThread; ++j) {
        const uint32_t bits = shared.bits[Slot(thread * static_cast<int>(kPerThread) + j)];
        sum += weights.OfBits(bits);
        mine = bits > mine ? bits : mine;
      }
      shared.sums[thread] = sum;
      if (finds_top) team.Max(&shared.top, mine);
    });
    InclusiveScan(team, shared.sums, shared.totals);
    team.Each([&](int thread) {
      if (thread % kBlockThreads == kBlockThreads - 1) {
        scratch.block_prefix[index * kTileBlocks + thread / kBlockThreads] = shared.sums[thread];
      }
      if (thread != kThreads - 1) return;
      scratch.tile_prefix[index] = shared.sums[thread];
      if (finds_top) team.Raise(&state.found, shared.top);
    });
  }

  struct ScanShared {
    uint64_t sums[kScanThreads], totals[Warp::kLanes];
  };

  // Sums of tiles to prefix sums, one block per lane; decides on the next round of sums.
  template <typename Team>
  PJX_HD static void ScanTiles(const Team& team, const SampleOperands& operands, const Scratch& scratch,
                               int64_t lane_index, int round, ScanShared& shared) {
    const SampleLane lane(operands, lane_index);
    State& state = scratch.states[lane_index];
    const bool finds_top = round == 0 && IsSampled(lane);
    if (state.round != round || (state.top == 0 && !finds_top)) return;
    uint64_t* const prefix = scratch.tile_prefix + lane_index * scratch.tiles;
    const int64_t tiles = Tiles(lane.size), per_thread = (tiles + kScanThreads - 1) / kScanThreads;
    const auto end_of = [&](int thread) {
      const int64_t end = (thread + 1) * per_thread;
      return end < tiles ? end : tiles;
    };
    team.Each([&](int thread) {
      uint64_t sum = 0;
      PJX_UNROLL_BY(8)
      for (int64_t i = thread * per_thread; i < end_of(thread); ++i) sum += prefix[i];
      shared.sums[thread] = sum;
    });
    InclusiveScan(team, shared.sums, shared.totals);
    team.Each([&](int thread) {
      uint64_t sum = thread == 0 ? 0 : shared.sums[thread - 1];
      PJX_UNROLL_BY(8)
      for (int64_t i = thread * per_thread; i < end_of(thread); ++i) prefix[i] = sum += prefix[i];
      if (thread == 0) Decide(lane, shared.sums[kScanThreads - 1], round, finds_top, &state);
    });
  }

  // Draw `index` of lanes * K, by a warp.
  PJX_HD static void Draw(const Warp& warp, const SampleOperands& operands, const Scratch& scratch, int64_t index) {
    const int64_t lane_index = index / operands.num_samples, draw = index % operands.num_samples;
    const SampleLane lane(operands, lane_index);
    const State state = scratch.states[lane_index];
    if (state.top == 0) {
      warp.Each([&](int thread) {
        if (thread == 0) lane.Write(draw, DrawUniform(lane.words, draw, lane.size));
      });
      return;
    }
    const Weights weights(lane.priorities, state.top, lane.alpha, state.width);
    uint64_t target = Target(lane.words, draw, state.total);
    const int64_t first_tile = lane_index * scratch.tiles;
    const int64_t tile = TakeBlock(warp, scratch.tile_prefix + first_tile, Tiles(lane.size), &target);
    const int64_t block =
        TakeBlock(warp, scratch.block_prefix + (first_tile + tile) * kTileBlocks, kTileBlocks, &target);
    // Two entries to a lane: the one in whose prefix sum the target is the first to lie.
    static_assert(kBlock == 2 * Warp::kLanes, "two to a lane");
    const int64_t entry = tile * kTile + block * kBlock;
    PerLane<uint64_t> first, pair, sums;
    warp.Each([&](int thread) {
      const int64_t i = entry + 2 * thread;
      first[thread] = i < lane.size ? weights(i) : 0;
      pair[thread] = first[thread] + (i + 1 < lane.size ? weights(i + 1) : 0);
      sums[thread] = pair[thread];
    });
    InclusiveScan(warp, sums);
    const int found = LowestBit(warp.Ballot([&](int thread) { return sums[thread] > target; }));
    warp.Each([&](int thread) {
      if (thread != found) return;
      const bool is_first = target - (sums[thread] - pair[thread]) < first[thread];
      const uint64_t weight = is_first ? first[thread] : pair[thread] - first[thread];
      lane.Write(draw, DrawnEntry(entry + 2 * thread + (is_first ? 0 : 1), weight, Scale(lane.size, state.total)));
    });
  }

 private:
  // After the sums of `round`, which come to `total`.
  PJX_HD static void Decide(const SampleLane& lane, uint64_t total, int round, bool finds_top, State* state) {
    const int32_t first_width = FirstWidth(lane.size);
    if (round == 0) state->width = first_width;
    state->total = total;
    if (finds_top) {
      const uint32_t guess = state->top;
      state->top = state->found;
      if (state->found == 0) return;
      if (guess == 0 || Normalised(guess).exponent != Normalised(state->found).exponent) {
        state->round = round + 1;
        return;
      }
    }
    if (state->width != first_width || !NeedsMoreWidth(total, lane.size)) return;
    state->width = SecondWidth(first_width, total, lane.size);
    state->round = round + 1;
  }

  // As in draw.h, by a warp.
  PJX_HD static int64_t TakeBlock(const Warp& warp, const uint64_t* prefix, int64_t count, uint64_t* target) {
    int64_t begin = 0;
    while (count > 1) {
      const int64_t step = (count + Warp::kLanes - 1) / Warp::kLanes;
      const uint32_t above = warp.Ballot([&](int thread) {
        const int64_t last = (thread + 1) * step - 1;  // of the lane's part
        return last >= count - 1 || prefix[begin + last] > *target;
      });
      const int64_t skipped = LowestBit(above) * step;
      begin += skipped;
      count = count - skipped < step ? count - skipped : step;
    }
    if (begin > 0) *target -= prefix[begin - 1];
    return begin;
  }
};

}  // namespace pjx
