// The operands of linear_max and entity_encoder, the first being the second without its first layer; and what the
// handlers of every platform check before they touch a buffer.
#pragma once

#include <limits>

#include "xla_ops/common/lanes.h"
#include "xla_ops/linear_max/rules.h"

namespace pjx {

inline constexpr char kPassesName[] = "passes";
using EntityPasses = ffi::Attr<int64_t, kPassesName>;

// The operands of forward; w1 and b1 null: no first layer. Leading axes are lanes (common/lanes.h).
struct EntityOperands {
  const ffi::AnyBuffer& x;              // f32 or bf16 [..., R, N, D]
  const ffi::Buffer<ffi::F32>* w1;      // [..., D, P]
  const ffi::Buffer<ffi::F32>* b1;      // [..., P]
  const ffi::Buffer<ffi::F32>& weight;  // [..., P or D, H]
  const ffi::Buffer<ffi::F32>* bias;    // [..., H]; backward has none
  const ffi::Buffer<ffi::PRED>& mask;   // [..., R, N], or [..., 0, 0]: all are present
  // Of bfloat16 parts, 1 or 3, that forward may do with; 0: exact float32. A permission, which the CPU has no use for.
  int64_t passes = 0;
};

struct EntityCotangents {
  ffi::Result<ffi::AnyBuffer>& x;  // of the operand's type
  ffi::ResultBuffer<ffi::F32>*w1, *b1;
  ffi::ResultBuffer<ffi::F32>&weight, &bias;
};

// Bias excepted, all operands are checked; `lead` are the lanes' axes.
inline ffi::Error CheckEntities(const char* op, const EntityOperands& operands, ffi::Span<const int64_t> lead,
                                int64_t hidden, EntitySizes* sizes) {
  const auto x_dims = operands.x.dimensions();
  const ffi::DataType dtype = operands.x.element_type();
  if (dtype != ffi::F32 && dtype != ffi::BF16) {
    return InvalidArgument(op, ": x must be f32 or bf16, got data type ", static_cast<int>(dtype));
  }
  if (x_dims.size() != lead.size() + 3) {
    return InvalidArgument(op, ": x must be [..., R, N, D] with leading axes ", ShapeText(lead), " or 1, got ",
                           ShapeText(x_dims));
  }
  const int64_t *tail = x_dims.end() - 3, rows = tail[0], entities = tail[1], features = tail[2];
  if (entities > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(op, ": x must have N < 2^31 entities, got ", ShapeText(x_dims));
  }
  const bool has_first = operands.w1 != nullptr;
  if (has_first && operands.w1->dimensions().size() < 2) {
    return InvalidArgument(op, ": w1 must be [..., D, P], got ", ShapeText(operands.w1->dimensions()));
  }
  const int64_t units = has_first ? operands.w1->dimensions().back() : features;
  *sizes = {rows, entities, features, units, hidden};
  if (auto error = CheckLanes(op, "x", x_dims, {rows, entities, features}, lead); error.failure()) return error;
  if (has_first) {
    for (const auto& error : {CheckLanes(op, "w1", operands.w1->dimensions(), {features, units}, lead),
                              CheckLanes(op, "b1", operands.b1->dimensions(), {units}, lead)}) {
      if (error.failure()) return error;
    }
  }
  const char* weight_name = has_first ? "w2" : "weight";
  if (auto error = CheckLanes(op, weight_name, operands.weight.dimensions(), {units, hidden}, lead); error.failure()) {
    return error;
  }
  const auto mask_dims = operands.mask.dimensions();
  const bool has_mask = mask_dims.size() < 2 || mask_dims.end()[-1] != 0 || mask_dims.end()[-2] != 0;
  return has_mask ? CheckLanes(op, "mask", mask_dims, {rows, entities}, lead) : ffi::Error::Success();
}

inline ffi::Error CheckWinner(const char* op, const ffi::AnyBuffer& winner, const EntitySizes& sizes,
                              ffi::Span<const int64_t> lead) {
  const int bytes = NumberBytes(sizes.entities);
  const ffi::DataType expected = bytes == 1 ? ffi::U8 : bytes == 2 ? ffi::U16 : ffi::S32;
  if (winner.element_type() != expected) {
    return InvalidArgument(op, ": winner must be ",
                           bytes == 1   ? "u8"
                           : bytes == 2 ? "u16"
                                        : "i32",
                           " for N = ", sizes.entities, ", got data type ", static_cast<int>(winner.element_type()));
  }
  return CheckLanes(op, "winner", winner.dimensions(), {sizes.rows, sizes.hidden}, lead);
}

// The lanes' axes are those of y before [R, H].
inline ffi::Error CheckEntityForward(const char* op, const EntityOperands& operands, ffi::ResultBuffer<ffi::F32>& y,
                                     ffi::Result<ffi::AnyBuffer>* winner, EntitySizes* sizes) {
  const int64_t passes = operands.passes;
  if (passes != 0 && passes != 1 && passes != 3) return InvalidArgument(op, ": passes must be 0, 1 or 3, got ", passes);
  const auto dims = y->dimensions();
  if (dims.size() < 2) return InvalidArgument(op, ": the result must be [..., R, H], got ", ShapeText(dims));
  const auto lead = dims.first(dims.size() - 2);
  if (auto error = CheckEntities(op, operands, lead, dims.back(), sizes); error.failure()) return error;
  const auto bias_dims = operands.bias->dimensions();
  for (const auto& error : {CheckLanes(op, operands.w1 == nullptr ? "bias" : "b2", bias_dims, {sizes->hidden}, lead),
                            CheckLanes(op, "the result", dims, {sizes->rows, sizes->hidden}, lead),
                            winner == nullptr ? ffi::Error::Success() : CheckWinner(op, **winner, *sizes, lead)}) {
    if (error.failure()) return error;
  }
  return ffi::Error::Success();
}

// The lanes' axes are those of the cotangent of x before [R, N, D].
inline ffi::Error CheckEntityBackward(const char* op, const EntityOperands& operands, const ffi::AnyBuffer& winner,
                                      const ffi::Buffer<ffi::F32>& y_bar, const EntityCotangents& cotangents,
                                      EntitySizes* sizes) {
  const auto dims = cotangents.x->dimensions(), bias_dims = cotangents.bias->dimensions();
  if (dims.size() < 3 || bias_dims.size() < 1) {
    return InvalidArgument(op, ": the results must be [..., R, N, D] and [..., H], got ", ShapeText(dims), " and ",
                           ShapeText(bias_dims));
  }
  const auto lead = dims.first(dims.size() - 3);
  if (auto error = CheckEntities(op, operands, lead, bias_dims.back(), sizes); error.failure()) return error;
  const int64_t rows = sizes->rows, units = sizes->units, hidden = sizes->hidden, features = sizes->features;
  const int64_t lanes = LeadingSize(dims, 3);
  if (cotangents.x->element_type() != operands.x.element_type()) {
    return InvalidArgument(op, ": the cotangent of x must have the data type of x");
  }
  for (const auto& error : {CheckLanes(op, "the cotangent of x", dims, {rows, sizes->entities, features}, lead),
                            CheckLanes(op, "the cotangent of the result", y_bar.dimensions(), {rows, hidden}, lead),
                            CheckWinner(op, winner, *sizes, lead)}) {
    if (error.failure()) return error;
  }
  struct Expected {
    const char* name;
    ffi::ResultBuffer<ffi::F32>* result;
    int64_t size;
  };
  for (const auto& [name, result, size] : {Expected{"w1", cotangents.w1, features * units},
                                           {"b1", cotangents.b1, units},
                                           {"the weight", &cotangents.weight, units * hidden},
                                           {"the bias", &cotangents.bias, hidden}}) {
    if (result != nullptr && static_cast<int64_t>((*result)->element_count()) != lanes * size) {
      return InvalidArgument(op, ": the cotangent of ", name, " has ", (*result)->element_count(),
                             " elements, expected ", lanes * size);
    }
  }
  return ffi::Error::Success();
}

}  // namespace pjx
