// The minimal environment on the CPU: registration.
#include "envs/common/vec_env.h"
#include "envs/minimal/params.h"

namespace pjx {
namespace {

const RegisteredEnv<Minimal> kRegistered("minimal");

}  // namespace
}  // namespace pjx
