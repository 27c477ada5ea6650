// The FFI handlers of a simulator for every platform: operands, results, and their checks before a row is touched.
//
// An Executor<E> does the work: EnvsOnPool (vec_env.h) or EnvsOnStream (vec_env.cuh). It is made of the name of the
// call, the platform's Context and the batch, and has a function for each handler below, over arrays that fit the
// batch; Zero and Copy prepare the rows that those update.
#pragma once

#include <string>
#include <type_traits>

#include "envs/common/batch.h"
#include "xla_ops/common/ffi.h"

namespace pjx {

template <typename E, template <typename> typename Executor>
class EnvHandlers {
 public:
  static void Register(const std::string& env) {
    const std::string prefix = "pufferjax." + env + ".";
    Handlers()[prefix + "reset"] = HandlerOf<&EnvHandlers::Reset>;
    Handlers()[prefix + "step"] = HandlerOf<&EnvHandlers::Step>;
    Handlers()[prefix + "observe"] = HandlerOf<&EnvHandlers::Observe>;
    Handlers()[prefix + "restore"] = HandlerOf<&EnvHandlers::Restore>;
    Handlers()[prefix + "stagger"] = HandlerOf<&EnvHandlers::Stagger>;
    Handlers()[prefix + "clock"] = HandlerOf<&EnvHandlers::Clock>;
  }

 private:
  using Context = typename Executor<E>::Context;
  using U32 = ffi::Buffer<ffi::U32>;
  using I32 = ffi::Buffer<ffi::S32>;
  using U8 = ffi::Buffer<ffi::U8>;
  using U8Result = ffi::ResultBuffer<ffi::U8>;
  using I32Result = ffi::ResultBuffer<ffi::S32>;
  using F32Result = ffi::ResultBuffer<ffi::F32>;
  using FlagResult = ffi::ResultBuffer<ffi::PRED>;
  using ObsResult = ffi::ResultBuffer<std::is_same_v<typename E::Obs, uint8_t> ? ffi::U8 : ffi::F32>;

  static ffi::Error Reset(Context context,
                          U32 keys,  // [..., 2]
                          EnvParams params,
                          U8Result state,  // [..., N, S]
                          ObsResult obs)   // [..., N * K, ...]
  {
    EnvBatch<E> batch;
    if (auto e = OpenBatch("reset", params, state->dimensions(), &batch); e.failure()) return e;
    if (auto e = CheckCounts("reset", {{"key", keys.element_count(), 2 * batch.lanes},
                                       {"obs", obs->element_count(), batch.rows * batch.ObsSize()}});
        e.failure()) {
      return e;
    }
    const Executor<E> envs{"reset", context, batch};
    if (auto e = envs.Zero(state); e.failure()) return e;
    return envs.Reset(keys.typed_data(), state->typed_data(), obs->typed_data());
  }

  static ffi::Error Step(Context context,
                         U32 keys,     // [..., 2]
                         U8 state_in,  // [..., N, S], aliased to the first result
                         I32 actions,  // [..., N * K (, heads)]
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
    EnvBatch<E> batch;
    if (auto e = OpenBatch("step", params, state_in.dimensions(), &batch); e.failure()) return e;
    const int64_t rows = batch.rows, agents = batch.Agents();
    if (auto e = CheckCounts("step", {{"key", keys.element_count(), 2 * batch.lanes},
                                      {"action", actions.element_count(), agents * E::kNumHeads},
                                      {"state", state->element_count(), rows * batch.stride},
                                      {"obs", obs->element_count(), rows * batch.ObsSize()},
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
    const Executor<E> envs{"step", context, batch};
    if (auto e = envs.Copy(state_in, state); e.failure()) return e;
    return envs.Step(
        keys.typed_data(), state->typed_data(), actions.typed_data(),
        {reward->typed_data(), terminated->typed_data(), truncated->typed_data(), episode_return->typed_data(),
         episode_length->typed_data(), score->typed_data(), perf->typed_data()},
        obs->typed_data());
  }

  static ffi::Error Observe(Context context,
                            U8 state,  // [..., N, S]
                            EnvParams params,
                            ObsResult obs)  // [..., N * K, ...]
  {
    EnvBatch<E> batch;
    if (auto e = OpenBatch("observe", params, state.dimensions(), &batch); e.failure()) return e;
    if (auto e = CheckCounts("observe", {{"obs", obs->element_count(), batch.rows * batch.ObsSize()}}); e.failure()) {
      return e;
    }
    return Executor<E>{"observe", context, batch}.Observe(state.typed_data(), obs->typed_data());
  }

  // state[env_ids[r]] <- rows[r], in order, refusing rows this simulator cannot have produced.
  static ffi::Error Restore(Context context,
                            U8 state_in,   // [..., N, S], aliased to the result
                            U8 snapshots,  // [..., R, S]
                            I32 env_ids,   // [..., R]
                            EnvParams params,
                            U8Result state)  // [..., N, S]
  {
    EnvBatch<E> batch;
    if (auto e = OpenBatch("restore", params, state_in.dimensions(), &batch); e.failure()) return e;
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
    const Executor<E> envs{"restore", context, batch};
    if (auto e = envs.Copy(state_in, state); e.failure()) return e;
    return envs.Restore(state->typed_data(), snapshots.typed_data(), env_ids.typed_data(), count);
  }

  static ffi::Error Stagger(Context context,
                            U32 keys,     // [..., 2]
                            U8 state_in,  // [..., N, S], aliased to the result
                            EnvParams params,
                            U8Result state)  // [..., N, S]
  {
    EnvBatch<E> batch;
    if (auto e = OpenBatch("stagger", params, state_in.dimensions(), &batch); e.failure()) return e;
    if (auto e = CheckCounts("stagger", {{"key", keys.element_count(), 2 * batch.lanes},
                                         {"state", state->element_count(), batch.rows * batch.stride}});
        e.failure()) {
      return e;
    }
    const Executor<E> envs{"stagger", context, batch};
    if (auto e = envs.Copy(state_in, state); e.failure()) return e;
    return envs.Stagger(keys.typed_data(), state->typed_data());
  }

  // Steps since each episode began, and the rows with that set to zero. Reads nothing outside the rows, so they may be
  // anything.
  static ffi::Error Clock(Context context,
                          U8 state,  // [..., N, S]
                          EnvParams params,
                          I32Result times,    // [..., N]
                          U8Result timeless)  // [..., N, S]
  {
    EnvBatch<E> batch;
    if (auto e = OpenBatch("clock", params, state.dimensions(), &batch); e.failure()) return e;
    if (auto e = CheckCounts("clock", {{"times", times->element_count(), batch.rows},
                                       {"timeless", timeless->element_count(), batch.rows * batch.stride}});
        e.failure()) {
      return e;
    }
    const Executor<E> envs{"clock", context, batch};
    if (auto e = envs.Copy(state, timeless); e.failure()) return e;
    return envs.Clock(timeless->typed_data(), times->typed_data());
  }
};

}  // namespace pjx
