// The minimal environment on the GPU: registration.
#include "envs/common/vec_env.cuh"
#include "envs/minimal/params.h"

namespace pjx {
namespace {

const RegisteredCudaEnv<Minimal> kRegistered("minimal");

}  // namespace
}  // namespace pjx
