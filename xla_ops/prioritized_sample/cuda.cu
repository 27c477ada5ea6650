// prioritized_sample on the GPU, bit-equal to the CPU; the bodies of the kernels and what they do are in kernels.h.
#include "xla_ops/common/cuda.h"
#include "xla_ops/prioritized_sample/handlers.h"
#include "xla_ops/prioritized_sample/kernels.h"

namespace pjx {
namespace {

__global__ void __launch_bounds__(OneBlock::kThreads, 1) SampleOneBlock(SampleOperands operands) {
  __shared__ OneBlock::Shared shared;
  OneBlock::Run(Team<OneBlock::kThreads>{}, operands, blockIdx.x, shared);
}

__global__ void __launch_bounds__(ManyBlocks::kThreads) FindTop(SampleOperands operands, ManyBlocks::Scratch scratch) {
  ManyBlocks::FindTop(Team<ManyBlocks::kThreads>{}, operands, scratch, blockIdx.x);
}

__global__ void __launch_bounds__(ManyBlocks::kThreads)
    SumTile(SampleOperands operands, ManyBlocks::Scratch scratch, bool is_second) {
  __shared__ ManyBlocks::TileShared shared;
  ManyBlocks::SumTile(Team<ManyBlocks::kThreads>{}, operands, scratch, blockIdx.x, is_second, shared);
}

__global__ void __launch_bounds__(ManyBlocks::kScanThreads)
    ScanTiles(SampleOperands operands, ManyBlocks::Scratch scratch, bool is_second) {
  __shared__ ManyBlocks::ScanShared shared;
  ManyBlocks::ScanTiles(Team<ManyBlocks::kScanThreads>{}, operands, scratch, blockIdx.x, is_second, shared);
}

constexpr int kDrawThreads = 128;

__global__ void __launch_bounds__(kDrawThreads)
    Draw(SampleOperands operands, ManyBlocks::Scratch scratch, int64_t num_draws) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kDrawThreads + threadIdx.x;
  if (index < num_draws) ManyBlocks::Draw(operands, scratch, index);
}

ffi::Error SampleManyBlocks(const char* op, cudaStream_t stream, ffi::ScratchAllocator& allocator,
                            const SampleOperands& operands, int64_t lanes) {
  const int64_t tiles = ManyBlocks::Tiles(operands.capacity), num_draws = lanes * operands.num_samples;
  const int64_t bytes = ManyBlocks::ScratchBytes(lanes, tiles);
  const std::optional<void*> memory = allocator.Allocate(static_cast<size_t>(bytes), /*alignment=*/256);
  if (!memory) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      std::string(op) + ": no " + std::to_string(bytes) + " bytes of device memory for sums");
  }
  const ManyBlocks::Scratch scratch = ManyBlocks::Divide(*memory, lanes, tiles);
  auto error = CudaError(op, cudaMemsetAsync(scratch.states, 0, lanes * sizeof(ManyBlocks::State), stream));
  if (error.failure()) return error;
  error = Launch(op, stream, FindTop, lanes * ManyBlocks::TopBlocks(operands.capacity), ManyBlocks::kThreads, operands,
                 scratch);
  for (const bool is_second : {false, true}) {
    if (error.failure()) return error;
    error = Launch(op, stream, SumTile, lanes * tiles, ManyBlocks::kThreads, operands, scratch, is_second);
    if (error.failure()) return error;
    error = Launch(op, stream, ScanTiles, lanes, ManyBlocks::kScanThreads, operands, scratch, is_second);
  }
  if (error.failure()) return error;
  return Launch(op, stream, Draw, CeilDivide(num_draws, kDrawThreads), kDrawThreads, operands, scratch, num_draws);
}

ffi::Error RunOnStream(cudaStream_t stream, ffi::ScratchAllocator& allocator, const SampleOperands& operands,
                       int64_t lanes) {
  const char* op = "prioritized_sample";
  if (lanes == 0 || operands.num_samples == 0) return ffi::Error::Success();
  if (OneBlock::Suits(operands.capacity, operands.num_samples)) {
    return Launch(op, stream, SampleOneBlock, lanes, OneBlock::kThreads, operands);
  }
  return SampleManyBlocks(op, stream, allocator, operands, lanes);
}

// Not declared compatible with CUDA graphs: a graph that is replayed would use the scratch memory of its first run.
PJX_REGISTER("pufferjax.prioritized_sample",
             HandlerOf<PrioritizedSample<RunOnStream, cudaStream_t, ffi::ScratchAllocator>>);

}  // namespace
}  // namespace pjx
