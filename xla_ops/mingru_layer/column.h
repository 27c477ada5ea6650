// One column of a MinGRU cell through all steps, as a GPU thread walks it: what is left of the layer when XLA has done
// the projection. Backward computes the gates again: reading the projection or the saved gates costs the same, and
// forward is spared the writing of them, a third of its bytes.
#pragma once

#include "xla_ops/mingru_layer/cell.h"

namespace pjx {

struct MingruSizes {
  int64_t lanes, num_steps, batch, hidden;  // x is [lanes, T, B, H]
  PJX_HD int64_t rows() const { return num_steps * batch; }
  PJX_HD int64_t columns() const { return batch * hidden; }
  PJX_HD int64_t lane() const { return rows() * hidden; }
  PJX_HD int64_t total() const { return lanes * lane(); }
  PJX_HD int64_t all_columns() const { return lanes * columns(); }
};

// Fewer than kStepsAhead: a step has four to six reads, which 8 steps keep in the registers of every architecture.
constexpr int kCellStepsAhead = 8;

// Where a thread stands on its way through the steps of column `index` of lanes * columns().
struct CellCursor {
  int64_t hidden, row, flag_row;   // H; from one step to the next, in x and in reset
  int64_t at, projected_at, flag;  // of the next step; in the projection, of the first of its three parts

  PJX_HD CellCursor(const MingruSizes& sizes, int64_t index, int64_t step)
      : hidden(sizes.hidden), row(sizes.columns()), flag_row(sizes.batch) {
    const int64_t lane = index / row, column = index % row, steps = lane * sizes.num_steps + step;
    at = steps * row + column;
    flag = steps * flag_row + column / hidden;
    projected_at = 3 * flag * hidden + column % hidden;
  }
  PJX_HD void Move(int64_t steps) {
    at += steps * row;
    projected_at += 3 * steps * row;
    flag += steps * flag_row;
  }
};

struct CellForwardOperands {
  const float *projected, *x;  // [lanes, T, B, 3H], [lanes, T, B, H]
  const float* h0;             // [lanes, B, H]
  const bool* reset;           // [lanes, T, B] or null
  float *y, *h;                // [lanes, T, B, H]; h without `keeps` [lanes, B, H], and it may be h0
  int64_t keeps;               // 0: h is the last state, else all of them
};

// `*state` goes from h before these steps to the last h of them.
template <int kSteps>
PJX_HD void CellForwardSteps(const CellForwardOperands& o, CellCursor* cursor, float* state) {
  float h_in[kSteps], g[kSteps], p[kSteps], x[kSteps];
  bool reset[kSteps];
  CellCursor ahead = *cursor;
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, ahead.Move(1)) {
    const float* projected = o.projected + ahead.projected_at;
    h_in[j] = projected[0], g[j] = projected[ahead.hidden], p[j] = projected[2 * ahead.hidden];
    x[j] = o.x[ahead.at];
    reset[j] = o.reset != nullptr && o.reset[ahead.flag];
  }
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, cursor->Move(1)) {
    const MingruGates<float> gates = GatesOf(h_in[j], g[j], p[j]);
    *state = NextState(gates, reset[j] ? 0.0f : *state);
    if (o.keeps) o.h[cursor->at] = *state;
    o.y[cursor->at] = Highway(gates, *state, x[j]);
  }
}

// Threads of successive columns read and write successive memory at each step, but for the ends of rows of H.
PJX_HD void CellForwardColumn(const MingruSizes& sizes, const CellForwardOperands& o, int64_t index) {
  CellCursor cursor(sizes, index, /*step=*/0);
  float state = o.h0[index];
  int64_t left = sizes.num_steps;
  for (; left >= kCellStepsAhead; left -= kCellStepsAhead) CellForwardSteps<kCellStepsAhead>(o, &cursor, &state);
  for (; left > 0; --left) CellForwardSteps<1>(o, &cursor, &state);
  if (!o.keeps) o.h[index] = state;
}

struct CellBackwardOperands {
  const float *projected, *x;    // [lanes, T, B, 3H], [lanes, T, B, H]
  const float* h0;               // [lanes, B, H]
  const bool* reset;             // [lanes, T, B] or null
  const float *h, *y_bar;        // [lanes, T, B, H]
  const float* h_last_bar;       // [lanes, B, H]
  float *projected_bar, *x_bar;  // [lanes, T, B, 3H], [lanes, T, B, H]; x_bar without what comes by the projection
  float* h0_bar;                 // [lanes, B, H]
};

// What a thread carries from a step to the one before.
struct CellCarry {
  float h, later;  // h_t, and what the later steps send back to it
};

// Steps back from the cursor; `h_first` stands for the state before the last of them where that is step 0, else null.
template <int kSteps>
PJX_HD void CellBackwardSteps(const CellBackwardOperands& o, const float* h_first, CellCursor* cursor,
                              CellCarry* carry) {
  float h_in[kSteps], g[kSteps], p[kSteps], x[kSteps], y_bar[kSteps], previous[kSteps];
  bool reset[kSteps];
  CellCursor ahead = *cursor;
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, ahead.Move(-1)) {
    const float* projected = o.projected + ahead.projected_at;
    h_in[j] = projected[0], g[j] = projected[ahead.hidden], p[j] = projected[2 * ahead.hidden];
    x[j] = o.x[ahead.at], y_bar[j] = o.y_bar[ahead.at];
    previous[j] = j == kSteps - 1 && h_first != nullptr ? *h_first : o.h[ahead.at - ahead.row];
    reset[j] = o.reset != nullptr && o.reset[ahead.flag];
  }
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, cursor->Move(-1)) {
    const MingruCotangents<float> bars = CellBackward(GatesOf(h_in[j], g[j], p[j]), x[j], reset[j] ? 0.0f : previous[j],
                                                      carry->h, y_bar[j], carry->later);
    float* projected_bar = o.projected_bar + cursor->projected_at;
    projected_bar[0] = bars.h_in, projected_bar[cursor->hidden] = bars.g, projected_bar[2 * cursor->hidden] = bars.p;
    o.x_bar[cursor->at] = bars.x;
    *carry = {previous[j], reset[j] ? 0.0f : bars.previous};
  }
}

PJX_HD void CellBackwardColumn(const MingruSizes& sizes, const CellBackwardOperands& o, int64_t index) {
  CellCursor cursor(sizes, index, /*step=*/sizes.num_steps - 1);
  CellCarry carry{o.h[cursor.at], o.h_last_bar[index]};
  const float* const h0 = o.h0 + index;
  int64_t left = sizes.num_steps;
  for (; left % kCellStepsAhead != 0; --left) CellBackwardSteps<1>(o, left == 1 ? h0 : nullptr, &cursor, &carry);
  for (; left > 0; left -= kCellStepsAhead) {
    CellBackwardSteps<kCellStepsAhead>(o, left == kCellStepsAhead ? h0 : nullptr, &cursor, &carry);
  }
  o.h0_bar[index] = carry.later;
}

}  // namespace pjx
