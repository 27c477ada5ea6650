// 2048 on the CPU: parameter checks and registration.
#include "envs/common/vec_env.h"
#include "envs/g2048/g2048.h"

namespace pjx {

template <>
std::string ParseParams<G2048>(const int64_t* values, int64_t count, G2048::Params* params) {
  if (count != 1) return "g2048: params must be (scaffolding), got " + std::to_string(count) + " numbers";
  if (values[0] < 0 || values[0] > G2048::kRatioUnits) {
    return "g2048: scaffolding must be 0 to 2^24 units of 2^-24, got " + std::to_string(values[0]);
  }
  params->scaffolding = static_cast<uint32_t>(values[0]);
  return "";
}

namespace {

PJX_REGISTER("g2048", Describe(DescribeEnv<G2048>));
const bool kRegistered = (VecEnv<G2048>::Register("g2048"), true);

}  // namespace
}  // namespace pjx
