// The maze on the GPU. Level sets are grown on the host, as for the CPU, and copied once to each device.
#include "envs/common/vec_env.cuh"
#include "envs/maze/params.h"

namespace pjx {

template <>
ffi::Error MoveToDevice<Maze>(Maze::Params* params) {
  if (params->num_mazes == 0) return ffi::Error::Success();
  using Key = std::pair<int, const uint8_t*>;  // device; the set in host memory, which is never freed
  static std::mutex mutex;
  static std::map<Key, uint8_t*> copies;  // kept for the life of the process, like the sets
  int device;
  if (auto e = CudaError("maze", cudaGetDevice(&device)); e.failure()) return e;
  std::lock_guard<std::mutex> lock(mutex);
  const Key key{device, params->levels};
  auto found = copies.find(key);
  if (found == copies.end()) {
    const size_t bytes = static_cast<size_t>(params->num_mazes) * params->level_bytes;
    uint8_t* levels = nullptr;
    if (auto e = CudaError("maze: levels", cudaMalloc(&levels, bytes)); e.failure()) return e;
    auto e = CudaError("maze: levels", cudaMemcpy(levels, params->levels, bytes, cudaMemcpyHostToDevice));
    if (e.failure()) {
      cudaFree(levels);
      return e;
    }
    found = copies.emplace(key, levels).first;
  }
  params->levels = found->second;
  return ffi::Error::Success();
}

namespace {

const RegisteredCudaEnv<Maze> kRegistered("maze");

}  // namespace
}  // namespace pjx
