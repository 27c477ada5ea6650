// The bodies of the CUDA kernels that use shared memory, one thread of the host for each of the GPU's, for `make
// sanitize`: ThreadSanitizer reports what a missing barrier would let happen on the GPU. The result must be that of the
// same body with its threads taking turns.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "xla_ops/linear_max/backward_kernels.h"
#include "xla_ops/linear_max/backward_rows.h"
#include "xla_ops/linear_max/forward_kernel.h"
#include "xla_ops/linear_max/forward_rows.h"
#include "xla_ops/linear_max/tensor_kernel.h"
#include "xla_ops/one_hot_linear/kernels.h"
#include "xla_ops/prioritized_sample/kernels.h"

namespace pjx {
namespace {

thread_local int thread_index;

// A Team whose phases really run side by side.
template <int kNumThreads>
class Threads {
 public:
  static constexpr int kThreads = kNumThreads;

  Threads() { pthread_barrier_init(&barrier_, nullptr, kThreads); }
  ~Threads() { pthread_barrier_destroy(&barrier_); }

  template <typename Phase>
  void Each(const Phase& phase) const {
    phase(thread_index);
    pthread_barrier_wait(&barrier_);
  }
  // A warp's lanes take turns in its first thread.
  template <typename Body>
  void EachWarp(const Body& body) const {
    if (thread_index % Warp::kLanes == 0) body(Warp{thread_index / Warp::kLanes});
    pthread_barrier_wait(&barrier_);
  }
  void Max(uint32_t* cell, uint32_t value) const {
    uint32_t seen = __atomic_load_n(cell, __ATOMIC_RELAXED);
    while (seen < value && !__atomic_compare_exchange_n(cell, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
  }
  void Raise(uint32_t* cell, uint32_t value) const { Max(cell, value); }
  void Or(uint32_t* cell, uint32_t value) const { __atomic_fetch_or(cell, value, __ATOMIC_RELAXED); }

  // Calls body(*this) in every thread.
  template <typename Body>
  void Run(const Body& body) const {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([this, &body, i] {
        thread_index = i;
        body(*this);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  mutable pthread_barrier_t barrier_;
};

struct Sample {
  std::vector<uint32_t> words;
  std::vector<float> priorities;
  int32_t size;
  float alpha = 1.0f;
  std::vector<int32_t> indices;
  std::vector<float> relative;
  SampleOperands operands;

  // A spike beside very small priorities: from 65,536 entries on the weights need the second width.
  Sample(int64_t capacity, int64_t num_samples)
      : words(2 * num_samples),
        priorities(capacity, 2e-14f),
        size(static_cast<int32_t>(capacity)),
        indices(num_samples),
        relative(num_samples) {
    for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint32_t>(i * 2654435769u);
    priorities[capacity / 3] = 1.0f;
    operands = {words.data(), priorities.data(), &size, &alpha, indices.data(), relative.data(), capacity, num_samples};
  }
};

void Expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "race_kernels: %s differs\n", what);
  std::exit(1);
}

void OneLaunch() {
  Sample taking_turns(2500, 1500), side_by_side(2500, 1500);
  OneLaunch::Shared shared;
  OneLaunch::Run(Team<OneLaunch::kThreads>{}, taking_turns.operands, 0, shared);
  Threads<OneLaunch::kThreads>().Run([&](const auto& team) { OneLaunch::Run(team, side_by_side.operands, 0, shared); });
  Expect(taking_turns.indices == side_by_side.indices, "the one-launch draw");
}

void ManyLaunches() {
  using M = ManyBlocks;
  Sample sample(70'001, 1);
  const int64_t tiles = M::Tiles(sample.size), bytes = M::ScratchBytes(1, tiles);
  std::vector<uint64_t> memory[2] = {std::vector<uint64_t>(bytes / 8), std::vector<uint64_t>(bytes / 8)};
  const M::Scratch turns = M::Divide(memory[0].data(), 1, tiles), beside = M::Divide(memory[1].data(), 1, tiles);
  M::TileShared tile_shared;
  M::ScanShared scan_shared;
  for (int64_t i = 0; i < M::TopBlocks(sample.size); ++i) {
    M::FindTop(Team<M::kThreads>{}, sample.operands, turns, i);
    Threads<M::kThreads>().Run([&](const auto& team) { M::FindTop(team, sample.operands, beside, i); });
  }
  for (int round = 0; round < M::Rounds(sample.size); ++round) {
    for (int64_t block = 0; block < M::SumBlocks(1, tiles, round); ++block) {
      M::SumTiles(Team<M::kThreads>{}, sample.operands, turns, block, round, tile_shared);
      Threads<M::kThreads>().Run(
          [&](const auto& team) { M::SumTiles(team, sample.operands, beside, block, round, tile_shared); });
    }
    M::ScanTiles(Team<M::kScanThreads>{}, sample.operands, turns, 0, round, scan_shared);
    Threads<M::kScanThreads>().Run(
        [&](const auto& team) { M::ScanTiles(team, sample.operands, beside, 0, round, scan_shared); });
  }
  Expect(turns.states->round == 1, "the case: it does not reach the second sums, so it");
  Expect(memory[0] == memory[1], "the scratch memory of many launches");
}

// A row of entities more than a block has at once, in more than one tile; up to 18 units: these and features then come
// in two chunks.
template <bool kHasFirst>
struct EntityOperands {
  EntitySizes sizes;
  std::vector<float> x = Numbers(5 * 20 * 18), w1 = Numbers(17 * 18), weight = Numbers(18 * 40), row = Numbers(5 * 40);
  std::vector<char> winner = std::vector<char>(5 * 40);
  std::vector<float> y = row, x_bar = x, weight_bar = weight, bias_bar = row, w1_bar = w1, b1_bar = row, sums;

  explicit EntityOperands(int64_t units) : sizes{5, 20, kHasFirst ? units - 1 : units, units, 40} {}

  static std::vector<float> Numbers(int64_t count) {
    std::vector<float> numbers(count);
    for (int64_t i = 0; i < count; ++i) numbers[i] = static_cast<float>(i * 2654435769u % 1000) / 500 - 1;
    return numbers;
  }
  template <typename T>
  static LaneArray<const T> Of(const void* data) {
    return {static_cast<const T*>(data), {}};
  }
  EntityArrays Arrays() const {
    return {sizes,
            LanesOf(nullptr, 0),
            Of<char>(x.data()),
            /*is_bfloat16=*/0,
            kHasFirst,
            Of<bool>(nullptr),
            Of<float>(kHasFirst ? w1.data() : nullptr),
            Of<float>(kHasFirst ? row.data() : nullptr),
            Of<float>(weight.data())};
  }
  EntityForwardArgs Forward(int64_t warps_per_row) {
    EntityForwardArgs args{Arrays(), Of<float>(row.data()), y.data(), winner.data(), {}};
    PlanForward(&args);
    const int64_t rows = EntityForwardGrid::kRows / warps_per_row;
    if (warps_per_row > 1) args.grid = {rows, (sizes.rows + rows - 1) / rows, 1, warps_per_row};
    return args;
  }
  EntityBackwardArgs Backward() {
    const int64_t parts = 2;
    sums.assign(parts * EntitySums(sizes, kHasFirst).size, 0.5f);
    return {Arrays(),
            Of<char>(winner.data()),
            Of<float>(row.data()),
            reinterpret_cast<char*>(x_bar.data()),
            weight_bar.data(),
            bias_bar.data(),
            w1_bar.data(),
            b1_bar.data(),
            sums.data(),
            parts};
  }
};

template <typename Forward, typename Operands>
void EntitiesForward(Operands* turns, Operands* beside, const char* what, int64_t warps_per_row = 1) {
  typename Forward::Shared shared;
  const EntityForwardArgs one = turns->Forward(warps_per_row), other = beside->Forward(warps_per_row);
  for (int64_t block = 0; block < one.blocks(); ++block) {
    Forward(one, block).Run(Team<Forward::kThreads>{}, shared);
    Threads<Forward::kThreads>().Run([&](const auto& team) { Forward(other, block).Run(team, shared); });
  }
  Expect(turns->y == beside->y && turns->winner == beside->winner, what);
}

template <typename Backward, typename Operands>
void EntitiesBackward(Operands* turns, Operands* beside, const char* what) {
  const EntityBackwardArgs one = turns->Backward(), other = beside->Backward();
  const auto shared = std::make_unique<typename Backward::Shared>();
  for (int64_t block = 0; block < one.parts; ++block) {
    Backward(one, block).Run(Team<Backward::kThreads>{}, *shared);
    Threads<Backward::kThreads>().Run([&](const auto& team) { Backward(other, block).Run(team, *shared); });
  }
  Expect(turns->x_bar == beside->x_bar && turns->sums == beside->sums, what);
}

template <bool kHasFirst>
void Entities() {
  EntityOperands<kHasFirst> small_turns(kTensorDepth), small_beside(kTensorDepth), turns(18), beside(18);
  EntitiesForward<EntityTensorBlock<kHasFirst, 3, true>>(&small_turns, &small_beside, "the maximum by tensor cores");
  EntitiesForward<EntityTensorBlock<kHasFirst, 1, true>>(&small_turns, &small_beside, "the maximum of a shared row", 2);
  EntitiesForward<EntityForwardRows<kHasFirst, true>>(&small_turns, &small_beside, "the maximum by rows");
  EntitiesForward<EntityForwardBlock<kHasFirst, 16, true>>(&turns, &beside, "the maximum over entities");
  EntitiesBackward<EntityBackwardRows<kHasFirst, 4>>(&small_turns, &small_beside, "the cotangents by rows");
  EntitiesBackward<EntityToInputs<kHasFirst>>(&turns, &beside, "the cotangents of entities");
  const EntityBackwardArgs one = turns.Backward(), other = beside.Backward();
  EntityAddParts::Shared parts_shared;
  EntityAddParts::Run(Team<EntityAddParts::kThreads>{}, one, 0, parts_shared);
  Threads<EntityAddParts::kThreads>().Run([&](const auto& team) { EntityAddParts::Run(team, other, 0, parts_shared); });
  Expect(turns.weight_bar == beside.weight_bar, "the sums of parts");
}

// More cells than a list of forward has, more rows than a block of backward has at once.
struct OneHot {
  OneHotSizes sizes{150, 140, 3, 68};
  std::vector<uint8_t> x = std::vector<uint8_t>(sizes.num_rows * sizes.num_cells);
  std::vector<float> weight = std::vector<float>(sizes.table()), row = std::vector<float>(sizes.num_rows * 68);
  std::vector<float> y = row, dweight = weight, dbias = std::vector<float>(68);
  std::vector<float> sums = std::vector<float>((sizes.table() + 68) * 2);

  OneHot() {
    for (size_t i = 0; i < x.size(); ++i) x[i] = i * 2654435769u >> 7 & 3;
    for (size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<float>(i % 1000) / 500 - 1;
    for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 999) / 500 - 1;
  }
  template <typename T>
  static LaneArray<const T> Of(const std::vector<T>& data) {
    return {data.data(), {}};
  }
  OneHotForwardArgs Forward() { return {sizes, LanesOf(nullptr, 0), Of(x), Of(weight), Of(row), y.data()}; }
  OneHotBackwardArgs Backward() {
    return {sizes, LanesOf(nullptr, 0), 2, Of(x), Of(row), sums.data(), dweight.data(), dbias.data()};
  }
};

template <typename Block, typename Args>
void OneHotBlocks(const Args& turns, const Args& beside) {
  const auto shared = std::make_unique<typename Block::Shared>();
  for (int64_t block = 0; block < Block::Blocks(turns); block += 7) {
    Block::Run(Team<Block::kThreads>{}, turns, block, *shared);
    Threads<Block::kThreads>().Run([&](const auto& team) { Block::Run(team, beside, block, *shared); });
  }
}

void OneHotLayer() {
  OneHot turns, beside;
  OneHotBlocks<OneHotForward<true>>(turns.Forward(), beside.Forward());
  Expect(turns.y == beside.y, "the one-hot layer");
  OneHotBlocks<OneHotPartSums<true>>(turns.Backward(), beside.Backward());
  Expect(turns.sums == beside.sums, "the gradient of the one-hot layer");
}

}  // namespace
}  // namespace pjx

int main() {
  pjx::OneLaunch();
  pjx::ManyLaunches();
  pjx::OneHotLayer();
  pjx::Entities<true>();
  pjx::Entities<false>();
  std::printf("race_kernels: no findings\n");
  return 0;
}
