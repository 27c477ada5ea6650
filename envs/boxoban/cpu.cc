// Boxoban on the CPU: registration.
#include "envs/boxoban/params.h"
#include "envs/common/vec_env.h"

namespace pjx {
namespace {

const RegisteredEnv<Boxoban> kRegistered("boxoban");

}  // namespace
}  // namespace pjx
