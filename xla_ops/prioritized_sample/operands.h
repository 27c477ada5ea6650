// What prioritized_sample is called with, on the CPU and the GPU.
#pragma once

#include "xla_ops/prioritized_sample/draw.h"

namespace pjx {

struct SampleOperands {
  const uint32_t* words;          // [lanes, K, 2]
  const float* priorities;        // [lanes, M]
  const int32_t* size;            // [lanes]
  const float* alpha;             // [lanes]
  int32_t* indices;               // [lanes, K]
  float* relative;                // [lanes, K]
  int64_t capacity, num_samples;  // M, K
};

// The operands of one lane. A size outside [0, M] is clipped, an alpha that is not a finite number >= 0 counts as 0, as
// in the pure-JAX twin.
struct SampleLane {
  const uint32_t* words;
  const float* priorities;
  int32_t* indices;
  float* relative;
  int64_t size;
  float alpha;

  PJX_HD SampleLane(const SampleOperands& o, int64_t lane)
      : words(o.words + lane * o.num_samples * 2),
        priorities(o.priorities + lane * o.capacity),
        indices(o.indices + lane * o.num_samples),
        relative(o.relative + lane * o.num_samples),
        size(o.size[lane]),
        alpha(UsableAlpha(o.alpha[lane])) {
    size = size < 0 ? 0 : size > o.capacity ? o.capacity : size;
  }

  PJX_HD void Write(int64_t draw, const Drawn& drawn) const {
    indices[draw] = drawn.index;
    relative[draw] = drawn.relative;
  }
};

}  // namespace pjx
