// linear_recurrence on the GPU: one thread per column walks time (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/linear_recurrence/handlers.h"

namespace pjx {
namespace {

constexpr int kThreads = 64;  // small, so that a few thousand columns reach every multiprocessor

__global__ void __launch_bounds__(kThreads)
    ForwardColumns(RecurrenceSizes sizes, ForwardOperands operands, int64_t num_columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < num_columns) ForwardColumn(sizes, operands, index);
}

__global__ void __launch_bounds__(kThreads)
    BackwardColumns(RecurrenceSizes sizes, BackwardOperands operands, int64_t num_columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < num_columns) BackwardColumn(sizes, operands, index);
}

template <typename Operands>
ffi::Error LaunchColumns(const char* op, cudaStream_t stream, void (*kernel)(RecurrenceSizes, Operands, int64_t),
                         const RecurrenceSizes& sizes, const Operands& operands) {
  const int64_t num_columns = sizes.all_columns();
  return Launch(op, stream, kernel, CeilDivide(num_columns, kThreads), kThreads, sizes, operands, num_columns);
}

ffi::Error ForwardOnStream(cudaStream_t stream, const RecurrenceSizes& sizes, const ForwardOperands& operands) {
  return LaunchColumns("linear_recurrence", stream, ForwardColumns, sizes, operands);
}
PJX_REGISTER("pufferjax.linear_recurrence",
             HandlerOf<LinearRecurrence<ForwardOnStream, cudaStream_t>, ffi::Traits::kCmdBufferCompatible>);

ffi::Error BackwardOnStream(cudaStream_t stream, const RecurrenceSizes& sizes, const BackwardOperands& operands) {
  return LaunchColumns("linear_recurrence.bwd", stream, BackwardColumns, sizes, operands);
}
PJX_REGISTER("pufferjax.linear_recurrence.bwd",
             HandlerOf<LinearRecurrenceBwd<BackwardOnStream, cudaStream_t>, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
