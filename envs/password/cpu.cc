// The password on the CPU: parameter checks and registration.
#include "envs/common/vec_env.h"
#include "envs/password/password.h"

namespace pjx {

template <>
std::string ParseParams<Password>(const int64_t* values, int64_t count, Password::Params* params) {
  if (count != 1) return "password: params must be (length), got " + std::to_string(count) + " numbers";
  if (values[0] < 1 || values[0] > Password::kMaxLength) {
    return "password: length must be 1 to 512, got " + std::to_string(values[0]);
  }
  params->length = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

namespace {

PJX_REGISTER("password", Describe(DescribeEnv<Password>));
const bool kRegistered = (VecEnv<Password>::Register("password"), true);

}  // namespace
}  // namespace pjx
