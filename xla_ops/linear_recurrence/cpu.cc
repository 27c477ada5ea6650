// linear_recurrence on the CPU. Every column is on its own, so columns are split over the threads; a thread walks time
// over a block narrow enough that what is carried from step to step stays in the first-level cache. The work is bound
// by memory.
#include "xla_ops/common/simd.h"
#include "xla_ops/linear_recurrence/handlers.h"

namespace pjx {
namespace {

constexpr int64_t kBlock = 2048;  // columns: 8 KiB of float32

// Where the states of `h` are in float32: there, or `beside` it where that is narrower.
template <typename S>
PJX_INLINE auto* StatesOf(S* h, float* beside) {
  if constexpr (sizeof(S) < sizeof(float)) {
    return beside;
  } else {
    return h;
  }
}

// One step over `size` columns that share one reset flag. `previous` may be `states`, and `states` is h if that is
// float32.
template <typename S>
PJX_INLINE void StepForward(const S* a, const S* b, const float* previous, float* states, S* h, int64_t size) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < size; ++i) {
    states[i] = Widen(a[i]) * previous[i] + Widen(b[i]);
    if constexpr (sizeof(S) < sizeof(float)) Narrow(states[i], &h[i]);
  }
}

template <typename S>
PJX_INLINE void ResetForward(const S* a, const S* b, float* states, S* h, int64_t size) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < size; ++i) {
    states[i] = Widen(a[i]) * 0.0f + Widen(b[i]);
    if constexpr (sizeof(S) < sizeof(float)) Narrow(states[i], &h[i]);
  }
}

// One step with a flag for each column.
template <typename S>
PJX_INLINE void FlaggedForward(const S* a, const S* b, const float* previous, const bool* reset, float* states, S* h,
                               int64_t size) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < size; ++i) {
    states[i] = Widen(a[i]) * (reset[i] ? 0.0f : previous[i]) + Widen(b[i]);
    if constexpr (sizeof(S) < sizeof(float)) Narrow(states[i], &h[i]);
  }
}

// Columns [begin, end) of one lane, at most a block; `reset` is null or has a flag for each `group` columns of a step.
template <typename S>
PJX_INLINE void ForwardBlock(const RecurrenceSizes& sizes, const ForwardOperands<S>& o, int64_t begin, int64_t end) {
  const int64_t columns = sizes.columns(), group = sizes.group;
  float beside[kBlock];
  const float* previous = StatesOf(o.h0 + begin, beside);  // these begin at column `begin`
  if constexpr (sizeof(S) < sizeof(float)) {
    for (int64_t i = 0; i < end - begin; ++i) beside[i] = Widen(o.h0[begin + i]);
  }
  for (int64_t t = 0; t < sizes.num_steps; ++t) {
    const int64_t at = t * columns + begin;
    float* const states = StatesOf(o.h + at, beside);
    if (o.reset == nullptr) {
      StepForward(o.a + at, o.b + at, previous, states, o.h + at, end - begin);
    } else if (group == 1) {
      FlaggedForward(o.a + at, o.b + at, previous, o.reset + at, states, o.h + at, end - begin);
    } else {
      const bool* flags = o.reset + t * sizes.flags;
      for (int64_t i = 0, stop; i < end - begin; i = stop) {
        const int64_t flag = (begin + i) / group;
        stop = std::min(end, (flag + 1) * group) - begin;
        if (flags[flag]) {
          ResetForward(o.a + at + i, o.b + at + i, states + i, o.h + at + i, stop - i);
        } else {
          StepForward(o.a + at + i, o.b + at + i, previous + i, states + i, o.h + at + i, stop - i);
        }
      }
    }
    previous = states;
  }
}

// `carried` holds a_{t+1} g_{t+1} (0 across a reset), and ends as a_t g_t.
template <typename S>
PJX_INLINE void StepBackward(const S* __restrict a, const S* __restrict previous, const S* __restrict h_bar,
                             float* __restrict carried, S* __restrict a_bar, S* __restrict b_bar, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = Widen(h_bar[i]) + carried[i];
    Narrow(g, &b_bar[i]);
    Narrow(g * Widen(previous[i]), &a_bar[i]);
    carried[i] = Widen(a[i]) * g;
  }
}

template <typename S>
PJX_INLINE void ResetBackward(const S* __restrict h_bar, float* __restrict carried, S* __restrict a_bar,
                              S* __restrict b_bar, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = Widen(h_bar[i]) + carried[i];
    Narrow(g, &b_bar[i]);
    Narrow(g * 0.0f, &a_bar[i]);
    carried[i] = 0.0f;
  }
}

template <typename S>
PJX_INLINE void FlaggedBackward(const S* __restrict a, const S* __restrict previous, const bool* __restrict reset,
                                const S* __restrict h_bar, float* __restrict carried, S* __restrict a_bar,
                                S* __restrict b_bar, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = Widen(h_bar[i]) + carried[i];
    Narrow(g, &b_bar[i]);
    Narrow(g * (reset[i] ? 0.0f : Widen(previous[i])), &a_bar[i]);
    carried[i] = reset[i] ? 0.0f : Widen(a[i]) * g;
  }
}

template <typename S>
PJX_INLINE void BackwardBlock(const RecurrenceSizes& sizes, const BackwardOperands<S>& o, int64_t begin, int64_t end) {
  const int64_t columns = sizes.columns(), group = sizes.group;
  float carried[kBlock];
  std::fill(carried, carried + end - begin, 0.0f);
  for (int64_t t = sizes.num_steps - 1; t >= 0; --t) {
    const int64_t row = t * columns, at = row + begin;
    const S* previous = t == 0 ? o.h0 : o.h + row - columns;
    if (o.reset == nullptr) {
      StepBackward(o.a + at, previous + begin, o.h_bar + at, carried, o.a_bar + at, o.b_bar + at, end - begin);
    } else if (group == 1) {
      FlaggedBackward(o.a + at, previous + begin, o.reset + at, o.h_bar + at, carried, o.a_bar + at, o.b_bar + at,
                      end - begin);
    } else {
      const bool* flags = o.reset + t * sizes.flags;
      for (int64_t i = begin, stop; i < end; i = stop) {
        stop = std::min(end, (i / group + 1) * group);
        float* const from = carried + i - begin;
        if (flags[i / group]) {
          ResetBackward(o.h_bar + row + i, from, o.a_bar + row + i, o.b_bar + row + i, stop - i);
        } else {
          StepBackward(o.a + row + i, previous + i, o.h_bar + row + i, from, o.a_bar + row + i, o.b_bar + row + i,
                       stop - i);
        }
      }
    }
  }
  for (int64_t i = begin; i < end; ++i) Narrow(carried[i - begin], &o.h0_bar[i]);
}

PJX_KERNEL(ForwardF32, (const RecurrenceSizes& sizes, const ForwardOperands<float>& o, int64_t begin, int64_t end),
           ForwardBlock(sizes, o, begin, end))
PJX_KERNEL(ForwardBf16, (const RecurrenceSizes& sizes, const ForwardOperands<uint16_t>& o, int64_t begin, int64_t end),
           ForwardBlock(sizes, o, begin, end))
PJX_KERNEL(BackwardF32, (const RecurrenceSizes& sizes, const BackwardOperands<float>& o, int64_t begin, int64_t end),
           BackwardBlock(sizes, o, begin, end))
PJX_KERNEL(BackwardBf16,
           (const RecurrenceSizes& sizes, const BackwardOperands<uint16_t>& o, int64_t begin, int64_t end),
           BackwardBlock(sizes, o, begin, end))

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

template <typename S>
ffi::Error ForwardOnPool(ffi::ThreadPool& pool, const RecurrenceSizes& sizes, const ForwardOperands<S>& o) {
  ForBlocks(pool, sizes, [&](int64_t lane, int64_t begin, int64_t end) {
    const int64_t offset = lane * sizes.lane(), row = lane * sizes.columns();
    const ForwardOperands<S> own{o.a + offset, o.b + offset, o.h0 + row, FlagsOf(o.reset, sizes, lane), o.h + offset};
    if constexpr (std::is_same_v<S, float>) {
      ForwardF32(sizes, own, begin, end);
    } else {
      ForwardBf16(sizes, own, begin, end);
    }
  });
  return ffi::Error::Success();
}
template <ffi::DataType dtype>
constexpr auto kForward = LinearRecurrence<dtype, ForwardOnPool<ffi::NativeType<dtype>>, ffi::ThreadPool>;
PJX_REGISTER("pufferjax.linear_recurrence", HandlerOf<kForward<ffi::F32>>);
PJX_REGISTER("pufferjax.linear_recurrence.bf16", HandlerOf<kForward<ffi::BF16>>);

template <typename S>
ffi::Error BackwardOnPool(ffi::ThreadPool& pool, const RecurrenceSizes& sizes, const BackwardOperands<S>& o) {
  ForBlocks(pool, sizes, [&](int64_t lane, int64_t begin, int64_t end) {
    const int64_t offset = lane * sizes.lane(), row = lane * sizes.columns();
    const BackwardOperands<S> own{o.a + offset,     o.h + offset,     o.h0 + row,       FlagsOf(o.reset, sizes, lane),
                                  o.h_bar + offset, o.a_bar + offset, o.b_bar + offset, o.h0_bar + row};
    if constexpr (std::is_same_v<S, float>) {
      BackwardF32(sizes, own, begin, end);
    } else {
      BackwardBf16(sizes, own, begin, end);
    }
  });
  return ffi::Error::Success();
}
template <ffi::DataType dtype>
constexpr auto kBackward = LinearRecurrenceBwd<dtype, BackwardOnPool<ffi::NativeType<dtype>>, ffi::ThreadPool>;
PJX_REGISTER("pufferjax.linear_recurrence.bwd", HandlerOf<kBackward<ffi::F32>>);
PJX_REGISTER("pufferjax.linear_recurrence.bwd.bf16", HandlerOf<kBackward<ffi::BF16>>);

}  // namespace
}  // namespace pjx
