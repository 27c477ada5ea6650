// Four rooms on the CPU: registration.
#include "envs/common/vec_env.h"
#include "envs/four_rooms/params.h"

namespace pjx {
namespace {

const RegisteredEnv<FourRooms> kRegistered("four_rooms");

}  // namespace
}  // namespace pjx
