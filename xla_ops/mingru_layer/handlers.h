// What the handlers of mingru_layer check on every platform before a buffer is touched.
#pragma once

#include "xla_ops/common/ffi.h"
#include "xla_ops/mingru_layer/column.h"

namespace pjx {

// x is [..., T, B, H] with at least one step; reset [..., T, B] or empty.
inline ffi::Error CheckMingru(const char* op, ffi::Span<const int64_t> dims, const ffi::Buffer<ffi::PRED>& reset,
                              MingruSizes* sizes) {
  if (dims.size() < 3) return InvalidArgument(op, ": x must be [..., T, B, H], got ", ShapeText(dims));
  const int64_t* tail = dims.end() - 3;
  *sizes = MingruSizes{LeadingSize(dims, 3), tail[0], tail[1], tail[2]};
  if (sizes->num_steps < 1) return InvalidArgument(op, ": x must have at least one step, got ", ShapeText(dims));
  const int64_t count = reset.element_count(), flags = sizes->lanes * sizes->rows();
  if (count != 0 && count != flags) {
    return InvalidArgument(op, ": reset has ", count, " elements, expected 0 or ", flags);
  }
  return ffi::Error::Success();
}

// The flags of a lane.
inline const bool* Flags(const ffi::Buffer<ffi::PRED>& reset, const MingruSizes& sizes, int64_t lane = 0) {
  return reset.element_count() == 0 ? nullptr : reset.typed_data() + lane * sizes.rows();
}

}  // namespace pjx
