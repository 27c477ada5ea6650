// Launching kernels from a handler: on XLA's stream, without waiting for them, every failure returned as an error.
#pragma once

#include <cuda_runtime.h>

#include <limits>

#include "xla_ops/common/ffi.h"

template <>
struct xla::ffi::CtxBinding<cudaStream_t> {
  using Ctx = xla::ffi::PlatformStream<cudaStream_t>;
};
template <>
struct xla::ffi::CtxBinding<xla::ffi::ScratchAllocator> {
  using Ctx = xla::ffi::ScratchAllocator;
};

namespace pjx {

inline ffi::Error CudaError(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, std::string(op) + ": CUDA reports " + cudaGetErrorString(error));
}

inline int64_t CeilDivide(int64_t total, int64_t part) { return (total + part - 1) / part; }

// kernel<<<blocks, threads>>>(arguments...); nothing where there are no blocks.
template <typename... Parameters, typename... Arguments>
ffi::Error Launch(const char* op, cudaStream_t stream, void (*kernel)(Parameters...), int64_t blocks, int threads,
                  const Arguments&... arguments) {
  if (blocks == 0) return ffi::Error::Success();
  if (blocks > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(op, ": too large for one launch: ", blocks, " blocks of ", threads, " threads");
  }
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(arguments...);
  return CudaError(op, cudaGetLastError());
}

}  // namespace pjx
