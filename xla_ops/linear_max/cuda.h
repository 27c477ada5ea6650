// Calls that linear_max and entity_encoder have in common on the GPU. The bodies of the kernels are in
// forward_kernel.h, forward_rows.h, tensor_kernel.h, backward_rows.h and backward_kernels.h; each op compiles the
// kernels that it launches.
#pragma once

#include <new>

#include "xla_ops/common/cuda.h"
#include "xla_ops/linear_max/backward_kernels.h"
#include "xla_ops/linear_max/backward_rows.h"
#include "xla_ops/linear_max/forward_kernel.h"
#include "xla_ops/linear_max/forward_rows.h"
#include "xla_ops/linear_max/shapes.h"
#include "xla_ops/linear_max/tensor_kernel.h"

namespace pjx {

namespace {

template <bool kHasFirst, int kEntities, bool kSaves>
__global__ void __launch_bounds__(EntityForwardGrid::kThreads, 3)
    Forward(const __grid_constant__ EntityForwardArgs args) {
  using Block = EntityForwardBlock<kHasFirst, kEntities, kSaves>;
  __shared__ typename Block::Shared shared;
  Block(args, blockIdx.x).Run(Team<Block::kThreads>{}, shared);
}

// Constructs *block, which is shared, for this block of threads. Where its rows lie is then read from shared memory
// when it is needed: registers are taken by sums.
template <typename Block, typename Args>
__device__ const Block& SharedBlock(const Args& args, void* block) {
  if (threadIdx.x == 0) new (block) Block(args, blockIdx.x);
  __syncthreads();
  return *static_cast<const Block*>(block);
}

template <bool kHasFirst, bool kSaves>
__global__ void __launch_bounds__(EntityForwardGrid::kThreads, 2)
    ForwardRows(const __grid_constant__ EntityForwardArgs args) {
  using Block = EntityForwardRows<kHasFirst, kSaves>;
  __shared__ typename Block::Shared shared;
  __shared__ __align__(16) char block[sizeof(Block)];
  SharedBlock<Block>(args, block).Run(Team<Block::kThreads>{}, shared);
}

template <bool kHasFirst, int kPasses, bool kSaves>
__global__ void __launch_bounds__(EntityForwardGrid::kThreads, kPasses == 1 ? 4 : 3)
    TensorForward(const __grid_constant__ EntityForwardArgs args) {
  using Block = EntityTensorBlock<kHasFirst, kPasses, kSaves>;
  __shared__ typename Block::Shared shared;
  Block(args, blockIdx.x).Run(Team<Block::kThreads>{}, shared);
}

template <bool kHasFirst>
__global__ void __launch_bounds__(EntityToInputs<kHasFirst>::kThreads)
    ToInputs(const __grid_constant__ EntityBackwardArgs args) {
  using Block = EntityToInputs<kHasFirst>;
  __shared__ typename Block::Shared shared;
  Block(args, blockIdx.x).Run(Team<Block::kThreads>{}, shared);
}

template <bool kHasFirst>
__global__ void __launch_bounds__(EntityToWeightsGrid::kThreads, 3)
    ToWeights(const __grid_constant__ EntityBackwardArgs args) {
  EntityToWeights<kHasFirst>(args, blockIdx.x, static_cast<int>(threadIdx.x));
}

template <bool kHasFirst, int kVectors>
__global__ void __launch_bounds__(EntityBackwardRows<kHasFirst, kVectors>::kThreads, kVectors == 4 ? 2 : 1)
    BackwardRows(const __grid_constant__ EntityBackwardArgs args) {
  using Block = EntityBackwardRows<kHasFirst, kVectors>;
  extern __shared__ __align__(16) char memory[];
  __shared__ __align__(16) char block[sizeof(Block)];
  SharedBlock<Block>(args, block).Run(Team<Block::kThreads>{}, *reinterpret_cast<typename Block::Shared*>(memory));
}

__global__ void __launch_bounds__(EntityAddParts::kThreads) AddParts(const __grid_constant__ EntityBackwardArgs args) {
  __shared__ EntityAddParts::Shared shared;
  EntityAddParts::Run(Team<EntityAddParts::kThreads>{}, args, blockIdx.x, shared);
}

ffi::Error ArraysOf(const char* op, const EntityOperands& operands, const EntitySizes& sizes,
                    ffi::Span<const int64_t> lead, EntityArrays* arrays) {
  if (lead.size() > Lanes::kMaxAxes) {
    return InvalidArgument(op, ": at most ", Lanes::kMaxAxes, " mapped axes on a GPU, got ", ShapeText(lead));
  }
  if (!FitsKernels(sizes, operands.w1 != nullptr)) {
    return InvalidArgument(op, ": on a GPU, N and the elements of each weight must be at most ", kMaxKernelSize,
                           ", got N, D, P, H of ", sizes.entities, ", ", sizes.features, ", ", sizes.units, ", ",
                           sizes.hidden);
  }
  const Lanes lanes = LanesOf(lead.begin(), static_cast<int64_t>(lead.size()));
  const auto weights = [&](const ffi::Buffer<ffi::F32>* buffer, int64_t block) {
    const float* const none = nullptr;
    return buffer == nullptr
               ? LaneArray<const float>{none, {}}
               : ArrayOfLanes<const float>(buffer->typed_data(), buffer->dimensions().begin(), lanes, block);
  };
  const int64_t entities = sizes.rows * sizes.entities, bytes = operands.x.element_type() == ffi::BF16 ? 2 : 4;
  const bool* const mask = operands.mask.element_count() == 0 ? nullptr : operands.mask.typed_data();
  *arrays = {sizes,
             lanes,
             ArrayOfLanes(static_cast<const char*>(operands.x.untyped_data()), operands.x.dimensions().begin(), lanes,
                          entities * sizes.features * bytes),
             bytes == 2,
             operands.w1 != nullptr,
             ArrayOfLanes(mask, operands.mask.dimensions().begin(), lanes, entities),
             weights(operands.w1, sizes.features * sizes.units),
             weights(operands.b1, sizes.units),
             weights(&operands.weight, sizes.units * sizes.hidden)};
  return ffi::Error::Success();
}

// As EntityForwardCpu.
template <bool kHasFirst>
ffi::Error EntityForwardCuda(const char* op, cudaStream_t stream, const EntityOperands& operands,
                             ffi::ResultBuffer<ffi::F32>& y, ffi::Result<ffi::AnyBuffer>* winner) {
  EntitySizes sizes;
  if (auto error = CheckEntityForward(op, operands, y, winner, &sizes); error.failure()) return error;
  if (y->element_count() == 0) return ffi::Error::Success();
  const auto dims = y->dimensions();
  EntityForwardArgs args{};
  const auto error = ArraysOf(op, operands, sizes, dims.first(dims.size() - 2), &args.arrays);
  if (error.failure()) return error;
  args.bias = ArrayOfLanes<const float>(operands.bias->typed_data(), operands.bias->dimensions().begin(),
                                        args.arrays.lanes, sizes.hidden);
  args.y = y->typed_data();
  args.winner = winner == nullptr ? nullptr : static_cast<char*>((*winner)->untyped_data());
  if (const int64_t passes = operands.passes; passes != 0 && SuitsTensorCores(sizes)) {
    PlanTensorForward(&args);
    const auto kernel =
        passes == 1 ? (winner == nullptr ? TensorForward<kHasFirst, 1, false> : TensorForward<kHasFirst, 1, true>)
                    : (winner == nullptr ? TensorForward<kHasFirst, 3, false> : TensorForward<kHasFirst, 3, true>);
    return Launch(op, stream, kernel, args.blocks(), EntityForwardGrid::kThreads, args);
  }
  PlanForward(&args);
  if (SuitsForwardRows(sizes)) {
    return Launch(op, stream, winner == nullptr ? ForwardRows<kHasFirst, false> : ForwardRows<kHasFirst, true>,
                  args.blocks(), EntityForwardGrid::kThreads, args);
  }
  const auto kernel = sizes.entities <= 8
                          ? (winner == nullptr ? Forward<kHasFirst, 8, false> : Forward<kHasFirst, 8, true>)
                          : (winner == nullptr ? Forward<kHasFirst, 16, false> : Forward<kHasFirst, 16, true>);
  return Launch(op, stream, kernel, args.blocks(), EntityForwardGrid::kThreads, args);
}

template <bool kHasFirst, int kVectors>
ffi::Error LaunchBackwardRows(const char* op, cudaStream_t stream, int64_t blocks, const EntityBackwardArgs& args) {
  using Block = EntityBackwardRows<kHasFirst, kVectors>;
  return LaunchWithShared(op, stream, BackwardRows<kHasFirst, kVectors>, blocks, Block::kThreads,
                          static_cast<int>(sizeof(typename Block::Shared)), args);
}

// As EntityBackwardCpu, except that a winner that is no entity's number passes no cotangent on.
template <bool kHasFirst>
ffi::Error EntityBackwardCuda(const char* op, cudaStream_t stream, const EntityOperands& operands,
                              const ffi::AnyBuffer& winner, const ffi::Buffer<ffi::F32>& y_bar,
                              const EntityCotangents& cotangents, ffi::ResultBuffer<ffi::F32>& scratch) {
  EntitySizes sizes;
  auto error = CheckEntityBackward(op, operands, winner, y_bar, cotangents, &sizes);
  if (error.failure()) return error;
  if (sizes.hidden > EntityToInputs<kHasFirst>::kMaxHidden) {
    return InvalidArgument(op, ": at most ", EntityToInputs<kHasFirst>::kMaxHidden, " hidden units on a GPU, got ",
                           sizes.hidden);
  }
  const auto dims = cotangents.x->dimensions();
  EntityBackwardArgs args{};
  error = ArraysOf(op, operands, sizes, dims.first(dims.size() - 3), &args.arrays);
  if (error.failure()) return error;
  const Lanes& lanes = args.arrays.lanes;
  const int64_t row_size = sizes.rows * sizes.hidden, sums_size = EntitySums(sizes, kHasFirst).size;
  args.winner = ArrayOfLanes(static_cast<const char*>(winner.untyped_data()), winner.dimensions().begin(), lanes,
                             row_size * NumberBytes(sizes.entities));
  args.y_bar = ArrayOfLanes<const float>(y_bar.typed_data(), y_bar.dimensions().begin(), lanes, row_size);
  args.x_bar = static_cast<char*>(cotangents.x->untyped_data());
  args.weight_bar = cotangents.weight->typed_data();
  args.bias_bar = cotangents.bias->typed_data();
  args.w1_bar = kHasFirst ? (*cotangents.w1)->typed_data() : nullptr;
  args.b1_bar = kHasFirst ? (*cotangents.b1)->typed_data() : nullptr;
  args.parts = NumEntityParts(sizes, lanes.count, sums_size);
  const int64_t blocks = lanes.count * args.parts, sums = blocks * sums_size;
  if (static_cast<int64_t>(scratch->element_count()) < sums) {
    return InvalidArgument(op, ": scratch has ", scratch->element_count(), " elements, expected at least ", sums);
  }
  args.sums = scratch->typed_data();
  if (SuitsBackwardRows(sizes)) {
    error = sizes.hidden <= 128 ? LaunchBackwardRows<kHasFirst, 4>(op, stream, blocks, args)
                                : LaunchBackwardRows<kHasFirst, 8>(op, stream, blocks, args);
  } else {
    error = Launch(op, stream, ToInputs<kHasFirst>, blocks, EntityToInputs<kHasFirst>::kThreads, args);
    if (error.failure()) return error;
    error = Launch(op, stream, ToWeights<kHasFirst>, blocks * EntityToWeightsGrid(sizes).per_part(),
                   EntityToWeightsGrid::kThreads, args);
  }
  if (error.failure()) return error;
  return Launch(op, stream, AddParts, lanes.count * EntityAddParts::BlocksPerLane(sums_size), EntityAddParts::kThreads,
                args);
}

}  // namespace
}  // namespace pjx
