// The maze's parameters from the integers of a call, and the level sets every environment shares, in host memory.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "envs/common/env_rows.h"
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
    for (uint32_t level = 0; level < p.num_mazes; ++level) {
      Philox random(static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32), level, /*stream1=*/1);
      Maze::Grow(levels.get() + level * bytes, p, random);
    }
  }
  return levels.get();
}

template <>
inline std::string ParseParams<Maze>(const int64_t* values, int64_t count, Maze::Params* params) {
  if (count != 4)
    return "maze: params must be (size, num_mazes, seed, vision), got " + std::to_string(count) + " numbers";
  const int64_t size = values[0], num_mazes = values[1], seed = values[2], vision = values[3];
  if (size < Maze::kMinSize || size > Maze::kMaxSize || size % 2 == 0) {
    return "maze: size must be an odd number from 5 to 127, got " + std::to_string(size);
  }
  if (num_mazes < 0 || num_mazes > (1 << 20)) {
    return "maze: num_mazes must be 0 (a new maze for every episode) to 1048576, got " + std::to_string(num_mazes);
  }
  if (seed < 0) return "maze: seed must be 0 to 2^63 - 1, got " + std::to_string(seed);
  if (vision < Maze::kMinVision || vision > Maze::kMaxVision || vision % 2 == 0) {
    return "maze: vision must be an odd number from 3 to 31, got " + std::to_string(vision);
  }
  *params = {static_cast<uint32_t>(size),
             static_cast<uint32_t>(num_mazes),
             static_cast<uint64_t>(seed),
             static_cast<uint32_t>(vision),
             nullptr,
             0,
             0,
             0,
             0};
  params->Derive();
  if (num_mazes) params->levels = SharedLevels(*params);
  return "";
}

}  // namespace pjx
