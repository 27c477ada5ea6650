// The parameters of the chain from the integers of a call.
#pragma once

#include "envs/chain_mdp/chain_mdp.h"

namespace pjx {

template <>
inline std::string ParseParams<ChainMdp>(const int64_t* values, int64_t count, ChainMdp::Params* params) {
  const std::string error =
      CheckParams("chain_mdp", values, count, {{"num_states", ChainMdp::kMinStates, ChainMdp::kMaxStates}});
  if (!error.empty()) return error;
  params->num_states = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

}  // namespace pjx
