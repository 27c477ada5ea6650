// Four rooms on the GPU: registration.
#include "envs/common/vec_env.cuh"
#include "envs/four_rooms/params.h"

namespace pjx {
namespace {

const RegisteredCudaEnv<FourRooms> kRegistered("four_rooms");

}  // namespace
}  // namespace pjx
