// What an agent of MiniGrid sees: the 7 x 7 cells before it, of which walls and closed doors hide others.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

// Cell (i, j) of the view is i to the right, j = kAhead the agent's row; the agent is at (kSide, kAhead). Sets of cells
// are words, in one of two orders: bit i * kView + j, or a byte of each row, bit 8 * j + i.
//
// From the agent's row on, each row is read to the right and then to the left: a seen cell that nothing hides behind
// shows its neighbour, and of the next row the cells before both.
struct Sight {
  static constexpr int kView = 7, kSide = kView / 2, kAhead = kView - 1;
  static constexpr uint64_t kRow = 0x0000040810204081ULL;                           // (0, 0), (1, 0), ...
  static constexpr uint64_t kColumn = 0x7F;                                         // (0, 0), (0, 1), ...
  static constexpr uint64_t kFirst = kColumn, kLast = kColumn << (kView * kAhead);  // columns

  // What is seen where `walls` are the cells that nothing is seen through, in the order i * kView + j.
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

  // The same in the order 8 * j + i: row by row, each looked up on a CPU, which takes a third of the time.
  PJX_HD static uint64_t SeenByRows(uint64_t walls) {
#ifndef PJX_GPU_FORMS
    const uint16_t* const rows = Rows();
#endif
    uint64_t seen = 0;
    uint32_t shown = 1 << kSide;
    for (int j = kAhead; j >= 0; --j) {
      const uint32_t open = ~(walls >> (8 * j)) & 0x7F;
#ifdef PJX_GPU_FORMS
      const uint32_t row = ComputeRow(open, shown);
#else
      const uint32_t row = rows[open << kView | shown];
#endif
      seen |= static_cast<uint64_t>(row & 0x7F) << (8 * j);
      shown = row >> 8;
    }
    return seen;
  }

  // Of a row: which cells are seen, and above them, eight bits on, which of the next row these show. `open` are the
  // cells that something is seen through, `shown` those that the row before shows.
  PJX_HD static uint32_t ComputeRow(uint32_t open, uint32_t shown) {
    constexpr uint32_t kCells = 0x7F, kFirstCell = 1, kLastCell = 0x40;
    uint32_t seen = shown;
    for (int i = 0; i < kView - 1; ++i) seen |= (seen & open) << 1 & kCells;
    // The last cell does not look ahead while the row is read to the right, nor the first one to the left.
    const uint32_t to_right = seen & open & ~kLastCell;
    for (int i = 0; i < kView - 1; ++i) seen |= (seen & open) >> 1;
    const uint32_t to_left = seen & open & ~kFirstCell;
    return seen | (to_right | to_right << 1 | to_left | to_left >> 1) << 8;
  }

 private:
  // ComputeRow of every pair: 32 KiB, of which a game uses little at a time.
  static const uint16_t* Rows();
};

inline const uint16_t* Sight::Rows() {
  struct Table {
    uint16_t rows[1 << (2 * kView)];
    Table() {
      for (uint32_t i = 0; i < 1 << (2 * kView); ++i) rows[i] = static_cast<uint16_t>(ComputeRow(i >> kView, i & 0x7F));
    }
  };
  static const Table table;
  return table.rows;
}

}  // namespace pjx
