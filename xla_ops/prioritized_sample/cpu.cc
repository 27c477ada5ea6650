// prioritized_sample on the CPU: sums of blocks of entries in parallel, one prefix sum over the blocks, then per draw a
// binary search over the blocks and a walk inside one. Everything is integer, so the threads cannot change a result.
#include <memory>
#include <new>

#include "xla_ops/common/ffi.h"
#include "xla_ops/prioritized_sample/weights.h"

namespace pjx {
namespace {

constexpr int64_t kEntriesPerTask = 65536;
constexpr int64_t kDrawsPerTask = 2048;

// With few entries every entry is its own block: their weights are computed once and a draw needs no walk.
int64_t BlockSize(int64_t num_entries) { return num_entries <= 65536 ? 1 : 64; }

int BitLength(uint64_t x) { return x == 0 ? 0 : 64 - __builtin_clzll(x); }

uint32_t TopBits(ffi::ThreadPool& pool, const float* priorities, int64_t size) {
  std::atomic<uint32_t> top{0};
  ParallelFor(pool, size, kEntriesPerTask, [&](int64_t begin, int64_t end) {
    int32_t mine = 0;  // signed: that comparison vectorises
    for (int64_t i = begin; i < end; ++i) {
      mine = std::max(mine, static_cast<int32_t>(Weights::PositiveBits(priorities[i])));
    }
    uint32_t seen = top.load();
    while (seen < static_cast<uint32_t>(mine) && !top.compare_exchange_weak(seen, static_cast<uint32_t>(mine))) {
    }
  });
  return top.load();
}

// prefix[b] = the weight of blocks 0..b; returns the total.
uint64_t PrefixSums(ffi::ThreadPool& pool, const Weights& weights, int64_t size, int64_t block, uint64_t* prefix) {
  const int64_t num_blocks = (size + block - 1) / block;
  ParallelFor(pool, num_blocks, kEntriesPerTask / block, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      uint64_t sum = 0;
      for (int64_t i = b * block; i < std::min(size, (b + 1) * block); ++i) sum += weights(i);
      prefix[b] = sum;
    }
  });
  uint64_t total = 0;
  for (int64_t b = 0; b < num_blocks; ++b) prefix[b] = total += prefix[b];
  return total;
}

// Index of the first prefix above `target`; the last one is. No branches: half would be mispredicted.
int64_t FirstAbove(const uint64_t* prefix, int64_t count, uint64_t target) {
  const uint64_t* base = prefix;
  while (count > 1) {
    const int64_t half = count / 2;
    base += base[half - 1] <= target ? half : 0;
    count -= half;
  }
  return base - prefix;
}

// Uniform on {0, ..., total - 1}.
uint64_t Target(const uint32_t* words, int64_t draw, uint64_t total) {
  const uint64_t random = static_cast<uint64_t>(words[2 * draw]) << 32 | words[2 * draw + 1];
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * total) >> 64);
}

void SampleLane(ffi::ThreadPool& pool, const uint32_t* words, const float* priorities, int64_t size, float alpha,
                int64_t num_samples, uint64_t* prefix, int32_t* indices, float* relative) {
  if (size == 0) {
    std::fill_n(indices, num_samples, 0);
    std::fill_n(relative, num_samples, 1.0f);
    return;
  }
  const uint32_t top_bits = alpha > 0 ? TopBits(pool, priorities, size) : 0;
  if (top_bits == 0) {
    for (int64_t k = 0; k < num_samples; ++k) {
      indices[k] = static_cast<int32_t>(Target(words, k, static_cast<uint64_t>(size)));
      relative[k] = 1.0f;
    }
    return;
  }
  // `size` weights below 2^width sum to less than 2^62.
  Weights weights(priorities, top_bits, alpha, 62 - BitLength(static_cast<uint64_t>(size - 1)));
  const int64_t block = BlockSize(size);
  uint64_t total = PrefixSums(pool, weights, size, block, prefix);
  // Each weight is rounded by less than one unit. Where that could move 2^-30 of the probability (a spike among a great
  // many), use the bits that the small sum left free; 2^spare * (total + size) bounds the new sum.
  if (total < static_cast<uint64_t>(size) << 30) {
    weights.width += 62 - BitLength(total + static_cast<uint64_t>(size));
    total = PrefixSums(pool, weights, size, block, prefix);
  }
  const int64_t num_blocks = (size + block - 1) / block;
  const double scale = static_cast<double>(size) / static_cast<double>(total);
  ParallelFor(pool, num_samples, kDrawsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const uint64_t target = Target(words, k, total);
      const int64_t b = FirstAbove(prefix, num_blocks, target);
      uint64_t before = b == 0 ? 0 : prefix[b - 1];
      int64_t index = b * block;
      uint64_t weight = block == 1 ? prefix[b] - before : weights(index);
      while (target - before >= weight) {
        before += weight;
        weight = weights(++index);
      }
      indices[k] = static_cast<int32_t>(index);
      relative[k] = static_cast<float>(static_cast<double>(weight) * scale);
    }
  });
}

ffi::Error PrioritizedSampleCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> words, ffi::Buffer<ffi::F32> priorities,
                                ffi::Buffer<ffi::S32> size, ffi::Buffer<ffi::F32> alpha,
                                ffi::ResultBuffer<ffi::S32> indices, ffi::ResultBuffer<ffi::F32> relative) {
  const auto dims = priorities.dimensions();
  if (dims.size() < 1) return InvalidArgument("prioritized_sample: priorities must be [..., M], got a scalar");
  const auto word_dims = words.dimensions();
  if (word_dims.size() < 2 || word_dims[word_dims.size() - 1] != 2) {
    return InvalidArgument("prioritized_sample: words must be [..., K, 2], got ", ShapeText(word_dims));
  }
  const int64_t lanes = LeadingSize(dims, 1), capacity = dims[dims.size() - 1];
  const int64_t num_samples = word_dims[word_dims.size() - 2];
  for (const auto& [name, count, expected] :
       {std::tuple{"words", words.element_count(), lanes * num_samples * 2},
        std::tuple{"size", size.element_count(), lanes}, std::tuple{"alpha", alpha.element_count(), lanes},
        std::tuple{"indices", indices->element_count(), lanes * num_samples},
        std::tuple{"relative", relative->element_count(), lanes * num_samples}}) {
    if (static_cast<int64_t>(count) != expected) {
      return InvalidArgument("prioritized_sample: ", name, " has ", count, " elements, expected ", expected,
                             " for priorities of shape ", ShapeText(dims));
    }
  }
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int32_t n = size.typed_data()[lane];
    const float a = alpha.typed_data()[lane];
    if (n < 0 || n > capacity) {
      return InvalidArgument("prioritized_sample: size must be in [0, ", capacity, "], got ", n);
    }
    if (!(a >= 0 && a <= 3.4028235e38f)) {
      return InvalidArgument("prioritized_sample: alpha must be a finite number >= 0, got ", a);
    }
  }
  const int64_t lane_blocks = capacity / BlockSize(capacity) + 1;
  // As many as the longest prefix needs: a lane of fewer entries may use smaller blocks.
  const int64_t lane_prefix = std::max(lane_blocks, std::min<int64_t>(capacity, 65536));
  // Not XLA's scratch allocator: the CPU backend of jax 0.10 has none.
  const std::unique_ptr<uint64_t[]> prefix(new (std::nothrow) uint64_t[static_cast<size_t>(lanes * lane_prefix)]);
  if (prefix == nullptr) return ffi::Error(ffi::ErrorCode::kResourceExhausted, "prioritized_sample: out of memory");
  ParallelFor(
      pool, lanes, /*grain=*/kEntriesPerTask / (capacity + 16 * num_samples + 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t lane = begin; lane < end; ++lane) {
          SampleLane(pool, words.typed_data() + lane * num_samples * 2, priorities.typed_data() + lane * capacity,
                     size.typed_data()[lane], alpha.typed_data()[lane], num_samples, prefix.get() + lane * lane_prefix,
                     indices->typed_data() + lane * num_samples, relative->typed_data() + lane * num_samples);
        }
      });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(PrioritizedSample, PrioritizedSampleCpu,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
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
