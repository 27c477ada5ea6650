// The vectorised executor on the CPU: a simulator's handlers on XLA's thread pool.
//
// A simulator E offers Params, State (POD), Obs, Outcome, the sizes, and Reset / Step / Observe / Stagger / Clock /
// IsSafe / Impossible as in envs/maze/maze.h, plus a host-side `ParseParams<E>` that turns the integer attribute
// `params` into Params or says why not. Reset finds zeros in a new row, and in one that begins anew the state in which
// its episode ended: what a simulator leaves standing outlives the episode. State rows are u8[..., N, S]; leading axes
// come from vmap, each lane with its own key. Environment i of a lane draws from the counter-based stream (key, i):
// results do not depend on the batch size, the number of threads or the platform. A simulator may also offer
// ReadsSoon(state, params), the address from which Step and Observe will read about 128 bytes; it is asked a few rows
// ahead, before the row is checked.
#pragma once

#include <cstring>
#include <type_traits>
#include <vector>

#include "envs/common/cpu_rows.h"
#include "envs/common/handlers.h"
#include "envs/common/random_walk.h"
#include "xla_ops/common/ffi.h"
#include "xla_ops/common/random.h"
#include "xla_ops/common/simd.h"

namespace pjx {

// What Python must know of E with these parameters, or why they are refused.
template <typename E>
EnvDescription DescribeEnv(const std::vector<int64_t>& values) {
  EnvDescription description;
  typename E::Params p;
  description.error = ParseParams<E>(values.data(), static_cast<int64_t>(values.size()), &p);
  if (!description.error.empty()) return description;
  description.obs_shape = E::ObsShape(p);
  description.obs_dtype = std::is_same_v<typename E::Obs, uint8_t> ? "uint8" : "float32";
  for (int head = 0; head < E::kNumHeads; ++head) description.num_actions.push_back(E::NumActions(p, head));
  description.num_agents = E::kNumAgents;
  description.state_bytes = E::StateBytes(p);
  description.max_episode_steps = E::MaxEpisodeSteps(p);
  return description;
}

template <typename T, typename = void>
struct HasReadsSoon : std::false_type {};
template <typename T>
struct HasReadsSoon<T, std::void_t<decltype(&T::ReadsSoon)>> : std::true_type {};

// One call on the rows of a batch (handlers.h).
template <typename E>
struct EnvsOnPool {
  using Context = ffi::ThreadPool;
  using State = typename E::State;
  using Params = typename E::Params;
  using Obs = typename E::Obs;
  using StepResults = typename EnvRows<E>::StepResults;
  static constexpr int kActions = E::kNumAgents * E::kNumHeads;  // per environment
  static constexpr int64_t kGrain = 256;        // rows; below this a second thread costs more than it brings
  static constexpr int64_t kPrefetchAhead = 8;  // rows

  const char* call;
  ffi::ThreadPool& pool;
  const EnvBatch<E>& batch;

  ffi::Error Zero(ffi::ResultBuffer<ffi::U8>& states) const {
    std::memset(states->typed_data(), 0, states->size_bytes());
    return ffi::Error::Success();
  }

  ffi::Error Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const {
    CopyUnlessAliased(from, to);
    return ffi::Error::Success();
  }

  ffi::Error Reset(const uint32_t* keys, uint8_t* states, Obs* obs) const {
    const int64_t obs_size = batch.ObsSize();
    ParallelFor(pool, batch.rows, /*grain=*/32, [&](int64_t begin, int64_t end) {
      Streams streams(keys, batch, begin);
      for (int64_t row = begin; row < end; ++row) {
        Philox random = streams.Next();
        State& s = RowAt(states, batch, row);
        E::Reset(s, batch.params, random);
        E::Observe(s, batch.params, obs + row * obs_size);
      }
    });
    return ffi::Error::Success();
  }

  ffi::Error Step(const uint32_t* keys, uint8_t* states, const int32_t* actions, const StepResults& results,
                  Obs* obs) const {
    Lowest bad_row, bad_action;
    ParallelFor(pool, batch.rows, kGrain, [&](int64_t begin, int64_t end) {
      // Copies that no byte written below can alias, so they stay in registers. Reset gets the original.
      const Params params = batch.params;
      const StepResults to = results;
      const int64_t stride = batch.stride, obs_size = batch.ObsSize();
      uint8_t* state_row = states + begin * stride;
      Obs* obs_row = obs + begin * obs_size;
      Streams streams(keys, batch, begin);
      for (int64_t row = begin; row < end; ++row, state_row += stride, obs_row += obs_size) {
        if constexpr (HasReadsSoon<E>::value) {
          if (row + kPrefetchAhead < end) {
            const auto& ahead = *reinterpret_cast<const State*>(state_row + kPrefetchAhead * stride);
            const uintptr_t address = E::ReadsSoon(ahead, params);
            Prefetch(reinterpret_cast<const void*>(address));
            Prefetch(reinterpret_cast<const void*>(address + 64));
          }
        }
        State& s = *reinterpret_cast<State*>(state_row);
        if (!E::IsSafe(s, params)) return bad_row.Note(row);
        const int32_t* action = actions + row * kActions;
        for (int i = 0; i < kActions; ++i) {
          const auto choices = static_cast<uint32_t>(E::NumActions(params, i % E::kNumHeads));
          if (static_cast<uint32_t>(action[i]) >= choices) return bad_action.Note(row * kActions + i);
        }
        Philox random = streams.Next();
        const auto outcome = E::Step(s, params, action, random, to.rewards + row * E::kNumAgents);
        if (to.Write(row, outcome)) Restart(s, random);
        E::Observe(s, params, obs_row);
      }
    });
    if (bad_row.Any() || !bad_action.Any()) return AllAreStates(call, bad_row);
    const int64_t index = bad_action.Index();
    return InvalidArgument(call, ": action[", index, "] is ", actions[index], ", valid are 0 to ",
                           E::NumActions(batch.params, static_cast<int>(index % E::kNumHeads)) - 1);
  }

  // The stream by value: a reference to it would make every step write it to memory.
  void Restart(State& s, Philox random) const { E::Reset(s, batch.params, random); }

  ffi::Error Observe(const uint8_t* states, Obs* obs) const {
    const int64_t obs_size = batch.ObsSize();
    Lowest bad_row;
    ParallelFor(pool, batch.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const State& s = RowAt(states, batch, row);
        if (!E::IsSafe(s, batch.params)) return bad_row.Note(row);
        E::Observe(s, batch.params, obs + row * obs_size);
      }
    });
    return AllAreStates(call, bad_row);
  }

  ffi::Error Restore(uint8_t* states, const uint8_t* snapshots, const int32_t* env_ids, int64_t count) const {
    for (int64_t i = 0; i < batch.lanes * count; ++i) {
      const int64_t env = env_ids[i];
      if (env < 0 || env >= batch.num_envs) {
        return InvalidArgument(call, ": env_ids[", i, "] is ", env, ", valid are 0 to ", batch.num_envs - 1);
      }
      const State& from = RowAt(snapshots, batch, i);
      if (const char* reason = E::Impossible(from, batch.params)) {
        return InvalidArgument(call, ": rows[", i, "] is not a snapshot of this simulator: ", reason);
      }
      std::memcpy(&RowAt(states, batch, i / count * batch.num_envs + env), &from, batch.stride);
    }
    return ffi::Error::Success();
  }

  ffi::Error Stagger(const uint32_t* keys, uint8_t* states) const {
    if (batch.rows == 0) return ffi::Error::Success();
    Lowest bad_row;
    Streams streams(keys, batch, 0);
    for (int64_t row = 0; row < batch.rows && !bad_row.Any(); ++row) {
      State& s = RowAt(states, batch, row);
      Philox random = streams.Next();
      if (E::IsSafe(s, batch.params)) {
        E::Stagger(s, batch.params, random);
      } else {
        bad_row.Note(row);
      }
    }
    return AllAreStates(call, bad_row);
  }

  ffi::Error Clock(uint8_t* timeless, int32_t* times) const {
    for (int64_t row = 0; row < batch.rows; ++row) {
      uint32_t& clock = E::Clock(RowAt(timeless, batch, row));
      times[row] = static_cast<int32_t>(clock);
      clock = 0;
    }
    return ffi::Error::Success();
  }
};

template <typename E>
struct VecEnv {
  static void Register(const std::string& env) {
    EnvHandlers<E, EnvsOnPool>::Register(env);
    Handlers()["pufferjax." + env + ".random_walk"] = HandlerOf<&RandomWalk<E>>;
  }
};

}  // namespace pjx
