// The vectorised executor: FFI handlers over any simulator header, on XLA's thread pool.
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
#include <limits>
#include <type_traits>
#include <vector>

#include "envs/common/batch.h"
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

template <typename E>
class VecEnv {
 public:
  using State = typename E::State;
  using Params = typename E::Params;
  using Obs = typename E::Obs;
  using U32 = ffi::Buffer<ffi::U32>;
  using I32 = ffi::Buffer<ffi::S32>;
  using U8 = ffi::Buffer<ffi::U8>;
  static constexpr ffi::DataType kObsType = std::is_same_v<Obs, uint8_t> ? ffi::U8 : ffi::F32;
  using ObsBuffer = ffi::ResultBuffer<kObsType>;
  using Attr = ffi::Span<const int64_t>;

  static void Register(const std::string& name) {
    Handlers()["pufferjax." + name + ".reset"] = &ResetHandler;
    Handlers()["pufferjax." + name + ".step"] = &StepHandler;
    Handlers()["pufferjax." + name + ".observe"] = &ObserveHandler;
    Handlers()["pufferjax." + name + ".restore"] = &RestoreHandler;
    Handlers()["pufferjax." + name + ".stagger"] = &StaggerHandler;
    Handlers()["pufferjax." + name + ".clock"] = &ClockHandler;
    Handlers()["pufferjax." + name + ".random_walk"] = &RandomWalkHandler;
  }

 private:
  using Batch = EnvBatch<E>;
  static Batch Open(const char* call, Attr attr, ffi::Span<const int64_t> state_dims) {
    return OpenBatch<E>(call, attr, state_dims);
  }
  static ffi::Error Expect(const char* call, const char* name, int64_t count, int64_t expected) {
    return ExpectCount(call, name, count, expected);
  }

  // The random stream of each row in turn: (key of the lane, index in the lane), without a division per row.
  class Streams {
   public:
    Streams(const uint32_t* keys, const Batch& batch, int64_t row)
        : num_envs_(batch.num_envs), env_(row % num_envs_), key_(keys + 2 * (row / num_envs_)) {}
    Philox Next() {
      const Philox stream(key_[0], key_[1], static_cast<uint32_t>(env_));
      if (++env_ == num_envs_) env_ = 0, key_ += 2;
      return stream;
    }

   private:
    int64_t num_envs_, env_;
    const uint32_t* key_;
  };

  static State& Row(uint8_t* rows, const Batch& batch, int64_t row) {
    return *reinterpret_cast<State*>(rows + row * batch.stride);
  }

  // Aliased operands are the same memory; when XLA had to keep the operand, they are not.
  static void CopyUnlessAliased(const U8& from, ffi::ResultBuffer<ffi::U8>& to) {
    if (from.typed_data() != to->typed_data()) memcpy(to->typed_data(), from.typed_data(), from.size_bytes());
  }

  // Copies one row; the usual size is known to the compiler.
  static void CopyRow(void* to, const void* from, int64_t stride) {
    if (stride == sizeof(State)) {
      memcpy(to, from, sizeof(State));
    } else {
      memcpy(to, from, stride);
    }
  }

  // The lowest index that anyone noted: errors name the same row for every number of threads.
  class First {
   public:
    void Note(int64_t index) {
      int64_t lowest = lowest_;
      while (index < lowest && !lowest_.compare_exchange_weak(lowest, index)) {
      }
    }
    int64_t Index() const { return lowest_; }
    bool Any() const { return lowest_ != std::numeric_limits<int64_t>::max(); }

   private:
    std::atomic<int64_t> lowest_{std::numeric_limits<int64_t>::max()};
  };

  static ffi::Error NotAState(const char* call, const First& row) {
    return InvalidArgument(call, ": state row ", row.Index(), " is not a state of this simulator");
  }

  template <typename T, typename = void>
  struct HasReadsSoon : std::false_type {};
  template <typename T>
  struct HasReadsSoon<T, std::void_t<decltype(&T::ReadsSoon)>> : std::true_type {};

  // A macro-like function: GCC takes one with no effect but a prefetch for pure, and drops the call, unless it is
  // inlined.
  static PJX_INLINE void PrefetchTwoLines(uintptr_t address) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(reinterpret_cast<const void*>(address));
    __builtin_prefetch(reinterpret_cast<const void*>(address + 64));
#else
    (void)address;
#endif
  }

  static constexpr int kActions = E::kNumAgents * E::kNumHeads;  // per environment
  static constexpr int64_t kGrain = 256;        // rows; below this a second thread costs more than it brings
  static constexpr int64_t kPrefetchAhead = 8;  // rows

  // --- reset ---------------------------------------------------------------------------------------------------------
  static ffi::Error Reset(ffi::ThreadPool pool, U32 keys, Attr attr, ffi::ResultBuffer<ffi::U8> state, ObsBuffer obs) {
    const Batch batch = Open("reset", attr, state->dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    const int64_t obs_size = E::ObsSize(batch.params) * E::kNumAgents;
    if (auto e = Expect("reset", "key", keys.element_count(), 2 * batch.lanes); e.failure()) return e;
    if (auto e = Expect("reset", "obs", obs->element_count(), batch.rows * obs_size); e.failure()) return e;
    memset(state->typed_data(), 0, state->size_bytes());
    ParallelFor(pool, batch.rows, 32, [&](int64_t begin, int64_t end) {
      Streams streams(keys.typed_data(), batch, begin);
      for (int64_t row = begin; row < end; ++row) {
        Philox random = streams.Next();
        State& s = Row(state->typed_data(), batch, row);
        E::Reset(s, batch.params, random);
        E::Observe(s, batch.params, obs->typed_data() + row * obs_size);
      }
    });
    return ffi::Error::Success();
  }

  // --- step ----------------------------------------------------------------------------------------------------------
  static ffi::Error Step(ffi::ThreadPool pool, U32 keys, U8 state_in, I32 actions, Attr attr,
                         ffi::ResultBuffer<ffi::U8> state, ObsBuffer obs, ffi::ResultBuffer<ffi::F32> rewards,
                         ffi::ResultBuffer<ffi::PRED> terminated, ffi::ResultBuffer<ffi::PRED> truncated,
                         ffi::ResultBuffer<ffi::F32> episode_return, ffi::ResultBuffer<ffi::S32> episode_length,
                         ffi::ResultBuffer<ffi::F32> score, ffi::ResultBuffer<ffi::F32> perf) {
    const Batch batch = Open("step", attr, state_in.dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    const int64_t obs_size = E::ObsSize(batch.params) * E::kNumAgents;
    const int64_t agents = batch.rows * E::kNumAgents;
    if (auto e = Expect("step", "key", keys.element_count(), 2 * batch.lanes); e.failure()) return e;
    if (auto e = Expect("step", "action", actions.element_count(), agents * E::kNumHeads); e.failure()) return e;
    if (auto e = Expect("step", "obs", obs->element_count(), batch.rows * obs_size); e.failure()) return e;
    if (auto e = Expect("step", "reward", rewards->element_count(), agents); e.failure()) return e;
    if (auto e = Expect("step", "terminated", terminated->element_count(), agents); e.failure()) return e;
    if (auto e = Expect("step", "truncated", truncated->element_count(), agents); e.failure()) return e;
    if (auto e = Expect("step", "episode_return", episode_return->element_count(), batch.rows); e.failure()) return e;
    if (auto e = Expect("step", "episode_length", episode_length->element_count(), batch.rows); e.failure()) return e;
    if (auto e = Expect("step", "score", score->element_count(), batch.rows); e.failure()) return e;
    if (auto e = Expect("step", "perf", perf->element_count(), batch.rows); e.failure()) return e;
    CopyUnlessAliased(state_in, state);
    First bad_state, bad_action;
    ParallelFor(pool, batch.rows, kGrain, [&](int64_t begin, int64_t end) {
      // Copies that no byte written below can alias, so they stay in registers. Reset gets the original.
      const Params params = batch.params;
      const int64_t stride = batch.stride;
      uint8_t* state_row = state->typed_data() + begin * stride;
      Obs* obs_row = obs->typed_data() + begin * obs_size;
      Streams streams(keys.typed_data(), batch, begin);
      for (int64_t row = begin; row < end; ++row, state_row += stride, obs_row += obs_size) {
        if constexpr (HasReadsSoon<E>::value) {
          if (row + kPrefetchAhead < end) {
            PrefetchTwoLines(
                E::ReadsSoon(*reinterpret_cast<const State*>(state_row + kPrefetchAhead * stride), params));
          }
        }
        State& s = *reinterpret_cast<State*>(state_row);
        if (!E::IsSafe(s, params)) return bad_state.Note(row);
        const int32_t* action = actions.typed_data() + row * kActions;
        for (int i = 0; i < kActions; ++i) {
          const auto choices = static_cast<uint32_t>(E::NumActions(params, i % E::kNumHeads));
          if (static_cast<uint32_t>(action[i]) >= choices) return bad_action.Note(row * kActions + i);
        }
        Philox random = streams.Next();
        const auto outcome = E::Step(s, params, action, random, rewards->typed_data() + row * E::kNumAgents);
        const bool ended = outcome.terminated || outcome.truncated;
        for (int agent = 0; agent < E::kNumAgents; ++agent) {
          terminated->typed_data()[row * E::kNumAgents + agent] = outcome.terminated;
          truncated->typed_data()[row * E::kNumAgents + agent] = outcome.truncated;
        }
        episode_return->typed_data()[row] = ended ? outcome.episode_return : 0.0f;
        episode_length->typed_data()[row] = ended ? outcome.episode_length : 0;
        score->typed_data()[row] = ended ? outcome.score : 0.0f;
        perf->typed_data()[row] = ended ? outcome.perf : 0.0f;
        if (ended) E::Reset(s, batch.params, random);
        E::Observe(s, params, obs_row);
      }
    });
    if (bad_state.Any()) return NotAState("step", bad_state);
    if (bad_action.Any()) {
      return InvalidArgument("step: action[", bad_action.Index(), "] is ", actions.typed_data()[bad_action.Index()],
                             ", valid are 0 to ",
                             E::NumActions(batch.params, static_cast<int>(bad_action.Index() % E::kNumHeads)) - 1);
    }
    return ffi::Error::Success();
  }

  // --- observe -------------------------------------------------------------------------------------------------------
  static ffi::Error Observe(ffi::ThreadPool pool, U8 state, Attr attr, ObsBuffer obs) {
    const Batch batch = Open("observe", attr, state.dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    const int64_t obs_size = E::ObsSize(batch.params) * E::kNumAgents;
    if (auto e = Expect("observe", "obs", obs->element_count(), batch.rows * obs_size); e.failure()) return e;
    First bad_state;
    ParallelFor(pool, batch.rows, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const State& s = Row(state.typed_data(), batch, row);
        if (!E::IsSafe(s, batch.params)) return bad_state.Note(row);
        E::Observe(s, batch.params, obs->typed_data() + row * obs_size);
      }
    });
    if (bad_state.Any()) return NotAState("observe", bad_state);
    return ffi::Error::Success();
  }

  // --- restore -------------------------------------------------------------------------------------------------------
  // state[env_ids[r]] <- rows[r], in order, refusing rows this simulator cannot have produced.
  static ffi::Error Restore(U8 state_in, U8 snapshots, I32 env_ids, Attr attr, ffi::ResultBuffer<ffi::U8> state) {
    const Batch batch = Open("restore", attr, state_in.dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    const auto dims = snapshots.dimensions();
    if (dims.size() < 2 || dims[dims.size() - 1] != batch.stride || LeadingSize(dims, 2) != batch.lanes) {
      return InvalidArgument("restore: rows must be u8[..., R, ", batch.stride, "], got ", ShapeText(dims));
    }
    const int64_t count = dims[dims.size() - 2];
    if (auto e = Expect("restore", "env_ids", env_ids.element_count(), batch.lanes * count); e.failure()) return e;
    CopyUnlessAliased(state_in, state);
    for (int64_t row = 0; row < batch.lanes * count; ++row) {
      const int64_t env = env_ids.typed_data()[row];
      if (env < 0 || env >= batch.num_envs) {
        return InvalidArgument("restore: env_ids[", row, "] is ", env, ", valid are 0 to ", batch.num_envs - 1);
      }
      const uint8_t* from = snapshots.typed_data() + row * batch.stride;
      if (const char* reason = E::Impossible(*reinterpret_cast<const State*>(from), batch.params)) {
        return InvalidArgument("restore: rows[", row, "] is not a snapshot of this simulator: ", reason);
      }
      memcpy(state->typed_data() + (row / count * batch.num_envs + env) * batch.stride, from, batch.stride);
    }
    return ffi::Error::Success();
  }

  // --- stagger -------------------------------------------------------------------------------------------------------
  static ffi::Error Stagger(U32 keys, U8 state_in, Attr attr, ffi::ResultBuffer<ffi::U8> state) {
    const Batch batch = Open("stagger", attr, state_in.dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    if (auto e = Expect("stagger", "key", keys.element_count(), 2 * batch.lanes); e.failure()) return e;
    CopyUnlessAliased(state_in, state);
    if (batch.rows == 0) return ffi::Error::Success();
    Streams streams(keys.typed_data(), batch, 0);
    for (int64_t row = 0; row < batch.rows; ++row) {
      State& s = Row(state->typed_data(), batch, row);
      if (!E::IsSafe(s, batch.params)) {
        return InvalidArgument("stagger: state row ", row, " is not a state of this simulator");
      }
      Philox random = streams.Next();
      E::Stagger(s, batch.params, random);
    }
    return ffi::Error::Success();
  }

  // --- clock ---------------------------------------------------------------------------------------------------------
  // times i32[..., N]: steps since each episode began; timeless u8[..., N, S]: the rows with that set to zero. Reads
  // nothing outside the rows, so they may be anything.
  static ffi::Error Clock(U8 state, Attr attr, ffi::ResultBuffer<ffi::S32> times, ffi::ResultBuffer<ffi::U8> timeless) {
    const Batch batch = Open("clock", attr, state.dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    memcpy(timeless->typed_data(), state.typed_data(), state.size_bytes());
    for (int64_t row = 0; row < batch.rows; ++row) {
      uint32_t& clock = E::Clock(Row(timeless->typed_data(), batch, row));
      times->typed_data()[row] = static_cast<int32_t>(clock);
      clock = 0;
    }
    return ffi::Error::Success();
  }

  // --- random walk ---------------------------------------------------------------------------------------------------
  // Uniformly random actions without observations or a policy, `num_steps` per environment. The state is remembered at
  // the start of an episode and before every `interval`-th step from there, the last `num_snapshots` of the episode are
  // kept, and those at hand when a positive reward comes are the result: snapshots u8[..., N, num_snapshots, S], oldest
  // first, zero beyond the counts i32[..., N] of valid ones. A later reward replaces an earlier one; rewarded
  // i32[..., N] counts them all. One step of one environment is a chain of dependent instructions, so a thread walks
  // kAbreast environments at a time; each has its own random stream, so the grouping shows in no result.
  static constexpr int kAbreast = 8;

  struct Walker {
    State* state;
    ChoiceRandom choices;
    int64_t next_snapshot;   // the step before which the state is remembered
    int64_t slot = 0;        // of the ring, where the next snapshot goes
    int64_t remembered = 0;  // in the ring, of this episode
    int32_t count = 0, rewarded = 0;
    uint8_t* ring;       // [capacity, stride]
    uint8_t* snapshots;  // [capacity, stride], the result
    Philox random;

    Walker(State* s, const Philox& stream, int64_t first, uint8_t* own_ring, uint8_t* result)
        : state(s), choices(0), next_snapshot(first), ring(own_ring), snapshots(result), random(stream) {
      const uint64_t high = random.Next();
      choices = ChoiceRandom(high << 32 | random.Next());
    }

    void Remember(int64_t interval, int64_t capacity, int64_t stride) {
      CopyRow(ring + slot * stride, state, stride);
      if (++slot == capacity) slot = 0;
      remembered = std::min(remembered + 1, capacity);
      next_snapshot += interval;
    }

    void KeepSnapshots(int64_t capacity, int64_t stride) {
      ++rewarded;
      count = static_cast<int32_t>(remembered);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t from = slot - count + i;
        CopyRow(snapshots + i * stride, ring + (from < 0 ? from + capacity : from) * stride, stride);
      }
      memset(snapshots + count * stride, 0, (capacity - count) * stride);
    }
  };

  // Walkers [0, width) through all steps, in lockstep.
  static void Walk(const Batch& batch, Walker* walkers, int width, int64_t num_steps, int64_t interval,
                   int64_t capacity) {
    const Params params = batch.params;  // see Step
    const int64_t stride = batch.stride;
    for (int64_t t = 0; t < num_steps; t += ChoiceRandom::kPerDraw) {
      const int steps = static_cast<int>(std::min<int64_t>(ChoiceRandom::kPerDraw, num_steps - t));
      if constexpr (kActions == 1) {
        for (int g = 0; g < width; ++g) walkers[g].choices.Draw();
      }
      for (int k = 0; k < steps; ++k) {
        for (int g = 0; g < width; ++g) {
          Walker& w = walkers[g];
          if (w.next_snapshot == t + k) w.Remember(interval, capacity, stride);
          int32_t action[kActions];
          for (int i = 0; i < kActions; ++i) {
            if constexpr (kActions > 1) {
              if ((k * kActions + i) % ChoiceRandom::kPerDraw == 0) w.choices.Draw();
            }
            action[i] = static_cast<int32_t>(w.choices.Below(E::NumActions(params, i % E::kNumHeads)));
          }
          float rewards[E::kNumAgents];
          const auto outcome = E::Step(*w.state, params, action, w.random, rewards);
          bool positive = false;
          for (const float reward : rewards) positive |= reward > 0.0f;
          const bool ended = outcome.terminated || outcome.truncated;
          if (positive) w.KeepSnapshots(capacity, stride);
          if (ended) {
            E::Reset(*w.state, batch.params, w.random);
            w.slot = w.remembered = 0;
            w.next_snapshot = t + k + 1;
          }
        }
      }
    }
  }

  static ffi::Error RandomWalk(ffi::ThreadPool pool, U32 keys, U8 state_in, Attr attr, int64_t num_steps,
                               int64_t interval, ffi::ResultBuffer<ffi::U8> state, ffi::ResultBuffer<ffi::U8> snapshots,
                               ffi::ResultBuffer<ffi::S32> counts, ffi::ResultBuffer<ffi::S32> rewarded) {
    const Batch batch = Open("random_walk", attr, state_in.dimensions());
    if (!batch.error.empty()) return InvalidArgument(batch.error);
    const auto dims = snapshots->dimensions();
    const int64_t capacity = dims[dims.size() - 2];
    if (num_steps < 1) return InvalidArgument("random_walk: num_steps must be at least 1, got ", num_steps);
    if (interval < 1) return InvalidArgument("random_walk: interval must be at least 1, got ", interval);
    if (capacity < 1) return InvalidArgument("random_walk: num_snapshots must be at least 1, got ", capacity);
    if (auto e = Expect("random_walk", "key", keys.element_count(), 2 * batch.lanes); e.failure()) return e;
    CopyUnlessAliased(state_in, state);
    memset(snapshots->typed_data(), 0, snapshots->size_bytes());
    First bad_state;
    const int64_t groups = (batch.rows + kAbreast - 1) / kAbreast;
    ParallelFor(pool, groups, 1, [&](int64_t begin, int64_t end) {
      std::vector<uint8_t> rings(kAbreast * capacity * batch.stride);
      std::vector<Walker> walkers;
      walkers.reserve(kAbreast);
      Streams streams(keys.typed_data(), batch, begin * kAbreast);
      for (int64_t group = begin; group < end; ++group) {
        walkers.clear();
        const int64_t first = group * kAbreast, last = std::min(first + kAbreast, batch.rows);
        for (int64_t row = first; row < last; ++row) {
          State& s = Row(state->typed_data(), batch, row);
          if (!E::IsSafe(s, batch.params)) return bad_state.Note(row);
          walkers.emplace_back(&s, streams.Next(), 0, &rings[(row - first) * capacity * batch.stride],
                               snapshots->typed_data() + row * capacity * batch.stride);
        }
        Walk(batch, walkers.data(), static_cast<int>(last - first), num_steps, interval, capacity);
        for (int64_t row = first; row < last; ++row) {
          counts->typed_data()[row] = walkers[row - first].count;
          rewarded->typed_data()[row] = walkers[row - first].rewarded;
        }
      }
    });
    if (bad_state.Any()) return NotAState("random_walk", bad_state);
    return ffi::Error::Success();
  }

  // --- handlers ------------------------------------------------------------------------------------------------------
  static XLA_FFI_Error* ResetHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<ffi::ThreadPool>()
                                     .Arg<U32>()  // keys [..., 2]
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()                     // state [..., N, S]
                                     .template Ret<ffi::Buffer<kObsType>>()  // obs [..., N * K, ...]
                                     .To(&Reset)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* StepHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<ffi::ThreadPool>()
                                     .Arg<U32>()           // keys [..., 2]
                                     .template Arg<U8>()   // state [..., N, S], aliased to the first result
                                     .template Arg<I32>()  // actions [..., N * K (, heads)]
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()                      // state [..., N, S]
                                     .template Ret<ffi::Buffer<kObsType>>()   // obs [..., N * K, ...]
                                     .template Ret<ffi::Buffer<ffi::F32>>()   // reward [..., N * K]
                                     .template Ret<ffi::Buffer<ffi::PRED>>()  // terminated [..., N * K]
                                     .template Ret<ffi::Buffer<ffi::PRED>>()  // truncated [..., N * K]
                                     .template Ret<ffi::Buffer<ffi::F32>>()   // episode_return [..., N]
                                     .template Ret<ffi::Buffer<ffi::S32>>()   // episode_length [..., N]
                                     .template Ret<ffi::Buffer<ffi::F32>>()   // score [..., N]
                                     .template Ret<ffi::Buffer<ffi::F32>>()   // perf [..., N]
                                     .To(&Step)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* ObserveHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<ffi::ThreadPool>()
                                     .Arg<U8>()  // state [..., N, S]
                                     .template Attr<Attr>("params")
                                     .template Ret<ffi::Buffer<kObsType>>()  // obs [..., N * K, ...]
                                     .To(&Observe)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* RestoreHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Arg<U8>()            // state [..., N, S], aliased to the result
                                     .template Arg<U8>()   // rows [..., R, S]
                                     .template Arg<I32>()  // env_ids [..., R]
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()  // state [..., N, S]
                                     .To(&Restore)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* StaggerHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Arg<U32>()          // keys [..., 2]
                                     .template Arg<U8>()  // state [..., N, S], aliased to the result
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()  // state [..., N, S]
                                     .To(&Stagger)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* ClockHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Arg<U8>()  // state [..., N, S]
                                     .template Attr<Attr>("params")
                                     .template Ret<I32>()  // times [..., N]
                                     .template Ret<U8>()   // timeless [..., N, S]
                                     .To(&Clock)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* RandomWalkHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<ffi::ThreadPool>()
                                     .Arg<U32>()          // keys [..., 2]
                                     .template Arg<U8>()  // state [..., N, S], aliased to the first result
                                     .template Attr<Attr>("params")
                                     .template Attr<int64_t>("num_steps")
                                     .template Attr<int64_t>("interval")
                                     .template Ret<U8>()   // state [..., N, S]
                                     .template Ret<U8>()   // snapshots [..., N, num_snapshots, S]
                                     .template Ret<I32>()  // counts [..., N]
                                     .template Ret<I32>()  // rewarded [..., N]
                                     .To(&RandomWalk)
                                     .release();
    return handler->Call(frame);
  }
};

}  // namespace pjx
