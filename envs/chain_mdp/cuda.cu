// The chain on the GPU: registration.
#include "envs/chain_mdp/params.h"
#include "envs/common/vec_env.cuh"

namespace pjx {
namespace {

const RegisteredCudaEnv<ChainMdp> kRegistered("chain_mdp");

}  // namespace
}  // namespace pjx
