// MiniGrid on the CPU: registration.
#include "envs/common/vec_env.h"
#include "envs/minigrid/params.h"

namespace pjx {
namespace {

const RegisteredEnv<MiniGrid> kRegistered("minigrid");

}  // namespace
}  // namespace pjx
