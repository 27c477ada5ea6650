// The chain on the CPU: registration.
#include "envs/chain_mdp/params.h"
#include "envs/common/vec_env.h"

namespace pjx {
namespace {

const RegisteredEnv<ChainMdp> kRegistered("chain_mdp");

}  // namespace
}  // namespace pjx
