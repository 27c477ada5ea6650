// prioritized_sample on the GPU, bit-equal to the CPU; the bodies of the kernels and what they do are in kernels.h.
#include "xla_ops/common/cuda.h"
#include "xla_ops/prioritized_sample/handlers.h"
#include "xla_ops/prioritized_sample/kernels.h"

namespace pjx {
namespace {

__global__ void __launch_bounds__(OneLaunch::kThreads, 1) SampleOneLaunch(SampleOperands operands) {
  extern __shared__ __align__(16) char memory[];
  OneLaunch::Run(Team<OneLaunch::kThreads>{}, operands, blockIdx.x, *reinterpret_cast<OneLaunch::Shared*>(memory));
}

__global__ void __launch_bounds__(ManyBlocks::kThreads) FindTop(SampleOperands operands, ManyBlocks::Scratch scratch) {
  ManyBlocks::FindTop(Team<ManyBlocks::kThreads>{}, operands, scratch, blockIdx.x);
}

__global__ void __launch_bounds__(ManyBlocks::kThreads, 5)
    SumTiles(SampleOperands operands, ManyBlocks::Scratch scratch, int round) {
  __shared__ ManyBlocks::TileShared shared;
  ManyBlocks::SumTiles(Team<ManyBlocks::kThreads>{}, operands, scratch, blockIdx.x, round, shared);
}

__global__ void __launch_bounds__(ManyBlocks::kScanThreads)
    ScanTiles(SampleOperands operands, ManyBlocks::Scratch scratch, int round) {
  __shared__ ManyBlocks::ScanShared shared;
  ManyBlocks::ScanTiles(Team<ManyBlocks::kScanThreads>{}, operands, scratch, blockIdx.x, round, shared);
}

using Scratch = ffi::ResultBuffer<ffi::U8>;

constexpr int kDrawThreads = 128, kDrawsPerBlock = kDrawThreads / Warp::kLanes;

__global__ void __launch_bounds__(kDrawThreads)
    Draw(SampleOperands operands, ManyBlocks::Scratch scratch, int64_t num_draws) {
  const Warp warp{static_cast<int>(threadIdx.x / Warp::kLanes)};
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kDrawsPerBlock + warp.index;
  if (index < num_draws) ManyBlocks::Draw(warp, operands, scratch, index);
}

ffi::Error SampleManyBlocks(const char* op, cudaStream_t stream, Scratch& memory, const SampleOperands& operands,
                            int64_t lanes) {
  const int64_t tiles = ManyBlocks::Tiles(operands.capacity), num_draws = lanes * operands.num_samples;
  const int64_t bytes = ManyBlocks::ScratchBytes(lanes, tiles);
  if (auto error = CheckCounts(op, {{"scratch", memory->element_count(), bytes}}); error.failure()) return error;
  const ManyBlocks::Scratch scratch = ManyBlocks::Divide(memory->typed_data(), lanes, tiles);
  auto error = CudaError(op, cudaMemsetAsync(scratch.states, 0, lanes * sizeof(ManyBlocks::State), stream));
  if (error.failure()) return error;
  error = Launch(op, stream, FindTop, lanes * ManyBlocks::TopBlocks(operands.capacity), ManyBlocks::kThreads, operands,
                 scratch);
  for (int round = 0; round < ManyBlocks::Rounds(operands.capacity); ++round) {
    if (error.failure()) return error;
    const int64_t blocks = ManyBlocks::SumBlocks(lanes, tiles, round);
    error = Launch(op, stream, SumTiles, blocks, ManyBlocks::kThreads, operands, scratch, round);
    if (error.failure()) return error;
    error = Launch(op, stream, ScanTiles, lanes, ManyBlocks::kScanThreads, operands, scratch, round);
  }
  if (error.failure()) return error;
  return Launch(op, stream, Draw, CeilDivide(num_draws, kDrawsPerBlock), kDrawThreads, operands, scratch, num_draws);
}

ffi::Error RunOnStream(cudaStream_t stream, Scratch& memory, const SampleOperands& operands, int64_t lanes) {
  const char* op = "prioritized_sample";
  if (lanes == 0 || operands.num_samples == 0) return ffi::Error::Success();
  if (OneLaunch::Suits(operands.capacity, operands.num_samples)) {
    return LaunchWithShared(op, stream, SampleOneLaunch, lanes * OneLaunch::Parts(operands.num_samples),
                            OneLaunch::kThreads, sizeof(OneLaunch::Shared), operands);
  }
  return SampleManyBlocks(op, stream, memory, operands, lanes);
}

// The operands and results of cpu.cc's handler, and memory for sums.
ffi::Error SampleWithScratch(cudaStream_t stream, ffi::Buffer<ffi::U32> words, ffi::Buffer<ffi::F32> priorities,
                             ffi::Buffer<ffi::S32> size, ffi::Buffer<ffi::F32> alpha,
                             ffi::ResultBuffer<ffi::S32> indices, ffi::ResultBuffer<ffi::F32> relative,
                             Scratch scratch)  // [..., bytes], none where one launch does it all
{
  return PrioritizedSample<RunOnStream, cudaStream_t, Scratch&>(stream, scratch, words, priorities, size, alpha,
                                                                indices, relative);
}
PJX_REGISTER("pufferjax.prioritized_sample.scratch", HandlerOf<SampleWithScratch, ffi::Traits::kCmdBufferCompatible>);

}  // namespace
}  // namespace pjx
