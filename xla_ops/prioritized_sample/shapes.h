// What the handlers of every platform check before they touch a buffer.
#pragma once

#include "xla_ops/common/ffi.h"

namespace pjx {

struct SampleShapes {
  int64_t lanes, capacity, num_samples;  // M, K
};

inline ffi::Error CheckSampleShapes(const ffi::Buffer<ffi::U32>& words, const ffi::Buffer<ffi::F32>& priorities,
                                    const ffi::Buffer<ffi::S32>& size, const ffi::Buffer<ffi::F32>& alpha,
                                    ffi::ResultBuffer<ffi::S32> indices, ffi::ResultBuffer<ffi::F32> relative,
                                    SampleShapes* shapes) {
  const auto dims = priorities.dimensions();
  if (dims.size() < 1) return InvalidArgument("prioritized_sample: priorities must be [..., M], got a scalar");
  const auto word_dims = words.dimensions();
  if (word_dims.size() < 2 || word_dims[word_dims.size() - 1] != 2) {
    return InvalidArgument("prioritized_sample: words must be [..., K, 2], got ", ShapeText(word_dims));
  }
  *shapes = {LeadingSize(dims, 1), dims[dims.size() - 1], word_dims[word_dims.size() - 2]};
  const int64_t lanes = shapes->lanes, num_samples = shapes->num_samples;
  return CheckCounts("prioritized_sample", {{"words", words.element_count(), lanes * num_samples * 2},
                                            {"size", size.element_count(), lanes},
                                            {"alpha", alpha.element_count(), lanes},
                                            {"indices", indices->element_count(), lanes * num_samples},
                                            {"relative", relative->element_count(), lanes * num_samples}});
}

}  // namespace pjx
