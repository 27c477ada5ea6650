// 2048 on the CPU: registration.
#include "envs/common/vec_env.h"
#include "envs/g2048/params.h"

namespace pjx {
namespace {

const RegisteredEnv<G2048> kRegistered("g2048");

}  // namespace
}  // namespace pjx
