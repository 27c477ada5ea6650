// gae_vtrace on the GPU: one thread per column walks time backwards (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/gae_vtrace/handlers.h"

namespace pjx {
namespace {

constexpr int kThreads = 32;  // small, so that a few thousand environments reach every multiprocessor

__global__ void __launch_bounds__(kThreads) GaeColumns(GaeOperands operands, int64_t num_columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < num_columns) GaeColumn(operands, index);
}

ffi::Error RunOnStream(cudaStream_t stream, const GaeOperands& operands, int64_t lanes) {
  const int64_t num_columns = lanes * operands.num_envs;
  return Launch("gae_vtrace", stream, GaeColumns, CeilDivide(num_columns, kThreads), kThreads, operands, num_columns);
}

PJX_REGISTER("pufferjax.gae_vtrace",
             HandlerOf<GaeVtrace<RunOnStream, cudaStream_t>, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
