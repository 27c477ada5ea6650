// What the handlers of every platform check before they touch a buffer.
#pragma once

#include "xla_ops/common/ffi.h"

namespace pjx {

struct GaeShapes {
  int64_t lanes, num_steps, num_envs;  // T, N
};

using F32 = ffi::Buffer<ffi::F32>;

inline ffi::Error CheckGaeShapes(const F32& rewards, const F32& values, const F32& bootstrap,
                                 const ffi::Buffer<ffi::PRED>& terminated, const F32& ratios, const F32& gamma,
                                 const F32& gae_lambda, const F32& rho_clip, const F32& c_clip,
                                 ffi::Result<F32> advantages, GaeShapes* shapes) {
  const auto dims = rewards.dimensions();
  if (dims.size() < 2) return InvalidArgument("gae_vtrace: rewards must be [..., T, N], got ", ShapeText(dims));
  *shapes = {LeadingSize(dims, 2), dims[dims.size() - 2], dims[dims.size() - 1]};
  const int64_t lanes = shapes->lanes, size = lanes * shapes->num_steps * shapes->num_envs;
  return CheckCounts("gae_vtrace", {{"values", values.element_count(), size},
                                    {"bootstrap_value", bootstrap.element_count(), lanes * shapes->num_envs},
                                    {"terminated", terminated.element_count(), size},
                                    {"ratios", ratios.element_count(), size},
                                    {"gamma", gamma.element_count(), lanes},
                                    {"gae_lambda", gae_lambda.element_count(), lanes},
                                    {"rho_clip", rho_clip.element_count(), lanes},
                                    {"c_clip", c_clip.element_count(), lanes},
                                    {"advantages", advantages->element_count(), size}});
}

}  // namespace pjx
