// Four rooms on the CPU: parameter checks and registration.
#include "envs/four_rooms/four_rooms.h"

#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<FourRooms>(const int64_t* values, int64_t count, FourRooms::Params* params) {
  const std::string error =
      CheckParams("four_rooms", values, count, {{"size", FourRooms::kMinSize, FourRooms::kMaxSize, ParamRange::kOdd}});
  if (!error.empty()) return error;
  params->size = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

namespace {

const RegisteredEnv<FourRooms> kRegistered("four_rooms");

}  // namespace
}  // namespace pjx
