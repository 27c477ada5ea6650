// The maze on the GPU: registration.
#include "envs/common/vec_env.cuh"
#include "envs/maze/params.h"

namespace pjx {
namespace {

const RegisteredCudaEnv<Maze> kRegistered("maze");

}  // namespace
}  // namespace pjx
