// What an agent of MiniGrid sees: the 7 x 7 cells before it, of which walls and closed doors hide others.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

// Sets of the view's cells as words: bit i * kView + j is cell (i, j), i to the right, j = kAhead the agent's row. The
// agent is at (kSide, kAhead).
struct Sight {
  static constexpr int kView = 7, kSide = kView / 2, kAhead = kView - 1;
  static constexpr uint64_t kAll = (uint64_t{1} << (kView * kView)) - 1;
  static constexpr uint64_t kRow = 0x0000040810204081ULL;                           // (0, 0), (1, 0), ...
  static constexpr uint64_t kColumn = 0x7F;                                         // (0, 0), (0, 1), ...
  static constexpr uint64_t kFirst = kColumn, kLast = kColumn << (kView * kAhead);  // columns

  // What is seen where `walls` are the cells that nothing is seen through. From the agent's row on, each row is read to
  // the right and then to the left: a seen cell that is no wall shows its neighbour, and of the next row the cells
  // before both.
  PJX_HD static uint64_t Seen(uint64_t walls) {
    const uint64_t open = ~walls;
    uint64_t seen = uint64_t{1} << (kSide * kView + kAhead), row = kRow << kAhead;
    for (int j = kAhead; j >= 0; --j, row >>= 1) {
      // Along the row to the right, then to the left: a seen open cell shows its neighbour. Three doublings reach 7.
      uint64_t reached = seen & row, path = (open & row) << kView & row;
      reached |= path & reached << kView;
      path &= path << kView;
      reached |= path & reached << 2 * kView;
      path &= path << 2 * kView;
      reached |= path & reached << 4 * kView;
      // The last cell does not look ahead while the row is read to the right, nor the first one to the left.
      const uint64_t to_right = reached & open & ~kLast;
      path = (open & row) >> kView & row;
      reached |= path & reached >> kView;
      path &= path >> kView;
      reached |= path & reached >> 2 * kView;
      path &= path >> 2 * kView;
      reached |= path & reached >> 4 * kView;
      const uint64_t to_left = reached & open & ~kFirst;
      seen |= reached;
      if (j > 0) seen |= (to_right | to_right << kView | to_left | to_left >> kView) >> 1;
    }
    return seen;
  }
};

}  // namespace pjx
