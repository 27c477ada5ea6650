// mingru_layer on the CPU. A thread walks time over a block of batch rows; projection, gates, scan and highway of a
// block and step follow each other while everything is in cache, and what the next step needs is on its way there.
// Forward keeps the states and the three activations of each gate, so that backward computes neither projection nor
// sigmoid again.
#include <cstring>

#include "xla_ops/common/ordered_parts.h"
#include "xla_ops/common/scratch.h"
#include "xla_ops/common/simd.h"
#include "xla_ops/common/small_matmul.h"
#include "xla_ops/mingru_layer/handlers.h"

namespace pjx {
namespace {

constexpr int64_t kGrain = 16384;  // elements of x below which a second thread costs more than it saves

// Batch rows that walk through time together: enough to use a row of weights often, few enough for the caches.
int64_t BlockRows(int64_t hidden) { return std::clamp<int64_t>(2048 / std::max<int64_t>(hidden, 1), 16, 64); }

// One lane of a call. Arrays are row-major: x, y, h [T, B, H]; gates [T, B, 3H] holds (c, z, s); reset bool[T, B] or
// null. Rows of weights and of scratch are padded to whole vectors, each of the three parts by itself.
struct Layer {
  int64_t num_steps, batch, hidden;
  int64_t padded() const { return RoundUpToLanes(hidden); }
};

// One row of one step. `h` may be `previous`: the state is then updated in place. Without kKeep there is a reset, and
// the old state counts as 0. `gates` may be null.
template <bool kKeep, bool kSave>
PJX_INLINE void RowForward(const float* projected, int64_t padded, const float* x, const float* previous,
                           int64_t hidden, float* y, float* h, float* gates) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < hidden; ++i) {
    const MingruGates own = GatesOf(projected[i], projected[padded + i], projected[2 * padded + i]);
    const float state = NextState(own, kKeep ? previous[i] : 0.0f);
    h[i] = state;
    y[i] = Highway(own, state, x[i]);
    if (kSave) {
      gates[i] = own.c;
      gates[hidden + i] = own.z;
      gates[2 * hidden + i] = own.s;
    }
  }
}

struct ForwardArrays {
  const float *x, *weights, *h0;  // weights: [H, 3 padded]
  const bool* reset;
  float *y, *h, *gates;  // gates null: h has room for one step, the last; else for all
};

// Rows [begin, end) through all steps. scratch: [end - begin, 3 padded].
template <typename Level, bool kSave>
PJX_INLINE void ForwardBlock(const Layer& layer, const ForwardArrays& arrays, int64_t begin, int64_t end,
                             float* scratch) {
  const int64_t hidden = layer.hidden, padded = layer.padded(), width = 3 * padded;
  for (int64_t t = 0; t < layer.num_steps; ++t) {
    const int64_t first = (t * layer.batch + begin) * hidden, size = (end - begin) * hidden;
    Ahead ahead;  // what this step writes, and what the next one reads
    if (kSave) {
      ahead.Add(arrays.gates + 3 * first, 3 * size);
      ahead.Add(arrays.h + first, size);
    }
    ahead.Add(arrays.y + first, size);
    if (t + 1 < layer.num_steps) ahead.Add(arrays.x + first + layer.batch * hidden, size);
    TiledMatmul<Level>({arrays.x + first, hidden, 1}, arrays.weights, width, end - begin, hidden, width,
                       /*add=*/false, scratch, width, &ahead);
    float* states = kSave ? arrays.h + t * layer.batch * hidden : arrays.h;
    const float* previous = t == 0 ? arrays.h0 : kSave ? states - layer.batch * hidden : arrays.h;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t row = (t * layer.batch + b) * hidden;
      const float* projected = scratch + (b - begin) * width;
      float* gates = kSave ? arrays.gates + 3 * row : nullptr;
      if (arrays.reset != nullptr && arrays.reset[t * layer.batch + b]) {
        RowForward<false, kSave>(projected, padded, arrays.x + row, previous + b * hidden, hidden, arrays.y + row,
                                 states + b * hidden, gates);
      } else {
        RowForward<true, kSave>(projected, padded, arrays.x + row, previous + b * hidden, hidden, arrays.y + row,
                                states + b * hidden, gates);
      }
    }
  }
}

template <typename Level>
PJX_INLINE void ForwardTiled(const Layer& layer, const ForwardArrays& arrays, int64_t begin, int64_t end,
                             float* scratch) {
  if (arrays.gates != nullptr) {
    ForwardBlock<Level, true>(layer, arrays, begin, end, scratch);
  } else {
    ForwardBlock<Level, false>(layer, arrays, begin, end, scratch);
  }
}

// `carried` holds what the later steps send back to this state, and leaves with what goes to the one before.
template <bool kKeep>
PJX_INLINE void RowBackward(const float* gates, const float* x, const float* previous, const float* h,
                            const float* y_bar, int64_t hidden, int64_t padded, float* carried, float* projected_bar,
                            float* x_bar) {
  PJX_INDEPENDENT
  for (int64_t i = 0; i < hidden; ++i) {
    const MingruCotangents bars = CellBackward({gates[i], gates[hidden + i], gates[2 * hidden + i]}, x[i],
                                               kKeep ? previous[i] : 0.0f, h[i], y_bar[i], carried[i]);
    projected_bar[i] = bars.h_in;
    projected_bar[padded + i] = bars.g;
    projected_bar[2 * padded + i] = bars.p;
    x_bar[i] = bars.x;
    carried[i] = kKeep ? bars.previous : 0.0f;
  }
}

struct BackwardArrays {
  const float *x, *transposed, *h0;  // transposed weights: [3 padded, padded]
  const bool* reset;
  const float *h, *gates, *y_bar, *h_last_bar;
  float *x_bar, *h0_bar;
};

// Rows [begin, end) through all steps. scratch: [end - begin, 4 padded], its padding 0; weights_bar: [H, 3 padded], is
// added to.
template <typename Level>
PJX_INLINE void BackwardTiled(const Layer& layer, const BackwardArrays& arrays, int64_t begin, int64_t end,
                              float* scratch, float* weights_bar) {
  const int64_t hidden = layer.hidden, padded = layer.padded(), width = 3 * padded, num_rows = end - begin;
  float* const projected_bar = scratch;
  float* const x_bar = scratch + num_rows * width;
  std::memcpy(arrays.h0_bar + begin * hidden, arrays.h_last_bar + begin * hidden, num_rows * hidden * sizeof(float));
  for (int64_t t = layer.num_steps - 1; t >= 0; --t) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t row = (t * layer.batch + b) * hidden;
      const float* previous = t == 0 ? arrays.h0 + b * hidden : arrays.h + row - layer.batch * hidden;
      float* const row_projected_bar = projected_bar + (b - begin) * width;
      float* const row_x_bar = x_bar + (b - begin) * padded;
      if (arrays.reset != nullptr && arrays.reset[t * layer.batch + b]) {
        RowBackward<false>(arrays.gates + 3 * row, arrays.x + row, previous, arrays.h + row, arrays.y_bar + row, hidden,
                           padded, arrays.h0_bar + b * hidden, row_projected_bar, row_x_bar);
      } else {
        RowBackward<true>(arrays.gates + 3 * row, arrays.x + row, previous, arrays.h + row, arrays.y_bar + row, hidden,
                          padded, arrays.h0_bar + b * hidden, row_projected_bar, row_x_bar);
      }
    }
    const int64_t first = (t * layer.batch + begin) * hidden;
    TiledMatmul<Level>({projected_bar, width, 1}, arrays.transposed, padded, num_rows, width, padded,
                       /*add=*/true, x_bar, padded);
    for (int64_t r = 0; r < num_rows; ++r) {
      std::memcpy(arrays.x_bar + first + r * hidden, x_bar + r * padded, hidden * sizeof(float));
    }
    Ahead ahead;  // what the next step reads and writes
    if (t > 0) {
      const int64_t next = first - layer.batch * hidden, size = num_rows * hidden;
      ahead.Add(arrays.gates + 3 * next, 3 * size);
      ahead.Add(arrays.y_bar + next, size);
      ahead.Add(arrays.x + next, size);
      if (t > 1) ahead.Add(arrays.h + next - layer.batch * hidden, size);
      ahead.Add(arrays.x_bar + next, size);
    }
    TiledMatmul<Level>({arrays.x + first, 1, hidden}, projected_bar, width, hidden, num_rows, width,
                       /*add=*/true, weights_bar, width, &ahead);
  }
}

PJX_KERNEL(Forward, (const Layer& layer, const ForwardArrays& arrays, int64_t begin, int64_t end, float* scratch),
           ForwardTiled<Level>(layer, arrays, begin, end, scratch))
PJX_KERNEL(Backward,
           (const Layer& layer, const BackwardArrays& arrays, int64_t begin, int64_t end, float* scratch,
            float* weights_bar),
           BackwardTiled<Level>(layer, arrays, begin, end, scratch, weights_bar))

// kernel [H, 3H] with each third of a row padded: [H, 3 padded].
void PadColumns(const float* kernel, const Layer& layer, float* weights) {
  const int64_t hidden = layer.hidden, padded = layer.padded();
  for (int64_t i = 0; i < 3 * hidden; ++i) {
    std::memcpy(weights + i * padded, kernel + i * hidden, hidden * sizeof(float));
    std::memset(weights + i * padded + hidden, 0, (padded - hidden) * sizeof(float));
  }
}

// kernel [H, 3H] transposed, rows and columns padded: [3 padded, padded]. `transposed` comes zeroed.
void Transpose(const float* kernel, const Layer& layer, float* transposed) {
  const int64_t hidden = layer.hidden, padded = layer.padded();
  for (int64_t i = 0; i < hidden; ++i) {
    for (int64_t part = 0; part < 3; ++part) {
      for (int64_t j = 0; j < hidden; ++j) {
        transposed[(part * padded + j) * padded + i] = kernel[(3 * i + part) * hidden + j];
      }
    }
  }
}

ffi::Error NoMemory(const char* op) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(op) + ": no memory for padded weights");
}

struct Call : MingruSizes {
  Layer layer() const { return {num_steps, batch, hidden}; }
  int64_t kernel() const { return 3 * hidden * hidden; }
  int64_t weights() const { return 3 * hidden * layer().padded(); }
  int64_t transposed() const { return 3 * layer().padded() * layer().padded(); }
};

// Both forward targets; `gates` null: `h` is the last state, else all of them.
ffi::Error RunForward(const char* op, ffi::ThreadPool& pool, ffi::Buffer<ffi::F32>& x, ffi::Buffer<ffi::F32>& kernel,
                      ffi::Buffer<ffi::F32>& h0, ffi::Buffer<ffi::PRED>& reset, ffi::ResultBuffer<ffi::F32>& y,
                      ffi::ResultBuffer<ffi::F32>& h, ffi::ResultBuffer<ffi::F32>* gates) {
  Call call;
  if (auto error = CheckMingru(op, x.dimensions(), reset, &call); error.failure()) return error;
  const Layer layer = call.layer();
  const int64_t lanes = call.lanes, saved = gates == nullptr ? 0 : lanes * call.lane();
  if (auto error = CheckCounts(op, {{"kernel", kernel.element_count(), lanes * call.kernel()},
                                    {"h0", h0.element_count(), lanes * call.columns()},
                                    {"y", y->element_count(), lanes * call.lane()},
                                    {"h", h->element_count(), gates == nullptr ? lanes * call.columns() : saved},
                                    {"gates", gates == nullptr ? 0 : (*gates)->element_count(), 3 * saved}});
      error.failure()) {
    return error;
  }
  if (layer.hidden == 0 || layer.batch == 0) return ffi::Error::Success();
  const float* weights = kernel.typed_data();
  Scratch<float> padded_weights;
  if (layer.padded() != layer.hidden) {
    padded_weights = AllocateScratch<float>(lanes * call.weights());
    if (padded_weights == nullptr) return NoMemory(op);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      PadColumns(kernel.typed_data() + lane * call.kernel(), layer, padded_weights.get() + lane * call.weights());
    }
    weights = padded_weights.get();
  }
  const int64_t block = BlockRows(layer.hidden);
  std::atomic<bool> out_of_memory{false};
  ParallelFor(pool, lanes * layer.batch, kGrain / (layer.num_steps * layer.hidden), [&](int64_t begin, int64_t end) {
    const auto scratch = AllocateScratch<float>(3 * std::min(block, end - begin) * layer.padded());
    if (scratch == nullptr) out_of_memory = true;
    while (begin < end && scratch != nullptr) {
      const int64_t lane = begin / layer.batch, first = begin % layer.batch;
      const int64_t stop = std::min({layer.batch, first + (end - begin), first + block});
      const int64_t offset = lane * call.lane(), row = lane * call.columns();
      const ForwardArrays arrays{
          x.typed_data() + offset,
          weights + lane * call.weights(),
          h0.typed_data() + row,
          Flags(reset, call, lane),
          y->typed_data() + offset,
          h->typed_data() + (gates == nullptr ? row : offset),
          gates == nullptr ? nullptr : (*gates)->typed_data() + 3 * offset,
      };
      Forward(layer, arrays, first, stop, scratch.get());
      begin += stop - first;
    }
  });
  return out_of_memory ? NoMemory(op) : ffi::Error::Success();
}

// x [..., T, B, H], kernel [..., H, 3H], h0 [..., B, H], reset [..., T, B] or [..., 0] -> y [..., T, B, H],
// h_last [..., B, H]
ffi::Error MingruLayerCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                          ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::ResultBuffer<ffi::F32> y,
                          ffi::ResultBuffer<ffi::F32> h_last) {
  return RunForward("mingru_layer", pool, x, kernel, h0, reset, y, h_last, nullptr);
}
PJX_REGISTER("pufferjax.mingru_layer", HandlerOf<MingruLayerCpu>);

// -> y and h [..., T, B, H], gates [..., T, B, 3H]
ffi::Error MingruLayerFwdCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                             ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::ResultBuffer<ffi::F32> y,
                             ffi::ResultBuffer<ffi::F32> h, ffi::ResultBuffer<ffi::F32> gates) {
  return RunForward("mingru_layer.fwd", pool, x, kernel, h0, reset, y, h, &gates);
}
PJX_REGISTER("pufferjax.mingru_layer.fwd", HandlerOf<MingruLayerFwdCpu>);

constexpr int64_t kRowsPerPart = 32;

// h and gates are those of forward; every cotangent has the shape of its primal, h_last_bar that of h0.
ffi::Error MingruLayerBwdCpu(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> kernel,
                             ffi::Buffer<ffi::F32> h0, ffi::Buffer<ffi::PRED> reset, ffi::Buffer<ffi::F32> h,
                             ffi::Buffer<ffi::F32> gates, ffi::Buffer<ffi::F32> y_bar, ffi::Buffer<ffi::F32> h_last_bar,
                             ffi::ResultBuffer<ffi::F32> x_bar, ffi::ResultBuffer<ffi::F32> kernel_bar,
                             ffi::ResultBuffer<ffi::F32> h0_bar) {
  const char* op = "mingru_layer.bwd";
  Call call;
  if (auto error = CheckMingru(op, x.dimensions(), reset, &call); error.failure()) return error;
  const Layer layer = call.layer();
  const int64_t lanes = call.lanes;
  if (auto error = CheckCounts(op, {{"kernel", kernel.element_count(), lanes * call.kernel()},
                                    {"h0", h0.element_count(), lanes * call.columns()},
                                    {"h", h.element_count(), lanes * call.lane()},
                                    {"gates", gates.element_count(), 3 * lanes * call.lane()},
                                    {"y_bar", y_bar.element_count(), lanes * call.lane()},
                                    {"h_last_bar", h_last_bar.element_count(), lanes * call.columns()},
                                    {"x_bar", x_bar->element_count(), lanes * call.lane()},
                                    {"kernel_bar", kernel_bar->element_count(), lanes * call.kernel()},
                                    {"h0_bar", h0_bar->element_count(), lanes * call.columns()}});
      error.failure()) {
    return error;
  }
  if (layer.hidden == 0) return ffi::Error::Success();
  const int64_t hidden = layer.hidden, padded = layer.padded(), block = BlockRows(hidden);
  const OrderedParts parts(lanes, layer.batch, kRowsPerPart);
  const auto transposed = AllocateScratch<float>(lanes * call.transposed());
  const auto sums = AllocateScratch<float>(parts.total() * call.weights());
  if (transposed == nullptr || sums == nullptr) return NoMemory(op);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    Transpose(kernel.typed_data() + lane * call.kernel(), layer, transposed.get() + lane * call.transposed());
  }
  std::atomic<bool> out_of_memory{false};
  const auto make_work = [&] {
    auto scratch = AllocateScratch<float>(4 * block * padded);
    if (scratch == nullptr) out_of_memory = true;
    return [&, scratch = std::move(scratch)](int64_t lane, int64_t part, int64_t first, int64_t stop) {
      if (scratch == nullptr) return;
      const int64_t offset = lane * call.lane(), row = lane * call.columns();
      const BackwardArrays arrays{
          x.typed_data() + offset,      transposed.get() + lane * call.transposed(),
          h0.typed_data() + row,        Flags(reset, call, lane),
          h.typed_data() + offset,      gates.typed_data() + 3 * offset,
          y_bar.typed_data() + offset,  h_last_bar.typed_data() + row,
          x_bar->typed_data() + offset, h0_bar->typed_data() + row,
      };
      float* const sum = sums.get() + (lane * parts.count() + part) * call.weights();
      for (int64_t begin = first; begin < stop; begin += block) {
        Backward(layer, arrays, begin, std::min(begin + block, stop), scratch.get(), sum);
      }
    };
  };
  parts.ForEach(pool, kGrain / std::max<int64_t>(1, call.lane() / parts.count()), make_work);
  if (out_of_memory) return NoMemory(op);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    float* const sum = sums.get() + lane * parts.count() * call.weights();
    parts.AddOthers(sum, sum + call.weights(), call.weights(), call.weights());
    float* const result = kernel_bar->typed_data() + lane * call.kernel();
    for (int64_t i = 0; i < 3 * hidden; ++i) {
      std::memcpy(result + i * hidden, sum + i * padded, hidden * sizeof(float));
    }
  }
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.mingru_layer.bwd", HandlerOf<MingruLayerBwdCpu>);

}  // namespace
}  // namespace pjx
