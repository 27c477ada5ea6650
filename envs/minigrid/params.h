// The parameters of MiniGrid from the integers of a call, and the levels that environments share, in host memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "envs/minigrid/levels.h"

namespace pjx {

// What a family of tasks may have, so that every level can be drawn and no generator leaves its memory.
struct MiniGridRanges {
  const char* name;
  int64_t size[2], rows[2], count[2], max_flags;
  bool is_odd;
};
constexpr MiniGridRanges kMiniGridRanges[MiniGrid::kNumFamilies] = {
    {"Empty", {4, 16}, {1, 1}, {0, 0}, 1, false},
    {"DoorKey", {5, 16}, {1, 1}, {0, 0}, 0, false},
    {"MultiRoom", {4, 10}, {1, 1}, {2, 12}, 0, false},
    {"KeyCorridor", {3, 6}, {1, 3}, {0, 0}, 0, false},
    {"Unlock", {6, 6}, {1, 1}, {0, 0}, 0, false},
    {"UnlockPickup", {6, 6}, {1, 1}, {0, 0}, 0, false},
    {"BlockedUnlockPickup", {6, 6}, {1, 1}, {0, 0}, 0, false},
    {"ObstructedMaze", {6, 6}, {1, 1}, {0, 4}, 15, false},
    {"Crossing", {9, 15}, {1, 1}, {1, 6}, 1, true},
    {"RedBlueDoors", {6, 8}, {1, 1}, {0, 0}, 0, false},
};

// Made once per task, num_levels and seed, and kept for the life of the process: compiled programs refer to them by
// these numbers only.
inline const uint8_t* SharedLevels(const std::vector<int64_t>& key, const MiniGrid::Params& p) {
  static std::mutex mutex;
  static std::map<std::vector<int64_t>, std::unique_ptr<uint64_t[]>> sets;
  std::lock_guard<std::mutex> lock(mutex);
  auto& set = sets[key];
  if (!set) {
    set.reset(new uint64_t[p.row_bytes / sizeof(uint64_t) * p.num_levels]);
    for (uint32_t level = 0; level < p.num_levels; ++level) {
      Philox random(static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32), level, /*stream1=*/1);
      auto* const row = reinterpret_cast<uint8_t*>(set.get()) + static_cast<size_t>(level) * p.row_bytes;
      MiniGrid::Draw(*reinterpret_cast<MiniGrid::State*>(row), p, random);
    }
  }
  return reinterpret_cast<const uint8_t*>(set.get());
}

// values: family, size, rows, count, flags, max_steps, see_through_walls, num_levels, seed.
template <>
inline std::string ParseParams<MiniGrid>(const int64_t* values, int64_t count, MiniGrid::Params* params) {
  const MiniGridRanges none = {"", {0, 16}, {1, 3}, {0, 12}, 15, false};
  const bool is_family = count > 0 && values[0] >= 0 && values[0] < MiniGrid::kNumFamilies;
  const MiniGridRanges& of = is_family ? kMiniGridRanges[values[0]] : none;
  const std::string error =
      CheckParams("minigrid", values, count,
                  {{"family", 0, MiniGrid::kNumFamilies - 1},
                   {"size", of.size[0], of.size[1], of.is_odd ? ParamRange::kOdd : ParamRange::kInteger},
                   {"rows", of.rows[0], of.rows[1]},
                   {"count", of.count[0], of.count[1]},
                   {"flags", 0, of.max_flags},
                   {"max_steps", 1, MiniGrid::kMaxMaxSteps},
                   {"see_through_walls", 0, 1},
                   {"num_levels", 0, MiniGrid::kMaxLevels},
                   {"seed", 0, INT64_MAX}});
  if (!error.empty()) return error;
  MiniGrid::Params p{};
  p.family = static_cast<uint32_t>(values[0]);
  p.size = static_cast<uint32_t>(values[1]);
  p.rows = static_cast<uint32_t>(values[2]);
  p.count = static_cast<uint32_t>(values[3]);
  p.flags = static_cast<uint32_t>(values[4]);
  p.max_steps = static_cast<uint32_t>(values[5]);
  p.see_through_walls = static_cast<uint32_t>(values[6]);
  p.num_levels = static_cast<uint32_t>(values[7]);
  p.seed = static_cast<uint64_t>(values[8]);
  p.Derive();
  if (p.num_levels) {
    p.levels = SharedLevels({values[0], values[1], values[2], values[3], values[4], values[7], values[8]}, p);
  }
  *params = p;
  return "";
}

}  // namespace pjx
