// The lanes of a vmapped call under vmap_method="expand_dims": an operand has them as leading axes, or size 1 on those
// that all lanes share. So shared weights are not copied per lane.
#pragma once

#include <initializer_list>

#include "xla_ops/common/ffi.h"

namespace pjx {

inline ffi::Error CheckLanes(const char* op, const char* name, ffi::Span<const int64_t> dims,
                             std::initializer_list<int64_t> trailing, ffi::Span<const int64_t> lanes) {
  bool matches = dims.size() == lanes.size() + trailing.size();
  for (size_t i = 0; matches && i < dims.size(); ++i) {
    matches = i < lanes.size() ? dims[i] == 1 || dims[i] == lanes[i] : dims[i] == trailing.begin()[i - lanes.size()];
  }
  if (matches) return ffi::Error::Success();
  return InvalidArgument(op, ": ", name, " must be ", ShapeText({trailing.begin(), trailing.size()}),
                         " with leading axes ", ShapeText(lanes), " or 1, got ", ShapeText(dims));
}

// Which block of the operand belongs to `lane`, counted in blocks of its trailing axes.
inline int64_t LaneIndex(int64_t lane, ffi::Span<const int64_t> dims, ffi::Span<const int64_t> lanes) {
  int64_t index = 0, stride = 1;
  for (size_t i = lanes.size(); i-- > 0;) {
    if (dims[i] != 1) index += lane % lanes[i] * stride;
    lane /= lanes[i];
    stride *= dims[i];
  }
  return index;
}

}  // namespace pjx
