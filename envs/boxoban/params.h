// The parameters of Boxoban from the integers of a call, and the level sets every environment shares, in host memory.
#pragma once

#include <map>
#include <mutex>

#include "envs/boxoban/boxoban.h"
#include "envs/boxoban/levels.h"

namespace pjx {

constexpr int64_t kBoxobanNumbers = 8;  // before the bytes of the path

// Level sets are made once per (num_levels, seed, num_pulls, max_steps) or path, shared read-only, and kept for the
// life of the process: compiled programs refer to them by these numbers only, and a file may change meanwhile.
inline std::string SharedLevels(const int64_t* values, int64_t count, Boxoban::Params* params) {
  static std::mutex mutex;
  static std::map<std::vector<int64_t>, std::vector<Boxoban::Level>> sets;
  const bool is_read = count > kBoxobanNumbers;
  const std::vector<int64_t> key(values + (is_read ? kBoxobanNumbers : 0), values + (is_read ? count : 4));
  std::lock_guard<std::mutex> lock(mutex);
  auto found = sets.find(key);
  if (found == sets.end()) {
    std::vector<Boxoban::Level> levels;
    if (is_read) {
      const std::string error = BoxobanReader::Read(std::string(key.begin(), key.end()), &levels);
      if (!error.empty()) return error;
    } else {
      BoxobanGenerator generator(values[1], static_cast<uint32_t>(values[2]), params->max_steps);
      for (int64_t i = 0; i < values[0]; ++i) levels.push_back(generator.Generate(static_cast<uint32_t>(i)));
    }
    found = sets.emplace(key, std::move(levels)).first;
  }
  params->levels = found->second.data();
  params->num_levels = static_cast<uint32_t>(found->second.size());
  return "";
}

// values: num_levels, seed, num_pulls, max_steps, the bits of the floats int_r_coeff, target_loss_penalty and
// timeout_reward, egocentric, then the bytes of the path of a level file, none if the levels are generated.
template <>
inline std::string ParseParams<Boxoban>(const int64_t* values, int64_t count, Boxoban::Params* params) {
  const std::string error = CheckParams("boxoban", values, count,
                                        {{"num_levels", 1, Boxoban::kMaxLevels},
                                         {"seed", 0, INT64_MAX},
                                         {"num_pulls", 1, 1000},
                                         {"max_steps", 1, Boxoban::kMaxMaxSteps},
                                         {"int_r_coeff", 0, 1000, ParamRange::kFloatBits},
                                         {"target_loss_penalty", 0, 1000, ParamRange::kFloatBits},
                                         {"timeout_reward", -1000, 1000, ParamRange::kFloatBits},
                                         {"egocentric", 0, 1}},
                                        "path");
  if (!error.empty()) return error;
  for (int64_t i = kBoxobanNumbers; i < count; ++i) {
    if (values[i] < 1 || values[i] > 255) return "boxoban: levels: the path holds a byte that is none";
  }
  *params = {nullptr,
             0,
             static_cast<uint32_t>(values[3]),
             FloatParam(values[4]),
             FloatParam(values[5]),
             FloatParam(values[6]),
             static_cast<uint32_t>(values[7])};
  return SharedLevels(values, count, params);
}

}  // namespace pjx
