// One draw, given prefix sums of the weights of blocks of entries: a search over the blocks, then a walk inside one.
// Which entry comes out depends on the random bits and the total alone, not on how the entries are cut into blocks.
#pragma once

#include "xla_ops/prioritized_sample/weights.h"

namespace pjx {

struct Drawn {
  int32_t index;
  float relative;  // size * probability
};

// Uniform on {0, ..., total - 1}, from the 64 random bits of a draw.
PJX_HD uint64_t Target(const uint32_t* words, int64_t draw, uint64_t total) {
  const uint64_t random = static_cast<uint64_t>(words[2 * draw]) << 32 | words[2 * draw + 1];
#ifdef __CUDA_ARCH__
  return __umul64hi(random, total);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * total) >> 64);
#endif
}

// found[j] = index of the first of `count` >= 1 prefix sums above targets[j]; the last one is. A batch of searches
// advances in step, without branches, so that the waits for memory overlap and nothing is mispredicted.
template <int kBatch>
PJX_HD void FirstAbove(const uint64_t* prefix, int64_t count, const uint64_t* targets, int64_t* found) {
  for (int j = 0; j < kBatch; ++j) found[j] = 0;
  while (count > 1) {
    const int64_t half = count / 2;
    for (int j = 0; j < kBatch; ++j) {
      found[j] += half & -static_cast<int64_t>(prefix[found[j] + half - 1] <= targets[j]);
    }
    count -= half;
  }
}

// Finds the block of `*target`, which becomes the distance from that block's beginning.
PJX_HD int64_t TakeBlock(const uint64_t* prefix, int64_t count, uint64_t* target) {
  int64_t found;
  FirstAbove<1>(prefix, count, target, &found);
  if (found > 0) *target -= prefix[found - 1];
  return found;
}

PJX_HD Drawn DrawnEntry(int64_t index, uint64_t weight, double scale) {
  return {static_cast<int32_t>(index), static_cast<float>(static_cast<double>(weight) * scale)};
}

// The entry at distance `target` from the beginning of entry `index`; `weights(i)` is the weight of entry i, `scale`
// size / total.
template <typename WeightOf>
PJX_HD Drawn Walk(const WeightOf& weights, int64_t index, uint64_t target, double scale) {
  uint64_t weight = weights(index);
  while (target >= weight) {
    target -= weight;
    weight = weights(++index);
  }
  return DrawnEntry(index, weight, scale);
}

PJX_HD double Scale(int64_t size, uint64_t total) { return static_cast<double>(size) / static_cast<double>(total); }

// Where no entry has a weight: all are alike.
PJX_HD Drawn DrawUniform(const uint32_t* words, int64_t draw, int64_t size) {
  return {static_cast<int32_t>(Target(words, draw, static_cast<uint64_t>(size))), 1.0f};
}

}  // namespace pjx
