// prioritized_sample on the CPU: sums of blocks of entries in parallel, one prefix sum over the blocks, then per draw a
// binary search over the blocks and a walk inside one. Everything is integer, so the threads cannot change a result.
#include <memory>
#include <new>

#include "xla_ops/common/simd.h"
#include "xla_ops/prioritized_sample/handlers.h"

namespace pjx {
namespace {

constexpr int64_t kEntriesPerTask = 65536;
constexpr int64_t kDrawsPerTask = 2048;

constexpr int64_t kBlock = 64;

// With few entries every entry is its own block: their weights are computed once and a draw needs no walk. A walk over
// powers costs each draw dozens of them, more than the misses of a search among many more blocks.
constexpr int64_t kMostBlocks = 65536, kMostPowers = 1 << 20;
int64_t BlockSize(int64_t num_entries, bool linear) {
  return num_entries <= (linear ? kMostBlocks : kMostPowers) ? 1 : kBlock;
}

PJX_KERNEL(LargestBits, (const float* priorities, int64_t size), {
  int32_t largest = 0;  // signed: that comparison vectorises
  for (int64_t i = 0; i < size; ++i) {
    largest = std::max(largest, static_cast<int32_t>(Weights::PositiveBits(priorities[i])));
  }
  return largest;
})

template <bool kLinear>
PJX_INLINE void WeighAs(const Weights& shared, const float* priorities, int64_t size, uint64_t* result) {
  const Weights weights = shared;  // a copy that nothing else can change
  for (int64_t i = 0; i < size; ++i) result[i] = weights.OfBits<kLinear>(Weights::PositiveBits(priorities[i]));
}
PJX_KERNEL(Weigh, (const Weights& weights, const float* priorities, int64_t size, uint64_t* result), {
  if (weights.is_linear()) {
    WeighAs<true>(weights, priorities, size, result);
  } else {
    WeighAs<false>(weights, priorities, size, result);
  }
})

uint32_t TopBits(ffi::ThreadPool& pool, const float* priorities, int64_t size) {
  std::atomic<uint32_t> top{0};
  ParallelFor(pool, size, kEntriesPerTask, [&](int64_t begin, int64_t end) {
    const int32_t mine = LargestBits(priorities + begin, end - begin);
    uint32_t seen = top.load();
    while (seen < static_cast<uint32_t>(mine) && !top.compare_exchange_weak(seen, static_cast<uint32_t>(mine))) {
    }
  });
  return top.load();
}

// prefix[b] = the weight of blocks 0..b; returns the total.
uint64_t PrefixSums(ffi::ThreadPool& pool, const Weights& weights, const float* priorities, int64_t size, int64_t block,
                    uint64_t* prefix) {
  const int64_t num_blocks = (size + block - 1) / block;
  ParallelFor(pool, num_blocks, kEntriesPerTask / block, [&](int64_t begin, int64_t end) {
    if (block == 1) return Weigh(weights, priorities + begin, end - begin, prefix + begin);
    for (int64_t b = begin; b < end; ++b) {
      uint64_t own[kBlock], sum = 0;
      const int64_t count = std::min(block, size - b * block);
      Weigh(weights, priorities + b * block, count, own);
      for (int64_t i = 0; i < count; ++i) sum += own[i];
      prefix[b] = sum;
    }
  });
  uint64_t total = 0;
  for (int64_t b = 0; b < num_blocks; ++b) prefix[b] = total += prefix[b];
  return total;
}

constexpr int kBatch = 8;

void RunLane(ffi::ThreadPool& pool, const SampleLane& lane, int64_t num_samples, uint64_t* prefix) {
  const int64_t size = lane.size;
  const uint32_t top_bits = lane.alpha > 0 ? TopBits(pool, lane.priorities, size) : 0;
  if (top_bits == 0) {
    for (int64_t k = 0; k < num_samples; ++k) lane.Write(k, DrawUniform(lane.words, k, size));
    return;
  }
  Weights weights(lane.priorities, top_bits, lane.alpha, FirstWidth(size));
  const int64_t block = BlockSize(size, weights.is_linear());
  uint64_t total = PrefixSums(pool, weights, lane.priorities, size, block, prefix);
  if (NeedsMoreWidth(total, size)) {
    weights.SetWidth(SecondWidth(weights.width(), total, size));
    total = PrefixSums(pool, weights, lane.priorities, size, block, prefix);
  }
  const int64_t num_blocks = (size + block - 1) / block;
  const double scale = Scale(size, total);
  ParallelFor(pool, num_samples, kDrawsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kBatch) {
      uint64_t targets[kBatch] = {};
      int64_t found[kBatch];
      const int64_t count = std::min<int64_t>(kBatch, end - first);
      for (int64_t j = 0; j < count; ++j) targets[j] = Target(lane.words, first + j, total);
      FirstAbove<kBatch>(prefix, num_blocks, targets, found);
      for (int64_t j = 0; j < count; ++j) {
        const int64_t b = found[j];
        const uint64_t before = b == 0 ? 0 : prefix[b - 1];
        // A block of one entry needs no second look at its priority.
        lane.Write(first + j, block == 1 ? DrawnEntry(b, prefix[b] - before, scale)
                                         : Walk(weights, b * block, targets[j] - before, scale));
      }
    }
  });
}

ffi::Error RunOnPool(ffi::ThreadPool& pool, const SampleOperands& operands, int64_t lanes) {
  const int64_t capacity = operands.capacity, num_samples = operands.num_samples;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int32_t size = operands.size[lane];
    const float alpha = operands.alpha[lane];
    if (size < 0 || size > capacity) {
      return InvalidArgument("prioritized_sample: size must be in [0, ", capacity, "], got ", size);
    }
    if (!(alpha >= 0 && alpha <= 3.4028235e38f)) {
      return InvalidArgument("prioritized_sample: alpha must be a finite number >= 0, got ", alpha);
    }
  }
  // As many as the longest prefix needs: a lane of fewer entries may use smaller blocks.
  const int64_t lane_prefix = std::max(capacity / kBlock + 1, std::min(capacity, kMostPowers));
  // Not XLA's scratch allocator: the CPU backend of jax 0.10 has none.
  const std::unique_ptr<uint64_t[]> prefix(new (std::nothrow) uint64_t[static_cast<size_t>(lanes * lane_prefix)]);
  if (prefix == nullptr) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "prioritized_sample: out of memory");
  const int64_t grain = kEntriesPerTask / (capacity + 16 * num_samples + 1) + 1;
  ParallelFor(pool, lanes, grain, [&](int64_t begin, int64_t end) {
    for (int64_t lane = begin; lane < end; ++lane) {
      RunLane(pool, SampleLane(operands, lane), num_samples, prefix.get() + lane * lane_prefix);
    }
  });
  return ffi::Error::Success();
}

PJX_REGISTER("pufferjax.prioritized_sample", HandlerOf<PrioritizedSample<RunOnPool, ffi::ThreadPool>>);

}  // namespace
}  // namespace pjx
