// How many of the rewards of successive steps a native random walk counts.
#include "envs/common/reward_vote.h"

extern "C" int64_t CountRewards(const float* rewards, int64_t size) {
  pjx::RewardVote vote;
  int64_t count = 0;
  for (int64_t t = 0; t < size; ++t) count += vote.Counts(rewards[t], t);
  return count;
}
