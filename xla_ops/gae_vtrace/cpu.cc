// gae_vtrace on the CPU: columns are split over the threads; each walks time backwards with one accumulator per column,
// so the inner loop runs over contiguous memory and vectorises.
#include "xla_ops/gae_vtrace/column.h"
#include "xla_ops/gae_vtrace/shapes.h"

namespace pjx {
namespace {

void Columns(const float* rewards, const float* values, const float* bootstrap, const bool* terminated,
             const float* ratios, GaeScalars scalars, int64_t num_steps, int64_t num_envs, int64_t begin, int64_t end,
             float* advantages) {
  for (int64_t t = num_steps - 1; t >= 0; --t) {
    const int64_t row = t * num_envs;
    const bool last = t == num_steps - 1;
    const float* next_values = last ? bootstrap : values + row + num_envs;
    const float* next_advantages = advantages + row + num_envs;  // read only when !last
    for (int64_t n = begin; n < end; ++n) {
      advantages[row + n] = Advantage(scalars, rewards[row + n], values[row + n], next_values[n], terminated[row + n],
                                      ratios[row + n], last ? 0.0f : next_advantages[n]);
    }
  }
}

ffi::Error GaeVtraceCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> rewards, ffi::Buffer<ffi::F32> values,
                        ffi::Buffer<ffi::F32> bootstrap, ffi::Buffer<ffi::PRED> terminated,
                        ffi::Buffer<ffi::F32> ratios, ffi::Buffer<ffi::F32> gamma, ffi::Buffer<ffi::F32> gae_lambda,
                        ffi::Buffer<ffi::F32> rho_clip, ffi::Buffer<ffi::F32> c_clip,
                        ffi::ResultBuffer<ffi::F32> advantages) {
  GaeShapes shapes{};
  const auto error = CheckGaeShapes(rewards, values, bootstrap, terminated, ratios, gamma, gae_lambda, rho_clip, c_clip,
                                    advantages, &shapes);
  if (error.failure()) return error;
  const int64_t lanes = shapes.lanes, num_steps = shapes.num_steps, num_envs = shapes.num_envs;
  ParallelFor(
      pool, lanes * num_envs, /*grain=*/std::max<int64_t>(16, 65536 / std::max<int64_t>(num_steps, 1)),
      [&](int64_t begin, int64_t end) {
        while (begin < end) {
          const int64_t lane = begin / num_envs, first = begin % num_envs;
          const int64_t stop = std::min(num_envs, first + (end - begin));
          const int64_t offset = lane * num_steps * num_envs;
          const float g = gamma.typed_data()[lane];
          Columns(rewards.typed_data() + offset, values.typed_data() + offset, bootstrap.typed_data() + lane * num_envs,
                  terminated.typed_data() + offset, ratios.typed_data() + offset,
                  {g, g * gae_lambda.typed_data()[lane], rho_clip.typed_data()[lane], c_clip.typed_data()[lane]},
                  num_steps, num_envs, first, stop, advantages->typed_data() + offset);
          begin += stop - first;
        }
      });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(GaeVtrace, GaeVtraceCpu,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // rewards [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // values [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // bootstrap_value [..., N]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // terminated [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // ratios [..., T, N]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // gamma [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // gae_lambda [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // rho_clip [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // c_clip [...]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // advantages [..., T, N]
);
PJX_REGISTER("pufferjax.gae_vtrace", GaeVtrace);

}  // namespace
}  // namespace pjx
