// The parameters of the password from the integers of a call.
#pragma once

#include "envs/password/password.h"

namespace pjx {

template <>
inline std::string ParseParams<Password>(const int64_t* values, int64_t count, Password::Params* params) {
  const std::string error = CheckParams("password", values, count, {{"length", 1, Password::kMaxLength}});
  if (!error.empty()) return error;
  params->length = static_cast<uint32_t>(values[0]);
  params->Derive();
  return "";
}

}  // namespace pjx
