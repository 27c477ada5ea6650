// Breakout on the CPU: registration.
#include "envs/breakout/params.h"
#include "envs/common/vec_env.h"

namespace pjx {
namespace {

const RegisteredEnv<Breakout> kRegistered("breakout");
const RegisteredEnv<SteeredBreakout> kSteered("breakout_steered");

}  // namespace
}  // namespace pjx
