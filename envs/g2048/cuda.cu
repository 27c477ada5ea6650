// 2048 on the GPU: registration.
#include "envs/common/vec_env.cuh"
#include "envs/g2048/params.h"

namespace pjx {
namespace {

const RegisteredCudaEnv<G2048> kRegistered("g2048");

}  // namespace
}  // namespace pjx
