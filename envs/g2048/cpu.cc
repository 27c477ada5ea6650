// 2048 on the CPU: parameter checks and registration.
#include "envs/common/vec_env.h"
#include "envs/g2048/g2048.h"

namespace pjx {

template <>
std::string ParseParams<G2048>(const int64_t* values, int64_t count, G2048::Params* params) {
  const std::string error = CheckParams("g2048", values, count, {{"scaffolding", 0, G2048::kRatioUnits}});
  if (!error.empty()) return error;
  params->scaffolding = static_cast<uint32_t>(values[0]);
  return "";
}

namespace {

const RegisteredEnv<G2048> kRegistered("g2048");

}  // namespace
}  // namespace pjx
