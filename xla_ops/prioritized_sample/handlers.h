// The handler of prioritized_sample for every platform: its operands, and their checks before a buffer is touched.
#pragma once

#include "xla_ops/common/ffi.h"
#include "xla_ops/prioritized_sample/operands.h"

namespace pjx {

// `run(context..., operands, lanes)` does the work.
template <auto run, typename... Context>
ffi::Error PrioritizedSample(Context... context,
                             ffi::Buffer<ffi::U32> words,           // [..., K, 2]
                             ffi::Buffer<ffi::F32> priorities,      // [..., M]
                             ffi::Buffer<ffi::S32> size,            // [...]
                             ffi::Buffer<ffi::F32> alpha,           // [...]
                             ffi::ResultBuffer<ffi::S32> indices,   // [..., K]
                             ffi::ResultBuffer<ffi::F32> relative)  // [..., K]: size * P
{
  const char* op = "prioritized_sample";
  const auto dims = priorities.dimensions(), word_dims = words.dimensions();
  if (dims.size() < 1) return InvalidArgument(op, ": priorities must be [..., M], got a scalar");
  if (word_dims.size() < 2 || word_dims.back() != 2) {
    return InvalidArgument(op, ": words must be [..., K, 2], got ", ShapeText(word_dims));
  }
  const int64_t lanes = LeadingSize(dims, 1), num_samples = word_dims[word_dims.size() - 2];
  if (auto error = CheckCounts(op, {{"words", words.element_count(), lanes * num_samples * 2},
                                    {"size", size.element_count(), lanes},
                                    {"alpha", alpha.element_count(), lanes},
                                    {"indices", indices->element_count(), lanes * num_samples},
                                    {"relative", relative->element_count(), lanes * num_samples}});
      error.failure()) {
    return error;
  }
  const SampleOperands operands{words.typed_data(),    priorities.typed_data(), size.typed_data(), alpha.typed_data(),
                                indices->typed_data(), relative->typed_data(),  dims.back(),       num_samples};
  return run(context..., operands, lanes);
}

}  // namespace pjx
