// The bodies of the CUDA kernels as plain functions, for tests/xla_ops/test_cuda_kernels.py: blocks and threads take
// their turns in a loop, forwards or backwards. Nothing here knows what a result should be.
#include <cstring>
#include <vector>

#include "xla_ops/gae_vtrace/column.h"
#include "xla_ops/linear_recurrence/column.h"
#include "xla_ops/prioritized_sample/kernels.h"

namespace pjx {
namespace {

// Calls body(i) for i in [0, count), which no order may change.
template <typename Body>
void Blocks(int64_t count, bool backwards, const Body& body) {
  for (int64_t i = 0; i < count; ++i) body(backwards ? count - 1 - i : i);
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

bool one_block_suits(int64_t capacity, int64_t num_samples) { return OneBlock::Suits(capacity, num_samples); }

void sample_one_block(const SampleOperands* operands, int64_t lanes, bool backwards) {
  std::vector<uint8_t> memory(sizeof(OneBlock::Shared), 0xAB);  // what shared memory holds at first is anything
  auto& shared = *reinterpret_cast<OneBlock::Shared*>(memory.data());
  Blocks(lanes, backwards,
         [&](int64_t lane) { OneBlock::Run(Team<OneBlock::kThreads>{backwards}, *operands, lane, shared); });
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
  for (const bool is_second : {false, true}) {
    Blocks(lanes * tiles, backwards,
           [&](int64_t block) { M::SumTile(Team<M::kThreads>{backwards}, o, scratch, block, is_second, tile_shared); });
    Blocks(lanes, backwards, [&](int64_t lane) {
      M::ScanTiles(Team<M::kScanThreads>{backwards}, o, scratch, lane, is_second, scan_shared);
    });
  }
  Blocks(lanes * o.num_samples, backwards, [&](int64_t draw) { M::Draw(o, scratch, draw); });
  for (size_t i = bytes / 8; i < memory.size(); ++i) {
    if (memory[i] != 0xABABABABABABABAB) return false;
  }
  return true;
}

void gae_columns(const GaeOperands* operands, int64_t lanes, bool backwards) {
  Blocks(lanes * operands->num_envs, backwards, [&](int64_t column) { GaeColumn(*operands, column); });
}

void recurrence_forward(const RecurrenceSizes* sizes, const ForwardOperands* operands, bool backwards) {
  Blocks(sizes->lanes * sizes->columns(), backwards, [&](int64_t i) { ForwardColumn(*sizes, *operands, i); });
}

void recurrence_backward(const RecurrenceSizes* sizes, const BackwardOperands* operands, bool backwards) {
  Blocks(sizes->lanes * sizes->columns(), backwards, [&](int64_t i) { BackwardColumn(*sizes, *operands, i); });
}
}
