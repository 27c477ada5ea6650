// Boxoban on the GPU: registration.
#include "envs/boxoban/params.h"
#include "envs/common/vec_env.cuh"

namespace pjx {
namespace {

const RegisteredCudaEnv<Boxoban> kRegistered("boxoban");

}  // namespace
}  // namespace pjx
