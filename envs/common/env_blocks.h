// What a block of GPU threads does for the environments of 32 rows, one each: env_rows.h, and their observations
// written together. Bodies over a Team (team.h), so that a test runs them without a GPU.
#pragma once

#include "envs/common/env_rows.h"
#include "envs/common/random_walk.h"
#include "xla_ops/common/team.h"

namespace pjx {

// A warp: few rows spread over many multiprocessors.
using EnvTeam = Team<32>;

// How the observations of a block's rows lie in its shared memory, before all threads together write them to where they
// belong: a thread by itself would write a few bytes here and a few there. A row of an even number of words is followed
// by an unused one, so that no two threads meet in a bank.
struct ObsLayout {
  int32_t bytes, pitch;  // of a row's observation; from one row to the next
  PJX_HD explicit ObsLayout(int64_t size)
      : bytes(static_cast<int32_t>(size)), pitch(bytes % 8 == 0 ? bytes + 4 : bytes) {}
  PJX_HD int64_t BlockBytes() const { return (static_cast<int64_t>(EnvTeam::kThreads) * pitch + 15) / 16 * 16; }
};

struct alignas(16) FourWords {
  uint32_t words[4];
};

template <typename E>
struct EnvBlocks {
  using Obs = typename E::Obs;
  static constexpr int kRows = EnvTeam::kThreads;

  EnvRows<E> envs;
  int64_t rows;  // of all lanes
  ObsLayout layout;

  PJX_HD EnvBlocks(const EnvRows<E>& of_envs, int64_t num_rows)
      : envs(of_envs), rows(num_rows), layout(envs.ObsSize() * static_cast<int64_t>(sizeof(Obs))) {}

  // `shared` is of layout.BlockBytes(), 16-byte aligned; so is `obs`, that of all rows.
  PJX_HD void Observe(const EnvTeam& team, int64_t block, uint8_t* shared, const uint8_t* states, Obs* obs) const {
    team.Each([&](int lane) {
      const int64_t row = block * kRows + lane;
      if (row < rows) envs.Observe(states, reinterpret_cast<Obs*>(shared + lane * layout.pitch), row);
    });
    const int64_t left = rows - block * kRows;
    const auto count = static_cast<int32_t>(left < kRows ? left : kRows);
    uint8_t* const out = reinterpret_cast<uint8_t*>(obs) + block * kRows * layout.bytes;
    team.Each([&](int lane) {
      if (layout.pitch == layout.bytes) {
        CopyPacked(out, shared, count * layout.bytes, lane);
      } else {
        CopyPadded(out, shared, count * layout.bytes, lane);
      }
    });
  }

  PJX_HD void Reset(const EnvTeam& team, int64_t block, uint8_t* shared, const uint32_t* keys, uint8_t* states,
                    Obs* obs) const {
    team.Each([&](int lane) {
      const int64_t row = block * kRows + lane;
      if (row >= rows) return;
      Philox random = envs.Stream(keys, row);
      envs.Reset(envs.At(states, row), random, nullptr);
    });
    Observe(team, block, shared, states, obs);
  }

  PJX_HD void Step(const EnvTeam& team, int64_t block, uint8_t* shared, const uint32_t* keys, uint8_t* states,
                   const typename E::Action* actions, const StepResults& results, Obs* obs) const {
    team.Each([&](int lane) {
      const int64_t row = block * kRows + lane;
      if (row < rows) envs.template Step<false>(keys, states, actions, results, row);
    });
    Observe(team, block, shared, states, obs);
  }

  // --- simulators whose Reset needs working memory: a block for one row, whose first thread has it in shared memory
  PJX_HD int64_t WorkBlockBytes() const {
    if constexpr (contract::kOffers<contract::WorkBytes, E>) return envs.stride + E::WorkBytes(envs.params);
    return envs.stride;
  }

  // Begins the episode of `row`, if `results` or `all` say so.
  PJX_HD void Begin(const EnvTeam& team, int64_t row, uint8_t* shared, const uint32_t* keys, uint8_t* states, bool all,
                    const StepResults& results) const {
    if (!all && !results.template HasEnded<E::kNumAgents>(row)) return;
    uint8_t* const state = states + row * envs.stride;
    team.Each([&](int lane) { CopyRow(shared, state, lane); });
    team.Each([&](int lane) {
      if (lane != 0) return;
      Philox random = envs.Stream(keys, row);
      envs.Reset(*reinterpret_cast<typename E::State*>(shared), random, shared + envs.stride);
    });
    team.Each([&](int lane) { CopyRow(state, shared, lane); });
  }

  // --- random walks: a thread for a row, whose state is in shared memory; one for each block where Reset needs work
  template <bool kNeedsWork>
  PJX_HD static constexpr int WalkRows() {
    return kNeedsWork ? 1 : kRows;
  }
  template <bool kNeedsWork>
  PJX_HD int64_t WalkBlockBytes() const {
    return kNeedsWork ? WorkBlockBytes() : kRows * WalkPitch();
  }

  // A row that is no state stays as it is, and was rewarded -1 times.
  template <bool kNeedsWork>
  PJX_HD void Walk(const EnvTeam& team, int64_t block, uint8_t* shared, const uint32_t* keys, uint8_t* states,
                   int64_t num_steps, const WalkMemory& memory, const WalkResults& results) const {
    using State = typename E::State;
    team.Each([&](int lane) {
      const int64_t row = block * WalkRows<kNeedsWork>() + lane;
      if (lane >= WalkRows<kNeedsWork>() || row >= rows) return;
      uint8_t* const own = shared + lane * WalkPitch();
      State& s = *reinterpret_cast<State*>(own);
      CopyWords(own, states + row * envs.stride, envs.stride);
      if (!E::IsSafe(s, envs.params)) {
        results.counts[row] = 0, results.rewarded[row] = -1;
        return;
      }
      const int64_t kept = memory.capacity * envs.stride;
      Walker<E> walker(&s, envs.Stream(keys, row), results.rings + row * kept, results.snapshots + row * kept);
      void* const work = kNeedsWork ? own + envs.stride : nullptr;
      WalkAbreast(envs.params, envs.stride, &walker, 1, num_steps, memory,
                  [&](State& state, Philox& random) { envs.Reset(state, random, work); });
      results.counts[row] = walker.count, results.rewarded[row] = walker.rewarded;
      CopyWords(states + row * envs.stride, own, envs.stride);
    });
  }

 private:
  // Of rows in shared memory: an odd number of words, so that no two threads meet in a bank.
  PJX_HD int64_t WalkPitch() const { return envs.stride % 8 == 0 ? envs.stride + 4 : envs.stride; }

  PJX_HD void CopyRow(uint8_t* to, const uint8_t* from, int lane) const {
    for (int64_t i = 4 * lane; i < envs.stride; i += 4 * kRows) CopyWords(to + i, from + i, 4);
  }

  PJX_HD void CopyPacked(uint8_t* out, const uint8_t* shared, int32_t total, int lane) const {
    const int32_t whole = total / 16 * 16;
    for (int32_t i = 16 * lane; i < whole; i += 16 * kRows) {
      *reinterpret_cast<FourWords*>(out + i) = *reinterpret_cast<const FourWords*>(shared + i);
    }
    for (int32_t i = whole + lane; i < total; i += kRows) out[i] = shared[i];
  }

  // Word by word; `row` and `word` say where it is, without a division for each.
  PJX_HD void CopyPadded(uint8_t* out, const uint8_t* shared, int32_t total, int lane) const {
    const int32_t words = layout.bytes / 4;
    int32_t row = lane / words, word = lane % words;
    for (int32_t i = 4 * lane; i < total; i += 4 * kRows) {
      CopyWords(out + i, shared + row * layout.pitch + 4 * word, 4);
      row += kRows / words, word += kRows % words;
      if (word >= words) ++row, word -= words;
    }
  }
};

}  // namespace pjx
