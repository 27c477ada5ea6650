// The handlers of simulators on the CPU, which are compiled in cpu.cc.
#pragma once

#include <memory>

#include "envs/common/handlers.h"

namespace pjx {

// How often a random walk remembers states, and how many of them.
struct WalkMemory {
  int64_t interval, capacity;
};

// What random walks leave.
struct WalkResults {
  uint8_t* snapshots;  // [rows, capacity, stride], zeros beyond the counts
  int32_t* counts;     // [rows], of the snapshots
  int32_t* rewarded;   // [rows], how often
};

class CpuEnvCall : public EnvCall<ffi::ThreadPool> {
 public:
  ffi::Error Zero(ffi::ResultBuffer<ffi::U8>& states) const final;
  ffi::Error Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const final;
  virtual ffi::Error RandomWalk(const uint32_t* keys, uint8_t* states, int64_t num_steps, const WalkMemory& memory,
                                const WalkResults& results) const = 0;
};

extern template class EnvHandlers<CpuEnvCall>;

class CpuEnvHandlers : public EnvHandlers<CpuEnvCall> {
 public:
  explicit CpuEnvHandlers(OpenCall<CpuEnvCall> open);
  const std::unique_ptr<ffi::Ffi> random_walk;
};

}  // namespace pjx
