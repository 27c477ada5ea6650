// The features of a warp's rows on their way into shared memory, a tile of entities ahead of their use.
#pragma once

#include "xla_ops/common/copy.h"
#include "xla_ops/common/warp.h"
#include "xla_ops/linear_max/entity_arrays.h"

namespace pjx {

// Tiles of kTile entities, all those of a row, then those of the row kRowStep further. Two of them are in memory.
template <int kTile, int kMaxFeatures, int kRowStep>
struct EntityTiles {
  // As they are in memory, but that a tile begins up to 15 bytes later.
  struct Shared {
    alignas(kCopyBytes) char bytes[2][kTile * kMaxFeatures * sizeof(float) + 2 * kCopyBytes];
  };

  struct Place {
    int row, entity;  // the first of the tile
  };

  const EntityLane& lane;
  int num_rows;

  PJX_HD Place Next(Place at) const {
    const bool ends = at.entity + kTile >= lane.entities;
    return {ends ? at.row + kRowStep : at.row, ends ? 0 : at.entity + kTile};
  }
  PJX_HD bool Has(Place at) const { return at.row < num_rows && at.entity < lane.entities; }

  // Begins to copy the tile, if there is one, into half `half`. Every lane calls it for every tile, in their order.
  PJX_HD void Fetch(Place at, int half, int thread, Shared& shared) const {
    if (Has(at)) {
      const char *const begin = Begin(at), *const from = begin - Misaligned(begin);
      const int entities = lane.entities - at.entity < kTile ? lane.entities - at.entity : kTile;
      const int size = static_cast<int>(begin - from) + entities * lane.features * FeatureBytes();
      PJX_UNROLL_BY(1)
      for (int i = kCopyBytes * thread; i < size; i += kCopyBytes * Warp::kLanes) {
        CopyAsync(&shared.bytes[half][i], from + i, size - i < kCopyBytes ? size - i : kCopyBytes);
      }
    }
    CommitCopies();
  }

  // Where the features of the tile's entity 0 are, once they have arrived.
  PJX_HD const char* Features(Place at, int half, const Shared& shared) const {
    return shared.bytes[half] + Misaligned(Begin(at));
  }

 private:
  PJX_HD int FeatureBytes() const { return lane.is_bfloat16 ? 2 : 4; }
  PJX_HD const char* Begin(Place at) const {
    return lane.x + (int64_t{at.row} * lane.entities + at.entity) * lane.features * FeatureBytes();
  }
  PJX_HD static int Misaligned(const char* address) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kCopyBytes);
  }
};

}  // namespace pjx
