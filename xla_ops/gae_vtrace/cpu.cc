// gae_vtrace on the CPU: columns are split over the threads; each walks time backwards with one accumulator per column,
// so the inner loop runs over contiguous memory and vectorises.
#include "xla_ops/common/ffi.h"

namespace pjx {
namespace {

void Columns(const float* rewards, const float* values, const float* bootstrap, const bool* terminated,
             const float* ratios, float gamma, float decay, float rho_clip, float c_clip, int64_t num_steps,
             int64_t num_envs, int64_t begin, int64_t end, float* advantages) {
  for (int64_t t = num_steps - 1; t >= 0; --t) {
    const int64_t row = t * num_envs;
    const bool last = t == num_steps - 1;
    const float* next_values = last ? bootstrap : values + row + num_envs;
    const float* next_advantages = advantages + row + num_envs;  // read only when !last
    for (int64_t n = begin; n < end; ++n) {
      const float ratio = ratios[row + n];
      // jnp.minimum keeps NaN; so does this order of comparison.
      const float rho = ratio > rho_clip ? rho_clip : ratio;
      const float c = ratio > c_clip ? c_clip : ratio;
      const bool ended = terminated[row + n];
      const float next_value = ended ? 0.0f : next_values[n];
      const float carried = (ended || last) ? 0.0f : next_advantages[n];
      const float delta = rho * (rewards[row + n] + gamma * next_value - values[row + n]);
      advantages[row + n] = delta + decay * c * carried;
    }
  }
}

ffi::Error GaeVtraceCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> rewards, ffi::Buffer<ffi::F32> values,
                        ffi::Buffer<ffi::F32> bootstrap, ffi::Buffer<ffi::PRED> terminated,
                        ffi::Buffer<ffi::F32> ratios, ffi::Buffer<ffi::F32> gamma, ffi::Buffer<ffi::F32> gae_lambda,
                        ffi::Buffer<ffi::F32> rho_clip, ffi::Buffer<ffi::F32> c_clip,
                        ffi::ResultBuffer<ffi::F32> advantages) {
  const auto dims = rewards.dimensions();
  if (dims.size() < 2) return InvalidArgument("gae_vtrace: rewards must be [..., T, N], got ", ShapeText(dims));
  const int64_t lanes = LeadingSize(dims, 2), num_steps = dims[dims.size() - 2], num_envs = dims[dims.size() - 1];
  const int64_t size = lanes * num_steps * num_envs;
  for (const auto& [name, count, expected] :
       {std::tuple{"values", values.element_count(), size}, std::tuple{"terminated", terminated.element_count(), size},
        std::tuple{"ratios", ratios.element_count(), size}, std::tuple{"advantages", advantages->element_count(), size},
        std::tuple{"bootstrap_value", bootstrap.element_count(), lanes * num_envs},
        std::tuple{"gamma", gamma.element_count(), lanes}, std::tuple{"gae_lambda", gae_lambda.element_count(), lanes},
        std::tuple{"rho_clip", rho_clip.element_count(), lanes}, std::tuple{"c_clip", c_clip.element_count(), lanes}}) {
    if (static_cast<int64_t>(count) != expected) {
      return InvalidArgument("gae_vtrace: ", name, " has ", count, " elements, expected ", expected,
                             " for rewards of shape ", ShapeText(dims));
    }
  }
  ParallelFor(pool, lanes * num_envs, /*grain=*/std::max<int64_t>(16, 65536 / std::max<int64_t>(num_steps, 1)),
              [&](int64_t begin, int64_t end) {
                while (begin < end) {
                  const int64_t lane = begin / num_envs, first = begin % num_envs;
                  const int64_t stop = std::min(num_envs, first + (end - begin));
                  const int64_t offset = lane * num_steps * num_envs;
                  const float g = gamma.typed_data()[lane];
                  Columns(rewards.typed_data() + offset, values.typed_data() + offset,
                          bootstrap.typed_data() + lane * num_envs, terminated.typed_data() + offset,
                          ratios.typed_data() + offset, g, g * gae_lambda.typed_data()[lane],
                          rho_clip.typed_data()[lane], c_clip.typed_data()[lane], num_steps, num_envs, first, stop,
                          advantages->typed_data() + offset);
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
