// Breakout on the GPU: registration.
#include "envs/breakout/params.h"
#include "envs/common/vec_env.cuh"

namespace pjx {
namespace {

const RegisteredCudaEnv<Breakout> kRegistered("breakout");
const RegisteredCudaEnv<SteeredBreakout> kSteered("breakout_steered");

}  // namespace
}  // namespace pjx
