// The FFI handlers of a simulator for every platform: operands, results, and their checks before a row is touched.
//
// They are compiled once per platform and not once per simulator, because decoding a call is far more code than most
// simulators: a handler asks the simulator for an EnvCall, the work behind one call, and sees no more of it.
#pragma once

#include <memory>
#include <string>

#include "envs/common/batch.h"
#include "envs/common/env_rows.h"
#include "envs/common/random_walk.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

inline constexpr char kNumStepsName[] = "num_steps", kIntervalName[] = "interval";

// One call on the rows of a batch, over arrays that fit it; `obs` and `actions` are of the batch's types. Zero and Copy
// prepare the rows that the others update.
template <typename ContextOfPlatform>
class EnvCall {
 public:
  using Context = ContextOfPlatform;

  virtual ~EnvCall() = default;
  virtual const Batch& batch() const = 0;
  virtual ffi::Error Zero(ffi::ResultBuffer<ffi::U8>& rows) const = 0;
  virtual ffi::Error Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const = 0;
  virtual ffi::Error Reset(const uint32_t* keys, uint8_t* states, void* obs) const = 0;
  virtual ffi::Error Step(const uint32_t* keys, uint8_t* states, const void* actions, const StepResults& results,
                          void* obs) const = 0;
  virtual ffi::Error Observe(const uint8_t* states, void* obs) const = 0;
  virtual ffi::Error Restore(uint8_t* states, const uint8_t* snapshots, const int32_t* env_ids,
                             int64_t count) const = 0;
  virtual ffi::Error Stagger(const uint32_t* keys, uint8_t* states) const = 0;
  virtual ffi::Error Clock(uint8_t* timeless, int32_t* times) const = 0;
  virtual ffi::Error RandomWalk(const uint32_t* keys, uint8_t* states, int64_t num_steps, const WalkMemory& memory,
                                const WalkResults& results) const = 0;
};

// A simulator as its handlers see it: makes the call that `name` says, or the reason why these are no parameters or no
// rows of it. `Call` is an EnvCall; the context outlives it.
template <typename Call>
using OpenCall = ffi::Error (*)(const char* name, typename Call::Context& context, EnvParams params,
                                ffi::Span<const int64_t> state_dims, std::unique_ptr<Call>* call);

// The handler that calls `function`, whose parameters after the first are read as HandlerOf reads them (ffi.h).
template <typename First, typename... Rest>
std::unique_ptr<ffi::Ffi> BindRest(ffi::Error (*function)(First, Rest...), First first,
                                   std::initializer_list<ffi::Traits> traits) {
  return ffi::Ffi::BindTo([=](Rest... rest) { return function(first, rest...); }, traits);
}

template <typename Call>
class EnvHandlers {
 public:
  EnvHandlers(OpenCall<Call> open, std::initializer_list<ffi::Traits> traits)
      : reset(BindRest(Reset, open, traits)),
        step(BindRest(Step, open, traits)),
        observe(BindRest(Observe, open, traits)),
        restore(BindRest(Restore, open, traits)),
        stagger(BindRest(Stagger, open, traits)),
        clock(BindRest(Clock, open, traits)),
        random_walk(BindRest(RandomWalk, open, traits)) {}

  const std::unique_ptr<ffi::Ffi> reset, step, observe, restore, stagger, clock, random_walk;

 private:
  using Open = OpenCall<Call>;
  using Context = typename Call::Context;
  using U32 = ffi::Buffer<ffi::U32>;
  using I32 = ffi::Buffer<ffi::S32>;
  using U8 = ffi::Buffer<ffi::U8>;
  using U8Result = ffi::ResultBuffer<ffi::U8>;
  using I32Result = ffi::ResultBuffer<ffi::S32>;
  using F32Result = ffi::ResultBuffer<ffi::F32>;
  using FlagResult = ffi::ResultBuffer<ffi::PRED>;
  using ObsResult = ffi::Result<ffi::AnyBuffer>;  // u8 or f32

  static ffi::Error CheckObs(const char* name, const Batch& batch, ObsResult& obs) {
    if (obs->element_type() != batch.obs_type) {
      return InvalidArgument(name, ": obs must be ", batch.obs_type == ffi::U8 ? "u8" : "f32", ", got data type ",
                             static_cast<int>(obs->element_type()));
    }
    return CheckCounts(name, {{"obs", obs->element_count(), batch.rows * batch.obs_size}});
  }

  static ffi::Error Reset(Open open, Context context,
                          U32 keys,  // [..., 2]
                          EnvParams params,
                          U8Result state,  // [..., N, S]
                          ObsResult obs)   // [..., N * K, ...]
  {
    std::unique_ptr<Call> call;
    if (auto e = open("reset", context, params, state->dimensions(), &call); e.failure()) return e;
    const Batch& batch = call->batch();
    if (auto e = CheckCounts("reset", {{"key", keys.element_count(), 2 * batch.lanes}}); e.failure()) return e;
    if (auto e = CheckObs("reset", batch, obs); e.failure()) return e;
    if (auto e = call->Zero(state); e.failure()) return e;
    return call->Reset(keys.typed_data(), state->typed_data(), obs->untyped_data());
  }

  static ffi::Error Step(Open open, Context context,
                         U32 keys,                // [..., 2]
                         U8 state_in,             // [..., N, S], aliased to the first result
                         ffi::AnyBuffer actions,  // i32 or f32[..., N * K (, heads)]
                         EnvParams params,
                         U8Result state,            // [..., N, S]
                         ObsResult obs,             // [..., N * K, ...]
                         F32Result reward,          // [..., N * K]
                         FlagResult terminated,     // [..., N * K]
                         FlagResult truncated,      // [..., N * K]
                         F32Result episode_return,  // [..., N]
                         I32Result episode_length,  // [..., N]
                         F32Result score,           // [..., N]
                         F32Result perf)            // [..., N]
  {
    std::unique_ptr<Call> call;
    if (auto e = open("step", context, params, state_in.dimensions(), &call); e.failure()) return e;
    const Batch& batch = call->batch();
    const int64_t rows = batch.rows, agents = rows * batch.agents;
    if (auto e = CheckCounts("step", {{"key", keys.element_count(), 2 * batch.lanes},
                                      {"action", actions.element_count(), rows * batch.actions},
                                      {"state", state->element_count(), rows * batch.stride},
                                      {"reward", reward->element_count(), agents},
                                      {"terminated", terminated->element_count(), agents},
                                      {"truncated", truncated->element_count(), agents},
                                      {"episode_return", episode_return->element_count(), rows},
                                      {"episode_length", episode_length->element_count(), rows},
                                      {"score", score->element_count(), rows},
                                      {"perf", perf->element_count(), rows}});
        e.failure()) {
      return e;
    }
    if (actions.element_type() != batch.action_type) {
      return InvalidArgument("step: action must be ", batch.action_type == ffi::S32 ? "i32" : "f32", ", got data type ",
                             static_cast<int>(actions.element_type()));
    }
    if (auto e = CheckObs("step", batch, obs); e.failure()) return e;
    if (auto e = call->Copy(state_in, state); e.failure()) return e;
    return call->Step(
        keys.typed_data(), state->typed_data(), actions.untyped_data(),
        {reward->typed_data(), terminated->typed_data(), truncated->typed_data(), episode_return->typed_data(),
         episode_length->typed_data(), score->typed_data(), perf->typed_data()},
        obs->untyped_data());
  }

  static ffi::Error Observe(Open open, Context context,
                            U8 state,  // [..., N, S]
                            EnvParams params,
                            ObsResult obs)  // [..., N * K, ...]
  {
    std::unique_ptr<Call> call;
    if (auto e = open("observe", context, params, state.dimensions(), &call); e.failure()) return e;
    if (auto e = CheckObs("observe", call->batch(), obs); e.failure()) return e;
    return call->Observe(state.typed_data(), obs->untyped_data());
  }

  // state[env_ids[r]] <- rows[r], in order, refusing rows this simulator cannot have produced.
  static ffi::Error Restore(Open open, Context context,
                            U8 state_in,   // [..., N, S]
                            U8 snapshots,  // [..., R, S]
                            I32 env_ids,   // [..., R]
                            EnvParams params,
                            U8Result state)  // [..., N, S]
  {
    std::unique_ptr<Call> call;
    if (auto e = open("restore", context, params, state_in.dimensions(), &call); e.failure()) return e;
    const Batch& batch = call->batch();
    const auto dims = snapshots.dimensions();
    if (dims.size() < 2 || dims.back() != batch.stride || LeadingSize(dims, 2) != batch.lanes) {
      return InvalidArgument("restore: rows must be u8[..., R, ", batch.stride, "], got ", ShapeText(dims));
    }
    const int64_t count = dims[dims.size() - 2];
    if (auto e = CheckCounts("restore", {{"env_ids", env_ids.element_count(), batch.lanes * count},
                                         {"state", state->element_count(), batch.rows * batch.stride}});
        e.failure()) {
      return e;
    }
    if (auto e = call->Copy(state_in, state); e.failure()) return e;
    return call->Restore(state->typed_data(), snapshots.typed_data(), env_ids.typed_data(), count);
  }

  static ffi::Error Stagger(Open open, Context context,
                            U32 keys,     // [..., 2]
                            U8 state_in,  // [..., N, S], aliased to the result
                            EnvParams params,
                            U8Result state)  // [..., N, S]
  {
    std::unique_ptr<Call> call;
    if (auto e = open("stagger", context, params, state_in.dimensions(), &call); e.failure()) return e;
    const Batch& batch = call->batch();
    if (auto e = CheckCounts("stagger", {{"key", keys.element_count(), 2 * batch.lanes},
                                         {"state", state->element_count(), batch.rows * batch.stride}});
        e.failure()) {
      return e;
    }
    if (auto e = call->Copy(state_in, state); e.failure()) return e;
    return call->Stagger(keys.typed_data(), state->typed_data());
  }

  // Steps since each episode began, and the rows with that set to zero. Reads nothing outside the rows, so they may be
  // anything.
  static ffi::Error Clock(Open open, Context context,
                          U8 state,  // [..., N, S]
                          EnvParams params,
                          I32Result times,    // [..., N]
                          U8Result timeless)  // [..., N, S]
  {
    std::unique_ptr<Call> call;
    if (auto e = open("clock", context, params, state.dimensions(), &call); e.failure()) return e;
    const Batch& batch = call->batch();
    if (auto e = CheckCounts("clock", {{"times", times->element_count(), batch.rows},
                                       {"timeless", timeless->element_count(), batch.rows * batch.stride}});
        e.failure()) {
      return e;
    }
    if (auto e = call->Copy(state, timeless); e.failure()) return e;
    return call->Clock(timeless->typed_data(), times->typed_data());
  }

  static ffi::Error RandomWalk(Open open, Context context,
                               U32 keys,     // [..., 2]
                               U8 state_in,  // [..., N, S], aliased to the first result
                               EnvParams params, ffi::Attr<int64_t, kNumStepsName> num_steps,
                               ffi::Attr<int64_t, kIntervalName> interval,
                               U8Result state,      // [..., N, S]
                               U8Result snapshots,  // [..., N, num_snapshots, S]
                               I32Result counts,    // [..., N]
                               I32Result rewarded,  // [..., N]
                               U8Result rings)      // as the snapshots: memory to work in
  {
    const char* name = "random_walk";
    std::unique_ptr<Call> call;
    if (auto e = open(name, context, params, state_in.dimensions(), &call); e.failure()) return e;
    const Batch& batch = call->batch();
    const auto dims = snapshots->dimensions();
    const int64_t capacity = dims.size() < 2 ? 0 : dims[dims.size() - 2];
    if (*num_steps < 1) return InvalidArgument(name, ": num_steps must be at least 1, got ", *num_steps);
    if (*interval < 1) return InvalidArgument(name, ": interval must be at least 1, got ", *interval);
    if (capacity < 1) return InvalidArgument(name, ": num_snapshots must be at least 1, got ", capacity);
    if (auto e = CheckCounts(name, {{"key", keys.element_count(), 2 * batch.lanes},
                                    {"state", state->element_count(), batch.rows * batch.stride},
                                    {"snapshots", snapshots->element_count(), batch.rows * capacity * batch.stride},
                                    {"counts", counts->element_count(), batch.rows},
                                    {"rewarded", rewarded->element_count(), batch.rows},
                                    {"rings", rings->element_count(), batch.rows * capacity * batch.stride}});
        e.failure()) {
      return e;
    }
    if (auto e = call->Copy(state_in, state); e.failure()) return e;
    if (auto e = call->Zero(snapshots); e.failure()) return e;
    return call->RandomWalk(
        keys.typed_data(), state->typed_data(), *num_steps, {*interval, capacity},
        {snapshots->typed_data(), counts->typed_data(), rewarded->typed_data(), rings->typed_data()});
  }
};

// Makes them known by the names that Python calls, which it returns. `own` gives this simulator's.
template <typename Handlers, const Handlers& (*own)()>
std::vector<std::string> RegisterHandlers(const std::string& env) {
  const std::pair<const char*, Handler*> functions[] = {
      {"reset", [](XLA_FFI_CallFrame* frame) { return own().reset->Call(frame); }},
      {"step", [](XLA_FFI_CallFrame* frame) { return own().step->Call(frame); }},
      {"observe", [](XLA_FFI_CallFrame* frame) { return own().observe->Call(frame); }},
      {"restore", [](XLA_FFI_CallFrame* frame) { return own().restore->Call(frame); }},
      {"stagger", [](XLA_FFI_CallFrame* frame) { return own().stagger->Call(frame); }},
      {"clock", [](XLA_FFI_CallFrame* frame) { return own().clock->Call(frame); }},
      {"random_walk", [](XLA_FFI_CallFrame* frame) { return own().random_walk->Call(frame); }},
  };
  std::vector<std::string> targets;
  for (const auto& [function, handler] : functions) {
    targets.push_back("pufferjax." + env + "." + function);
    pjx::Handlers()[targets.back()] = handler;
  }
  return targets;
}

}  // namespace pjx
