// The features of a warp's rows on their way into shared memory, a tile of entities ahead of their use.
#pragma once

#include "xla_ops/common/copy.h"
#include "xla_ops/common/warp.h"
#include "xla_ops/linear_max/entity_arrays.h"

namespace pjx {

// Tiles of kTile entities of a row, those from `entity_begin` to `entity_end`, then those of the row `row_step`
// further. kTiles of them are in memory, or on their way.
template <int kTile, int kMaxFeatures, int kTiles>
struct EntityTiles {
  static constexpr int kMaxBytes = kTile * kMaxFeatures * int{sizeof(float)} + kCopyBytes;

  // As they are in memory, but that a tile begins up to 15 bytes later.
  struct Shared {
    alignas(kCopyBytes) char bytes[kTiles][kMaxBytes];
  };

  // A tile, and where it is in Shared.
  struct Place {
    int row, entity;  // its first
    int index;
    const char* begin;  // in memory
  };

  const EntityLane& lane;
  int num_rows, row_step, entity_begin, entity_end;
  int entity_bytes;

  PJX_HD EntityTiles(const EntityLane& of, int rows, int step, int begin, int end)
      : lane(of),
        num_rows(rows),
        row_step(step),
        entity_begin(begin),
        entity_end(end),
        entity_bytes(of.features * (of.is_bfloat16 ? 2 : 4)) {}

  PJX_HD Place First(int row) const {
    return {row, entity_begin, 0, lane.x + (int64_t{row} * lane.entities + entity_begin) * entity_bytes};
  }
  PJX_HD Place Next(Place at) const {
    const int index = at.index + 1 < kTiles ? at.index + 1 : 0;
    if (at.entity + kTile < entity_end) return {at.row, at.entity + kTile, index, at.begin + kTile * entity_bytes};
    const int64_t entities = int64_t{row_step} * lane.entities - (at.entity - entity_begin);
    return {at.row + row_step, entity_begin, index, at.begin + entities * entity_bytes};
  }
  PJX_HD bool Has(Place at) const { return at.row < num_rows && at.entity < entity_end; }
  PJX_HD int Count(Place at) const { return entity_end - at.entity < kTile ? entity_end - at.entity : kTile; }

  // 1: there is the tile's entity number `index`, below kTile. Of use only tiles later: it comes from memory.
  PJX_HD uint8_t IsPresent(Place at, int index) const {
    if (at.row >= num_rows || at.entity + index >= entity_end) return 0;
    if (lane.mask == nullptr) return 1;
    const int64_t entity = int64_t{at.row} * lane.entities + at.entity + index;
    return reinterpret_cast<const uint8_t*>(lane.mask)[entity];
  }

  // Begins to copy the tile, if there is one. Every lane calls it for every tile, in their order; the tile before the
  // last kTiles - 1 has arrived when WaitForCopies<kTiles - 1> returns.
  PJX_HD void Fetch(Place at, int thread, Shared& shared) const {
    if (Has(at)) {
      const int misaligned = Misaligned(at), size = misaligned + Count(at) * entity_bytes;
      const int whole = size - size % kCopyBytes, own = kCopyBytes * thread;
      const char* const from = at.begin - misaligned;
      char* const to = shared.bytes[at.index];
      CopyWhole<0>(whole - own, to + own, from + own);
      if (whole < size && thread == 0) CopyAsync(to + whole, from + whole, size - whole);
    }
    CommitCopies();
  }

  // Where the features of the tile's first entity are, once they have arrived.
  PJX_HD const char* Features(Place at, const Shared& shared) const { return shared.bytes[at.index] + Misaligned(at); }

 private:
  // Every 512th byte, 16 at a time.
  template <int kOffset>
  PJX_HD static void CopyWhole(int size, char* to, const char* from) {
    if constexpr (kOffset < kMaxBytes) {
      CopyAsyncIf<kOffset>(kOffset < size, to, from);
      CopyWhole<kOffset + kCopyBytes * Warp::kLanes>(size, to, from);
    }
  }

  PJX_HD static int Misaligned(Place at) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(at.begin) % kCopyBytes);
  }
};

}  // namespace pjx
