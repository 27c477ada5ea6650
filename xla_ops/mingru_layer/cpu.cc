// mingru_layer on the CPU. A thread walks time over a block of batch rows. Forward computes a tile of the projection,
// some rows by the same few columns of its three parts, in registers, and goes on to gates, scan and highway of that
// tile while the next one's products begin. It keeps the states and the three activations of each gate, so that
// backward computes neither projection nor sigmoid again.
#include <cstring>

#include "xla_ops/common/ordered_parts.h"
#include "xla_ops/common/scratch.h"
#include "xla_ops/common/simd.h"
#include "xla_ops/common/small_matmul.h"
#include "xla_ops/mingru_layer/handlers.h"

namespace pjx {
namespace {

constexpr int64_t kGrain = 16384;   // elements of x below which a second thread costs more than it saves
constexpr int64_t kBlockRows = 64;  // batch rows that walk through time together: they share the weights in the caches

// One lane of a call. Arrays are row-major: x, y, h [T, B, H]; gates [T, B, 3H] holds (c, z, s); reset bool[T, B] or
// null.
//
// Columns of the projection come in panels: a vector of each of its three parts, of the same hidden units. Whatever is
// as wide as the projection is kept as [panel][row][3][lanes of a vector], so that products read it in one stream; the
// units that the last panel lacks are 0.
struct Layer {
  int64_t num_steps, batch, hidden;
};
template <typename Level>
constexpr int64_t kPanelWidth = 3 * kLevelLanes<Level>;
template <typename Level>
PJX_INLINE int64_t NumPanels(int64_t hidden) {
  return (hidden + kLevelLanes<Level> - 1) / kLevelLanes<Level>;
}

constexpr float kZeros[kLanes] = {};

// The units of a panel that there are: all its lanes, or fewer in the last.
template <typename Level>
struct Part {
  using F = typename Level::Values;
  int64_t count;

  PJX_INLINE bool is_whole() const { return count >= kLevelLanes<Level>; }
  PJX_INLINE F Load(const float* from) const {
    if (is_whole()) return *reinterpret_cast<const typename Level::Floats*>(from);
    F value{};
    std::memcpy(&value, from, count * sizeof(float));
    return value;
  }
  PJX_INLINE void Store(F value, float* to) const {
    if (is_whole()) {
      *reinterpret_cast<typename Level::Floats*>(to) = value;
    } else {
      std::memcpy(to, &value, count * sizeof(float));
    }
  }
};

// --- forward ---------------------------------------------------------------------------------------------------------
struct ForwardArrays {
  const float *x, *weights, *h0;  // weights: panels of H rows
  const bool* reset;
  float *y, *h, *gates;  // gates null: h has room for one step, the last; else for all
};

// One step of a block: every pointer is at its first row.
struct ForwardStep {
  int64_t hidden;
  const float *x, *previous;
  const bool* reset;
  float *y, *h, *gates;
};

// Rows [first, first + kRows) by the units of one panel, which begin at `unit`.
template <typename Level, int kRows, bool kSave>
PJX_INLINE void ForwardTile(const ForwardStep& step, int64_t first, int64_t unit, const float* panel, Ahead* ahead) {
  using F = typename Level::Values;
  const int64_t hidden = step.hidden;
  const Part<Level> part{hidden - unit};
  typename Level::Floats sum[kRows][3] = {};
  AddProduct<Level>({step.x + first * hidden, hidden, 1}, panel, kPanelWidth<Level>, hidden, sum, ahead);
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = first + r, at = row * hidden + unit;
    const bool resets = step.reset != nullptr && step.reset[row];
    const MingruGates<F> gates = GatesOf<F>(sum[r][0], sum[r][1], sum[r][2]);
    const F state = NextState<F>(gates, part.Load(resets ? kZeros : step.previous + at));
    part.Store(state, step.h + at);
    part.Store(Highway<F>(gates, state, part.Load(step.x + at)), step.y + at);
    if (kSave) {
      float* const saved = step.gates + 3 * row * hidden + unit;
      part.Store(gates.c, saved);
      part.Store(gates.z, saved + hidden);
      part.Store(gates.s, saved + 2 * hidden);
    }
  }
}

template <typename Level, int kRows, bool kSave>
PJX_INLINE void ForwardPanel(const ForwardStep& step, int64_t first, int64_t rows, int64_t unit, const float* panel,
                             Ahead* ahead) {
  for (; first + kRows <= rows; first += kRows) ForwardTile<Level, kRows, kSave>(step, first, unit, panel, ahead);
  if constexpr (kRows > 1) {
    if (first < rows) ForwardPanel<Level, kRows / 2, kSave>(step, first, rows, unit, panel, ahead);
  }
}

// Rows [begin, end) through all steps.
template <typename Level, bool kSave>
PJX_INLINE void ForwardBlock(const Layer& layer, const ForwardArrays& arrays, int64_t begin, int64_t end) {
  const int64_t hidden = layer.hidden, size = (end - begin) * hidden, step_size = layer.batch * hidden;
  const int64_t panels = NumPanels<Level>(hidden);
  for (int64_t t = 0; t < layer.num_steps; ++t) {
    const int64_t at = begin * hidden, first = t * step_size + at;
    Ahead ahead;  // what this step writes, and what the next one reads
    if (kSave) {
      ahead.Add(arrays.gates + 3 * first, 3 * size);
      ahead.Add(arrays.h + first, size);
    }
    ahead.Add(arrays.y + first, size);
    if (t + 1 < layer.num_steps) ahead.Add(arrays.x + first + step_size, size);
    const ForwardStep step{hidden,
                           arrays.x + first,
                           t == 0  ? arrays.h0 + at
                           : kSave ? arrays.h + first - step_size
                                   : arrays.h + at,
                           arrays.reset == nullptr ? nullptr : arrays.reset + t * layer.batch + begin,
                           arrays.y + first,
                           arrays.h + (kSave ? first : at),
                           kSave ? arrays.gates + 3 * first : nullptr};
    for (int64_t p = 0; p < panels; ++p) {
      ForwardPanel<Level, Level::kRows, kSave>(step, 0, end - begin, p * kLevelLanes<Level>,
                                               arrays.weights + p * hidden * kPanelWidth<Level>, &ahead);
    }
  }
}

PJX_KERNEL(Forward, (const Layer& layer, const ForwardArrays& arrays, int64_t begin, int64_t end), {
  if (arrays.gates != nullptr) {
    ForwardBlock<Level, true>(layer, arrays, begin, end);
  } else {
    ForwardBlock<Level, false>(layer, arrays, begin, end);
  }
})

// Between a kernel [H, 3H] and panels of H rows: body(where in the kernel, where in the panels, how many units there
// are) for every vector of the panels.
template <typename Level, typename Body>
PJX_INLINE void ForVectors(int64_t hidden, const Body& body) {
  constexpr int64_t kUnits = kLevelLanes<Level>;
  int64_t in_panels = 0;
  for (int64_t unit = 0; unit < hidden; unit += kUnits) {
    const int64_t count = std::min(kUnits, hidden - unit);
    for (int64_t row = 0; row < 3 * hidden; ++row, in_panels += kUnits) body(row * hidden + unit, in_panels, count);
  }
}

PJX_KERNEL(PackWeights, (const float* kernel, int64_t hidden, float* panels), {
  ForVectors<Level>(hidden, [&](int64_t from, int64_t to, int64_t count) {
    std::memcpy(panels + to, kernel + from, count * sizeof(float));
    std::memset(panels + to + count, 0, (kLevelLanes<Level> - count) * sizeof(float));
  });
})
PJX_KERNEL(UnpackWeights, (const float* panels, int64_t hidden, float* kernel), {
  ForVectors<Level>(hidden, [&](int64_t to, int64_t from, int64_t count) {
    std::memcpy(kernel + to, panels + from, count * sizeof(float));
  });
})

// --- backward --------------------------------------------------------------------------------------------------------
struct BackwardArrays {
  const float *x, *transposed, *h0;  // transposed weights, see PackTransposed
  const bool* reset;
  const float *h, *gates, *y_bar, *h_last_bar;
  float *x_bar, *h0_bar;
};

// How many rows, of several steps if need be, one product adds to the weights' cotangent: so many that to read and
// write that does not cost more than the product, and so few that a panel of them stays in the first-level cache.
constexpr int64_t kDepth = 128;

// What a thread works in. Its room is for the widest vectors.
struct BackwardScratch {
  Scratch<float> projected_bar;  // panels of kDepth rows
  Scratch<float> x;              // transposed: [H / kRows][kDepth][kRows], the order in which the product takes it
  Scratch<float> x_bar;          // [kBlockRows, padded H]

  explicit BackwardScratch(int64_t hidden)
      : projected_bar(AllocateScratch<float>(3 * kDepth * RoundUpToLanes(hidden))),
        x(AllocateScratch<float>(kDepth * RoundUpToLanes(hidden))),
        x_bar(AllocateScratch<float>(kBlockRows * RoundUpToLanes(hidden))) {}
  bool ok() const { return projected_bar && x && x_bar; }
};

// A row of one step: its part of the projection's cotangent becomes row `depth` of every panel, x of the transposed x.
template <typename Level>
PJX_INLINE void BackwardRow(const Layer& layer, const BackwardArrays& arrays, int64_t t, int64_t b, int64_t depth,
                            const BackwardScratch& scratch, float* x_bar) {
  using F = typename Level::Values;
  using Floats = typename Level::Floats;
  constexpr int64_t kUnits = kLevelLanes<Level>, kRows = Level::kRows;
  const int64_t hidden = layer.hidden, row = (t * layer.batch + b) * hidden;
  const bool resets = arrays.reset != nullptr && arrays.reset[t * layer.batch + b];
  const float* const before = t == 0 ? arrays.h0 + b * hidden : arrays.h + row - layer.batch * hidden;
  const float* const x = arrays.x + row;
  float* projected_bar = scratch.projected_bar.get() + depth * kPanelWidth<Level>;
  for (int64_t unit = 0; unit < hidden; unit += kUnits, projected_bar += kDepth * kPanelWidth<Level>) {
    const Part<Level> part{hidden - unit};
    const float *const gates = arrays.gates + 3 * row + unit, *const previous = resets ? kZeros : before + unit;
    float* const carried = arrays.h0_bar + b * hidden + unit;  // what the later steps send back to this state
    const MingruCotangents<F> bars =
        CellBackward<F>({part.Load(gates), part.Load(gates + hidden), part.Load(gates + 2 * hidden)},
                        part.Load(x + unit), part.Load(previous), part.Load(arrays.h + row + unit),
                        part.Load(arrays.y_bar + row + unit), part.Load(carried));
    Floats* const panel = reinterpret_cast<Floats*>(projected_bar);
    panel[0] = bars.h_in;
    panel[1] = bars.g;
    panel[2] = bars.p;
    *reinterpret_cast<Floats*>(x_bar + unit) = bars.x;
    part.Store(resets ? F{} : bars.previous, carried);
  }
  float* transposed = scratch.x.get() + depth * kRows;
  int64_t i = 0;
  for (; i + kRows <= hidden; i += kRows, transposed += kDepth * kRows) {
    std::memcpy(transposed, x + i, kRows * sizeof(float));
  }
  if (i < hidden) std::memcpy(transposed, x + i, (hidden - i) * sizeof(float));
}

// One tile of: x_bar [rows, row_size] += projected_bar · transposed weights, over `num_panels` panels of both.
template <typename Level, int kRows, int kVecs>
PJX_INLINE void InputsTile(const float* projected_bar, const float* weights, int64_t num_panels, float* x_bar,
                           int64_t row_size, Ahead* ahead) {
  using Floats = typename Level::Floats;
  constexpr int64_t kWidth = kPanelWidth<Level>;
  Floats sum[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) sum[r][v] = reinterpret_cast<const Floats*>(x_bar + r * row_size)[v];
  }
  for (int64_t p = 0; p < num_panels; ++p) {
    AddProduct<Level>({projected_bar + p * kDepth * kWidth, kWidth, 1}, weights + p * kWidth * kWidth, kWidth, kWidth,
                      sum, ahead);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) reinterpret_cast<Floats*>(x_bar + r * row_size)[v] = sum[r][v];
  }
}

template <typename Level, int kRows, int kVecs>
PJX_INLINE void InputsRows(const float* projected_bar, const float* weights, int64_t num_panels, int64_t rows,
                           float* x_bar, int64_t row_size, Ahead* ahead) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    InputsTile<Level, kRows, kVecs>(projected_bar + r * kPanelWidth<Level>, weights, num_panels, x_bar + r * row_size,
                                    row_size, ahead);
  }
  if constexpr (kRows > 1) {
    if (r < rows) {
      InputsRows<Level, kRows / 2, kVecs>(projected_bar + r * kPanelWidth<Level>, weights, num_panels, rows - r,
                                          x_bar + r * row_size, row_size, ahead);
    }
  }
}

// x_bar [rows, padded H] += projected_bar · transposed weights; three vectors of x_bar at a time, or what is left.
template <typename Level>
PJX_INLINE void AddToInputs(const float* projected_bar, const float* weights, int64_t num_panels, int64_t rows,
                            float* x_bar, int64_t row_size, Ahead* ahead) {
  constexpr int64_t kWidth = kPanelWidth<Level>, kUnits = kLevelLanes<Level>;
  // The weights of so many panels stay in the first-level cache for all the rows.
  constexpr int64_t kPanelsAtOnce = std::max<int64_t>(1, 192 / kWidth);
  for (int64_t v = 0; v < num_panels; v += 3, weights += num_panels * kWidth * kWidth) {
    for (int64_t p = 0; p < num_panels; p += kPanelsAtOnce) {
      const float *const rows_bar = projected_bar + p * kDepth * kWidth, *const panel = weights + p * kWidth * kWidth;
      const int64_t count = std::min(kPanelsAtOnce, num_panels - p);
      float* const to = x_bar + v * kUnits;
      switch (num_panels - v) {
        case 1:
          InputsRows<Level, Level::kRows, 1>(rows_bar, panel, count, rows, to, row_size, ahead);
          break;
        case 2:
          InputsRows<Level, Level::kRows, 2>(rows_bar, panel, count, rows, to, row_size, ahead);
          break;
        default:
          InputsRows<Level, Level::kRows, 3>(rows_bar, panel, count, rows, to, row_size, ahead);
      }
    }
  }
}

// weights_bar += x^T · projected_bar over the first `depth` rows of scratch; weights_bar in panels of `hidden` rows.
template <typename Level, int kRows>
PJX_INLINE void WeightsTile(const float* x, const float* projected_bar, int64_t depth, float* weights_bar) {
  MatmulTile<Level, kRows, 3>({x, 1, Level::kRows}, projected_bar, kPanelWidth<Level>, depth, /*add=*/true, weights_bar,
                              kPanelWidth<Level>, nullptr);
}

template <typename Level>
PJX_INLINE void AddToWeights(const BackwardScratch& scratch, int64_t hidden, int64_t depth, float* weights_bar) {
  constexpr int64_t kWidth = kPanelWidth<Level>, kRows = Level::kRows;
  const float* projected_bar = scratch.projected_bar.get();
  const int64_t num_panels = NumPanels<Level>(hidden);
  for (int64_t p = 0; p < num_panels; ++p, projected_bar += kDepth * kWidth) {
    const float* x = scratch.x.get();
    int64_t i = 0;
    for (; i + kRows <= hidden; i += kRows, x += kDepth * kRows, weights_bar += kRows * kWidth) {
      WeightsTile<Level, kRows>(x, projected_bar, depth, weights_bar);
    }
    for (; i < hidden; ++i, ++x, weights_bar += kWidth) {
      WeightsTile<Level, 1>(x, projected_bar, depth, weights_bar);
    }
  }
}

// Rows [begin, end), at most kBlockRows, through all steps; weights_bar is added to.
template <typename Level>
PJX_INLINE void BackwardBlock(const Layer& layer, const BackwardArrays& arrays, int64_t begin, int64_t end,
                              const BackwardScratch& scratch, float* weights_bar) {
  const int64_t hidden = layer.hidden, num_rows = end - begin, num_panels = NumPanels<Level>(hidden);
  const int64_t row_size = num_panels * kLevelLanes<Level>;
  float* const x_bar = scratch.x_bar.get();
  std::memcpy(arrays.h0_bar + begin * hidden, arrays.h_last_bar + begin * hidden, num_rows * hidden * sizeof(float));
  int64_t depth = 0;
  for (int64_t t = layer.num_steps - 1; t >= 0; --t, depth += num_rows) {
    if (depth + num_rows > kDepth) {
      AddToWeights<Level>(scratch, hidden, depth, weights_bar);
      depth = 0;
    }
    for (int64_t r = 0; r < num_rows; ++r) {
      BackwardRow<Level>(layer, arrays, t, begin + r, depth + r, scratch, x_bar + r * row_size);
    }
    const int64_t first = (t * layer.batch + begin) * hidden;
    Ahead ahead;  // what the next step reads and writes
    if (t > 0) {
      const int64_t next = first - layer.batch * hidden, size = num_rows * hidden;
      ahead.Add(arrays.gates + 3 * next, 3 * size);
      ahead.Add(arrays.y_bar + next, size);
      ahead.Add(arrays.x + next, size);
      if (t > 1) ahead.Add(arrays.h + next - layer.batch * hidden, size);
      ahead.Add(arrays.x_bar + next, size);
    }
    AddToInputs<Level>(scratch.projected_bar.get() + depth * kPanelWidth<Level>, arrays.transposed, num_panels,
                       num_rows, x_bar, row_size, &ahead);
    for (int64_t r = 0; r < num_rows; ++r) {
      std::memcpy(arrays.x_bar + first + r * hidden, x_bar + r * row_size, hidden * sizeof(float));
    }
  }
  AddToWeights<Level>(scratch, hidden, depth, weights_bar);
}

PJX_KERNEL(Backward,
           (const Layer& layer, const BackwardArrays& arrays, int64_t begin, int64_t end,
            const BackwardScratch& scratch, float* weights_bar),
           BackwardBlock<Level>(layer, arrays, begin, end, scratch, weights_bar))

// kernel [H, 3H] transposed, as AddToInputs reads it: for every three vectors of H, rows in the order of the panels'
// columns, [ceil(panels / 3)][panels][3][lanes][3 lanes]. `transposed` comes zeroed.
PJX_KERNEL(PackTransposed, (const float* kernel, int64_t hidden, float* transposed), {
  constexpr int64_t kUnits = kLevelLanes<Level>;
  constexpr int64_t kWidth = kPanelWidth<Level>;
  const int64_t num_panels = NumPanels<Level>(hidden);
  for (int64_t i = 0; i < hidden; ++i) {
    float* const column = transposed + i / kWidth * num_panels * kWidth * kWidth + i % kWidth;
    for (int64_t part = 0; part < 3; ++part) {
      for (int64_t j = 0; j < hidden; ++j) {
        const int64_t k = (j / kUnits * 3 + part) * kUnits + j % kUnits;
        column[k * kWidth] = kernel[(3 * i + part) * hidden + j];
      }
    }
  }
})

ffi::Error NoMemory(const char* op) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(op) + ": no memory for padded weights");
}

struct Call : MingruSizes {
  Layer layer() const { return {num_steps, batch, hidden}; }
  int64_t kernel() const { return 3 * hidden * hidden; }
  // With the room for panels of the widest vectors.
  int64_t padded() const { return RoundUpToLanes(hidden); }
  int64_t weights() const { return 3 * hidden * padded(); }
  int64_t transposed() const { return 3 * padded() * (padded() + 3 * kLanes); }
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
  const auto weights = AllocateScratch<float>(lanes * call.weights());
  if (weights == nullptr) return NoMemory(op);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    PackWeights(kernel.typed_data() + lane * call.kernel(), layer.hidden, weights.get() + lane * call.weights());
  }
  ParallelFor(pool, lanes * layer.batch, kGrain / (layer.num_steps * layer.hidden), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t lane = begin / layer.batch, first = begin % layer.batch;
      const int64_t stop = std::min({layer.batch, first + (end - begin), first + kBlockRows});
      const int64_t offset = lane * call.lane(), row = lane * call.columns();
      const ForwardArrays arrays{
          x.typed_data() + offset,
          weights.get() + lane * call.weights(),
          h0.typed_data() + row,
          Flags(reset, call, lane),
          y->typed_data() + offset,
          h->typed_data() + (gates == nullptr ? row : offset),
          gates == nullptr ? nullptr : (*gates)->typed_data() + 3 * offset,
      };
      Forward(layer, arrays, first, stop);
      begin += stop - first;
    }
  });
  return ffi::Error::Success();
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
  const OrderedParts parts(lanes, layer.batch, kRowsPerPart);
  const auto transposed = AllocateScratch<float>(lanes * call.transposed());
  const auto sums = AllocateScratch<float>(parts.total() * call.weights());
  if (transposed == nullptr || sums == nullptr) return NoMemory(op);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    PackTransposed(kernel.typed_data() + lane * call.kernel(), layer.hidden,
                   transposed.get() + lane * call.transposed());
  }
  std::atomic<bool> out_of_memory{false};
  const auto make_work = [&] {
    BackwardScratch scratch(layer.hidden);
    if (!scratch.ok()) out_of_memory = true;
    return [&, scratch = std::move(scratch)](int64_t lane, int64_t part, int64_t first, int64_t stop) {
      if (!scratch.ok()) return;
      const int64_t offset = lane * call.lane(), row = lane * call.columns();
      const BackwardArrays arrays{
          x.typed_data() + offset,      transposed.get() + lane * call.transposed(),
          h0.typed_data() + row,        Flags(reset, call, lane),
          h.typed_data() + offset,      gates.typed_data() + 3 * offset,
          y_bar.typed_data() + offset,  h_last_bar.typed_data() + row,
          x_bar->typed_data() + offset, h0_bar->typed_data() + row,
      };
      float* const sum = sums.get() + (lane * parts.count() + part) * call.weights();
      for (int64_t begin = first; begin < stop; begin += kBlockRows) {
        Backward(layer, arrays, begin, std::min(begin + kBlockRows, stop), scratch, sum);
      }
    };
  };
  parts.ForEach(pool, kGrain / std::max<int64_t>(1, call.lane() / parts.count()), make_work);
  if (out_of_memory) return NoMemory(op);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    float* const sum = sums.get() + lane * parts.count() * call.weights();
    parts.AddOthers(sum, sum + call.weights(), call.weights(), call.weights());
    UnpackWeights(sum, layer.hidden, kernel_bar->typed_data() + lane * call.kernel());
  }
  return ffi::Error::Success();
}
PJX_REGISTER("pufferjax.mingru_layer.bwd", HandlerOf<MingruLayerBwdCpu>);

}  // namespace
}  // namespace pjx
