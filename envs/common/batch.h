// What the handlers of every platform check before they touch a simulator's buffers.
#pragma once

#include <string>

#include "envs/common/env_rows.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

// Parsed parameters, and rows = lanes * num_envs of `stride` bytes; or what is wrong.
template <typename E>
struct EnvBatch {
  typename E::Params params;
  int64_t lanes = 0, num_envs = 0, rows = 0, stride = 0;
  std::string error;
};

template <typename E>
EnvBatch<E> OpenBatch(const char* call, ffi::Span<const int64_t> attr, ffi::Span<const int64_t> state_dims) {
  EnvBatch<E> batch;
  batch.error = ParseParams<E>(attr.begin(), static_cast<int64_t>(attr.size()), &batch.params);
  if (!batch.error.empty()) return batch;
  batch.stride = E::StateBytes(batch.params);
  if (state_dims.size() < 2 || state_dims[state_dims.size() - 1] != batch.stride) {
    batch.error = std::string(call) + ": state must be u8[..., N, " + std::to_string(batch.stride) + "], got " +
                  ShapeText(state_dims);
    return batch;
  }
  batch.lanes = LeadingSize(state_dims, 2);
  batch.num_envs = state_dims[state_dims.size() - 2];
  batch.rows = batch.lanes * batch.num_envs;
  return batch;
}

inline ffi::Error ExpectCount(const char* call, const char* name, int64_t count, int64_t expected) {
  if (count == expected) return ffi::Error::Success();
  return InvalidArgument(call, ": ", name, " has ", count, " elements, expected ", expected);
}

}  // namespace pjx
