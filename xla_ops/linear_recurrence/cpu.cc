// linear_recurrence on the CPU. Every column is on its own, so columns are split over the threads; a thread walks time
// over a block narrow enough that the previous row of h is still in the first-level cache. The work is bound by memory.
#include "xla_ops/common/simd.h"
#include "xla_ops/linear_recurrence/handlers.h"

namespace pjx {
namespace {

constexpr int64_t kBlock = 2048;  // columns: 8 KiB of each array per row

// One step over `size` columns that share one reset flag.
PJX_INLINE void StepForward(const float* __restrict a, const float* __restrict b, const float* __restrict previous,
                            float* __restrict h, int64_t size) {
  for (int64_t i = 0; i < size; ++i) h[i] = a[i] * previous[i] + b[i];
}

PJX_INLINE void ResetForward(const float* __restrict a, const float* __restrict b, float* __restrict h, int64_t size) {
  for (int64_t i = 0; i < size; ++i) h[i] = a[i] * 0.0f + b[i];
}

// One step with a flag for each column.
PJX_INLINE void FlaggedForward(const float* __restrict a, const float* __restrict b, const float* __restrict previous,
                               const bool* __restrict reset, float* __restrict h, int64_t size) {
  for (int64_t i = 0; i < size; ++i) h[i] = a[i] * (reset[i] ? 0.0f : previous[i]) + b[i];
}

// Columns [begin, end) of one lane; `reset` is null or has a flag for each `group` columns of a step.
PJX_MULTIVERSION
void Forward(const float* a, const float* b, const float* h0, const bool* reset, int64_t num_steps, int64_t columns,
             int64_t group, int64_t begin, int64_t end, float* h) {
  for (int64_t t = 0; t < num_steps; ++t) {
    const int64_t row = t * columns;
    const float* previous = t == 0 ? h0 : h + row - columns;
    if (reset == nullptr) {
      StepForward(a + row + begin, b + row + begin, previous + begin, h + row + begin, end - begin);
    } else if (group == 1) {
      FlaggedForward(a + row + begin, b + row + begin, previous + begin, reset + row + begin, h + row + begin,
                     end - begin);
    } else {
      const bool* flags = reset + t * (columns / group);
      for (int64_t i = begin, stop; i < end; i = stop) {
        stop = std::min(end, (i / group + 1) * group);
        if (flags[i / group]) {
          ResetForward(a + row + i, b + row + i, h + row + i, stop - i);
        } else {
          StepForward(a + row + i, b + row + i, previous + i, h + row + i, stop - i);
        }
      }
    }
  }
}

// `carried` holds a_{t+1} g_{t+1} (0 across a reset) and ends as the cotangent of h0.
PJX_INLINE void StepBackward(const float* __restrict a, const float* __restrict previous, const float* __restrict h_bar,
                             float* __restrict carried, float* __restrict a_bar, float* __restrict b_bar,
                             int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = h_bar[i] + carried[i];
    b_bar[i] = g;
    a_bar[i] = g * previous[i];
    carried[i] = a[i] * g;
  }
}

PJX_INLINE void ResetBackward(const float* __restrict h_bar, float* __restrict carried, float* __restrict a_bar,
                              float* __restrict b_bar, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = h_bar[i] + carried[i];
    b_bar[i] = g;
    a_bar[i] = g * 0.0f;
    carried[i] = 0.0f;
  }
}

PJX_INLINE void FlaggedBackward(const float* __restrict a, const float* __restrict previous,
                                const bool* __restrict reset, const float* __restrict h_bar, float* __restrict carried,
                                float* __restrict a_bar, float* __restrict b_bar, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = h_bar[i] + carried[i];
    b_bar[i] = g;
    a_bar[i] = g * (reset[i] ? 0.0f : previous[i]);
    carried[i] = reset[i] ? 0.0f : a[i] * g;
  }
}

PJX_MULTIVERSION
void Backward(const float* a, const float* h, const float* h0, const bool* reset, const float* h_bar, int64_t num_steps,
              int64_t columns, int64_t group, int64_t begin, int64_t end, float* a_bar, float* b_bar, float* h0_bar) {
  for (int64_t i = begin; i < end; ++i) h0_bar[i] = 0.0f;
  for (int64_t t = num_steps - 1; t >= 0; --t) {
    const int64_t row = t * columns, at = row + begin;
    const float* previous = t == 0 ? h0 : h + row - columns;
    if (reset == nullptr) {
      StepBackward(a + at, previous + begin, h_bar + at, h0_bar + begin, a_bar + at, b_bar + at, end - begin);
    } else if (group == 1) {
      FlaggedBackward(a + at, previous + begin, reset + at, h_bar + at, h0_bar + begin, a_bar + at, b_bar + at,
                      end - begin);
    } else {
      const bool* flags = reset + t * (columns / group);
      for (int64_t i = begin, stop; i < end; i = stop) {
        stop = std::min(end, (i / group + 1) * group);
        if (flags[i / group]) {
          ResetBackward(h_bar + row + i, h0_bar + i, a_bar + row + i, b_bar + row + i, stop - i);
        } else {
          StepBackward(a + row + i, previous + i, h_bar + row + i, h0_bar + i, a_bar + row + i, b_bar + row + i,
                       stop - i);
        }
      }
    }
  }
}

// Calls body(lane, begin, end) for blocks of columns, in parallel.
template <typename Body>
void ForBlocks(ffi::ThreadPool& pool, const RecurrenceSizes& sizes, const Body& body) {
  const int64_t columns = sizes.columns();
  const int64_t grain = std::max<int64_t>(64, 65536 / sizes.num_steps);
  ParallelFor(pool, sizes.lanes * columns, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t lane = begin / columns, first = begin % columns;
      const int64_t stop = std::min({columns, first + (end - begin), first + kBlock});
      body(lane, first, stop);
      begin += stop - first;
    }
  });
}

// The flags of a lane.
const bool* FlagsOf(const bool* reset, const RecurrenceSizes& sizes, int64_t lane) {
  return reset == nullptr ? nullptr : reset + lane * sizes.num_steps * sizes.flags;
}

ffi::Error ForwardOnPool(ffi::ThreadPool& pool, const RecurrenceSizes& sizes, const ForwardOperands& o) {
  ForBlocks(pool, sizes, [&](int64_t lane, int64_t begin, int64_t end) {
    const int64_t offset = lane * sizes.lane();
    Forward(o.a + offset, o.b + offset, o.h0 + lane * sizes.columns(), FlagsOf(o.reset, sizes, lane), sizes.num_steps,
            sizes.columns(), sizes.group, begin, end, o.h + offset);
  });
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.linear_recurrence", HandlerOf<LinearRecurrence<ForwardOnPool, ffi::ThreadPool>>);

ffi::Error BackwardOnPool(ffi::ThreadPool& pool, const RecurrenceSizes& sizes, const BackwardOperands& o) {
  ForBlocks(pool, sizes, [&](int64_t lane, int64_t begin, int64_t end) {
    const int64_t offset = lane * sizes.lane(), row = lane * sizes.columns();
    Backward(o.a + offset, o.h + offset, o.h0 + row, FlagsOf(o.reset, sizes, lane), o.h_bar + offset, sizes.num_steps,
             sizes.columns(), sizes.group, begin, end, o.a_bar + offset, o.b_bar + offset, o.h0_bar + row);
  });
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.linear_recurrence.bwd", HandlerOf<LinearRecurrenceBwd<BackwardOnPool, ffi::ThreadPool>>);

}  // namespace
}  // namespace pjx
