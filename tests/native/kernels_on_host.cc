// The bodies of the CUDA kernels as plain functions, for tests/xla_ops/test_cuda_kernels.py: blocks and threads take
// their turns in a loop, forwards or backwards. Nothing here knows what a result should be.
#include <cstring>
#include <memory>
#include <vector>

#include "xla_ops/gae_vtrace/column.h"
#include "xla_ops/linear_max/backward_kernels.h"
#include "xla_ops/linear_max/backward_rows.h"
#include "xla_ops/linear_max/forward_kernel.h"
#include "xla_ops/linear_max/forward_rows.h"
#include "xla_ops/linear_max/tensor_kernel.h"
#include "xla_ops/linear_recurrence/column.h"
#include "xla_ops/mingru_layer/column.h"
#include "xla_ops/one_hot_linear/kernels.h"
#include "xla_ops/prioritized_sample/kernels.h"

namespace pjx {
namespace {

// Calls body(i) for i in [0, count), which no order may change.
template <typename Body>
void Blocks(int64_t count, bool backwards, const Body& body) {
  for (int64_t i = 0; i < count; ++i) body(backwards ? count - 1 - i : i);
}

// What shared memory holds at first is anything: here NaN.
template <typename Shared>
std::unique_ptr<Shared> SharedMemory() {
  auto shared = std::make_unique<Shared>();
  std::memset(static_cast<void*>(shared.get()), 0xFF, sizeof(Shared));
  return shared;
}

template <typename S>
void RecurrenceForward(const RecurrenceSizes& sizes, const void* operands, bool backwards) {
  const auto& o = *static_cast<const ForwardOperands<S>*>(operands);
  Blocks(sizes.all_columns(), backwards, [&](int64_t column) { ForwardColumn(sizes, o, column); });
}

template <typename S>
void RecurrenceBackward(const RecurrenceSizes& sizes, const void* operands, bool backwards) {
  const auto& o = *static_cast<const BackwardOperands<S>*>(operands);
  Blocks(sizes.all_columns(), backwards, [&](int64_t column) { BackwardColumn(sizes, o, column); });
}

struct LaneOperand {
  const void* data;
  const int64_t* sizes;  // along the lanes' axes
};

struct EntityCall {
  EntitySizes sizes;
  int64_t num_axes;
  const int64_t* lanes;  // sizes of those axes
  int64_t is_bfloat16, has_first;
  LaneOperand x, mask, w1, b1, weight, bias, winner, y_bar;

  template <typename T>
  LaneArray<const T> Of(const LaneOperand& operand, int64_t block) const {
    return ArrayOfLanes(static_cast<const T*>(operand.data), operand.sizes, LanesOf(lanes, num_axes), block);
  }
  EntityArrays Arrays() const {
    const int64_t entities = sizes.rows * sizes.entities;
    return {sizes,
            LanesOf(lanes, num_axes),
            Of<char>(x, entities * sizes.features * (is_bfloat16 ? 2 : 4)),
            is_bfloat16,
            has_first,
            Of<bool>(mask, entities),
            Of<float>(w1, sizes.features * sizes.units),
            Of<float>(b1, sizes.units),
            Of<float>(weight, sizes.units * sizes.hidden)};
  }
};

template <typename Block>
void EntityForward(const EntityForwardArgs& args, bool backwards) {
  const auto shared = SharedMemory<typename Block::Shared>();
  Blocks(args.blocks(), backwards,
         [&](int64_t block) { Block(args, block).Run(Team<Block::kThreads>{backwards}, *shared); });
}

template <bool kHasFirst>
void EntityForward(EntityForwardArgs* args, bool backwards) {
  PlanForward(args);
  const bool is_small = args->arrays.sizes.entities <= 8;
  if (args->winner == nullptr) {
    (is_small ? EntityForward<EntityForwardBlock<kHasFirst, 8, false>>
              : EntityForward<EntityForwardBlock<kHasFirst, 16, false>>)(*args, backwards);
  } else {
    (is_small ? EntityForward<EntityForwardBlock<kHasFirst, 8, true>>
              : EntityForward<EntityForwardBlock<kHasFirst, 16, true>>)(*args, backwards);
  }
}

template <bool kHasFirst>
void EntityForwardByRows(EntityForwardArgs* args, bool backwards) {
  PlanForward(args);
  (args->winner == nullptr ? EntityForward<EntityForwardRows<kHasFirst, false>>
                           : EntityForward<EntityForwardRows<kHasFirst, true>>)(*args, backwards);
}

template <bool kHasFirst, int kPasses>
void EntityTensorForward(EntityForwardArgs* args, bool backwards) {
  PlanTensorForward(args);
  if (args->winner == nullptr) {
    EntityForward<EntityTensorBlock<kHasFirst, kPasses, false>>(*args, backwards);
  } else {
    EntityForward<EntityTensorBlock<kHasFirst, kPasses, true>>(*args, backwards);
  }
}

template <bool kHasFirst, int kVectors>
void EntityBackwardByRows(const EntityBackwardArgs& args, bool backwards) {
  using Rows = EntityBackwardRows<kHasFirst, kVectors>;
  const auto shared = SharedMemory<typename Rows::Shared>();
  Blocks(args.arrays.lanes.count * args.parts, backwards,
         [&](int64_t block) { Rows(args, block).Run(Team<Rows::kThreads>{backwards}, *shared); });
}

template <bool kHasFirst>
void EntityBackwardOfAnySize(const EntityBackwardArgs& args, bool backwards) {
  using ToInputs = EntityToInputs<kHasFirst>;
  using Grid = EntityToWeightsGrid;
  const auto shared = SharedMemory<typename ToInputs::Shared>();
  const int64_t blocks = args.arrays.lanes.count * args.parts;
  Blocks(blocks, backwards,
         [&](int64_t block) { ToInputs(args, block).Run(Team<ToInputs::kThreads>{backwards}, *shared); });
  Blocks(blocks * Grid(args.arrays.sizes).per_part(), backwards, [&](int64_t block) {
    Blocks(Grid::kThreads, backwards,
           [&](int64_t thread) { EntityToWeights<kHasFirst>(args, block, static_cast<int>(thread)); });
  });
}

template <bool kHasFirst>
void EntityBackward(const EntityBackwardArgs& args, bool by_rows, bool backwards) {
  const EntitySizes& sizes = args.arrays.sizes;
  if (!by_rows) {
    EntityBackwardOfAnySize<kHasFirst>(args, backwards);
  } else if (sizes.hidden <= 128) {
    EntityBackwardByRows<kHasFirst, 4>(args, backwards);
  } else {
    EntityBackwardByRows<kHasFirst, 8>(args, backwards);
  }
  const auto shared = SharedMemory<EntityAddParts::Shared>();
  Blocks(args.arrays.lanes.count * EntityAddParts::BlocksPerLane(EntitySums(sizes, kHasFirst).size), backwards,
         [&](int64_t block) { EntityAddParts::Run(Team<EntityAddParts::kThreads>{backwards}, args, block, *shared); });
}

struct OneHotCall {
  OneHotSizes sizes;
  int64_t num_axes;
  const int64_t* lanes;  // sizes of those axes
  LaneOperand x, weight, bias, cotangent;

  Lanes AllLanes() const { return LanesOf(lanes, num_axes); }
  template <typename T>
  LaneArray<const T> Of(const LaneOperand& operand, int64_t block) const {
    return ArrayOfLanes(static_cast<const T*>(operand.data), operand.sizes, AllLanes(), block);
  }
  LaneArray<const uint8_t> X() const { return Of<uint8_t>(x, sizes.num_rows * sizes.num_cells); }
  bool IsAligned() const { return sizes.num_hidden % HiddenTiles::kVec == 0; }
};

template <typename Block, typename Args>
void OneHotBlocks(const Args& args, bool backwards) {
  const auto shared = SharedMemory<typename Block::Shared>();
  Blocks(Block::Blocks(args), backwards,
         [&](int64_t block) { Block::Run(Team<Block::kThreads>{backwards}, args, block, *shared); });
}

}  // namespace
}  // namespace pjx

extern "C" {

using namespace pjx;

void weights_of(const float* priorities, int64_t count, uint32_t top_bits, float alpha, int32_t width,
                uint64_t* result) {
  const Weights weights(priorities, top_bits, alpha, width);
  for (int64_t i = 0; i < count; ++i) result[i] = weights(i);
}

bool one_block_suits(int64_t capacity, int64_t num_samples) { return OneLaunch::Suits(capacity, num_samples); }

void sample_one_block(const SampleOperands* operands, int64_t lanes, bool backwards) {
  std::vector<uint8_t> memory(sizeof(OneLaunch::Shared), 0xAB);  // what shared memory holds at first is anything
  auto& shared = *reinterpret_cast<OneLaunch::Shared*>(memory.data());
  Blocks(lanes * OneLaunch::Parts(operands->num_samples), backwards,
         [&](int64_t block) { OneLaunch::Run(Team<OneLaunch::kThreads>{backwards}, *operands, block, shared); });
}

// False if a pass has written outside its scratch memory.
bool sample_many_blocks(const SampleOperands* operands, int64_t lanes, bool backwards) {
  using M = ManyBlocks;
  const SampleOperands& o = *operands;
  const int64_t tiles = M::Tiles(o.capacity), bytes = M::ScratchBytes(lanes, tiles), guard = 64;
  std::vector<uint64_t> memory((bytes + guard) / 8, 0xABABABABABABABAB);
  const M::Scratch scratch = M::Divide(memory.data(), lanes, tiles);
  std::memset(scratch.states, 0, lanes * sizeof(M::State));
  std::vector<uint8_t> shared_memory(sizeof(M::ScanShared) + sizeof(M::TileShared), 0xAB);
  auto& tile_shared = *reinterpret_cast<M::TileShared*>(shared_memory.data());
  auto& scan_shared = *reinterpret_cast<M::ScanShared*>(shared_memory.data());
  Blocks(lanes * M::TopBlocks(o.capacity), backwards,
         [&](int64_t block) { M::FindTop(Team<M::kThreads>{backwards}, o, scratch, block); });
  for (int round = 0; round < M::Rounds(o.capacity); ++round) {
    Blocks(M::SumBlocks(lanes, tiles, round), backwards,
           [&](int64_t block) { M::SumTiles(Team<M::kThreads>{backwards}, o, scratch, block, round, tile_shared); });
    Blocks(lanes, backwards,
           [&](int64_t lane) { M::ScanTiles(Team<M::kScanThreads>{backwards}, o, scratch, lane, round, scan_shared); });
  }
  Blocks(lanes * o.num_samples, backwards, [&](int64_t draw) { M::Draw(Warp{0, backwards}, o, scratch, draw); });
  for (size_t i = bytes / 8; i < memory.size(); ++i) {
    if (memory[i] != 0xABABABABABABABAB) return false;
  }
  return true;
}

void gae_columns(const GaeOperands* operands, int64_t lanes, bool backwards) {
  Blocks(lanes * operands->num_envs, backwards, [&](int64_t column) { GaeColumn(*operands, column); });
}

void recurrence_forward(const RecurrenceSizes* sizes, const void* operands, bool is_bfloat16, bool backwards) {
  (is_bfloat16 ? RecurrenceForward<uint16_t> : RecurrenceForward<float>)(*sizes, operands, backwards);
}

void recurrence_backward(const RecurrenceSizes* sizes, const void* operands, bool is_bfloat16, bool backwards) {
  (is_bfloat16 ? RecurrenceBackward<uint16_t> : RecurrenceBackward<float>)(*sizes, operands, backwards);
}

void mingru_cell(const MingruSizes* sizes, const CellForwardOperands* operands, bool backwards) {
  Blocks(sizes->all_columns(), backwards, [&](int64_t column) { CellForwardColumn(*sizes, *operands, column); });
}

void mingru_cell_backward(const MingruSizes* sizes, const CellBackwardOperands* operands, bool backwards) {
  Blocks(sizes->all_columns(), backwards, [&](int64_t column) { CellBackwardColumn(*sizes, *operands, column); });
}

void one_hot_forward(const OneHotCall* call, float* y, bool backwards) {
  const OneHotSizes& sizes = call->sizes;
  const OneHotForwardArgs args{sizes,
                               call->AllLanes(),
                               call->X(),
                               call->Of<float>(call->weight, sizes.table()),
                               call->Of<float>(call->bias, sizes.num_hidden),
                               y};
  (call->IsAligned() ? OneHotBlocks<OneHotForward<true>, OneHotForwardArgs>
                     : OneHotBlocks<OneHotForward<false>, OneHotForwardArgs>)(args, backwards);
}

void one_hot_backward(const OneHotCall* call, int64_t num_parts, float* dweight, float* dbias, float* sums,
                      bool backwards) {
  const OneHotSizes& sizes = call->sizes;
  const OneHotBackwardArgs args{sizes,
                                call->AllLanes(),
                                num_parts,
                                call->X(),
                                call->Of<float>(call->cotangent, sizes.num_rows * sizes.num_hidden),
                                sums,
                                dweight,
                                dbias};
  (call->IsAligned() ? OneHotBlocks<OneHotPartSums<true>, OneHotBackwardArgs>
                     : OneHotBlocks<OneHotPartSums<false>, OneHotBackwardArgs>)(args, backwards);
  Blocks(args.lanes.count * OneHotAddParts::Size(args), backwards,
         [&](int64_t index) { OneHotAddParts::Run(args, index); });
}

// How many rows a block has, so that a test can tell that they are not one turn's. `passes` over bfloat16 parts; 0: the
// exact kernels, of any size or by rows.
int64_t entity_forward(const EntityCall* call, int64_t passes, float* y, char* winner, bool by_rows, bool backwards) {
  EntityForwardArgs args{call->Arrays(), call->Of<float>(call->bias, call->sizes.hidden), y, winner, {}};
  const bool has_first = call->has_first != 0;
  if (passes == 0 && by_rows) {
    (has_first ? EntityForwardByRows<true> : EntityForwardByRows<false>)(&args, backwards);
  } else {
    (passes == 0   ? has_first ? EntityForward<true> : EntityForward<false>
     : passes == 1 ? has_first ? EntityTensorForward<true, 1> : EntityTensorForward<false, 1>
     : has_first   ? EntityTensorForward<true, 3>
                   : EntityTensorForward<false, 3>)(&args, backwards);
  }
  return args.grid.rows_per_block;
}

bool suits_forward_rows(const EntityCall* call) { return SuitsForwardRows(call->sizes); }
bool suits_tensor_cores(int64_t features, int64_t units) { return SuitsTensorCores({1, 1, features, units, 1}); }

bool suits_backward_rows(const EntityCall* call) { return SuitsBackwardRows(call->sizes); }

// The number of parts; 0 if a pass has written outside its scratch memory.
int64_t entity_backward(const EntityCall* call, char* x_bar, float* weight_bar, float* bias_bar, float* w1_bar,
                        float* b1_bar, bool by_rows, bool backwards) {
  const EntitySizes& sizes = call->sizes;
  const bool has_first = call->has_first != 0;
  const int64_t lanes = LanesOf(call->lanes, call->num_axes).count, size = EntitySums(sizes, has_first).size;
  const int64_t parts = NumEntityParts(sizes, lanes, size), guard = 16;
  std::vector<uint32_t> memory(lanes * parts * size + guard, 0xFFFFFFFF);  // NaN
  const EntityBackwardArgs args{call->Arrays(),
                                call->Of<char>(call->winner, sizes.rows * sizes.hidden * NumberBytes(sizes.entities)),
                                call->Of<float>(call->y_bar, sizes.rows * sizes.hidden),
                                x_bar,
                                weight_bar,
                                bias_bar,
                                w1_bar,
                                b1_bar,
                                reinterpret_cast<float*>(memory.data()),
                                parts};
  (has_first ? EntityBackward<true> : EntityBackward<false>)(args, by_rows, backwards);
  for (int64_t i = lanes * parts * size; i < static_cast<int64_t>(memory.size()); ++i) {
    if (memory[i] != 0xFFFFFFFF) return 0;
  }
  return parts;
}
}
