// The maze on the CPU: description, inspection and registration.
#include "envs/common/vec_env.h"
#include "envs/maze/params.h"

namespace pjx {
namespace {

// What a person wants to see of states u8[N, S]: cells u8[N, size, size] (0 empty, 1 wall, 2 agent, 4 goal) and
// facts i32[N, 4] (level, tick, x, y).
ffi::Error InspectCpu(ffi::Buffer<ffi::U8> state, EnvParams params, ffi::ResultBuffer<ffi::U8> cells,
                      ffi::ResultBuffer<ffi::S32> facts) {
  EnvBatch<Maze> batch;
  if (auto error = OpenBatch("inspect", params, state.dimensions(), &batch); error.failure()) return error;
  const Maze::Params& p = batch.params;
  if (auto error = CheckCounts("inspect", {{"cells", cells->element_count(), batch.rows * p.size * p.size},
                                           {"facts", facts->element_count(), batch.rows * 4}});
      error.failure()) {
    return error;
  }
  for (int64_t row = 0; row < batch.rows; ++row) {
    const Maze::State& s = RowAt(state.typed_data(), batch, row);
    if (!Maze::IsSafe(s, p)) return InvalidArgument("inspect: state row ", row, " is not a state of this simulator");
    uint8_t* out = cells->typed_data() + row * p.size * p.size;
    for (uint32_t y = 0; y < p.size; ++y) {
      for (uint32_t x = 0; x < p.size; ++x) out[y * p.size + x] = Maze::IsWall(Maze::Walls(s, p), p, x, y);
    }
    out[(p.size - 2) * p.size + p.size - 2] = 4;
    out[s.y * p.size + s.x] = 2;
    int32_t* fact = facts->typed_data() + row * 4;
    fact[0] = static_cast<int32_t>(s.level), fact[1] = static_cast<int32_t>(s.tick), fact[2] = s.x, fact[3] = s.y;
  }
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.maze.inspect", HandlerOf<InspectCpu>);

const RegisteredEnv<Maze> kRegistered("maze");

}  // namespace
}  // namespace pjx
