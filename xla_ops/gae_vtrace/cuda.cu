// gae_vtrace on the GPU: one thread per column walks time backwards (column.h). The work is bound by memory.
#include "xla_ops/common/cuda.h"
#include "xla_ops/gae_vtrace/column.h"
#include "xla_ops/gae_vtrace/shapes.h"

namespace pjx {
namespace {

constexpr int kThreads = 64;  // small, so that a few thousand environments reach every multiprocessor

__global__ void __launch_bounds__(kThreads) GaeColumns(GaeOperands operands, int64_t num_columns) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < num_columns) GaeColumn(operands, index);
}

ffi::Error GaeVtraceCuda(cudaStream_t stream, ffi::Buffer<ffi::F32> rewards, ffi::Buffer<ffi::F32> values,
                         ffi::Buffer<ffi::F32> bootstrap, ffi::Buffer<ffi::PRED> terminated,
                         ffi::Buffer<ffi::F32> ratios, ffi::Buffer<ffi::F32> gamma, ffi::Buffer<ffi::F32> gae_lambda,
                         ffi::Buffer<ffi::F32> rho_clip, ffi::Buffer<ffi::F32> c_clip,
                         ffi::ResultBuffer<ffi::F32> advantages) {
  GaeShapes shapes{};
  const auto error = CheckGaeShapes(rewards, values, bootstrap, terminated, ratios, gamma, gae_lambda, rho_clip, c_clip,
                                    advantages, &shapes);
  if (error.failure()) return error;
  const GaeOperands operands{rewards.typed_data(),     values.typed_data(),   bootstrap.typed_data(),
                             terminated.typed_data(),  ratios.typed_data(),   gamma.typed_data(),
                             gae_lambda.typed_data(),  rho_clip.typed_data(), c_clip.typed_data(),
                             advantages->typed_data(), shapes.num_steps,      shapes.num_envs};
  const int64_t num_columns = shapes.lanes * shapes.num_envs;
  return Launch("gae_vtrace", stream, GaeColumns, CeilDivide(num_columns, kThreads), kThreads, operands, num_columns);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(GaeVtrace, GaeVtraceCuda,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // rewards [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // values [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // bootstrap_value [..., N]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // terminated [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // ratios [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // gamma [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // gae_lambda [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // rho_clip [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // c_clip [...]
                                  .Ret<ffi::Buffer<ffi::F32>>(),  // advantages [..., T, N]
                              {ffi::Traits::kCmdBufferCompatible});
PJX_REGISTER("pufferjax.gae_vtrace", GaeVtrace);

}  // namespace
}  // namespace pjx
