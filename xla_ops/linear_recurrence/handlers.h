// The handlers of linear_recurrence for every platform: their operands, and the checks before a buffer is touched.
#pragma once

#include "xla_ops/common/ffi.h"
#include "xla_ops/linear_recurrence/column.h"

namespace pjx {

// a is [..., T, R, K] with at least one step; reset [..., T, R] or empty.
inline ffi::Error CheckRecurrence(const char* op, ffi::Span<const int64_t> dims, int64_t reset_count,
                                  RecurrenceSizes* sizes) {
  if (dims.size() < 3) return InvalidArgument(op, ": a must be [..., T, R, K], got ", ShapeText(dims));
  const int64_t* tail = dims.end() - 3;
  *sizes = RecurrenceSizes{LeadingSize(dims, 3), tail[0], tail[1], tail[2]};
  if (sizes->num_steps < 1) return InvalidArgument(op, ": a must have at least one step, got ", ShapeText(dims));
  if (reset_count != 0 && reset_count != sizes->lanes * sizes->num_steps * sizes->flags) {
    return InvalidArgument(op, ": reset has ", reset_count, " elements, expected 0 or [..., T, R] for a of shape ",
                           ShapeText(dims));
  }
  return ffi::Error::Success();
}

inline const bool* Flags(const ffi::Buffer<ffi::PRED>& reset) {
  return reset.element_count() == 0 ? nullptr : reset.typed_data();
}

// K columns share one reset flag of a step; `reset` is empty where there are no resets. `run(context..., sizes,
// operands)` does the work, on numbers that are all stored as `dtype`.
template <ffi::DataType dtype, auto run, typename... Context>
ffi::Error LinearRecurrence(Context... context,
                            ffi::Buffer<dtype> a,          // [..., T, R, K]
                            ffi::Buffer<dtype> b,          // [..., T, R, K]
                            ffi::Buffer<dtype> h0,         // [..., R, K]
                            ffi::Buffer<ffi::PRED> reset,  // [..., T, R] or [..., 0]
                            ffi::ResultBuffer<dtype> h)    // [..., T, R, K]
{
  const char* op = "linear_recurrence";
  RecurrenceSizes sizes{};
  auto error = CheckRecurrence(op, a.dimensions(), reset.element_count(), &sizes);
  if (error.failure()) return error;
  error = CheckCounts(op, {{"b", b.element_count(), sizes.total()},
                           {"h", h->element_count(), sizes.total()},
                           {"h0", h0.element_count(), sizes.all_columns()}});
  if (error.failure()) return error;
  return run(context..., sizes,
             ForwardOperands<ffi::NativeType<dtype>>{a.typed_data(), b.typed_data(), h0.typed_data(), Flags(reset),
                                                     h->typed_data()});
}

template <ffi::DataType dtype, auto run, typename... Context>
ffi::Error LinearRecurrenceBwd(Context... context,
                               ffi::Buffer<dtype> a,             // [..., T, R, K]
                               ffi::Buffer<dtype> h,             // [..., T, R, K]
                               ffi::Buffer<dtype> h0,            // [..., R, K]
                               ffi::Buffer<ffi::PRED> reset,     // [..., T, R] or [..., 0]
                               ffi::Buffer<dtype> h_bar,         // [..., T, R, K]
                               ffi::ResultBuffer<dtype> a_bar,   // [..., T, R, K]
                               ffi::ResultBuffer<dtype> b_bar,   // [..., T, R, K]
                               ffi::ResultBuffer<dtype> h0_bar)  // [..., R, K]
{
  const char* op = "linear_recurrence.bwd";
  RecurrenceSizes sizes{};
  auto error = CheckRecurrence(op, a.dimensions(), reset.element_count(), &sizes);
  if (error.failure()) return error;
  error = CheckCounts(op, {{"h", h.element_count(), sizes.total()},
                           {"h0", h0.element_count(), sizes.all_columns()},
                           {"h_bar", h_bar.element_count(), sizes.total()},
                           {"a_bar", a_bar->element_count(), sizes.total()},
                           {"b_bar", b_bar->element_count(), sizes.total()},
                           {"h0_bar", h0_bar->element_count(), sizes.all_columns()}});
  if (error.failure()) return error;
  return run(context..., sizes,
             BackwardOperands<ffi::NativeType<dtype>>{a.typed_data(), h.typed_data(), h0.typed_data(), Flags(reset),
                                                      h_bar.typed_data(), a_bar->typed_data(), b_bar->typed_data(),
                                                      h0_bar->typed_data()});
}

}  // namespace pjx
