// The parameters of 2048 from the integers of a call.
#pragma once

#include "envs/g2048/g2048.h"

namespace pjx {

template <>
inline std::string ParseParams<G2048>(const int64_t* values, int64_t count, G2048::Params* params) {
  const std::string error = CheckParams("g2048", values, count, {{"scaffolding", 0, G2048::kRatioUnits}});
  if (!error.empty()) return error;
  params->scaffolding = static_cast<uint32_t>(values[0]);
  return "";
}

}  // namespace pjx
