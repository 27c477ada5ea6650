// The password on the CPU: registration.
#include "envs/common/vec_env.h"
#include "envs/password/params.h"

namespace pjx {
namespace {

const RegisteredEnv<Password> kRegistered("password");

}  // namespace
}  // namespace pjx
