// entity_encoder on the GPU: linear_max behind a first layer, whose units never leave shared memory.
#include "xla_ops/linear_max/cuda.h"

namespace pjx {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using FloatResult = ffi::ResultBuffer<ffi::F32>;

// The operands and results of cpu.cc's handlers.
ffi::Error EntityEncoderCuda(cudaStream_t stream, ffi::AnyBuffer x, Floats w1, Floats b1, Floats w2, Floats b2,
                             ffi::Buffer<ffi::PRED> mask, EntityPasses passes, FloatResult y) {
  return EntityForwardCuda<true>("entity_encoder", stream, {x, &w1, &b1, w2, &b2, mask, *passes}, y, nullptr);
}
PJX_REGISTER("pufferjax.entity_encoder", HandlerOf<EntityEncoderCuda, ffi::Traits::kCmdBufferCompatible>);

ffi::Error EntityEncoderFwdCuda(cudaStream_t stream, ffi::AnyBuffer x, Floats w1, Floats b1, Floats w2, Floats b2,
                                ffi::Buffer<ffi::PRED> mask, EntityPasses passes, FloatResult y,
                                ffi::Result<ffi::AnyBuffer> winner) {
  return EntityForwardCuda<true>("entity_encoder.fwd", stream, {x, &w1, &b1, w2, &b2, mask, *passes}, y, &winner);
}
PJX_REGISTER("pufferjax.entity_encoder.fwd", HandlerOf<EntityEncoderFwdCuda, ffi::Traits::kCmdBufferCompatible>);

// Those of cpu.cc's handler, and memory for sums.
ffi::Error EntityEncoderBwdCuda(cudaStream_t stream, ffi::AnyBuffer x, Floats w1, Floats b1, Floats w2,
                                ffi::Buffer<ffi::PRED> mask, ffi::AnyBuffer winner, Floats y_bar,
                                ffi::Result<ffi::AnyBuffer> x_bar, FloatResult w1_bar, FloatResult b1_bar,
                                FloatResult w2_bar, FloatResult b2_bar, FloatResult scratch) {
  return EntityBackwardCuda<true>("entity_encoder.bwd", stream, {x, &w1, &b1, w2, nullptr, mask}, winner, y_bar,
                                  {x_bar, &w1_bar, &b1_bar, w2_bar, b2_bar}, scratch);
}
PJX_REGISTER("pufferjax.entity_encoder.bwd.scratch",
             HandlerOf<EntityEncoderBwdCuda, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
