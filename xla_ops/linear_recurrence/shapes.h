// What the handlers of every platform check before they touch a buffer.
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

inline ffi::Error CheckForward(const ffi::Buffer<ffi::F32>& a, const ffi::Buffer<ffi::F32>& b,
                               const ffi::Buffer<ffi::F32>& h0, const ffi::Buffer<ffi::PRED>& reset,
                               ffi::ResultBuffer<ffi::F32> h, RecurrenceSizes* sizes) {
  const char* op = "linear_recurrence";
  auto error = CheckRecurrence(op, a.dimensions(), reset.element_count(), sizes);
  if (error.failure()) return error;
  const int64_t size = sizes->lanes * sizes->lane(), row = sizes->lanes * sizes->columns();
  return CheckCounts(
      op, {{"b", b.element_count(), size}, {"h", h->element_count(), size}, {"h0", h0.element_count(), row}});
}

inline ffi::Error CheckBackward(const ffi::Buffer<ffi::F32>& a, const ffi::Buffer<ffi::F32>& h,
                                const ffi::Buffer<ffi::F32>& h0, const ffi::Buffer<ffi::PRED>& reset,
                                const ffi::Buffer<ffi::F32>& h_bar, ffi::ResultBuffer<ffi::F32> a_bar,
                                ffi::ResultBuffer<ffi::F32> b_bar, ffi::ResultBuffer<ffi::F32> h0_bar,
                                RecurrenceSizes* sizes) {
  const char* op = "linear_recurrence.bwd";
  auto error = CheckRecurrence(op, a.dimensions(), reset.element_count(), sizes);
  if (error.failure()) return error;
  const int64_t size = sizes->lanes * sizes->lane(), row = sizes->lanes * sizes->columns();
  return CheckCounts(op, {{"h", h.element_count(), size},
                          {"h0", h0.element_count(), row},
                          {"h_bar", h_bar.element_count(), size},
                          {"a_bar", a_bar->element_count(), size},
                          {"b_bar", b_bar->element_count(), size},
                          {"h0_bar", h0_bar->element_count(), row}});
}

}  // namespace pjx
