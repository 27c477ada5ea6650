// The handler of gae_vtrace for every platform: its operands, and their checks before a buffer is touched.
#pragma once

#include "xla_ops/common/ffi.h"
#include "xla_ops/gae_vtrace/column.h"

namespace pjx {

// `run(context..., operands, lanes)` does the work.
template <auto run, typename... Context>
ffi::Error GaeVtrace(Context... context,
                     ffi::Buffer<ffi::F32> rewards,           // [..., T, N]
                     ffi::Buffer<ffi::F32> values,            // [..., T, N]
                     ffi::Buffer<ffi::F32> bootstrap_value,   // [..., N]
                     ffi::Buffer<ffi::PRED> terminated,       // [..., T, N]
                     ffi::Buffer<ffi::F32> ratios,            // [..., T, N]
                     ffi::Buffer<ffi::F32> gamma,             // [...]
                     ffi::Buffer<ffi::F32> gae_lambda,        // [...]
                     ffi::Buffer<ffi::F32> rho_clip,          // [...]
                     ffi::Buffer<ffi::F32> c_clip,            // [...]
                     ffi::ResultBuffer<ffi::F32> advantages)  // [..., T, N]
{
  const auto dims = rewards.dimensions();
  if (dims.size() < 2) return InvalidArgument("gae_vtrace: rewards must be [..., T, N], got ", ShapeText(dims));
  const int64_t lanes = LeadingSize(dims, 2), num_steps = dims[dims.size() - 2], num_envs = dims[dims.size() - 1];
  const int64_t size = lanes * num_steps * num_envs;
  if (auto error = CheckCounts("gae_vtrace", {{"values", values.element_count(), size},
                                              {"bootstrap_value", bootstrap_value.element_count(), lanes * num_envs},
                                              {"terminated", terminated.element_count(), size},
                                              {"ratios", ratios.element_count(), size},
                                              {"gamma", gamma.element_count(), lanes},
                                              {"gae_lambda", gae_lambda.element_count(), lanes},
                                              {"rho_clip", rho_clip.element_count(), lanes},
                                              {"c_clip", c_clip.element_count(), lanes},
                                              {"advantages", advantages->element_count(), size}});
      error.failure()) {
    return error;
  }
  const GaeOperands operands{rewards.typed_data(),
                             values.typed_data(),
                             bootstrap_value.typed_data(),
                             terminated.typed_data(),
                             ratios.typed_data(),
                             gamma.typed_data(),
                             gae_lambda.typed_data(),
                             rho_clip.typed_data(),
                             c_clip.typed_data(),
                             advantages->typed_data(),
                             num_steps,
                             num_envs};
  return run(context..., operands, lanes);
}

}  // namespace pjx
