// What a GPU thread does for one maze (env_rows.h) as plain functions, for tests/envs/test_maze_cuda_rows.py. Without
// the x86 levels, so that the comparison with the CPU module also compares the baseline with them.
#define PJX_BASELINE_ONLY
#include "envs/common/env_rows.h"
#include "envs/maze/params.h"

extern "C" {

using namespace pjx;

// Aborts on parameters that the maze refuses: the test passes valid ones.
static EnvRows<Maze> Open(const int64_t* params, int64_t num_envs) {
  EnvRows<Maze> envs{};
  if (!ParseParams<Maze>(params, 4, &envs.params).empty()) abort();
  envs.num_envs = num_envs, envs.stride = StateBytes<Maze>(envs.params);
  return envs;
}

void reset(const int64_t* params, int64_t num_envs, int64_t rows, const uint32_t* keys, uint8_t* states, uint8_t* obs) {
  const EnvRows<Maze> envs = Open(params, num_envs);
  for (int64_t row = rows - 1; row >= 0; --row) envs.Reset(keys, states, obs, row);
}

void step(const int64_t* params, int64_t num_envs, int64_t rows, const uint32_t* keys, uint8_t* states,
          const int32_t* actions, const StepResults* results, uint8_t* obs) {
  const EnvRows<Maze> envs = Open(params, num_envs);
  for (int64_t row = rows - 1; row >= 0; --row) envs.Step(keys, states, actions, *results, obs, row);
}

void observe(const int64_t* params, int64_t num_envs, int64_t rows, const uint8_t* states, uint8_t* obs) {
  const EnvRows<Maze> envs = Open(params, num_envs);
  for (int64_t row = rows - 1; row >= 0; --row) envs.Observe(states, obs, row);
}

void restore(const int64_t* params, int64_t num_envs, int64_t total, uint8_t* states, const uint8_t* snapshots,
             const int32_t* env_ids, int64_t count) {
  const EnvRows<Maze> envs = Open(params, num_envs);
  for (int64_t i = total - 1; i >= 0; --i) envs.Restore(states, snapshots, env_ids, count, i);
}

void stagger(const int64_t* params, int64_t num_envs, int64_t rows, const uint32_t* keys, uint8_t* states) {
  const EnvRows<Maze> envs = Open(params, num_envs);
  for (int64_t row = rows - 1; row >= 0; --row) envs.Stagger(keys, states, row);
}

void clock_of(const int64_t* params, int64_t num_envs, int64_t rows, uint8_t* timeless, int32_t* times) {
  const EnvRows<Maze> envs = Open(params, num_envs);
  for (int64_t row = rows - 1; row >= 0; --row) envs.Clock(timeless, times, row);
}
}
