// mingru_scan on the CPU. Batch rows are split over the threads; a thread walks time over a block of rows whose state
// stays in the first-level cache, and the loop over the H channels of a row is contiguous and vectorised. The three
// sigmoids of an element dominate. Backward computes them again instead of keeping three more arrays of the size of x.
#include "xla_ops/common/ffi.h"
#include "xla_ops/common/simd.h"

namespace pjx {
namespace {

constexpr int64_t kBlock = 2048;   // channels of the rows a thread walks through time together: 8 KiB of state
constexpr int64_t kGrain = 16384;  // elements below which a second thread costs more than it saves

PJX_INLINE float Candidate(float h_in) {
  const float low = Sigmoid(h_in), high = h_in + 0.5f;
  return h_in >= 0.0f ? high : low;
}

// One row of one step. `h` may be `previous`: the state is then updated in place. Without kKeep there is a reset, and
// the old state counts as 0.
template <bool kKeep>
PJX_INLINE void RowForward(const float* projected, const float* x, const float* previous, int64_t hidden, float* y,
                           float* h) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < hidden; ++i) {
    const float z = Sigmoid(projected[hidden + i]), s = Sigmoid(projected[2 * hidden + i]);
    const float state = (1.0f - z) * (kKeep ? previous[i] : 0.0f) + z * Candidate(projected[i]);
    h[i] = state;
    y[i] = s * state + (1.0f - s) * x[i];
  }
}

// Rows [begin, end) of one lane through all steps. `h` has room for all steps if `keep_states`, else for one, which
// then holds the last state. `reset` is null or bool[T, B].
PJX_MULTIVERSION
void Forward(const float* projected, const float* x, const float* h0, const bool* reset, int64_t num_steps,
             int64_t batch, int64_t hidden, int64_t begin, int64_t end, bool keep_states, float* y, float* h) {
  for (int64_t t = 0; t < num_steps; ++t) {
    float* states = keep_states ? h + t * batch * hidden : h;
    const float* previous = t == 0 ? h0 : keep_states ? states - batch * hidden : h;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t row = (t * batch + b) * hidden;
      if (reset != nullptr && reset[t * batch + b]) {
        RowForward<false>(projected + 3 * row, x + row, previous + b * hidden, hidden, y + row, states + b * hidden);
      } else {
        RowForward<true>(projected + 3 * row, x + row, previous + b * hidden, hidden, y + row, states + b * hidden);
      }
    }
  }
}

// `carried` holds what the later steps send back to this state, and leaves with what goes to the one before.
template <bool kKeep>
PJX_INLINE void RowBackward(const float* projected, const float* x, const float* previous, const float* h,
                            const float* y_bar, int64_t hidden, float* carried, float* projected_bar, float* x_bar) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < hidden; ++i) {
    const float h_in = projected[i], z = Sigmoid(projected[hidden + i]), s = Sigmoid(projected[2 * hidden + i]);
    const float candidate = Candidate(h_in);
    const float h_bar = y_bar[i] * s + carried[i];
    const float z_bar = h_bar * (candidate - (kKeep ? previous[i] : 0.0f));
    const float s_bar = y_bar[i] * (h[i] - x[i]);
    const float candidate_bar = h_bar * z;
    const float low_bar = candidate_bar * (candidate * (1.0f - candidate));
    projected_bar[i] = h_in >= 0.0f ? candidate_bar : low_bar;
    projected_bar[hidden + i] = z_bar * (z * (1.0f - z));
    projected_bar[2 * hidden + i] = s_bar * (s * (1.0f - s));
    x_bar[i] = y_bar[i] * (1.0f - s);
    carried[i] = kKeep ? h_bar * (1.0f - z) : 0.0f;
  }
}

PJX_MULTIVERSION
void Backward(const float* projected, const float* x, const float* h0, const bool* reset, const float* h,
              const float* y_bar, const float* h_last_bar, int64_t num_steps, int64_t batch, int64_t hidden,
              int64_t begin, int64_t end, float* projected_bar, float* x_bar, float* h0_bar) {
  for (int64_t i = begin * hidden; i < end * hidden; ++i) h0_bar[i] = h_last_bar[i];
  for (int64_t t = num_steps - 1; t >= 0; --t) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t row = (t * batch + b) * hidden;
      const float* previous = t == 0 ? h0 + b * hidden : h + row - batch * hidden;
      if (reset != nullptr && reset[t * batch + b]) {
        RowBackward<false>(projected + 3 * row, x + row, previous, h + row, y_bar + row, hidden, h0_bar + b * hidden,
                           projected_bar + 3 * row, x_bar + row);
      } else {
        RowBackward<true>(projected + 3 * row, x + row, previous, h + row, y_bar + row, hidden, h0_bar + b * hidden,
                          projected_bar + 3 * row, x_bar + row);
      }
    }
  }
}

struct Sizes {
  int64_t lanes, num_steps, batch, hidden;  // x is [lanes, T, B, H]
  int64_t lane() const { return num_steps * batch * hidden; }
  int64_t all() const { return lanes * lane(); }
  int64_t states() const { return lanes * batch * hidden; }
};

// Calls body(lane, begin, end) for blocks of batch rows, in parallel.
template <typename Body>
void ForBlocks(ffi::ThreadPool& pool, const Sizes& sizes, const Body& body) {
  if (sizes.hidden == 0) return;
  const int64_t block = std::max<int64_t>(1, kBlock / sizes.hidden);
  ParallelFor(pool, sizes.lanes * sizes.batch, kGrain / (sizes.num_steps * sizes.hidden),
              [&](int64_t begin, int64_t end) {
                while (begin < end) {
                  const int64_t lane = begin / sizes.batch, first = begin % sizes.batch;
                  const int64_t stop = std::min({sizes.batch, first + (end - begin), first + block});
                  body(lane, first, stop);
                  begin += stop - first;
                }
              });
}

struct Count {
  const char* name;
  size_t count;
  int64_t expected;
};

ffi::Error Check(const char* op, ffi::Span<const int64_t> dims, size_t reset_count, Sizes* sizes) {
  if (dims.size() < 3) return InvalidArgument(op, ": x must be [..., T, B, H], got ", ShapeText(dims));
  const int64_t* tail = dims.end() - 3;
  *sizes = Sizes{LeadingSize(dims, 3), tail[0], tail[1], tail[2]};
  if (sizes->num_steps < 1) return InvalidArgument(op, ": x must have at least one step, got ", ShapeText(dims));
  const int64_t flags = sizes->lanes * sizes->num_steps * sizes->batch;
  if (reset_count != 0 && static_cast<int64_t>(reset_count) != flags) {
    return InvalidArgument(op, ": reset has ", reset_count, " elements, expected 0 or ", flags);
  }
  return ffi::Error::Success();
}

ffi::Error Check(const char* op, std::initializer_list<Count> counts) {
  for (const auto& [name, count, expected] : counts) {
    if (static_cast<int64_t>(count) != expected) {
      return InvalidArgument(op, ": ", name, " has ", count, " elements, expected ", expected);
    }
  }
  return ffi::Error::Success();
}

const bool* Flags(const ffi::Buffer<ffi::PRED>& reset, const Sizes& sizes, int64_t lane) {
  return reset.element_count() == 0 ? nullptr : reset.typed_data() + lane * sizes.num_steps * sizes.batch;
}

// Both forward targets: `h` is the last state, or with `keep_states` all of them.
ffi::Error RunForward(const char* op, bool keep_states, ffi::ThreadPool& pool, ffi::Buffer<ffi::F32>& projected,
                      ffi::Buffer<ffi::F32>& x, ffi::Buffer<ffi::F32>& h0, ffi::Buffer<ffi::PRED>& reset,
                      ffi::ResultBuffer<ffi::F32>& y, ffi::ResultBuffer<ffi::F32>& h) {
  Sizes sizes;
  if (auto error = Check(op, x.dimensions(), reset.element_count(), &sizes); error.failure()) return error;
  const int64_t states = keep_states ? sizes.all() : sizes.states();
  if (auto error = Check(op, {{"projected", projected.element_count(), 3 * sizes.all()},
                              {"h0", h0.element_count(), sizes.states()},
                              {"y", y->element_count(), sizes.all()},
                              {"h", h->element_count(), states}});
      error.failure()) {
    return error;
  }
  ForBlocks(pool, sizes, [&](int64_t lane, int64_t begin, int64_t end) {
    const int64_t offset = lane * sizes.lane(), row = lane * sizes.batch * sizes.hidden;
    Forward(projected.typed_data() + 3 * offset, x.typed_data() + offset, h0.typed_data() + row,
            Flags(reset, sizes, lane), sizes.num_steps, sizes.batch, sizes.hidden, begin, end, keep_states,
            y->typed_data() + offset, h->typed_data() + (keep_states ? offset : row));
  });
  return ffi::Error::Success();
}

ffi::Error MingruScanCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> projected, ffi::Buffer<ffi::F32> x,
                         ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::ResultBuffer<ffi::F32> y,
                         ffi::ResultBuffer<ffi::F32> h_last) {
  return RunForward("mingru_scan", /*keep_states=*/false, pool, projected, x, h0, reset, y, h_last);
}

ffi::Error MingruScanFwdCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> projected, ffi::Buffer<ffi::F32> x,
                            ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::ResultBuffer<ffi::F32> y,
                            ffi::ResultBuffer<ffi::F32> h) {
  return RunForward("mingru_scan.fwd", /*keep_states=*/true, pool, projected, x, h0, reset, y, h);
}

ffi::Error MingruScanBwdCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> projected, ffi::Buffer<ffi::F32> x,
                            ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::Buffer<ffi::F32> h,
                            ffi::Buffer<ffi::F32> y_bar, ffi::Buffer<ffi::F32> h_last_bar,
                            ffi::ResultBuffer<ffi::F32> projected_bar, ffi::ResultBuffer<ffi::F32> x_bar,
                            ffi::ResultBuffer<ffi::F32> h0_bar) {
  const char* op = "mingru_scan.bwd";
  Sizes sizes;
  if (auto error = Check(op, x.dimensions(), reset.element_count(), &sizes); error.failure()) return error;
  if (auto error = Check(op, {{"projected", projected.element_count(), 3 * sizes.all()},
                              {"h0", h0.element_count(), sizes.states()},
                              {"h", h.element_count(), sizes.all()},
                              {"y_bar", y_bar.element_count(), sizes.all()},
                              {"h_last_bar", h_last_bar.element_count(), sizes.states()},
                              {"projected_bar", projected_bar->element_count(), 3 * sizes.all()},
                              {"x_bar", x_bar->element_count(), sizes.all()},
                              {"h0_bar", h0_bar->element_count(), sizes.states()}});
      error.failure()) {
    return error;
  }
  ForBlocks(pool, sizes, [&](int64_t lane, int64_t begin, int64_t end) {
    const int64_t offset = lane * sizes.lane(), row = lane * sizes.batch * sizes.hidden;
    Backward(projected.typed_data() + 3 * offset, x.typed_data() + offset, h0.typed_data() + row,
             Flags(reset, sizes, lane), h.typed_data() + offset, y_bar.typed_data() + offset,
             h_last_bar.typed_data() + row, sizes.num_steps, sizes.batch, sizes.hidden, begin, end,
             projected_bar->typed_data() + 3 * offset, x_bar->typed_data() + offset, h0_bar->typed_data() + row);
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(MingruScan, MingruScanCpu,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // projected [..., T, B, 3H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // x [..., T, B, H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h0 [..., B, H]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // reset [..., T, B] or [..., 0]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // y [..., T, B, H]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // h_last [..., B, H]
);
PJX_REGISTER("pufferjax.mingru_scan", MingruScan);

XLA_FFI_DEFINE_HANDLER_SYMBOL(MingruScanFwd, MingruScanFwdCpu,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // projected [..., T, B, 3H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // x [..., T, B, H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h0 [..., B, H]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // reset [..., T, B] or [..., 0]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // y [..., T, B, H]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // h [..., T, B, H]
);
PJX_REGISTER("pufferjax.mingru_scan.fwd", MingruScanFwd);

XLA_FFI_DEFINE_HANDLER_SYMBOL(MingruScanBwd, MingruScanBwdCpu,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()   // projected [..., T, B, 3H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // x [..., T, B, H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h0 [..., B, H]
                                  .Arg<ffi::Buffer<ffi::PRED>>()  // reset [..., T, B] or [..., 0]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h [..., T, B, H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // y_bar [..., T, B, H]
                                  .Arg<ffi::Buffer<ffi::F32>>()   // h_last_bar [..., B, H]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // projected_bar [..., T, B, 3H]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // x_bar [..., T, B, H]
                                  .Ret<ffi::Buffer<ffi::F32>>()   // h0_bar [..., B, H]
);
PJX_REGISTER("pufferjax.mingru_scan.bwd", MingruScanBwd);

}  // namespace
}  // namespace pjx
