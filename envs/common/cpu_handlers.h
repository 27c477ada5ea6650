// The handlers of simulators on the CPU, which are compiled in cpu.cc.
#pragma once

#include "envs/common/handlers.h"

namespace pjx {

class CpuEnvCall : public EnvCall<ffi::ThreadPool> {
 public:
  ffi::Error Zero(ffi::ResultBuffer<ffi::U8>& rows) const final;
  ffi::Error Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const final;
};

using CpuEnvHandlers = EnvHandlers<CpuEnvCall>;
extern template class EnvHandlers<CpuEnvCall>;

}  // namespace pjx
