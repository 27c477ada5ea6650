// One step of gae_vtrace, on the CPU and the GPU; and one column through all steps, as a GPU thread walks it.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

struct GaeScalars {
  float gamma, decay, rho_clip, c_clip;  // decay = gamma * gae_lambda
};

// A_t; `next_advantage` is A_{t+1}. What a terminated step must not look at may be anything.
PJX_HD float Advantage(GaeScalars s, float reward, float value, float next_value, bool terminated, float ratio,
                       float next_advantage) {
  // jnp.minimum keeps NaN; so does this order of comparison.
  const float rho = ratio > s.rho_clip ? s.rho_clip : ratio;
  const float c = ratio > s.c_clip ? s.c_clip : ratio;
  const float delta = rho * (reward + s.gamma * (terminated ? 0.0f : next_value) - value);
  return delta + s.decay * c * (terminated ? 0.0f : next_advantage);
}

struct GaeOperands {
  const float *rewards, *values;                        // [lanes, T, N]
  const float* bootstrap;                               // [lanes, N]
  const bool* terminated;                               // [lanes, T, N]
  const float* ratios;                                  // [lanes, T, N]
  const float *gamma, *gae_lambda, *rho_clip, *c_clip;  // [lanes]
  float* advantages;                                    // [lanes, T, N]
  int64_t num_steps, num_envs;                          // T, N

  PJX_HD GaeScalars Scalars(int64_t lane) const {
    return {gamma[lane], gamma[lane] * gae_lambda[lane], rho_clip[lane], c_clip[lane]};
  }
};

// Where a thread stands on its way back through time.
struct GaeCursor {
  int64_t at;  // of the next step in [lanes, T, N]
  float next_value, advantage;
};

template <int kSteps>
PJX_HD void GaeSteps(const GaeOperands& o, GaeScalars scalars, GaeCursor* cursor) {
  float reward[kSteps], value[kSteps], ratio[kSteps];
  bool terminated[kSteps];
  int64_t at = cursor->at;
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, at -= o.num_envs) {
    reward[j] = o.rewards[at], value[j] = o.values[at], ratio[j] = o.ratios[at], terminated[j] = o.terminated[at];
  }
  at = cursor->at;
  PJX_UNROLL
  for (int j = 0; j < kSteps; ++j, at -= o.num_envs) {
    cursor->advantage =
        Advantage(scalars, reward[j], value[j], cursor->next_value, terminated[j], ratio[j], cursor->advantage);
    cursor->next_value = value[j];
    o.advantages[at] = cursor->advantage;
  }
  cursor->at = at;
}

// Column `index` of lanes * N. Threads of successive columns read and write successive memory at each step.
PJX_HD void GaeColumn(const GaeOperands& o, int64_t index) {
  const int64_t lane = index / o.num_envs, last_row = (lane + 1) * o.num_steps - 1;
  const GaeScalars scalars = o.Scalars(lane);
  GaeCursor cursor{last_row * o.num_envs + index % o.num_envs, o.bootstrap[index], 0.0f};
  int64_t left = o.num_steps;
  for (; left >= kStepsAhead; left -= kStepsAhead) GaeSteps<kStepsAhead>(o, scalars, &cursor);
  for (; left > 0; --left) GaeSteps<1>(o, scalars, &cursor);
}

}  // namespace pjx
