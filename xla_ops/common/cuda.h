// Launching kernels from a handler: on XLA's stream, without waiting for them, every failure returned as an error.
#pragma once

#include <cuda_runtime.h>

#include <limits>

#include "xla_ops/common/ffi.h"

template <>
struct xla::ffi::CtxBinding<cudaStream_t> {
  using Ctx = xla::ffi::PlatformStream<cudaStream_t>;
};

namespace pjx {

inline ffi::Error CudaError(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kInternal, std::string(op) + ": CUDA reports " + cudaGetErrorString(error));
}

inline int64_t CeilDivide(int64_t total, int64_t part) { return (total + part - 1) / part; }

// kernel<<<blocks, threads, shared_bytes>>>(arguments...); nothing where there are no blocks. With `shared_bytes`,
// which may be more than the 48 KiB of static shared memory, the kernel declares `extern __shared__`.
template <typename... Parameters, typename... Arguments>
ffi::Error LaunchWithShared(const char* op, cudaStream_t stream, void (*kernel)(Parameters...), int64_t blocks,
                            int threads, int shared_bytes, const Arguments&... arguments) {
  if (blocks == 0) return ffi::Error::Success();
  if (blocks > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(op, ": too large for one launch: ", blocks, " blocks of ", threads, " threads");
  }
  if (shared_bytes > 48 * 1024) {
    const auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return CudaError(op, error);
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(arguments...);
  return CudaError(op, cudaGetLastError());
}
template <typename... Parameters, typename... Arguments>
ffi::Error Launch(const char* op, cudaStream_t stream, void (*kernel)(Parameters...), int64_t blocks, int threads,
                  const Arguments&... arguments) {
  return LaunchWithShared(op, stream, kernel, blocks, threads, 0, arguments...);
}

constexpr int kColumnThreads = 64;  // small, so that a few thousand columns reach every multiprocessor

// The index of this thread's column.
__device__ inline int64_t ColumnIndex() { return static_cast<int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x; }

// A kernel that walks time, in blocks of kColumnThreads: a thread for each of `sizes.all_columns()`, which comes last.
template <typename Sizes, typename Operands>
ffi::Error LaunchColumns(const char* op, cudaStream_t stream, void (*kernel)(Sizes, Operands, int64_t),
                         const Sizes& sizes, const Operands& operands) {
  const int64_t num_columns = sizes.all_columns(), blocks = CeilDivide(num_columns, kColumnThreads);
  return Launch(op, stream, kernel, blocks, kColumnThreads, sizes, operands, num_columns);
}

}  // namespace pjx
