// linear_max on the GPU; its launches are in cuda.h.
#include "xla_ops/linear_max/cuda.h"

namespace pjx {
namespace {

// The operands and results of cpu.cc's handlers.
ffi::Error LinearMaxCuda(cudaStream_t stream, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> weight,
                         ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::PRED> mask, EntityPasses passes,
                         ffi::ResultBuffer<ffi::F32> y) {
  return EntityForwardCuda<false>("linear_max", stream, {x, nullptr, nullptr, weight, &bias, mask, *passes}, y,
                                  nullptr);
}
PJX_REGISTER("pufferjax.linear_max", HandlerOf<LinearMaxCuda, ffi::Traits::kCmdBufferCompatible>);

ffi::Error LinearMaxFwdCuda(cudaStream_t stream, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> weight,
                            ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::PRED> mask, EntityPasses passes,
                            ffi::ResultBuffer<ffi::F32> y, ffi::Result<ffi::AnyBuffer> winner) {
  return EntityForwardCuda<false>("linear_max.fwd", stream, {x, nullptr, nullptr, weight, &bias, mask, *passes}, y,
                                  &winner);
}
PJX_REGISTER("pufferjax.linear_max.fwd", HandlerOf<LinearMaxFwdCuda, ffi::Traits::kCmdBufferCompatible>);

// Those of cpu.cc's handler, and memory for sums.
ffi::Error LinearMaxBwdCuda(cudaStream_t stream, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> weight,
                            ffi::Buffer<ffi::PRED> mask, ffi::AnyBuffer winner, ffi::Buffer<ffi::F32> y_bar,
                            ffi::Result<ffi::AnyBuffer> x_bar, ffi::ResultBuffer<ffi::F32> weight_bar,
                            ffi::ResultBuffer<ffi::F32> bias_bar, ffi::ResultBuffer<ffi::F32> scratch) {
  return EntityBackwardCuda<false>("linear_max.bwd", stream, {x, nullptr, nullptr, weight, nullptr, mask}, winner,
                                   y_bar, {x_bar, nullptr, nullptr, weight_bar, bias_bar}, scratch);
}
PJX_REGISTER("pufferjax.linear_max.bwd.scratch", HandlerOf<LinearMaxBwdCuda, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
