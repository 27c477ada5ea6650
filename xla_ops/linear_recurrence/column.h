// Sizes of a linear recurrence; and one column of it through all steps, as a GPU thread walks it. S is how numbers are
// stored, float or the bits of a bfloat16; what is carried from step to step is float32 in either case.
#pragma once

#include "xla_ops/common/bfloat16.h"

namespace pjx {

struct RecurrenceSizes {
  int64_t lanes, num_steps, flags, group;  // a is [lanes, T, flags, group]: `group` columns share a reset flag
  PJX_HD int64_t columns() const { return flags * group; }
  PJX_HD int64_t lane() const { return num_steps * columns(); }
  PJX_HD int64_t total() const { return lanes * lane(); }
  PJX_HD int64_t all_columns() const { return lanes * columns(); }
};

// Where a thread stands on its way through the steps of column `index` of lanes * columns().
struct RecurrenceCursor {
  int64_t row, flag_row;  // from one step to the next, in a and in reset
  int64_t at, flag;       // of the next step
  float carried = 0.0f;   // from one step to the next

  PJX_HD RecurrenceCursor(const RecurrenceSizes& sizes, int64_t index, int64_t step)
      : row(sizes.columns()), flag_row(sizes.flags) {
    const int64_t lane = index / row, column = index % row, steps = lane * sizes.num_steps + step;
    at = steps * row + column;
    flag = steps * flag_row + column / sizes.group;
  }
};

template <typename S>
struct ForwardOperands {
  const S *a, *b;     // [lanes, T, R, K]
  const S* h0;        // [lanes, R, K]
  const bool* reset;  // [lanes, T, R] or null
  S* h;               // [lanes, T, R, K]
};

template <int kSteps, typename S>
PJX_HD void ForwardSteps(const ForwardOperands<S>& o, RecurrenceCursor* cursor) {
  float a[kSteps], b[kSteps];
  bool reset[kSteps];
  int64_t at = cursor->at;
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, at += cursor->row, cursor->flag += cursor->flag_row) {
    a[j] = Widen(o.a[at]), b[j] = Widen(o.b[at]);
    reset[j] = o.reset != nullptr && o.reset[cursor->flag];
  }
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, cursor->at += cursor->row) {
    cursor->carried = a[j] * (reset[j] ? 0.0f : cursor->carried) + b[j];  // h_t
    Narrow(cursor->carried, &o.h[cursor->at]);
  }
}

// Threads of successive columns read and write successive memory at each step.
template <typename S>
PJX_HD void ForwardColumn(const RecurrenceSizes& sizes, const ForwardOperands<S>& o, int64_t index) {
  RecurrenceCursor cursor(sizes, index, /*step=*/0);
  cursor.carried = Widen(o.h0[index]);
  int64_t left = sizes.num_steps;
  for (; left >= kStepsAhead; left -= kStepsAhead) ForwardSteps<kStepsAhead>(o, &cursor);
  for (; left > 0; --left) ForwardSteps<1>(o, &cursor);
}

template <typename S>
struct BackwardOperands {
  const S *a, *h;     // [lanes, T, R, K]
  const S* h0;        // [lanes, R, K]
  const bool* reset;  // [lanes, T, R] or null
  const S* h_bar;     // [lanes, T, R, K]
  S *a_bar, *b_bar;   // [lanes, T, R, K]
  S* h0_bar;          // [lanes, R, K]
};

// Steps back from the cursor; `h_first` stands for the state before the last of them where that is step 0, else null.
template <int kSteps, typename S>
PJX_HD void BackwardSteps(const BackwardOperands<S>& o, const S* h_first, RecurrenceCursor* cursor) {
  float a[kSteps], previous[kSteps], h_bar[kSteps];
  bool reset[kSteps];
  int64_t at = cursor->at;
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, at -= cursor->row, cursor->flag -= cursor->flag_row) {
    a[j] = Widen(o.a[at]), h_bar[j] = Widen(o.h_bar[at]);
    previous[j] = Widen(j == kSteps - 1 && h_first != nullptr ? *h_first : o.h[at - cursor->row]);
    reset[j] = o.reset != nullptr && o.reset[cursor->flag];
  }
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, cursor->at -= cursor->row) {
    const float g = h_bar[j] + cursor->carried;
    Narrow(g, &o.b_bar[cursor->at]);
    Narrow(g * (reset[j] ? 0.0f : previous[j]), &o.a_bar[cursor->at]);
    cursor->carried = reset[j] ? 0.0f : a[j] * g;  // the cotangent of h_{t-1} by way of h_t
  }
}

template <typename S>
PJX_HD void BackwardColumn(const RecurrenceSizes& sizes, const BackwardOperands<S>& o, int64_t index) {
  RecurrenceCursor cursor(sizes, index, /*step=*/sizes.num_steps - 1);
  const S* const h0 = o.h0 + index;
  int64_t left = sizes.num_steps;
  for (; left % kStepsAhead != 0; --left) BackwardSteps<1>(o, left == 1 ? h0 : nullptr, &cursor);
  for (; left > 0; left -= kStepsAhead) BackwardSteps<kStepsAhead>(o, left == kStepsAhead ? h0 : nullptr, &cursor);
  Narrow(cursor.carried, &o.h0_bar[index]);
}

}  // namespace pjx
