// The maze's parameters from the integers of a call, and the level sets every environment shares, in host memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "envs/maze/maze.h"

namespace pjx {

// Level sets are generated once per (size, num_mazes, seed, vision), shared read-only, and kept for the life of the
// process: compiled programs refer to them by these numbers only.
inline const uint8_t* SharedLevels(const Maze::Params& p) {
  using Key = std::tuple<uint32_t, uint32_t, uint64_t, uint32_t>;
  static std::mutex mutex;
  static std::map<Key, std::unique_ptr<uint8_t[]>> sets;
  std::lock_guard<std::mutex> lock(mutex);
  auto& levels = sets[Key{p.size, p.num_mazes, p.seed, p.vision}];
  if (!levels) {
    const size_t bytes = p.level_bytes;
    levels.reset(new uint8_t[bytes * p.num_mazes]);
    const std::unique_ptr<uint16_t[]> work(new uint16_t[Maze::kMaxCells]);
    for (uint32_t level = 0; level < p.num_mazes; ++level) {
      Philox random(static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32), level, /*stream1=*/1);
      Maze::Grow(levels.get() + level * bytes, p, random, work.get());
    }
  }
  return levels.get();
}

template <>
inline std::string ParseParams<Maze>(const int64_t* values, int64_t count, Maze::Params* params) {
  const std::string error = CheckParams("maze", values, count,
                                        {{"size", Maze::kMinSize, Maze::kMaxSize, ParamRange::kOdd},
                                         {"num_mazes", 0, Maze::kMaxMazes},
                                         {"seed", 0, INT64_MAX},
                                         {"vision", Maze::kMinVision, Maze::kMaxVision, ParamRange::kOdd}});
  if (!error.empty()) return error;
  *params = {static_cast<uint32_t>(values[0]),
             static_cast<uint32_t>(values[1]),
             static_cast<uint64_t>(values[2]),
             static_cast<uint32_t>(values[3]),
             nullptr,
             0,
             0,
             0,
             0};
  params->Derive();
  if (params->num_mazes) params->levels = SharedLevels(*params);
  return "";
}

}  // namespace pjx
