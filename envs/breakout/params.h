// The parameters of Breakout from the integers of a call.
#pragma once

#include "envs/breakout/breakout.h"

namespace pjx {

template <>
inline std::string ParseParams<Breakout>(const int64_t* values, int64_t count, Breakout::Params* params) {
  const std::string error = CheckParams(
      "breakout", values, count, {{"frame_skip", 1, 64}, {"max_steps", 1, 1'000'000'000}, {"clip_reward", 0, 1}});
  if (!error.empty()) return error;
  *params = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]), static_cast<uint32_t>(values[2])};
  return "";
}

template <>
inline std::string ParseParams<SteeredBreakout>(const int64_t* values, int64_t count, Breakout::Params* params) {
  return ParseParams<Breakout>(values, count, params);
}

}  // namespace pjx
