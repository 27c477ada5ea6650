// Arrays that live as long as one call, or less, and begin at a cache line: a vector across two lines takes twice the
// time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace pjx {

constexpr std::align_val_t kCacheLine{64};

struct FreeScratch {
  void operator()(void* block) const { ::operator delete[](block, kCacheLine); }
};
template <typename T>
using Scratch = std::unique_ptr<T[], FreeScratch>;

// Zeros; null if there is no memory.
template <typename T>
Scratch<T> AllocateScratch(int64_t size) {
  const size_t bytes = std::max<int64_t>(size, 1) * sizeof(T);
  void* block = ::operator new[](bytes, kCacheLine, std::nothrow);
  if (block != nullptr) std::memset(block, 0, bytes);
  return Scratch<T>(static_cast<T*>(block));
}

}  // namespace pjx
