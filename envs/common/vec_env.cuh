// The executor on the GPU: one thread per environment, over the same simulator headers and with the same random streams
// as on the CPU (vec_env.h), on XLA's stream. What a thread does, and what it makes of bad values, is in env_rows.h.
//
// All handlers can be recorded into CUDA graphs: what they need on the device is there before (shared_data.cuh).
#pragma once

#include "envs/common/env_blocks.h"
#include "envs/common/handlers.h"
#include "envs/common/shared_data.cuh"
#include "xla_ops/common/cuda.h"

namespace pjx {

namespace device {

constexpr int kThreads = EnvTeam::kThreads;

// A block's own memory, 16-byte aligned.
__device__ inline uint8_t* Shared() {
  extern __shared__ uint4 words[];
  return reinterpret_cast<uint8_t*>(words);
}

template <typename E>
__global__ void __launch_bounds__(kThreads)
    Reset(EnvBlocks<E> blocks, const uint32_t* keys, uint8_t* states, typename E::Obs* obs) {
  blocks.Reset(EnvTeam{}, blockIdx.x, Shared(), keys, states, obs);
}

template <typename E>
__global__ void __launch_bounds__(kThreads)
    Step(EnvBlocks<E> blocks, const uint32_t* keys, uint8_t* states, const typename E::Action* actions,
         StepResults results, typename E::Obs* obs) {
  blocks.Step(EnvTeam{}, blockIdx.x, Shared(), keys, states, actions, results, obs);
}

template <typename E>
__global__ void __launch_bounds__(kThreads) Observe(EnvBlocks<E> blocks, const uint8_t* states, typename E::Obs* obs) {
  blocks.Observe(EnvTeam{}, blockIdx.x, Shared(), states, obs);
}

// --- simulators whose Reset needs working memory
template <typename E>
__global__ void __launch_bounds__(kThreads)
    Begin(EnvBlocks<E> blocks, const uint32_t* keys, uint8_t* states, bool all, StepResults results) {
  blocks.Begin(EnvTeam{}, blockIdx.x, Shared(), keys, states, all, results);
}

__device__ inline int64_t Index() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

template <typename E>
__global__ void __launch_bounds__(kThreads)
    StepOnly(EnvRows<E> envs, int64_t rows, const uint32_t* keys, uint8_t* states, const typename E::Action* actions,
             StepResults results) {
  if (Index() < rows) envs.template Step<true>(keys, states, actions, results, Index());
}

// --- without observations
template <typename E, bool kNeedsWork>
__global__ void __launch_bounds__(kThreads, /*blocks on a multiprocessor, at least=*/1)
    RandomWalk(EnvBlocks<E> blocks, const uint32_t* keys, uint8_t* states, int64_t num_steps, WalkMemory memory,
               WalkResults results) {
  blocks.template Walk<kNeedsWork>(EnvTeam{}, blockIdx.x, Shared(), keys, states, num_steps, memory, results);
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

// One call on the rows of a batch (handlers.h).
template <typename E>
class EnvsOnStream final : public EnvCall<cudaStream_t> {
 public:
  // OpenCall of E.
  static ffi::Error Open(const char* name, cudaStream_t& stream, EnvParams params, ffi::Span<const int64_t> state_dims,
                         std::unique_ptr<EnvCall<cudaStream_t>>* call) {
    auto envs = std::make_unique<EnvsOnStream>(name, stream);
    auto error = OpenBatch(name, params, state_dims, &envs->batch_);
    *call = std::move(envs);
    return error;
  }
  EnvsOnStream(const char* name, cudaStream_t stream) : name_(name), stream_(stream) {}

  const Batch& batch() const final { return batch_; }

  ffi::Error Zero(ffi::ResultBuffer<ffi::U8>& states) const final {
    return CudaError(name_, cudaMemsetAsync(states->typed_data(), 0, states->size_bytes(), stream_));
  }

  // Aliased operands are the same memory; when XLA had to keep the operand, they are not.
  ffi::Error Copy(const ffi::Buffer<ffi::U8>& from, ffi::ResultBuffer<ffi::U8>& to) const final {
    if (from.typed_data() == to->typed_data() || from.size_bytes() == 0) return ffi::Error::Success();
    return CudaError(name_, cudaMemcpyAsync(to->typed_data(), from.typed_data(), from.size_bytes(),
                                            cudaMemcpyDeviceToDevice, stream_));
  }

  ffi::Error Reset(const uint32_t* keys, uint8_t* states, void* obs) const final {
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    if constexpr (kMayNeedWork) {
      if (E::WorkBytes(batch_.params) > 0) {
        if (auto e = Begin(envs, keys, states, nullptr); e.failure()) return e;
        return WithObs(device::Observe<E>, envs, states, static_cast<Obs*>(obs));
      }
    }
    return WithObs(device::Reset<E>, envs, keys, states, static_cast<Obs*>(obs));
  }

  ffi::Error Step(const uint32_t* keys, uint8_t* states, const void* of_all, const StepResults& results,
                  void* obs) const final {
    const auto* const actions = static_cast<const typename E::Action*>(of_all);
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    if constexpr (kMayNeedWork) {
      if (E::WorkBytes(batch_.params) > 0) {
        if (auto e = Plain(device::StepOnly<E>, batch_.rows, envs, keys, states, actions, results); e.failure())
          return e;
        if (auto e = Begin(envs, keys, states, &results); e.failure()) return e;
        return WithObs(device::Observe<E>, envs, states, static_cast<Obs*>(obs));
      }
    }
    return WithObs(device::Step<E>, envs, keys, states, actions, results, static_cast<Obs*>(obs));
  }

  ffi::Error Observe(const uint8_t* states, void* obs) const final {
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    return WithObs(device::Observe<E>, envs, states, static_cast<Obs*>(obs));
  }

  ffi::Error Restore(uint8_t* states, const uint8_t* snapshots, const int32_t* env_ids, int64_t count) const final {
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    return Plain(device::Restore<E>, batch_.lanes * count, envs, states, snapshots, env_ids, count);
  }

  ffi::Error Stagger(const uint32_t* keys, uint8_t* states) const final {
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    return Plain(device::Stagger<E>, batch_.rows, envs, keys, states);
  }

  ffi::Error Clock(uint8_t* timeless, int32_t* times) const final {
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    return Plain(device::Clock<E>, batch_.rows, envs, timeless, times);
  }

  ffi::Error RandomWalk(const uint32_t* keys, uint8_t* states, int64_t num_steps, const WalkMemory& memory,
                        const WalkResults& results) const final {
    EnvRows<E> envs;
    if (auto e = Rows(&envs); e.failure()) return e;
    if constexpr (kMayNeedWork) {
      if (E::WorkBytes(batch_.params) > 0) return Walk<true>(envs, keys, states, num_steps, memory, results);
    }
    return Walk<false>(envs, keys, states, num_steps, memory, results);
  }

 private:
  using Obs = typename E::Obs;
  static constexpr bool kMayNeedWork = contract::kOffers<contract::WorkBytes, E>;

  ffi::Error Rows(EnvRows<E>* envs) const {
    *envs = {batch_.params, batch_.num_envs, batch_.stride};
    return MoveToDevice<E>(name_, &envs->params);
  }

  // A thread for each of `threads`.
  template <typename Kernel, typename... Arguments>
  ffi::Error Plain(Kernel* kernel, int64_t threads, const EnvRows<E>& envs, const Arguments&... arguments) const {
    const int64_t blocks = CeilDivide(threads, device::kThreads);
    return Launch(name_, stream_, kernel, blocks, device::kThreads, envs, threads, arguments...);
  }

  // A kernel of EnvBlocks that writes observations.
  template <typename Kernel, typename... Arguments>
  ffi::Error WithObs(Kernel* kernel, const EnvRows<E>& envs, const Arguments&... arguments) const {
    const EnvBlocks<E> blocks(envs, batch_.rows);
    return LaunchWithShared(name_, stream_, kernel, CeilDivide(batch_.rows, blocks.kRows), device::kThreads,
                            blocks.layout.BlockBytes(), blocks, arguments...);
  }

  // Episodes that need working memory to begin: those that have ended, or all where there are no results.
  ffi::Error Begin(const EnvRows<E>& envs, const uint32_t* keys, uint8_t* states, const StepResults* results) const {
    const EnvBlocks<E> blocks(envs, batch_.rows);
    return LaunchWithShared(name_, stream_, device::Begin<E>, batch_.rows, device::kThreads, blocks.WorkBlockBytes(),
                            blocks, keys, states, results == nullptr, results == nullptr ? StepResults{} : *results);
  }

  template <bool kNeedsWork>
  ffi::Error Walk(const EnvRows<E>& envs, const uint32_t* keys, uint8_t* states, int64_t num_steps,
                  const WalkMemory& memory, const WalkResults& results) const {
    const EnvBlocks<E> blocks(envs, batch_.rows);
    return LaunchWithShared(name_, stream_, device::RandomWalk<E, kNeedsWork>,
                            CeilDivide(batch_.rows, blocks.template WalkRows<kNeedsWork>()), device::kThreads,
                            blocks.template WalkBlockBytes<kNeedsWork>(), blocks, keys, states, num_steps, memory,
                            results);
  }

  const char* name_;
  cudaStream_t stream_;
  EnvBatch<E> batch_;
};

using CudaEnvHandlers = EnvHandlers<EnvCall<cudaStream_t>>;

template <typename E>
const CudaEnvHandlers& CudaHandlersOf() {
  static const CudaEnvHandlers handlers(EnvsOnStream<E>::Open, {ffi::Traits::kCmdBufferCompatible});
  return handlers;
}

// At namespace scope: the kernels of the simulator E for the one that Python knows as `env`.
template <typename E>
struct RegisteredCudaEnv {
  explicit RegisteredCudaEnv(const std::string& env) {
    const auto targets = RegisterHandlers<CudaEnvHandlers, CudaHandlersOf<E>>(env);
    if constexpr (contract::kOffers<contract::SharedData, E>) {
      for (const std::string& target : targets) Initializers()[target] = InitializerOf<CopySharedData<E>>;
    }
  }
};

}  // namespace pjx
