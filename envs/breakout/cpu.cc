// Breakout on the CPU: parameter checks and registration.
#include "envs/breakout/breakout.h"
#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<Breakout>(const int64_t* values, int64_t count, Breakout::Params* params) {
  if (count != 3) {
    return "breakout: params must be (frame_skip, max_steps, clip_reward), got " + std::to_string(count) + " numbers";
  }
  const int64_t frame_skip = values[0], max_steps = values[1], clip_reward = values[2];
  if (frame_skip < 1 || frame_skip > 64) {
    return "breakout: frame_skip must be 1 to 64, got " + std::to_string(frame_skip);
  }
  if (max_steps < 1 || max_steps > 1'000'000'000) {
    return "breakout: max_steps must be 1 to 1000000000, got " + std::to_string(max_steps);
  }
  if (clip_reward < 0 || clip_reward > 1) {
    return "breakout: clip_reward must be 0 or 1, got " + std::to_string(clip_reward);
  }
  *params = {static_cast<uint32_t>(frame_skip), static_cast<uint32_t>(max_steps), static_cast<uint32_t>(clip_reward)};
  return "";
}

namespace {

PJX_REGISTER("breakout", Describe(DescribeEnv<Breakout>));
const bool kRegistered = (VecEnv<Breakout>::Register("breakout"), true);

}  // namespace
}  // namespace pjx
