// The maze on the CPU: parameter checks, the level sets every environment shares, and registration.
#include <memory>

#include "envs/common/vec_env.h"
#include "envs/maze/maze.h"

namespace pjx {
namespace {

// Level sets are generated once per (size, num_mazes, seed, vision), shared read-only, and kept for the life of the
// process: compiled programs refer to them by these numbers only.
const uint8_t* SharedLevels(const Maze::Params& p) {
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

}  // namespace

template <>
std::string ParseParams<Maze>(const int64_t* values, int64_t count, Maze::Params* params) {
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(Inspect, InspectCpu,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::U8>>()  // state [N, S]
                                  .Attr<ffi::Span<const int64_t>>("params")
                                  .Ret<ffi::Buffer<ffi::U8>>()   // cells [N, size, size]
                                  .Ret<ffi::Buffer<ffi::S32>>()  // facts [N, 4]
);
PJX_REGISTER("pufferjax.maze.inspect", Inspect);
PJX_REGISTER("maze", Describe(DescribeEnv<Maze>));
const bool kRegistered = (VecEnv<Maze>::Register("maze"), true);

}  // namespace
}  // namespace pjx
