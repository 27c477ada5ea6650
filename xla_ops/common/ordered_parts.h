// Sums over rows that threads share out, with the same bits for any number of threads: the rows of a lane are cut into
// parts by their number alone, each part sums on its own, and the sums are added in the order of the parts.
#pragma once

#include <algorithm>
#include <cstdint>

#include "xla_ops/common/ffi.h"
#include "xla_ops/common/simd.h"

namespace pjx {

PJX_KERNEL(AddTo, (float* sum, const float* terms, int64_t size), {
  for (int64_t i = 0; i < size; ++i) sum[i] += terms[i];
})

class OrderedParts {
 public:
  // Every lane has `rows`; a part has `rows_per_part` or more, if there are as many.
  OrderedParts(int64_t lanes, int64_t rows, int64_t rows_per_part)
      : lanes_(lanes), rows_(rows), count_(std::clamp<int64_t>(rows / rows_per_part, 1, kMaxCount)) {}

  int64_t count() const { return count_; }  // of a lane
  int64_t total() const { return lanes_ * count_; }

  // work(lane, part, first, stop) for the rows [first, stop) of every part, where work = make_work() is made anew on
  // each thread, so that it can own scratch memory. `grain`: parts below which a second thread does not help.
  template <typename MakeWork>
  void ForEach(ffi::ThreadPool& pool, int64_t grain, const MakeWork& make_work) const {
    ParallelFor(pool, total(), grain, [&](int64_t begin, int64_t end) {
      const auto work = make_work();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t lane = i / count_, part = i % count_;
        work(lane, part, rows_ * part / count_, rows_ * (part + 1) / count_);
      }
    });
  }

  // sum += the sums of a lane's parts after the first, which lie `stride` apart from `others` on.
  void AddOthers(float* sum, const float* others, int64_t stride, int64_t size) const {
    for (int64_t part = 1; part < count_; ++part) AddTo(sum, others + (part - 1) * stride, size);
  }

 private:
  static constexpr int64_t kMaxCount = 16;
  int64_t lanes_, rows_, count_;
};

}  // namespace pjx
