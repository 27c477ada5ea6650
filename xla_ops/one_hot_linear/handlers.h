// What the handlers of one_hot_linear check on every platform before they touch a buffer.
#pragma once

#include <limits>

#include "xla_ops/common/ffi.h"
#include "xla_ops/common/lanes.h"
#include "xla_ops/one_hot_linear/operands.h"

namespace pjx {

using Dimensions = ffi::Span<const int64_t>;

// Table rows are numbered in 32 bits.
inline ffi::Error CheckTable(const OneHotSizes& sizes) {
  if (sizes.num_cells * sizes.num_codes <= std::numeric_limits<int32_t>::max()) return ffi::Error::Success();
  return InvalidArgument("one_hot_linear: weight must have C K < 2^31, got C = ", sizes.num_cells,
                         ", K = ", sizes.num_codes);
}

// x u8[..., R, C], weight [..., C, K, H], bias [..., H] -> y [..., R, H], whose leading axes are the lanes.
inline ffi::Error CheckOneHotForward(Dimensions x, Dimensions weight, Dimensions bias, Dimensions y,
                                     OneHotSizes* sizes) {
  const char* op = "one_hot_linear";
  if (y.size() < 2 || weight.size() < 3) {
    return InvalidArgument(op, ": the result must be [..., R, H] and weight [..., C, K, H], got ", ShapeText(y),
                           " and ", ShapeText(weight));
  }
  const size_t w = weight.size() - 3;
  *sizes = {y[y.size() - 2], weight[w], weight[w + 1], y.back()};
  const auto lanes = y.first(y.size() - 2);
  for (const auto& error :
       {CheckLanes(op, "x", x, {sizes->num_rows, sizes->num_cells}, lanes),
        CheckLanes(op, "weight", weight, {sizes->num_cells, sizes->num_codes, sizes->num_hidden}, lanes),
        CheckLanes(op, "bias", bias, {sizes->num_hidden}, lanes), CheckTable(*sizes)}) {
    if (error.failure()) return error;
  }
  return ffi::Error::Success();
}

// x u8[..., R, C], cotangent [..., R, H] -> dweight [..., C, K, H], dbias [..., H], whose leading axes are the lanes.
inline ffi::Error CheckOneHotBackward(Dimensions x, Dimensions cotangent, Dimensions dweight, Dimensions dbias,
                                      OneHotSizes* sizes) {
  const char* op = "one_hot_linear";
  if (dweight.size() < 3 || x.size() < 2) {
    return InvalidArgument(op, ": x must be [..., R, C] and dweight [..., C, K, H], got ", ShapeText(x), " and ",
                           ShapeText(dweight));
  }
  const size_t w = dweight.size() - 3;
  *sizes = {x[x.size() - 2], dweight[w], dweight[w + 1], dweight.back()};
  const auto lanes = dweight.first(w);
  for (const auto& error : {CheckLanes(op, "x", x, {sizes->num_rows, sizes->num_cells}, lanes),
                            CheckLanes(op, "the cotangent", cotangent, {sizes->num_rows, sizes->num_hidden}, lanes),
                            CheckLanes(op, "dbias", dbias, {sizes->num_hidden}, lanes), CheckTable(*sizes)}) {
    if (error.failure()) return error;
  }
  return ffi::Error::Success();
}

}  // namespace pjx
