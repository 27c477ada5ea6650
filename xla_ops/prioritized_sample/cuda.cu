// prioritized_sample on the GPU, bit-equal to the CPU; the bodies of the kernels and what they do are in kernels.h.
#include "xla_ops/common/cuda.h"
#include "xla_ops/prioritized_sample/kernels.h"
#include "xla_ops/prioritized_sample/shapes.h"

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

ffi::Error PrioritizedSampleCuda(cudaStream_t stream, ffi::ScratchAllocator allocator, ffi::Buffer<ffi::U32> words,
                                 ffi::Buffer<ffi::F32> priorities, ffi::Buffer<ffi::S32> size,
                                 ffi::Buffer<ffi::F32> alpha, ffi::ResultBuffer<ffi::S32> indices,
                                 ffi::ResultBuffer<ffi::F32> relative) {
  const char* op = "prioritized_sample";
  SampleShapes shapes{};
  auto error = CheckSampleShapes(words, priorities, size, alpha, indices, relative, &shapes);
  if (error.failure()) return error;
  const SampleOperands operands{words.typed_data(),    priorities.typed_data(), size.typed_data(), alpha.typed_data(),
                                indices->typed_data(), relative->typed_data(),  shapes.capacity,   shapes.num_samples};
  if (shapes.lanes == 0 || shapes.num_samples == 0) return ffi::Error::Success();
  if (OneBlock::Suits(shapes.capacity, shapes.num_samples)) {
    return Launch(op, stream, SampleOneBlock, shapes.lanes, OneBlock::kThreads, operands);
  }
  return SampleManyBlocks(op, stream, allocator, operands, shapes.lanes);
}

// Not declared compatible with CUDA graphs: a graph that is replayed would use the scratch memory of its first run.
XLA_FFI_DEFINE_HANDLER_SYMBOL(PrioritizedSample, PrioritizedSampleCuda,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Ctx<ffi::ScratchAllocator>()
                                  .Arg<ffi::Buffer<ffi::U32>>()  // words [..., K, 2]
                                  .Arg<ffi::Buffer<ffi::F32>>()  // priorities [..., M]
                                  .Arg<ffi::Buffer<ffi::S32>>()  // size [...]
                                  .Arg<ffi::Buffer<ffi::F32>>()  // alpha [...]
                                  .Ret<ffi::Buffer<ffi::S32>>()  // indices [..., K]
                                  .Ret<ffi::Buffer<ffi::F32>>()  // relative [..., K]: size * P
);
PJX_REGISTER("pufferjax.prioritized_sample", PrioritizedSample);

}  // namespace
}  // namespace pjx
