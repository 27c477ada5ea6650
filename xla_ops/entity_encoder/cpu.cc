// entity_encoder on the CPU: linear_max behind a first layer, whose units never leave a thread's scratch.
#include "xla_ops/linear_max/cpu.h"

namespace pjx {
namespace {

using Floats = ffi::Buffer<ffi::F32>;
using FloatResult = ffi::ResultBuffer<ffi::F32>;

// x f32 or bf16 [..., R, N, D], w1 [..., D, P], b1 [..., P], w2 [..., P, H], b2 [..., H], mask [..., R, N] or
// [..., 0, 0] -> y [..., R, H]
ffi::Error EntityEncoderCpu(ffi::ThreadPool pool, ffi::AnyBuffer x, Floats w1, Floats b1, Floats w2, Floats b2,
                            ffi::Buffer<ffi::PRED> mask, EntityPasses passes, FloatResult y) {
  return EntityForwardCpu("entity_encoder", pool, {x, &w1, &b1, w2, &b2, mask, *passes}, y, nullptr);
}
PJX_REGISTER("pufferjax.entity_encoder", HandlerOf<EntityEncoderCpu>);

// Also -> winner u8, u16 or i32 [..., R, H]
ffi::Error EntityEncoderFwdCpu(ffi::ThreadPool pool, ffi::AnyBuffer x, Floats w1, Floats b1, Floats w2, Floats b2,
                               ffi::Buffer<ffi::PRED> mask, EntityPasses passes, FloatResult y,
                               ffi::Result<ffi::AnyBuffer> winner) {
  return EntityForwardCpu("entity_encoder.fwd", pool, {x, &w1, &b1, w2, &b2, mask, *passes}, y, &winner);
}
PJX_REGISTER("pufferjax.entity_encoder.fwd", HandlerOf<EntityEncoderFwdCpu>);

// Every cotangent has the shape of its primal, weights' cotangents with all the lanes.
ffi::Error EntityEncoderBwdCpu(ffi::ThreadPool pool, ffi::AnyBuffer x, Floats w1, Floats b1, Floats w2,
                               ffi::Buffer<ffi::PRED> mask, ffi::AnyBuffer winner, Floats y_bar,
                               ffi::Result<ffi::AnyBuffer> x_bar, FloatResult w1_bar, FloatResult b1_bar,
                               FloatResult w2_bar, FloatResult b2_bar) {
  return EntityBackwardCpu("entity_encoder.bwd", pool, {x, &w1, &b1, w2, nullptr, mask}, winner, y_bar,
                           {x_bar, &w1_bar, &b1_bar, w2_bar, b2_bar});
}
PJX_REGISTER("pufferjax.entity_encoder.bwd", HandlerOf<EntityEncoderBwdCpu>);

}  // namespace
}  // namespace pjx
