// The executor on the GPU: one thread per environment, over the same simulator headers and with the same random streams
// as on the CPU (vec_env.h), on XLA's stream. What a thread does, and what it makes of bad values, is in env_rows.h.
//
// A simulator whose parameters point to host memory offers a host-side `MoveToDevice<E>`, which is called before every
// launch with the parameters that ParseParams gave.
#pragma once

#include <vector>

#include "envs/common/batch.h"
#include "envs/common/env_rows.h"
#include "xla_ops/common/cuda.h"

namespace pjx {

// Replaces the pointers in `params` by those of the current device.
template <typename E>
ffi::Error MoveToDevice(typename E::Params* params);

namespace device {

constexpr int kThreads = 128;

__device__ inline int64_t Index() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

template <typename E>
__global__ void __launch_bounds__(kThreads)
    Reset(EnvRows<E> envs, int64_t rows, const uint32_t* keys, uint8_t* states, typename E::Obs* obs) {
  if (Index() < rows) envs.Reset(keys, states, obs, Index());
}

template <typename E>
__global__ void __launch_bounds__(kThreads)
    Step(EnvRows<E> envs, int64_t rows, const uint32_t* keys, uint8_t* states, const int32_t* actions,
         typename EnvRows<E>::StepResults results, typename E::Obs* obs) {
  if (Index() < rows) envs.Step(keys, states, actions, results, obs, Index());
}

template <typename E>
__global__ void __launch_bounds__(kThreads)
    Observe(EnvRows<E> envs, int64_t rows, const uint8_t* states, typename E::Obs* obs) {
  if (Index() < rows) envs.Observe(states, obs, Index());
}

template <typename E>
__global__ void __launch_bounds__(kThreads) Restore(EnvRows<E> envs, int64_t total, uint8_t* states,
                                                    const uint8_t* snapshots, const int32_t* env_ids, int64_t count) {
  if (Index() < total) envs.Restore(states, snapshots, env_ids, count, Index());
}

template <typename E>
__global__ void __launch_bounds__(kThreads)
    Stagger(EnvRows<E> envs, int64_t rows, const uint32_t* keys, uint8_t* states) {
  if (Index() < rows) envs.Stagger(keys, states, Index());
}

template <typename E>
__global__ void __launch_bounds__(kThreads) Clock(EnvRows<E> envs, int64_t rows, uint8_t* timeless, int32_t* times) {
  if (Index() < rows) envs.Clock(timeless, times, Index());
}

}  // namespace device

template <typename E>
class CudaVecEnv {
 public:
  using Obs = typename E::Obs;
  using U32 = ffi::Buffer<ffi::U32>;
  using I32 = ffi::Buffer<ffi::S32>;
  using U8 = ffi::Buffer<ffi::U8>;
  static constexpr ffi::DataType kObsType = std::is_same_v<Obs, uint8_t> ? ffi::U8 : ffi::F32;
  using ObsBuffer = ffi::ResultBuffer<kObsType>;
  using F32Result = ffi::ResultBuffer<ffi::F32>;
  using FlagResult = ffi::ResultBuffer<ffi::PRED>;
  using Attr = ffi::Span<const int64_t>;

  static void Register(const std::string& name) {
    Handlers()["pufferjax." + name + ".reset"] = &ResetHandler;
    Handlers()["pufferjax." + name + ".step"] = &StepHandler;
    Handlers()["pufferjax." + name + ".observe"] = &ObserveHandler;
    Handlers()["pufferjax." + name + ".restore"] = &RestoreHandler;
    Handlers()["pufferjax." + name + ".stagger"] = &StaggerHandler;
    Handlers()["pufferjax." + name + ".clock"] = &ClockHandler;
  }

 private:
  struct Count {
    const char* name;
    size_t count;
    int64_t expected;
  };

  // The batch behind `state_dims` as kernels take it, once everything about the call has been checked.
  struct Call {
    const char* name;
    cudaStream_t stream;
    EnvBatch<E> batch;
    EnvRows<E> envs;
    ffi::Error error = ffi::Error::Success();

    Call(const char* call, cudaStream_t cuda_stream, Attr attr, ffi::Span<const int64_t> state_dims)
        : name(call), stream(cuda_stream), batch(OpenBatch<E>(call, attr, state_dims)) {
      if (!batch.error.empty()) error = InvalidArgument(batch.error);
    }

    int64_t Agents() const { return batch.rows * E::kNumAgents; }
    int64_t ObsCount() const { return Agents() * E::ObsSize(batch.params); }

    // Also makes `envs` ready.
    ffi::Error Check(const std::vector<Count>& counts) {
      for (const auto& [what, count, expected] : counts) {
        if (error.success()) error = ExpectCount(name, what, static_cast<int64_t>(count), expected);
      }
      if (error.success()) error = MoveToDevice<E>(&batch.params);
      envs = {batch.params, batch.num_envs, batch.stride};
      return error;
    }

    // Aliased operands are the same memory; when XLA had to keep the operand, they are not.
    ffi::Error Copy(const U8& from, ffi::ResultBuffer<ffi::U8>& to) const {
      if (from.typed_data() == to->typed_data() || from.size_bytes() == 0) return ffi::Error::Success();
      return CudaError(name, cudaMemcpyAsync(to->typed_data(), from.typed_data(), from.size_bytes(),
                                             cudaMemcpyDeviceToDevice, stream));
    }

    template <typename Kernel, typename... Arguments>
    ffi::Error Run(Kernel* kernel, int64_t threads, const Arguments&... arguments) const {
      const int64_t blocks = CeilDivide(threads, device::kThreads);
      return Launch(name, stream, kernel, blocks, device::kThreads, envs, threads, arguments...);
    }
  };

  static ffi::Error Reset(cudaStream_t stream, U32 keys, Attr attr, ffi::ResultBuffer<ffi::U8> state, ObsBuffer obs) {
    Call call("reset", stream, attr, state->dimensions());
    if (auto e = call.Check(
            {{"key", keys.element_count(), 2 * call.batch.lanes}, {"obs", obs->element_count(), call.ObsCount()}});
        e.failure()) {
      return e;
    }
    auto e = CudaError("reset", cudaMemsetAsync(state->typed_data(), 0, state->size_bytes(), stream));
    if (e.failure()) return e;
    return call.Run(device::Reset<E>, call.batch.rows, keys.typed_data(), state->typed_data(), obs->typed_data());
  }

  static ffi::Error Step(cudaStream_t stream, U32 keys, U8 state_in, I32 actions, Attr attr,
                         ffi::ResultBuffer<ffi::U8> state, ObsBuffer obs, F32Result rewards, FlagResult terminated,
                         FlagResult truncated, F32Result episode_return, ffi::ResultBuffer<ffi::S32> episode_length,
                         F32Result score, F32Result perf) {
    Call call("step", stream, attr, state_in.dimensions());
    const int64_t rows = call.batch.rows, agents = call.Agents();
    if (auto e = call.Check({{"key", keys.element_count(), 2 * call.batch.lanes},
                             {"action", actions.element_count(), agents * E::kNumHeads},
                             {"state", state->element_count(), rows * call.batch.stride},
                             {"obs", obs->element_count(), call.ObsCount()},
                             {"reward", rewards->element_count(), agents},
                             {"terminated", terminated->element_count(), agents},
                             {"truncated", truncated->element_count(), agents},
                             {"episode_return", episode_return->element_count(), rows},
                             {"episode_length", episode_length->element_count(), rows},
                             {"score", score->element_count(), rows},
                             {"perf", perf->element_count(), rows}});
        e.failure()) {
      return e;
    }
    if (auto e = call.Copy(state_in, state); e.failure()) return e;
    const typename EnvRows<E>::StepResults results{
        rewards->typed_data(),        terminated->typed_data(), truncated->typed_data(), episode_return->typed_data(),
        episode_length->typed_data(), score->typed_data(),      perf->typed_data()};
    return call.Run(device::Step<E>, rows, keys.typed_data(), state->typed_data(), actions.typed_data(), results,
                    obs->typed_data());
  }

  static ffi::Error Observe(cudaStream_t stream, U8 state, Attr attr, ObsBuffer obs) {
    Call call("observe", stream, attr, state.dimensions());
    if (auto e = call.Check({{"obs", obs->element_count(), call.ObsCount()}}); e.failure()) return e;
    return call.Run(device::Observe<E>, call.batch.rows, state.typed_data(), obs->typed_data());
  }

  static ffi::Error Restore(cudaStream_t stream, U8 state_in, U8 snapshots, I32 env_ids, Attr attr,
                            ffi::ResultBuffer<ffi::U8> state) {
    Call call("restore", stream, attr, state_in.dimensions());
    const auto dims = snapshots.dimensions();
    if (call.error.success() &&
        (dims.size() < 2 || dims[dims.size() - 1] != call.batch.stride || LeadingSize(dims, 2) != call.batch.lanes)) {
      return InvalidArgument("restore: rows must be u8[..., R, ", call.batch.stride, "], got ", ShapeText(dims));
    }
    const int64_t count = dims.size() < 2 ? 0 : dims[dims.size() - 2], total = call.batch.lanes * count;
    if (auto e = call.Check({{"env_ids", env_ids.element_count(), total}}); e.failure()) return e;
    if (auto e = call.Copy(state_in, state); e.failure()) return e;
    return call.Run(device::Restore<E>, total, state->typed_data(), snapshots.typed_data(), env_ids.typed_data(),
                    count);
  }

  static ffi::Error Stagger(cudaStream_t stream, U32 keys, U8 state_in, Attr attr, ffi::ResultBuffer<ffi::U8> state) {
    Call call("stagger", stream, attr, state_in.dimensions());
    if (auto e = call.Check({{"key", keys.element_count(), 2 * call.batch.lanes}}); e.failure()) return e;
    if (auto e = call.Copy(state_in, state); e.failure()) return e;
    return call.Run(device::Stagger<E>, call.batch.rows, keys.typed_data(), state->typed_data());
  }

  static ffi::Error Clock(cudaStream_t stream, U8 state, Attr attr, ffi::ResultBuffer<ffi::S32> times,
                          ffi::ResultBuffer<ffi::U8> timeless) {
    Call call("clock", stream, attr, state.dimensions());
    if (auto e = call.Check({{"times", times->element_count(), call.batch.rows}}); e.failure()) return e;
    if (auto e = call.Copy(state, timeless); e.failure()) return e;
    return call.Run(device::Clock<E>, call.batch.rows, timeless->typed_data(), times->typed_data());
  }

  // --- handlers ------------------------------------------------------------------------------------------------------
  // Operands and results are those of vec_env.h. Not declared compatible with CUDA graphs: the first call on a device
  // may allocate and copy.
  static XLA_FFI_Error* ResetHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<Stream>()
                                     .Arg<U32>()
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()
                                     .template Ret<ffi::Buffer<kObsType>>()
                                     .To(&Reset)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* StepHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<Stream>()
                                     .Arg<U32>()
                                     .template Arg<U8>()
                                     .template Arg<I32>()
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()
                                     .template Ret<ffi::Buffer<kObsType>>()
                                     .template Ret<ffi::Buffer<ffi::F32>>()
                                     .template Ret<ffi::Buffer<ffi::PRED>>()
                                     .template Ret<ffi::Buffer<ffi::PRED>>()
                                     .template Ret<ffi::Buffer<ffi::F32>>()
                                     .template Ret<I32>()
                                     .template Ret<ffi::Buffer<ffi::F32>>()
                                     .template Ret<ffi::Buffer<ffi::F32>>()
                                     .To(&Step)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* ObserveHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<Stream>()
                                     .Arg<U8>()
                                     .template Attr<Attr>("params")
                                     .template Ret<ffi::Buffer<kObsType>>()
                                     .To(&Observe)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* RestoreHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<Stream>()
                                     .Arg<U8>()
                                     .template Arg<U8>()
                                     .template Arg<I32>()
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()
                                     .To(&Restore)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* StaggerHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<Stream>()
                                     .Arg<U32>()
                                     .template Arg<U8>()
                                     .template Attr<Attr>("params")
                                     .template Ret<U8>()
                                     .To(&Stagger)
                                     .release();
    return handler->Call(frame);
  }
  static XLA_FFI_Error* ClockHandler(XLA_FFI_CallFrame* frame) {
    static const auto* handler = ffi::Ffi::Bind()
                                     .Ctx<Stream>()
                                     .Arg<U8>()
                                     .template Attr<Attr>("params")
                                     .template Ret<I32>()
                                     .template Ret<U8>()
                                     .To(&Clock)
                                     .release();
    return handler->Call(frame);
  }
};

}  // namespace pjx
