// What a call says about a simulator's rows, checked before one of them is touched.
#pragma once

#include <string>

#include "envs/common/env_rows.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

inline constexpr char kParamsName[] = "params";
using EnvParams = ffi::Attr<ffi::Span<const int64_t>, kParamsName>;

// Parsed parameters, and rows = lanes * num_envs of `stride` bytes.
template <typename E>
struct EnvBatch {
  typename E::Params params;
  int64_t lanes = 0, num_envs = 0, rows = 0, stride = 0;

  int64_t Agents() const { return rows * E::kNumAgents; }
  int64_t ObsSize() const { return E::ObsSize(params) * E::kNumAgents; }  // of a row
};

template <typename E>
ffi::Error OpenBatch(const char* call, EnvParams attr, ffi::Span<const int64_t> state_dims, EnvBatch<E>* batch) {
  const std::string reason = ParseParams<E>(attr->begin(), static_cast<int64_t>(attr->size()), &batch->params);
  if (!reason.empty()) return InvalidArgument(reason);
  batch->stride = E::StateBytes(batch->params);
  if (state_dims.size() < 2 || state_dims.back() != batch->stride) {
    return InvalidArgument(call, ": state must be u8[..., N, ", batch->stride, "], got ", ShapeText(state_dims));
  }
  batch->lanes = LeadingSize(state_dims, 2);
  batch->num_envs = state_dims[state_dims.size() - 2];
  batch->rows = batch->lanes * batch->num_envs;
  return ffi::Error::Success();
}

}  // namespace pjx
