// The password on the GPU: registration.
#include "envs/common/vec_env.cuh"
#include "envs/password/params.h"

namespace pjx {
namespace {

const RegisteredCudaEnv<Password> kRegistered("password");

}  // namespace
}  // namespace pjx
