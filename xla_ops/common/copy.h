// Copies from global to shared memory that need no register on their way and that nobody waits for until they are
// needed.
#pragma once

#include <cstring>

#include "xla_ops/common/host_device.h"

namespace pjx {

constexpr int kCopyBytes = 16;

// If `is_wanted`: to[kOffset, kOffset + 16) <- from[kOffset, kOffset + 16), both at a multiple of 16. Of a thread. Not
// a branch: several of them need their addresses once.
template <int kOffset>
PJX_HD void CopyAsyncIf(bool is_wanted, void* to, const void* from) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p cp.async.cg.shared.global [%1 + %3], [%2 + %3], 16; }" ::"r"(
                   static_cast<int>(is_wanted)),
               "r"(shared), "l"(from), "n"(kOffset)
               : "memory");
#else
  if (is_wanted) std::memcpy(static_cast<char*>(to) + kOffset, static_cast<const char*>(from) + kOffset, kCopyBytes);
#endif
}

// to[0, 16) <- from[0, bytes) and zeros.
PJX_HD void CopyAsync(void* to, const void* from, int bytes) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
#else
  std::memset(to, 0, kCopyBytes);
  std::memcpy(to, from, bytes);
#endif
}

// The thread's copies since the last one are a group.
PJX_HD void CommitCopies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// All of the thread's groups but the last kPending have arrived. What other threads have copied is seen after a
// barrier.
template <int kPending>
PJX_HD void WaitForCopies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace pjx
