// What a call says about a simulator's rows, checked before one of them is touched.
#pragma once

#include <string>

#include "envs/common/simulator.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

inline constexpr char kParamsName[] = "params";
using EnvParams = ffi::Attr<ffi::Span<const int64_t>, kParamsName>;

// rows = lanes * num_envs of `stride` bytes.
struct Batch {
  int64_t lanes = 0, num_envs = 0, rows = 0, stride = 0;
  int64_t agents = 0, actions = 0, obs_size = 0;  // of a row: so many agents, actions, and numbers observed
  ffi::DataType obs_type = ffi::U8, action_type = ffi::S32;
};

template <typename E>
struct EnvBatch : Batch {
  typename E::Params params;
};

template <typename E>
ffi::Error OpenBatch(const char* call, EnvParams attr, ffi::Span<const int64_t> state_dims, EnvBatch<E>* batch) {
  const std::string reason = ParseParams<E>(attr->begin(), static_cast<int64_t>(attr->size()), &batch->params);
  if (!reason.empty()) return InvalidArgument(reason);
  batch->stride = StateBytes<E>(batch->params);
  if (state_dims.size() < 2 || state_dims.back() != batch->stride) {
    return InvalidArgument(call, ": state must be u8[..., N, ", batch->stride, "], got ", ShapeText(state_dims));
  }
  batch->lanes = LeadingSize(state_dims, 2);
  batch->num_envs = state_dims[state_dims.size() - 2];
  batch->rows = batch->lanes * batch->num_envs;
  batch->agents = E::kNumAgents;
  batch->actions = E::kNumAgents * E::kNumHeads;
  batch->obs_size = E::kNumAgents * E::ObsShape(batch->params).size();
  batch->action_type = kHasNumbers<E> ? ffi::F32 : ffi::S32;
  batch->obs_type = std::is_same_v<typename E::Obs, uint8_t> ? ffi::U8 : ffi::F32;
  return ffi::Error::Success();
}

}  // namespace pjx
