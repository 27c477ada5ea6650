// The parameters of MiniGrid from the integers of a call.
#pragma once

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

// values: family, size, rows, count, flags, max_steps, see_through_walls.
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
                   {"see_through_walls", 0, 1}});
  if (!error.empty()) return error;
  *params = {static_cast<uint32_t>(values[0]),
             static_cast<uint32_t>(values[1]),
             static_cast<uint32_t>(values[2]),
             static_cast<uint32_t>(values[3]),
             static_cast<uint32_t>(values[4]),
             static_cast<uint32_t>(values[5]),
             static_cast<uint32_t>(values[6]),
             0,
             0,
             0,
             0};
  params->Derive();
  return "";
}

}  // namespace pjx
