// linear_recurrence on the GPU: one thread per column walks time (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/linear_recurrence/handlers.h"

namespace pjx {
namespace {

constexpr int kThreads = 64;  // small, so that a few thousand columns reach every multiprocessor

template <typename S>
__global__ void __launch_bounds__(kThreads)
    ForwardColumns(RecurrenceSizes sizes, ForwardOperands<S> operands, int64_t num_columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < num_columns) ForwardColumn(sizes, operands, index);
}

template <typename S>
__global__ void __launch_bounds__(kThreads)
    BackwardColumns(RecurrenceSizes sizes, BackwardOperands<S> operands, int64_t num_columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < num_columns) BackwardColumn(sizes, operands, index);
}

template <typename Operands>
ffi::Error LaunchColumns(const char* op, cudaStream_t stream, void (*kernel)(RecurrenceSizes, Operands, int64_t),
                         const RecurrenceSizes& sizes, const Operands& operands) {
  const int64_t num_columns = sizes.all_columns();
  return Launch(op, stream, kernel, CeilDivide(num_columns, kThreads), kThreads, sizes, operands, num_columns);
}

template <typename S>
ffi::Error ForwardOnStream(cudaStream_t stream, const RecurrenceSizes& sizes, const ForwardOperands<S>& operands) {
  return LaunchColumns("linear_recurrence", stream, ForwardColumns<S>, sizes, operands);
}
template <ffi::DataType dtype>
constexpr auto kForward = LinearRecurrence<dtype, ForwardOnStream<ffi::NativeType<dtype>>, cudaStream_t>;
PJX_REGISTER("pufferjax.linear_recurrence", HandlerOf<kForward<ffi::F32>, ffi::Traits::kCmdBufferCompatible>);
PJX_REGISTER("pufferjax.linear_recurrence.bf16", HandlerOf<kForward<ffi::BF16>, ffi::Traits::kCmdBufferCompatible>);

template <typename S>
ffi::Error BackwardOnStream(cudaStream_t stream, const RecurrenceSizes& sizes, const BackwardOperands<S>& operands) {
  return LaunchColumns("linear_recurrence.bwd", stream, BackwardColumns<S>, sizes, operands);
}
template <ffi::DataType dtype>
constexpr auto kBackward = LinearRecurrenceBwd<dtype, BackwardOnStream<ffi::NativeType<dtype>>, cudaStream_t>;
PJX_REGISTER("pufferjax.linear_recurrence.bwd", HandlerOf<kBackward<ffi::F32>, ffi::Traits::kCmdBufferCompatible>);
PJX_REGISTER("pufferjax.linear_recurrence.bwd.bf16",
             HandlerOf<kBackward<ffi::BF16>, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
