// Boxoban on the CPU: parameter checks, the level sets every environment shares, and registration.
#include <cmath>
#include <map>

#include "envs/boxoban/boxoban.h"
#include "envs/boxoban/levels.h"
#include "envs/common/vec_env.h"

namespace pjx {
namespace {

constexpr int64_t kNumbers = 8;  // before the bytes of the path

// Level sets are made once per (num_levels, seed, num_pulls, max_steps) or path, shared read-only, and kept for the
// life of the process: compiled programs refer to them by these numbers only, and a file may change meanwhile.
std::string SharedLevels(const int64_t* values, int64_t count, Boxoban::Params* params) {
  static std::mutex mutex;
  static std::map<std::vector<int64_t>, std::vector<Boxoban::Level>> sets;
  const bool is_read = count > kNumbers;
  const std::vector<int64_t> key(values + (is_read ? kNumbers : 0), values + (is_read ? count : 4));
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

}  // namespace

// values: num_levels, seed, num_pulls, max_steps, the bits of the floats int_r_coeff, target_loss_penalty and
// timeout_reward, egocentric, then the bytes of the path of a level file, none if the levels are generated.
template <>
std::string ParseParams<Boxoban>(const int64_t* values, int64_t count, Boxoban::Params* params) {
  if (count < kNumbers) {
    return "boxoban: params must be (num_levels, seed, num_pulls, max_steps, int_r_coeff, target_loss_penalty, "
           "timeout_reward, egocentric, path...), got " +
           std::to_string(count) + " numbers";
  }
  const auto check = [values](int i, const char* name, int64_t low, int64_t high) {
    if (values[i] >= low && values[i] <= high) return std::string();
    return std::string("boxoban: ") + name + " must be " + std::to_string(low) + " to " + std::to_string(high) +
           ", got " + std::to_string(values[i]);
  };
  if (const auto error = check(0, "num_levels", 1, Boxoban::kMaxLevels); !error.empty()) return error;
  if (const auto error = check(1, "seed", 0, INT64_MAX); !error.empty()) return error;
  if (const auto error = check(2, "num_pulls", 1, 1000); !error.empty()) return error;
  if (const auto error = check(3, "max_steps", 1, Boxoban::kMaxMaxSteps); !error.empty()) return error;
  if (const auto error = check(7, "egocentric", 0, 1); !error.empty()) return error;
  const char* names[] = {"int_r_coeff", "target_loss_penalty", "timeout_reward"};
  float rewards[3];
  for (int i = 0; i < 3; ++i) {
    const auto bits = static_cast<uint32_t>(values[4 + i]);
    memcpy(&rewards[i], &bits, sizeof(float));
    const float low = i == 2 ? -1000.0f : 0.0f;
    if (!(rewards[i] >= low && rewards[i] <= 1000.0f)) {
      return std::string("boxoban: ") + names[i] + " must be a number from " + (i == 2 ? "-1000" : "0") + " to 1000";
    }
  }
  for (int64_t i = kNumbers; i < count; ++i) {
    if (values[i] < 1 || values[i] > 255) return "boxoban: levels: the path holds a byte that is none";
  }
  *params = {nullptr,    0,          static_cast<uint32_t>(values[3]), rewards[0],
             rewards[1], rewards[2], static_cast<uint32_t>(values[7])};
  return SharedLevels(values, count, params);
}

namespace {

PJX_REGISTER("boxoban", Describe(DescribeEnv<Boxoban>));
const bool kRegistered = (VecEnv<Boxoban>::Register("boxoban"), true);

}  // namespace
}  // namespace pjx
