// The parameters of the minimal environment from the integers of a call.
#pragma once

#include "envs/minimal/minimal.h"

namespace pjx {

template <>
inline std::string ParseParams<Minimal>(const int64_t* values, int64_t count, Minimal::Params* params) {
  const std::string error = CheckParams("minimal", values, count, {{"max_steps", 0, INT32_MAX}});
  if (!error.empty()) return error;
  params->max_steps = static_cast<uint32_t>(values[0]);
  return "";
}

}  // namespace pjx
