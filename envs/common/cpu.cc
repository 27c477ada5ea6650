// The handlers of simulators on the CPU, compiled once for all of them.
#include "envs/common/cpu_handlers.h"

#include <cstring>

namespace pjx {

ffi::Error CpuEnvCall::Zero(ffi::ResultBuffer<ffi::U8>& rows) const {
  std::memset(rows->typed_data(), 0, rows->size_bytes());
  return ffi::Error::Success();
}

ffi::Error CpuEnvCall::Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const {
  CopyUnlessAliased(from, to);
  return ffi::Error::Success();
}

template class EnvHandlers<CpuEnvCall>;

}  // namespace pjx
