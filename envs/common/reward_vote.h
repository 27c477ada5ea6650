// What a random walk takes for a reward: one above zero, or of the others a rare one that differs from the usual one. A
// game whose every step has a reward, now this one and now that, has not met anything yet.
#pragma once

#include "xla_ops/common/host_device.h"

namespace pjx {

// Of one environment's rewards. The usual one is found by majority vote (Boyer and Moore) among those at most zero; its
// count of votes is made of the steps since it was elected and of the votes against it.
class RewardVote {
 public:
  // Whether the reward of step `t`, counted from 0, is one.
  PJX_HD bool Counts(float reward, int64_t t) {
    if (reward > 0.0f) return true;
    if (!(reward < usual_ || reward > usual_)) return false;
    if (t > 0) ++unlike_;
    const bool is_rare = t > 0 && kRare * unlike_ <= t - since_;
    if (t == 0 || 2 * unlike_ > t - since_) {
      usual_ = reward;
      since_ = t;
      unlike_ = 0;
    }
    return is_rare;
  }

 private:
  static constexpr int64_t kRare = 16;  // steps since the election for each reward unlike it, this one included

  float usual_ = 0.0f;
  int64_t since_ = 0;   // the step it was elected in
  int64_t unlike_ = 0;  // rewards since then, at most zero, that were others
};

}  // namespace pjx
