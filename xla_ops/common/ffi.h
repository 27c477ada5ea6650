// What handlers have in common: bindings, error text, checks of sizes, and a parallel loop on XLA's own thread pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#include "xla/ffi/api/ffi.h"
#include "xla_ops/common/registry.h"

// XLA reads a handler's binding from its signature, and leaves this type out.
template <>
struct xla::ffi::CtxBinding<xla::ffi::ThreadPool> {
  using Ctx = xla::ffi::ThreadPool;
};

namespace pjx {

namespace ffi = xla::ffi;

// The handler that calls `function`, whose parameters are what it needs of the context, its operands, its attributes by
// name (ffi::Attr) and its results.
template <auto function, ffi::Traits... traits>
XLA_FFI_Error* HandlerOf(XLA_FFI_CallFrame* frame) {
  static const auto* handler = ffi::Ffi::BindTo(function, {traits...}).release();
  return handler->Call(frame);
}

// Likewise the handler of the stage before execution.
template <auto function>
XLA_FFI_Error* InitializerOf(XLA_FFI_CallFrame* frame) {
  constexpr auto stage = ffi::ExecutionStage::kInitialize;
  static const auto* handler = ffi::Ffi::BindTo<decltype(function), stage>(function).release();
  return handler->Call(frame);
}

// A part of an error's text: words or a number.
class TextPart {
 public:
  TextPart(const char* words) : text_(words) {}         // NOLINT: implicit, as are the others
  TextPart(const std::string& words) : text_(words) {}  // NOLINT
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  TextPart(Number number) {  // NOLINT
    if constexpr (std::is_integral_v<Number>) {
      text_ = std::to_string(number);
    } else {
      char digits[32];
      std::snprintf(digits, sizeof digits, "%g", static_cast<double>(number));
      text_ = digits;
    }
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

inline ffi::Error InvalidArgumentOf(std::initializer_list<TextPart> parts) {
  std::string text;
  for (const TextPart& part : parts) text += part.text();
  return ffi::Error::InvalidArgument(std::move(text));
}
template <typename... Parts>
ffi::Error InvalidArgument(const Parts&... parts) {
  return InvalidArgumentOf({parts...});
}

inline std::string ShapeText(ffi::Span<const int64_t> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + ']';
}

// Product of all dimensions but the last `trailing`: the number of lanes a vmapped call carries.
inline int64_t LeadingSize(ffi::Span<const int64_t> dims, size_t trailing) {
  int64_t size = 1;
  for (size_t i = 0; i + trailing < dims.size(); ++i) size *= dims[i];
  return size;
}

struct ElementCount {
  const char* name;  // of an operand or a result
  size_t count;
  int64_t expected;
};

inline ffi::Error CheckCounts(const char* op, std::initializer_list<ElementCount> counts) {
  for (const auto& [name, count, expected] : counts) {
    if (static_cast<int64_t>(count) == expected) continue;
    return InvalidArgument(op, ": ", name, " has ", count, " elements, expected ", expected);
  }
  return ffi::Error::Success();
}

// Before a handler updates `to`. XLA aliases the two wherever it can; the copy is for where it had to keep the operand.
template <typename Operand, typename Result>
void CopyUnlessAliased(const Operand& from, Result& to) {
  if (from.untyped_data() == to->untyped_data() || from.size_bytes() == 0) return;
  std::memcpy(to->untyped_data(), from.untyped_data(), from.size_bytes());
}

// How many threads of a pool one handler may use. Host devices share one pool: with a device per core, a handler that
// hands work to the pool only waits for a thread that the other devices keep busy.
inline std::atomic<int64_t>& ThreadLimit() {
  static std::atomic<int64_t> limit{INT64_MAX};
  return limit;
}

// A function of (begin, end) that outlives its use here. Its type is not part of ParallelFor's, so that a loop is
// compiled once and not into each of the places where ParallelFor calls it.
class ChunkBody {
 public:
  template <typename Function>
  ChunkBody(const Function& function)  // NOLINT: implicit
      : function_(&function), call_([](const void* erased, int64_t begin, int64_t end) {
          (*static_cast<const Function*>(erased))(begin, end);
        }) {}
  void operator()(int64_t begin, int64_t end) const { call_(function_, begin, end); }

 private:
  const void* function_;
  void (*call_)(const void*, int64_t, int64_t);
};

// Calls body(begin, end) over [0, total) in chunks of at least `grain`, on the calling thread and on XLA's pool.
// The caller works too and waits only for chunks that another thread has already begun, so a handler that runs on a
// pool thread cannot deadlock; a helper that wakes up late finds no chunk left and returns.
inline void ParallelFor(ffi::ThreadPool& pool, int64_t total, int64_t grain, ChunkBody body) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t threads = std::max<int64_t>(std::min(pool.num_threads(), ThreadLimit().load()), 1);
  // Two chunks per thread even out cores of unequal speed without losing time to scheduling.
  const int64_t chunks = std::min((total + grain - 1) / grain, threads > 1 ? 2 * threads : 1);
  if (chunks <= 1) {
    if (total > 0) body(0, total);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto shared = std::make_shared<Shared>();  // outlives the call for helpers that wake up late
  auto run = [shared, body, total, chunks] {
    int64_t finished = 0;
    for (;;) {
      const int64_t chunk = shared->next.fetch_add(1);
      if (chunk >= chunks) break;
      body(total * chunk / chunks, total * (chunk + 1) / chunks);
      ++finished;
    }
    if (finished == 0) return;
    std::lock_guard<std::mutex> lock(shared->mutex);
    shared->done += finished;
    if (shared->done == chunks) shared->all_done.notify_all();
  };
  for (int64_t helper = 1; helper < std::min(threads, chunks); ++helper) pool.Schedule(decltype(run)(run));
  run();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == chunks; });
}

}  // namespace pjx
