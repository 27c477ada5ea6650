// linear_recurrence on the GPU: one thread per column walks time (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/linear_recurrence/handlers.h"

namespace pjx {
namespace {

template <typename S>
__global__ void __launch_bounds__(kColumnThreads)
    ForwardColumns(RecurrenceSizes sizes, ForwardOperands<S> operands, int64_t num_columns) {
  const int64_t index = ColumnIndex();
  if (index < num_columns) ForwardColumn(sizes, operands, index);
}

template <typename S>
__global__ void __launch_bounds__(kColumnThreads)
    BackwardColumns(RecurrenceSizes sizes, BackwardOperands<S> operands, int64_t num_columns) {
  const int64_t index = ColumnIndex();
  if (index < num_columns) BackwardColumn(sizes, operands, index);
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
