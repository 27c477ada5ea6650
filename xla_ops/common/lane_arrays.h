// The lanes of lanes.h for a kernel, as plain numbers that travel with its arguments.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

struct Lanes {
  static constexpr int kMaxAxes = 8;
  int64_t count;            // the product of sizes
  int64_t num_axes;         // at most kMaxAxes
  int64_t sizes[kMaxAxes];  // of axes
};

inline Lanes LanesOf(const int64_t* sizes, int64_t num_axes) {
  Lanes lanes{1, num_axes, {}};
  for (int64_t i = 0; i < num_axes; ++i) lanes.count *= lanes.sizes[i] = sizes[i];
  return lanes;
}

// An operand with the lanes' axes, size 1 on those that all lanes share.
template <typename T>
struct LaneArray {
  T* data;                           // null: there is no such operand
  int64_t strides[Lanes::kMaxAxes];  // from one lane to the next along each axis; 0: shared

  PJX_HD T* Lane(const Lanes& lanes, int64_t lane) const {
    int64_t offset = 0;
    PJX_UNROLL
    for (int i = Lanes::kMaxAxes - 1; i >= 0; --i) {
      if (i >= lanes.num_axes) continue;
      offset += lane % lanes.sizes[i] * strides[i];
      lane /= lanes.sizes[i];
    }
    return data + offset;
  }
};

// `sizes`: the operand's, along the lanes' axes; `block`: how many T belong to a lane.
template <typename T>
LaneArray<T> ArrayOfLanes(T* data, const int64_t* sizes, const Lanes& lanes, int64_t block) {
  LaneArray<T> array{data, {}};
  for (int64_t i = lanes.num_axes; data != nullptr && i-- > 0; block *= sizes[i]) {
    array.strides[i] = sizes[i] == 1 ? 0 : block;
  }
  return array;
}

}  // namespace pjx
