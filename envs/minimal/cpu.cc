// The minimal environment on the CPU: parameter checks and registration.
#include "envs/minimal/minimal.h"

#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<Minimal>(const int64_t* values, int64_t count, Minimal::Params* params) {
  if (count != 1) return "minimal: params must be (max_steps), got " + std::to_string(count) + " numbers";
  if (values[0] < 0 || values[0] > INT32_MAX) {
    return "minimal: max_steps must be 0 (an episode never ends) to 2147483647, got " + std::to_string(values[0]);
  }
  params->max_steps = static_cast<uint32_t>(values[0]);
  return "";
}

namespace {

PJX_REGISTER("minimal", Describe(DescribeEnv<Minimal>));
const bool kRegistered = (VecEnv<Minimal>::Register("minimal"), true);

}  // namespace
}  // namespace pjx
