// What a block of GPU threads does for the environments of its rows (env_blocks.h), one block after the other, as plain
// functions for tests/envs/test_cuda_rows.py: the forms that are compiled for a GPU, and without the x86 levels.
#define PJX_BASELINE_ONLY
#define PJX_GPU_FORMS
#include <memory>

#include "envs/boxoban/params.h"
#include "envs/breakout/params.h"
#include "envs/chain_mdp/params.h"
#include "envs/common/env_blocks.h"
#include "envs/four_rooms/params.h"
#include "envs/g2048/params.h"
#include "envs/maze/params.h"
#include "envs/minigrid/params.h"
#include "envs/minimal/params.h"
#include "envs/password/params.h"

namespace pjx {
namespace {

// Blocks and threads take their turns from the last to the first: no order may matter.
template <typename E>
class OnHost {
 public:
  using Obs = typename E::Obs;

  // Aborts on parameters that the simulator refuses: the test passes valid ones.
  OnHost(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows)
      : blocks_(Open(params, count, num_envs), rows), shared_(new FourWords[kSharedBytes / sizeof(FourWords)]) {
    if (blocks_.layout.BlockBytes() > kSharedBytes || blocks_.WorkBlockBytes() > kSharedBytes) abort();
  }

  void Reset(const uint32_t* keys, uint8_t* states, void* obs) const {
    if (NeedsWork()) {
      EachRow([&](int64_t row) { blocks_.Begin(team_, row, Shared(), keys, states, true, {}); });
      Observe(states, obs);
    } else {
      EachBlock([&](int64_t i) { blocks_.Reset(team_, i, Shared(), keys, states, static_cast<Obs*>(obs)); });
    }
  }
  void Step(const uint32_t* keys, uint8_t* states, const void* of_all, const StepResults& to, void* obs) const {
    const auto* const actions = static_cast<const typename E::Action*>(of_all);
    if (NeedsWork()) {
      EachRow([&](int64_t row) { blocks_.envs.template Step<true>(keys, states, actions, to, row); });
      EachRow([&](int64_t row) { blocks_.Begin(team_, row, Shared(), keys, states, false, to); });
      Observe(states, obs);
    } else {
      EachBlock(
          [&](int64_t i) { blocks_.Step(team_, i, Shared(), keys, states, actions, to, static_cast<Obs*>(obs)); });
    }
  }
  void Observe(const uint8_t* states, void* obs) const {
    EachBlock([&](int64_t i) { blocks_.Observe(team_, i, Shared(), states, static_cast<Obs*>(obs)); });
  }
  void Restore(uint8_t* states, const uint8_t* snapshots, const int32_t* env_ids, int64_t count) const {
    EachRow([&](int64_t i) { blocks_.envs.Restore(states, snapshots, env_ids, count, i); });
  }
  void Stagger(const uint32_t* keys, uint8_t* states) const {
    EachRow([&](int64_t row) { blocks_.envs.Stagger(keys, states, row); });
  }
  void RandomWalk(const uint32_t* keys, uint8_t* states, int64_t num_steps, const WalkMemory& memory,
                  const WalkResults& results) const {
    if (NeedsWork()) {
      Walk<true>(keys, states, num_steps, memory, results);
    } else {
      Walk<false>(keys, states, num_steps, memory, results);
    }
  }
  void Clock(uint8_t* timeless, int32_t* times) const {
    EachRow([&](int64_t row) { blocks_.envs.Clock(timeless, times, row); });
  }

 private:
  template <bool kNeedsWork>
  void Walk(const uint32_t* keys, uint8_t* states, int64_t num_steps, const WalkMemory& memory,
            const WalkResults& results) const {
    if (blocks_.template WalkBlockBytes<kNeedsWork>() > kSharedBytes) abort();
    constexpr int64_t kRows = EnvBlocks<E>::template WalkRows<kNeedsWork>();
    for (int64_t i = (blocks_.rows + kRows - 1) / kRows - 1; i >= 0; --i) {
      blocks_.template Walk<kNeedsWork>(team_, i, Shared(), keys, states, num_steps, memory, results);
    }
  }

  static constexpr int64_t kSharedBytes = 99 * 1024;  // what a block can have on every GPU

  static EnvRows<E> Open(const int64_t* params, int64_t count, int64_t num_envs) {
    EnvRows<E> envs{};
    if (!ParseParams<E>(params, count, &envs.params).empty()) abort();
    envs.num_envs = num_envs, envs.stride = StateBytes<E>(envs.params);
    return envs;
  }
  bool NeedsWork() const {
    if constexpr (contract::kOffers<contract::WorkBytes, E>) return E::WorkBytes(blocks_.envs.params) > 0;
    return false;
  }
  // As a block finds it: with anything in it.
  uint8_t* Shared() const {
    auto* const bytes = reinterpret_cast<uint8_t*>(shared_.get());
    memset(bytes, 0xA5, kSharedBytes);
    return bytes;
  }
  template <typename Body>
  void EachRow(const Body& body) const {
    for (int64_t row = blocks_.rows - 1; row >= 0; --row) body(row);
  }
  template <typename Body>
  void EachBlock(const Body& body) const {
    for (int64_t i = (blocks_.rows + blocks_.kRows - 1) / blocks_.kRows - 1; i >= 0; --i) body(i);
  }

  EnvTeam team_{/*backwards=*/true};
  EnvBlocks<E> blocks_;
  std::unique_ptr<FourWords[]> shared_;
};

}  // namespace
}  // namespace pjx

// The functions of one simulator. `rows` of Restore is the number of snapshots.
#define PJX_ON_HOST(name, E)                                                                                          \
  extern "C" {                                                                                                        \
  void name##_reset(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, const uint32_t* keys,       \
                    uint8_t* states, void* obs) {                                                                     \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).Reset(keys, states, obs);                                      \
  }                                                                                                                   \
  void name##_step(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, const uint32_t* keys,        \
                   uint8_t* states, const void* actions, const pjx::StepResults* results, void* obs) {                \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).Step(keys, states, actions, *results, obs);                    \
  }                                                                                                                   \
  void name##_observe(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, const uint8_t* states,    \
                      void* obs) {                                                                                    \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).Observe(states, obs);                                          \
  }                                                                                                                   \
  void name##_restore(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, uint8_t* states,          \
                      const uint8_t* snapshots, const int32_t* env_ids, int64_t per_lane) {                           \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).Restore(states, snapshots, env_ids, per_lane);                 \
  }                                                                                                                   \
  void name##_stagger(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, const uint32_t* keys,     \
                      uint8_t* states) {                                                                              \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).Stagger(keys, states);                                         \
  }                                                                                                                   \
  void name##_clock(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, uint8_t* timeless,          \
                    int32_t* times) {                                                                                 \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).Clock(timeless, times);                                        \
  }                                                                                                                   \
  void name##_random_walk(const int64_t* params, int64_t count, int64_t num_envs, int64_t rows, const uint32_t* keys, \
                          uint8_t* states, int64_t num_steps, const pjx::WalkMemory* memory,                          \
                          const pjx::WalkResults* results) {                                                          \
    pjx::OnHost<pjx::E>(params, count, num_envs, rows).RandomWalk(keys, states, num_steps, *memory, *results);        \
  }                                                                                                                   \
  }

PJX_ON_HOST(boxoban, Boxoban)
PJX_ON_HOST(breakout, Breakout)
PJX_ON_HOST(breakout_steered, SteeredBreakout)
PJX_ON_HOST(chain_mdp, ChainMdp)
PJX_ON_HOST(four_rooms, FourRooms)
PJX_ON_HOST(g2048, G2048)
PJX_ON_HOST(maze, Maze)
PJX_ON_HOST(minigrid, MiniGrid)
PJX_ON_HOST(minimal, Minimal)
PJX_ON_HOST(password, Password)
