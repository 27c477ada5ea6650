// What the CPU's handlers do with rows, one after the other or in parallel.
#pragma once

#include <limits>

#include "envs/common/batch.h"
#include "xla_ops/common/ffi.h"
#include "xla_ops/common/random.h"

namespace pjx {

template <typename E>
typename E::State& RowAt(uint8_t* states, const EnvBatch<E>& batch, int64_t row) {
  return *reinterpret_cast<typename E::State*>(states + row * batch.stride);
}
template <typename E>
const typename E::State& RowAt(const uint8_t* states, const EnvBatch<E>& batch, int64_t row) {
  return *reinterpret_cast<const typename E::State*>(states + row * batch.stride);
}

// The random stream of each row in turn: (key of the lane, index in the lane), without a division per row.
class Streams {
 public:
  // There is at least one row.
  template <typename E>
  Streams(const uint32_t* keys, const EnvBatch<E>& batch, int64_t row)
      : num_envs_(batch.num_envs), env_(row % num_envs_), key_(keys + 2 * (row / num_envs_)) {}
  Philox Next() {
    const Philox stream(key_[0], key_[1], static_cast<uint32_t>(env_));
    if (++env_ == num_envs_) env_ = 0, key_ += 2;
    return stream;
  }

 private:
  int64_t num_envs_, env_;
  const uint32_t* key_;
};

// The lowest index that anyone noted: errors name the same row for every number of threads.
class Lowest {
 public:
  void Note(int64_t index) {
    int64_t lowest = lowest_;
    while (index < lowest && !lowest_.compare_exchange_weak(lowest, index)) {
    }
  }
  int64_t Index() const { return lowest_; }
  bool Any() const { return lowest_ != std::numeric_limits<int64_t>::max(); }

 private:
  std::atomic<int64_t> lowest_{std::numeric_limits<int64_t>::max()};
};

// Success if no row was noted.
inline ffi::Error AllAreStates(const char* call, const Lowest& bad_row) {
  if (!bad_row.Any()) return ffi::Error::Success();
  return InvalidArgument(call, ": state row ", bad_row.Index(), " is not a state of this simulator");
}

}  // namespace pjx
