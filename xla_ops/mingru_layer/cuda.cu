// mingru_layer on the GPU: the products with the kernel are XLA's, gates, scan and highway of all steps one call of a
// kernel with a thread per column (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/mingru_layer/handlers.h"

namespace pjx {
namespace {

__global__ void __launch_bounds__(kColumnThreads)
    CellForwardColumns(MingruSizes sizes, CellForwardOperands operands, int64_t num_columns) {
  const int64_t index = ColumnIndex();
  if (index < num_columns) CellForwardColumn(sizes, operands, index);
}

__global__ void __launch_bounds__(kColumnThreads)
    CellBackwardColumns(MingruSizes sizes, CellBackwardOperands operands, int64_t num_columns) {
  const int64_t index = ColumnIndex();
  if (index < num_columns) CellBackwardColumn(sizes, operands, index);
}

// h is all states, or the last: where the two differ in size, its size tells.
ffi::Error Forward(cudaStream_t stream,
                   ffi::Buffer<ffi::F32> projected,  // [..., T, B, 3H]
                   ffi::Buffer<ffi::F32> x,          // [..., T, B, H]
                   ffi::Buffer<ffi::F32> h0,         // [..., B, H]
                   ffi::Buffer<ffi::PRED> reset,     // [..., T, B] or [..., 0]
                   ffi::ResultBuffer<ffi::F32> y,    // [..., T, B, H]
                   ffi::ResultBuffer<ffi::F32> h)    // [..., T, B, H] or [..., B, H]
{
  const char* op = "mingru_layer.cell";
  MingruSizes sizes{};
  if (auto error = CheckMingru(op, x.dimensions(), reset, &sizes); error.failure()) return error;
  const bool keeps = static_cast<int64_t>(h->element_count()) != sizes.all_columns();
  if (auto error = CheckCounts(op, {{"projected", projected.element_count(), 3 * sizes.total()},
                                    {"h0", h0.element_count(), sizes.all_columns()},
                                    {"y", y->element_count(), sizes.total()},
                                    {"h", h->element_count(), keeps ? sizes.total() : sizes.all_columns()}});
      error.failure()) {
    return error;
  }
  const CellForwardOperands operands{
      projected.typed_data(), x.typed_data(), h0.typed_data(), Flags(reset, sizes), y->typed_data(),
      h->typed_data(),        keeps};
  return LaunchColumns(op, stream, CellForwardColumns, sizes, operands);
}
PJX_REGISTER("pufferjax.mingru_layer.cell", HandlerOf<Forward, ffi::Traits::kCmdBufferCompatible>);

ffi::Error Backward(cudaStream_t stream,
                    ffi::Buffer<ffi::F32> projected,            // [..., T, B, 3H]
                    ffi::Buffer<ffi::F32> x,                    // [..., T, B, H]
                    ffi::Buffer<ffi::F32> h0,                   // [..., B, H]
                    ffi::Buffer<ffi::PRED> reset,               // [..., T, B] or [..., 0]
                    ffi::Buffer<ffi::F32> h,                    // [..., T, B, H]
                    ffi::Buffer<ffi::F32> y_bar,                // [..., T, B, H]
                    ffi::Buffer<ffi::F32> h_last_bar,           // [..., B, H]
                    ffi::ResultBuffer<ffi::F32> projected_bar,  // [..., T, B, 3H]
                    ffi::ResultBuffer<ffi::F32> x_bar,          // [..., T, B, H], by way of the highway
                    ffi::ResultBuffer<ffi::F32> h0_bar)         // [..., B, H]
{
  const char* op = "mingru_layer.cell.bwd";
  MingruSizes sizes{};
  if (auto error = CheckMingru(op, x.dimensions(), reset, &sizes); error.failure()) return error;
  if (auto error = CheckCounts(op, {{"projected", projected.element_count(), 3 * sizes.total()},
                                    {"h0", h0.element_count(), sizes.all_columns()},
                                    {"h", h.element_count(), sizes.total()},
                                    {"y_bar", y_bar.element_count(), sizes.total()},
                                    {"h_last_bar", h_last_bar.element_count(), sizes.all_columns()},
                                    {"projected_bar", projected_bar->element_count(), 3 * sizes.total()},
                                    {"x_bar", x_bar->element_count(), sizes.total()},
                                    {"h0_bar", h0_bar->element_count(), sizes.all_columns()}});
      error.failure()) {
    return error;
  }
  const CellBackwardOperands operands{
      projected.typed_data(), x.typed_data(),       h0.typed_data(),         Flags(reset, sizes),
      h.typed_data(),         y_bar.typed_data(),   h_last_bar.typed_data(), projected_bar->typed_data(),
      x_bar->typed_data(),    h0_bar->typed_data(),
  };
  return LaunchColumns(op, stream, CellBackwardColumns, sizes, operands);
}
PJX_REGISTER("pufferjax.mingru_layer.cell.bwd", HandlerOf<Backward, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
