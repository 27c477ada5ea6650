// The chain on the CPU: parameter checks and registration.
#include "envs/chain_mdp/chain_mdp.h"

#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<ChainMdp>(const int64_t* values, int64_t count, ChainMdp::Params* params) {
  if (count != 1) return "chain_mdp: params must be (num_states), got " + std::to_string(count) + " numbers";
  if (values[0] < ChainMdp::kMinStates || values[0] > ChainMdp::kMaxStates) {
    return "chain_mdp: num_states must be 3 to 256, got " + std::to_string(values[0]);
  }
  params->num_states = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

namespace {

PJX_REGISTER("chain_mdp", Describe(DescribeEnv<ChainMdp>));
const bool kRegistered = (VecEnv<ChainMdp>::Register("chain_mdp"), true);

}  // namespace
}  // namespace pjx
