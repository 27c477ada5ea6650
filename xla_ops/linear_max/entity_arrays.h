// The operands of linear_max and entity_encoder as the GPU's kernels take them.
#pragma once

#include <initializer_list>

#include "xla_ops/common/bfloat16.h"
#include "xla_ops/common/lane_arrays.h"
#include "xla_ops/linear_max/rules.h"

namespace pjx {

struct EntityArrays {
  EntitySizes sizes;  // see FitsKernels
  Lanes lanes;
  LaneArray<const char> x;  // float32 or bfloat16 [R, N, D], strides in bytes
  int64_t is_bfloat16, has_first;
  LaneArray<const bool> mask;     // [R, N]; null: all are present
  LaneArray<const float> w1, b1;  // [D, P], [P]; null without a first layer
  LaneArray<const float> weight;  // [P or D, H]
};

// What the kernels count without 64 bits, as registers are scarce: the sizes, in steps of up to 128, and the weights.
constexpr int64_t kMaxKernelSize = (int64_t{1} << 31) - 129;
inline bool FitsKernels(const EntitySizes& sizes, bool has_first) {
  for (const int64_t size : {sizes.entities, sizes.features, sizes.units, sizes.hidden}) {
    if (size > kMaxKernelSize) return false;
  }
  const int64_t first_size = has_first ? sizes.features * sizes.units : 0;
  return first_size <= kMaxKernelSize && sizes.units * sizes.hidden <= kMaxKernelSize;
}

// One lane. Entities are numbered through all rows: entity n of row r is r N + n.
struct EntityLane {
  int entities, features, units, hidden;
  const char* x;
  const bool* mask;
  const float *w1, *b1, *weight;
  bool is_bfloat16;

  PJX_HD EntityLane(const EntityArrays& a, int64_t lane)
      : entities(static_cast<int>(a.sizes.entities)),
        features(static_cast<int>(a.sizes.features)),
        units(static_cast<int>(a.sizes.units)),
        hidden(static_cast<int>(a.sizes.hidden)),
        x(a.x.Lane(a.lanes, lane)),
        mask(a.mask.Lane(a.lanes, lane)),
        w1(a.w1.Lane(a.lanes, lane)),
        b1(a.b1.Lane(a.lanes, lane)),
        weight(a.weight.Lane(a.lanes, lane)),
        is_bfloat16(a.is_bfloat16 != 0) {}

  // From the first entity of row r on.
  PJX_HD void SkipTo(int64_t r) {
    x += r * entities * features * (is_bfloat16 ? 2 : 4);
    if (mask != nullptr) mask += r * entities;
  }

  PJX_HD bool Has(int64_t entity) const { return mask == nullptr || mask[entity]; }
  PJX_HD float Feature(int64_t index) const {
    return is_bfloat16 ? FloatOfBfloat16(reinterpret_cast<const uint16_t*>(x)[index])
                       : reinterpret_cast<const float*>(x)[index];
  }
};

PJX_HD void StoreFeature(bool is_bfloat16, int64_t index, float value, char* to) {
  if (is_bfloat16) {
    reinterpret_cast<uint16_t*>(to)[index] = Bfloat16Of(value);
  } else {
    reinterpret_cast<float*>(to)[index] = value;
  }
}

// Entities' numbers within their row, of the type that NumberBytes gives.
PJX_HD int64_t LoadNumber(const char* numbers, int bytes, int64_t index) {
  return bytes == 1   ? reinterpret_cast<const uint8_t*>(numbers)[index]
         : bytes == 2 ? reinterpret_cast<const uint16_t*>(numbers)[index]
                      : static_cast<int64_t>(reinterpret_cast<const int32_t*>(numbers)[index]);
}
PJX_HD void StoreNumber(int32_t number, int bytes, int64_t index, char* to) {
  if (bytes == 1) {
    reinterpret_cast<uint8_t*>(to)[index] = static_cast<uint8_t>(number);
  } else if (bytes == 2) {
    reinterpret_cast<uint16_t*>(to)[index] = static_cast<uint16_t>(number);
  } else {
    reinterpret_cast<int32_t*>(to)[index] = number;
  }
}

}  // namespace pjx
