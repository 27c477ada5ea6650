// The vectorised executor on the CPU: a simulator's rows on XLA's thread pool. What a simulator offers is in
// simulator.h.
//
// State rows are u8[..., N, S]; leading axes come from vmap, each lane with its own key. Environment i of a lane draws
// from the counter-based stream (key, i): results do not depend on the batch size, the number of threads or the
// platform.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "envs/common/cpu_handlers.h"
#include "envs/common/cpu_rows.h"
#include "envs/common/cpu_walks.h"
#include "xla_ops/common/ffi.h"
#include "xla_ops/common/simd.h"

namespace pjx {

// What Python must know of E with these parameters, or why they are refused.
template <typename E>
EnvDescription DescribeEnv(const std::vector<int64_t>& values) {
  EnvDescription description;
  typename E::Params p;
  description.error = ParseParams<E>(values.data(), static_cast<int64_t>(values.size()), &p);
  if (!description.error.empty()) return description;
  const Shape shape = E::ObsShape(p);
  description.obs_shape.assign(shape.axes, shape.axes + shape.num_axes);
  description.obs_dtype = std::is_same_v<typename E::Obs, uint8_t> ? "uint8" : "float32";
  for (int head = 0; head < E::kNumHeads; ++head) {
    if constexpr (kHasNumbers<E>) {
      description.action_low.push_back(E::ActionLow(p, head));
      description.action_high.push_back(E::ActionHigh(p, head));
    } else {
      description.num_actions.push_back(E::NumActions(p, head));
    }
  }
  description.num_agents = E::kNumAgents;
  description.state_bytes = StateBytes<E>(p);
  description.max_episode_steps = E::MaxEpisodeSteps(p);
  return description;
}

template <typename E>
class EnvsOnPool final : public CpuEnvCall {
 public:
  // OpenCall of E.
  static ffi::Error Open(const char* name, ffi::ThreadPool& pool, EnvParams params, ffi::Span<const int64_t> state_dims,
                         std::unique_ptr<CpuEnvCall>* call) {
    auto envs = std::make_unique<EnvsOnPool>(name, pool);
    auto error = OpenBatch(name, params, state_dims, &envs->batch_);
    *call = std::move(envs);
    return error;
  }
  EnvsOnPool(const char* name, ffi::ThreadPool& pool) : name_(name), pool_(pool) {}

  const Batch& batch() const final { return batch_; }

  ffi::Error Reset(const uint32_t* keys, uint8_t* states, void* obs) const final {
    const int64_t obs_size = batch_.obs_size;
    ParallelFor(pool_, batch_.rows, /*grain=*/32, [&](int64_t begin, int64_t end) {
      Streams streams(keys, batch_, begin);
      for (int64_t row = begin; row < end; ++row) {
        Philox random = streams.Next();
        State& s = RowAt(states, batch_, row);
        E::Reset(s, batch_.params, random);
        E::Observe(s, batch_.params, static_cast<Obs*>(obs) + row * obs_size);
      }
    });
    return ffi::Error::Success();
  }

  ffi::Error Step(const uint32_t* keys, uint8_t* states, const void* of_all, const StepResults& results,
                  void* obs) const final {
    const auto* const actions = static_cast<const Action*>(of_all);
    Lowest bad_row, bad_action;
    ParallelFor(pool_, batch_.rows, kGrain, [&](int64_t begin, int64_t end) {
      // Copies that no byte written below can alias, so they stay in registers. Reset gets the original.
      const Params params = batch_.params;
      const StepResults to = results;
      const int64_t stride = batch_.stride, obs_size = batch_.obs_size;
      uint8_t* state_row = states + begin * stride;
      Obs* obs_row = static_cast<Obs*>(obs) + begin * obs_size;
      Streams streams(keys, batch_, begin);
      for (int64_t row = begin; row < end; ++row, state_row += stride, obs_row += obs_size) {
        if constexpr (contract::kOffers<contract::ReadsSoon, E>) {
          if (row + kPrefetchAhead < end) {
            const auto& ahead = *reinterpret_cast<const State*>(state_row + kPrefetchAhead * stride);
            const uintptr_t address = E::ReadsSoon(ahead, params);
            Prefetch(reinterpret_cast<const void*>(address));
            Prefetch(reinterpret_cast<const void*>(address + 64));
          }
        }
        State& s = *reinterpret_cast<State*>(state_row);
        if (!E::IsSafe(s, params)) return bad_row.Note(row);
        const Action* action = actions + row * kActions;
        for (int i = 0; i < kActions; ++i) {
          if (!IsAction<E>(params, i % E::kNumHeads, action[i])) return bad_action.Note(row * kActions + i);
        }
        Philox random = streams.Next();
        const auto outcome = E::Step(s, params, action, random, to.rewards + row * E::kNumAgents);
        if (to.Write<E::kNumAgents>(row, outcome)) Restart(s, random);
        E::Observe(s, params, obs_row);
      }
    });
    if (bad_row.Any() || !bad_action.Any()) return AllAreStates(name_, bad_row);
    const int64_t index = bad_action.Index();
    const int head = static_cast<int>(index % E::kNumHeads);
    if constexpr (kHasNumbers<E>) {
      return InvalidArgument(name_, ": action[", index, "] is ", actions[index], ", valid are numbers from ",
                             E::ActionLow(batch_.params, head), " to ", E::ActionHigh(batch_.params, head));
    } else {
      return InvalidArgument(name_, ": action[", index, "] is ", actions[index], ", valid are 0 to ",
                             E::NumActions(batch_.params, head) - 1);
    }
  }

  ffi::Error Observe(const uint8_t* states, void* obs) const final {
    const int64_t obs_size = batch_.obs_size;
    Lowest bad_row;
    ParallelFor(pool_, batch_.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const State& s = RowAt(states, batch_, row);
        if (!E::IsSafe(s, batch_.params)) return bad_row.Note(row);
        E::Observe(s, batch_.params, static_cast<Obs*>(obs) + row * obs_size);
      }
    });
    return AllAreStates(name_, bad_row);
  }

  ffi::Error Restore(uint8_t* states, const uint8_t* snapshots, const int32_t* env_ids, int64_t count) const final {
    for (int64_t i = 0; i < batch_.lanes * count; ++i) {
      const int64_t env = env_ids[i];
      if (env < 0 || env >= batch_.num_envs) {
        return InvalidArgument(name_, ": env_ids[", i, "] is ", env, ", valid are 0 to ", batch_.num_envs - 1);
      }
      const State& from = RowAt(snapshots, batch_, i);
      if (const char* reason = E::Impossible(from, batch_.params)) {
        return InvalidArgument(name_, ": rows[", i, "] is not a snapshot of this simulator: ", reason);
      }
      std::memcpy(&RowAt(states, batch_, i / count * batch_.num_envs + env), &from, batch_.stride);
    }
    return ffi::Error::Success();
  }

  ffi::Error Stagger(const uint32_t* keys, uint8_t* states) const final {
    if (batch_.rows == 0) return ffi::Error::Success();
    Lowest bad_row;
    Streams streams(keys, batch_, 0);
    for (int64_t row = 0; row < batch_.rows && !bad_row.Any(); ++row) {
      State& s = RowAt(states, batch_, row);
      Philox random = streams.Next();
      if (E::IsSafe(s, batch_.params)) {
        E::Stagger(s, batch_.params, random);
      } else {
        bad_row.Note(row);
      }
    }
    return AllAreStates(name_, bad_row);
  }

  ffi::Error Clock(uint8_t* timeless, int32_t* times) const final {
    for (int64_t row = 0; row < batch_.rows; ++row) {
      uint32_t& clock = E::Clock(RowAt(timeless, batch_, row));
      times[row] = static_cast<int32_t>(clock);
      clock = 0;
    }
    return ffi::Error::Success();
  }

  ffi::Error RandomWalk(const uint32_t* keys, uint8_t* states, int64_t num_steps, const WalkMemory& memory,
                        const WalkResults& results) const final {
    return pjx::RandomWalk(pool_, batch_, keys, states, num_steps, memory, results);
  }

 private:
  using State = typename E::State;
  using Params = typename E::Params;
  using Obs = typename E::Obs;
  using Action = typename E::Action;
  static constexpr int kActions = E::kNumAgents * E::kNumHeads;  // per environment
  static constexpr int64_t kGrain = 256;        // rows; below this a second thread costs more than it brings
  static constexpr int64_t kPrefetchAhead = 8;  // rows

  // The stream by value: a reference to it would make every step write it to memory.
  void Restart(State& s, Philox random) const { E::Reset(s, batch_.params, random); }

  const char* name_;
  ffi::ThreadPool& pool_;
  EnvBatch<E> batch_;
};

template <typename E>
const CpuEnvHandlers& CpuHandlersOf() {
  static const CpuEnvHandlers handlers(EnvsOnPool<E>::Open, {});
  return handlers;
}

// At namespace scope: makes the simulator E known to Python as `env`, and checks that it is one.
template <typename E>
struct RegisteredEnv {
  explicit RegisteredEnv(const std::string& env) {
    if constexpr (contract::IsKept<E>()) {
      Descriptions()[env] = DescribeEnv<E>;
      RegisterHandlers<CpuEnvHandlers, CpuHandlersOf<E>>(env);
    }
  }
};

}  // namespace pjx
