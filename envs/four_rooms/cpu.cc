// Four rooms on the CPU: parameter checks and registration.
#include "envs/four_rooms/four_rooms.h"

#include "envs/common/vec_env.h"

namespace pjx {

template <>
std::string ParseParams<FourRooms>(const int64_t* values, int64_t count, FourRooms::Params* params) {
  if (count != 1) return "four_rooms: params must be (size), got " + std::to_string(count) + " numbers";
  if (values[0] < FourRooms::kMinSize || values[0] > FourRooms::kMaxSize || values[0] % 2 == 0) {
    return "four_rooms: size must be an odd number from 5 to 49, got " + std::to_string(values[0]);
  }
  params->size = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

namespace {

PJX_REGISTER("four_rooms", Describe(DescribeEnv<FourRooms>));
const bool kRegistered = (VecEnv<FourRooms>::Register("four_rooms"), true);

}  // namespace
}  // namespace pjx
