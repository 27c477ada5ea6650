// Breakout on the CPU: parameter checks and registration.
#include "envs/breakout/breakout.h"
#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<Breakout>(const int64_t* values, int64_t count, Breakout::Params* params) {
  const std::string error = CheckParams(
      "breakout", values, count, {{"frame_skip", 1, 64}, {"max_steps", 1, 1'000'000'000}, {"clip_reward", 0, 1}});
  if (!error.empty()) return error;
  *params = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]), static_cast<uint32_t>(values[2])};
  return "";
}

namespace {

const RegisteredEnv<Breakout> kRegistered("breakout");

}  // namespace
}  // namespace pjx
