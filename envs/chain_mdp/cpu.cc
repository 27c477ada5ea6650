// The chain on the CPU: parameter checks and registration.
#include "envs/chain_mdp/chain_mdp.h"

#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<ChainMdp>(const int64_t* values, int64_t count, ChainMdp::Params* params) {
  const std::string error =
      CheckParams("chain_mdp", values, count, {{"num_states", ChainMdp::kMinStates, ChainMdp::kMaxStates}});
  if (!error.empty()) return error;
  params->num_states = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

namespace {

const RegisteredEnv<ChainMdp> kRegistered("chain_mdp");

}  // namespace
}  // namespace pjx
