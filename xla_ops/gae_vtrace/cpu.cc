// gae_vtrace on the CPU: columns are split over the threads; each walks time backwards with one accumulator per column,
// so the inner loop runs over contiguous memory and vectorises.
#include "xla_ops/gae_vtrace/handlers.h"

namespace pjx {
namespace {

// Columns [begin, end) of one lane.
void Columns(const GaeOperands& o, int64_t lane, int64_t begin, int64_t end) {
  const GaeScalars scalars = o.Scalars(lane);
  for (int64_t t = o.num_steps - 1; t >= 0; --t) {
    const int64_t row = (lane * o.num_steps + t) * o.num_envs;
    const bool last = t == o.num_steps - 1;
    const float *rewards = o.rewards + row, *values = o.values + row, *ratios = o.ratios + row;
    const bool* terminated = o.terminated + row;
    const float* next_values = last ? o.bootstrap + lane * o.num_envs : values + o.num_envs;
    float* advantages = o.advantages + row;
    const float* next_advantages = advantages + o.num_envs;  // read only when !last
    for (int64_t n = begin; n < end; ++n) {
      advantages[n] = Advantage(scalars, rewards[n], values[n], next_values[n], terminated[n], ratios[n],
                                last ? 0.0f : next_advantages[n]);
    }
  }
}

ffi::Error RunOnPool(ffi::ThreadPool& pool, const GaeOperands& operands, int64_t lanes) {
  const int64_t num_envs = operands.num_envs;
  const int64_t grain = std::max<int64_t>(16, 65536 / std::max<int64_t>(operands.num_steps, 1));
  ParallelFor(pool, lanes * num_envs, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t first = begin % num_envs, stop = std::min(num_envs, first + (end - begin));
      Columns(operands, begin / num_envs, first, stop);
      begin += stop - first;
    }
  });
  return ffi::Error::Success();
}

PJX_REGISTER("pufferjax.gae_vtrace", HandlerOf<GaeVtrace<RunOnPool, ffi::ThreadPool>>);

}  // namespace
}  // namespace pjx
