// The parameters of four rooms from the integers of a call.
#pragma once

#include "envs/four_rooms/four_rooms.h"

namespace pjx {

template <>
inline std::string ParseParams<FourRooms>(const int64_t* values, int64_t count, FourRooms::Params* params) {
  const std::string error =
      CheckParams("four_rooms", values, count, {{"size", FourRooms::kMinSize, FourRooms::kMaxSize, ParamRange::kOdd}});
  if (!error.empty()) return error;
  params->size = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

}  // namespace pjx
