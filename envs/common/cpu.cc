// The handlers of simulators on the CPU, compiled once for all of them.
#include <cstring>

#include "envs/common/cpu_handlers.h"

namespace pjx {

ffi::Error CpuEnvCall::Zero(ffi::ResultBuffer<ffi::U8>& states) const {
  std::memset(states->typed_data(), 0, states->size_bytes());
  return ffi::Error::Success();
}

ffi::Error CpuEnvCall::Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const {
  CopyUnlessAliased(from, to);
  return ffi::Error::Success();
}

namespace {

constexpr char kNumStepsName[] = "num_steps", kIntervalName[] = "interval";

ffi::Error RandomWalk(OpenCall<CpuEnvCall> open, ffi::ThreadPool pool,
                      ffi::Buffer<ffi::U32> keys,     // [..., 2]
                      ffi::Buffer<ffi::U8> state_in,  // [..., N, S], aliased to the first result
                      EnvParams params, ffi::Attr<int64_t, kNumStepsName> num_steps,
                      ffi::Attr<int64_t, kIntervalName> interval,
                      ffi::ResultBuffer<ffi::U8> state,      // [..., N, S]
                      ffi::ResultBuffer<ffi::U8> snapshots,  // [..., N, num_snapshots, S]
                      ffi::ResultBuffer<ffi::S32> counts,    // [..., N]
                      ffi::ResultBuffer<ffi::S32> rewarded)  // [..., N]
{
  const char* name = "random_walk";
  std::unique_ptr<CpuEnvCall> call;
  if (auto e = open(name, pool, params, state_in.dimensions(), &call); e.failure()) return e;
  const Batch& batch = call->batch();
  const auto dims = snapshots->dimensions();
  const int64_t capacity = dims.size() < 2 ? 0 : dims[dims.size() - 2];
  if (*num_steps < 1) return InvalidArgument(name, ": num_steps must be at least 1, got ", *num_steps);
  if (*interval < 1) return InvalidArgument(name, ": interval must be at least 1, got ", *interval);
  if (capacity < 1) return InvalidArgument(name, ": num_snapshots must be at least 1, got ", capacity);
  if (auto e = CheckCounts(name, {{"key", keys.element_count(), 2 * batch.lanes},
                                  {"state", state->element_count(), batch.rows * batch.stride},
                                  {"snapshots", snapshots->element_count(), batch.rows * capacity * batch.stride},
                                  {"counts", counts->element_count(), batch.rows},
                                  {"rewarded", rewarded->element_count(), batch.rows}});
      e.failure()) {
    return e;
  }
  if (auto e = call->Copy(state_in, state); e.failure()) return e;
  return call->RandomWalk(keys.typed_data(), state->typed_data(), *num_steps, {*interval, capacity},
                          {snapshots->typed_data(), counts->typed_data(), rewarded->typed_data()});
}

}  // namespace

template class EnvHandlers<CpuEnvCall>;

CpuEnvHandlers::CpuEnvHandlers(OpenCall<CpuEnvCall> open)
    : EnvHandlers(open, {}), random_walk(BindRest(RandomWalk, open, {})) {}

}  // namespace pjx
