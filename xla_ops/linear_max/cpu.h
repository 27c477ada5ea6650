// Calls that linear_max and entity_encoder have in common: the first is the second without its first layer.
#pragma once

#include "xla_ops/linear_max/shapes.h"

namespace pjx {

// y f32[..., R, H]; winner u8, u16 or i32 [..., R, H] by N, null: not wanted.
ffi::Error EntityForwardCpu(const char* op, ffi::ThreadPool& pool, const EntityOperands& operands,
                            ffi::ResultBuffer<ffi::F32>& y, ffi::Result<ffi::AnyBuffer>* winner);

ffi::Error EntityBackwardCpu(const char* op, ffi::ThreadPool& pool, const EntityOperands& operands,
                             const ffi::AnyBuffer& winner, const ffi::Buffer<ffi::F32>& y_bar,
                             const EntityCotangents& cotangents);

}  // namespace pjx
