// The minimal environment on the CPU: parameter checks and registration.
#include "envs/minimal/minimal.h"

#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<Minimal>(const int64_t* values, int64_t count, Minimal::Params* params) {
  const std::string error = CheckParams("minimal", values, count, {{"max_steps", 0, INT32_MAX}});
  if (!error.empty()) return error;
  params->max_steps = static_cast<uint32_t>(values[0]);
  return "";
}

namespace {

const RegisteredEnv<Minimal> kRegistered("minimal");

}  // namespace
}  // namespace pjx
