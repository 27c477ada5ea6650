// Calls that linear_max and entity_encoder have in common: the first is the second without its first layer.
#pragma once

#include "xla_ops/common/ffi.h"

namespace pjx {

// The operands of forward; w1 and b1 null: no first layer. Leading axes are lanes (common/lanes.h).
struct EntityOperands {
  const ffi::AnyBuffer& x;              // f32 or bf16 [..., R, N, D]
  const ffi::Buffer<ffi::F32>* w1;      // [..., D, P]
  const ffi::Buffer<ffi::F32>* b1;      // [..., P]
  const ffi::Buffer<ffi::F32>& weight;  // [..., P or D, H]
  const ffi::Buffer<ffi::F32>* bias;    // [..., H]; backward has none
  const ffi::Buffer<ffi::PRED>& mask;   // [..., R, N], or [..., 0, 0]: all are present
};

// y f32[..., R, H]; winner u8, u16 or i32 [..., R, H] by N, null: not wanted.
ffi::Error EntityForwardCpu(const char* op, ffi::ThreadPool& pool, const EntityOperands& operands,
                            ffi::ResultBuffer<ffi::F32>& y, ffi::Result<ffi::AnyBuffer>* winner);

struct EntityCotangents {
  ffi::Result<ffi::AnyBuffer>& x;  // of the operand's type
  ffi::ResultBuffer<ffi::F32>*w1, *b1;
  ffi::ResultBuffer<ffi::F32>&weight, &bias;
};

ffi::Error EntityBackwardCpu(const char* op, ffi::ThreadPool& pool, const EntityOperands& operands,
                             const ffi::AnyBuffer& winner, const ffi::Buffer<ffi::F32>& y_bar,
                             const EntityCotangents& cotangents);

}  // namespace pjx
