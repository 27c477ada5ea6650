// The maze on the CPU: description, inspection and registration.
#include "envs/common/vec_env.h"
#include "envs/maze/params.h"

namespace pjx {
namespace {

// What a person wants to see of states u8[N, S]: cells u8[N, size, size] (0 empty, 1 wall, 2 agent, 4 goal) and
// facts i32[N, 4] (level, tick, x, y).
ffi::Error InspectCpu(ffi::Buffer<ffi::U8> state, ffi::Span<const int64_t> attr, ffi::ResultBuffer<ffi::U8> cells,
                      ffi::ResultBuffer<ffi::S32> facts) {
  Maze::Params p;
  const std::string error = ParseParams<Maze>(attr.begin(), static_cast<int64_t>(attr.size()), &p);
  if (!error.empty()) return InvalidArgument(error);
  const int64_t stride = Maze::StateBytes(p), rows = state.element_count() / stride;
  if (static_cast<int64_t>(state.element_count()) != rows * stride ||
      static_cast<int64_t>(cells->element_count()) != rows * p.size * p.size ||
      static_cast<int64_t>(facts->element_count()) != rows * 4) {
    return InvalidArgument("inspect: state must be u8[N, ", stride, "], got ", ShapeText(state.dimensions()));
  }
  for (int64_t row = 0; row < rows; ++row) {
    const auto& s = *reinterpret_cast<const Maze::State*>(state.typed_data() + row * stride);
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

PJX_REGISTER("maze", Describe(DescribeEnv<Maze>));
const bool kRegistered = (VecEnv<Maze>::Register("maze"), true);

}  // namespace
}  // namespace pjx
