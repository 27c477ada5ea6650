// linear_recurrence on the GPU: one thread per column walks time (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/linear_recurrence/column.h"
#include "xla_ops/linear_recurrence/shapes.h"

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
  const int64_t num_columns = sizes.lanes * sizes.columns();
  return Launch(op, stream, kernel, CeilDivide(num_columns, kThreads), kThreads, sizes, operands, num_columns);
}

const bool* Flags(const ffi::Buffer<ffi::PRED>& reset) {
  return reset.element_count() == 0 ? nullptr : reset.typed_data();
}

ffi::Error LinearRecurrenceCuda(cudaStream_t stream, ffi::Buffer<ffi::F32> a, ffi::Buffer<ffi::F32> b,
                                ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::ResultBuffer<ffi::F32> h) {
  RecurrenceSizes sizes{};
  if (const auto error = CheckForward(a, b, h0, reset, h, &sizes); error.failure()) return error;
  const ForwardOperands operands{a.typed_data(), b.typed_data(), h0.typed_data(), Flags(reset), h->typed_data()};
  return LaunchColumns("linear_recurrence", stream, ForwardColumns, sizes, operands);
}

ffi::Error LinearRecurrenceBwdCuda(cudaStream_t stream, ffi::Buffer<ffi::F32> a, ffi::Buffer<ffi::F32> h,
                                   ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::Buffer<ffi::F32> h_bar,
                                   ffi::ResultBuffer<ffi::F32> a_bar, ffi::ResultBuffer<ffi::F32> b_bar,
                                   ffi::ResultBuffer<ffi::F32> h0_bar) {
  RecurrenceSizes sizes{};
  const auto error = CheckBackward(a, h, h0, reset, h_bar, a_bar, b_bar, h0_bar, &sizes);
  if (error.failure()) return error;
  const BackwardOperands operands{a.typed_data(),     h.typed_data(),      h0.typed_data(),     Flags(reset),
                                  h_bar.typed_data(), a_bar->typed_data(), b_bar->typed_data(), h0_bar->typed_data()};
  return LaunchColumns("linear_recurrence.bwd", stream, BackwardColumns, sizes, operands);
}

// K columns share one reset flag of a step; `reset` is empty where there are no resets.
XLA_FFI_DEFINE_HANDLER_SYMBOL(LinearRecurrence, LinearRecurrenceCuda,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // a [..., T, R, K]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // b [..., T, R, K]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h0 [..., R, K]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // reset [..., T, R] or [..., 0]
                                  .Ret<ffi::Buffer<ffi::F32>>(),  // h [..., T, R, K]
                              {ffi::Traits::kCmdBufferCompatible});
PJX_REGISTER("pufferjax.linear_recurrence", LinearRecurrence);

XLA_FFI_DEFINE_HANDLER_SYMBOL(LinearRecurrenceBwd, LinearRecurrenceBwdCuda,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // a [..., T, R, K]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h [..., T, R, K]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h0 [..., R, K]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // reset [..., T, R] or [..., 0]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h_bar [..., T, R, K]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // a_bar [..., T, R, K]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // b_bar [..., T, R, K]
                                  .Ret<ffi::Buffer<ffi::F32>>(),  // h0_bar [..., R, K]
                              {ffi::Traits::kCmdBufferCompatible});
PJX_REGISTER("pufferjax.linear_recurrence.bwd", LinearRecurrenceBwd);

}  // namespace
}  // namespace pjx
