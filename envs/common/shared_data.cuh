// What the parameters of a simulator point to (SharedData in simulator.h), copied once to each device.
//
// A copy is made in XLA's stage before execution, which runs in every execution of a program before any of its kernels,
// and before they are recorded into a CUDA graph. So the handlers themselves only look it up: they allocate nothing,
// wait for nothing, and launch the same kernels with the same pointers every time.
#pragma once

#include <map>
#include <mutex>

#include "envs/common/batch.h"
#include "xla_ops/common/cuda.h"

namespace pjx {

// The copies of this process, by device and address on the host. Like what they are copies of, they are kept for ever.
class DeviceCopies {
 public:
  // The one on the current device; null if there is none.
  const void* Find(const void* array) {
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return nullptr;
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = copies_.find({device, array});
    return found == copies_.end() ? nullptr : found->second;
  }

  // Returns when the copy is complete, so kernels on any stream may read it.
  ffi::Error Make(const char* name, const void* array, int64_t bytes) {
    int device = 0;
    if (auto e = CudaError(name, cudaGetDevice(&device)); e.failure()) return e;
    std::lock_guard<std::mutex> lock(mutex_);
    if (copies_.count({device, array})) return ffi::Error::Success();
    // Other threads may be recording graphs meanwhile; this has nothing to do with their streams.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    if (auto e = CudaError(name, cudaThreadExchangeStreamCaptureMode(&mode)); e.failure()) return e;
    void* copy = nullptr;
    const cudaError_t error = Upload(array, bytes, &copy);
    cudaThreadExchangeStreamCaptureMode(&mode);
    if (error == cudaSuccess) copies_.emplace(std::make_pair(device, array), copy);
    return CudaError(name, error);
  }

 private:
  static cudaError_t Upload(const void* array, int64_t bytes, void** copy) {
    cudaStream_t stream;
    if (const auto error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); error != cudaSuccess)
      return error;
    cudaError_t error = cudaMalloc(copy, bytes);
    if (error == cudaSuccess) {
      error = cudaMemcpyAsync(*copy, array, bytes, cudaMemcpyHostToDevice, stream);
      if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
      if (error != cudaSuccess) cudaFree(*copy);
    }
    cudaStreamDestroy(stream);
    return error;
  }

  std::mutex mutex_;
  std::map<std::pair<int, const void*>, const void*> copies_;
};

// One for all simulators and sources.
inline DeviceCopies& CopiesOnDevices() {
  static auto* copies = new DeviceCopies;  // never destroyed: handlers may still run while the process ends
  return *copies;
}

// Whether there is anything that these parameters point to.
template <typename E>
bool HasSharedData(const typename E::Params& params) {
  if constexpr (contract::kOffers<contract::SharedData, E>) return E::SharedBytes(params) > 0;
  return false;
}

// The stage before execution, for every function of the simulator.
template <typename E>
ffi::Error CopySharedData(ffi::Dictionary attributes) {
  const auto values = attributes.get<ffi::Span<const int64_t>>(kParamsName);
  if (!values.has_value()) return values.error();
  typename E::Params params;
  const std::string reason = ParseParams<E>(values->begin(), static_cast<int64_t>(values->size()), &params);
  if (!reason.empty()) return InvalidArgument(reason);
  if (!HasSharedData<E>(params)) return ffi::Error::Success();
  return CopiesOnDevices().Make("shared data of a simulator", E::SharedData(params), E::SharedBytes(params));
}

// Makes parameters that point to memory of the host point to the copy on the current device.
template <typename E>
ffi::Error MoveToDevice(const char* call, typename E::Params* params) {
  if constexpr (contract::kOffers<contract::SharedData, E>) {
    if (!HasSharedData<E>(*params)) return ffi::Error::Success();
    auto& data = E::SharedData(*params);
    const void* copy = CopiesOnDevices().Find(data);
    if (copy == nullptr) {
      return ffi::Error::Internal(std::string(call) +
                                  ": the simulator's shared data is not on this device: XLA has not "
                                  "run the stage that copies it");
    }
    data = static_cast<std::decay_t<decltype(data)>>(copy);
  }
  return ffi::Error::Success();
}

}  // namespace pjx
