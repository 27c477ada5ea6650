// MiniGrid on the GPU: registration.
#include "envs/common/vec_env.cuh"
#include "envs/minigrid/params.h"

namespace pjx {
namespace {

const RegisteredCudaEnv<MiniGrid> kRegistered("minigrid");

}  // namespace
}  // namespace pjx
