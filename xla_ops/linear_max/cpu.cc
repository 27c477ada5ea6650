// linear_max on the CPU, and the calls that entity_encoder shares with it: padded weights, threads. What is done to a
// row is in cpu_rows.h, what is checked first in shapes.h.
#include "xla_ops/linear_max/cpu.h"

#include "xla_ops/common/lanes.h"
#include "xla_ops/common/ordered_parts.h"
#include "xla_ops/linear_max/cpu_rows.h"

namespace pjx {
namespace {

PJX_KERNEL(ForwardRows,
           (const EntityLayer& layer, const EntityForward& call, int64_t begin, int64_t end,
            const ForwardScratch& scratch),
           ForwardTiled<Level>(layer, call, begin, end, scratch))
PJX_KERNEL(BackwardRows,
           (const EntityLayer& layer, const EntityBackward& call, int64_t begin, int64_t end,
            const BackwardScratch& scratch),
           BackwardTiled<Level>(layer, call, begin, end, scratch))

constexpr int64_t kGrain = 1 << 18;  // multiplications below which a second thread costs more than it saves

ffi::Error NoMemory(const char* op) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string(op) + ": no memory for padded weights");
}

// Each block [rows, columns] of a weight operand, one per lane that it has, with its rows padded: [rows, padded].
Scratch<float> Padded(const float* from, int64_t blocks, int64_t rows, int64_t columns, int64_t padded) {
  auto to = AllocateScratch<float>(blocks * rows * padded);
  for (int64_t i = 0; to != nullptr && i < blocks * rows; ++i) {
    std::memcpy(to.get() + i * padded, from + i * columns, columns * sizeof(float));
  }
  return to;
}

// Likewise transposed: [columns, padded].
Scratch<float> PaddedTranspose(const float* from, int64_t blocks, int64_t rows, int64_t columns, int64_t padded) {
  auto to = AllocateScratch<float>(blocks * columns * padded);
  for (int64_t block = 0; to != nullptr && block < blocks; ++block) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        to[(block * columns + j) * padded + i] = from[(block * rows + i) * columns + j];
      }
    }
  }
  return to;
}

int64_t ItemBytes(const ffi::AnyBuffer& x) { return x.element_type() == ffi::BF16 ? 2 : 4; }

template <typename Number>
bool AreBelow(const void* numbers, int64_t size, int64_t limit) {
  Number largest = 0;
  bool negative = false;
  for (int64_t i = 0; i < size; ++i) {
    const Number n = static_cast<const Number*>(numbers)[i];
    largest = std::max(largest, n);
    negative |= static_cast<int64_t>(n) < 0;
  }
  return !negative && largest < limit;
}

// Winners index memory: nothing is done with them before this has passed.
bool AreEntities(const void* winners, int64_t size, int64_t entities) {
  switch (NumberBytes(entities)) {
    case 1:
      return AreBelow<uint8_t>(winners, size, entities);
    case 2:
      return AreBelow<uint16_t>(winners, size, entities);
    default:
      return AreBelow<int32_t>(winners, size, entities);
  }
}

// One lane of the inputs.
EntityInputs Inputs(const EntityOperands& operands, const EntityLayer& layer, int64_t lane,
                    ffi::Span<const int64_t> lead) {
  const int64_t block = layer.rows * layer.entities;
  const char* x = static_cast<const char*>(operands.x.untyped_data());
  const int64_t x_lane = LaneIndex(lane, operands.x.dimensions(), lead);
  const bool* mask = operands.mask.element_count() == 0
                         ? nullptr
                         : operands.mask.typed_data() + LaneIndex(lane, operands.mask.dimensions(), lead) * block;
  return {x + x_lane * block * layer.features * ItemBytes(operands.x), operands.x.element_type() == ffi::BF16, mask};
}

// A weight operand in the form that rows are computed with; lanes that share the operand share it.
class Prepared {
 public:
  using Form = Scratch<float>(const float*, int64_t, int64_t, int64_t, int64_t);
  // `buffer` null: an operand that this op does not have.
  Prepared(Form form, const ffi::Buffer<ffi::F32>* buffer, int64_t rows, int64_t columns, int64_t padded, int64_t block,
           ffi::Span<const int64_t> lead)
      : lead_(lead), block_(block) {
    if (buffer == nullptr) return;
    dims_ = buffer->dimensions();
    data_ = form(buffer->typed_data(), LeadingSize(dims_, dims_.size() - lead.size()), rows, columns, padded);
    missing_ = data_ == nullptr;
  }
  bool ok() const { return !missing_; }
  const float* Lane(int64_t lane) const {
    return data_ == nullptr ? nullptr : data_.get() + LaneIndex(lane, dims_, lead_) * block_;
  }

 private:
  ffi::Span<const int64_t> lead_, dims_;
  int64_t block_;
  Scratch<float> data_;
  bool missing_ = false;
};

}  // namespace

ffi::Error EntityForwardCpu(const char* op, ffi::ThreadPool& pool, const EntityOperands& operands,
                            ffi::ResultBuffer<ffi::F32>& y, ffi::Result<ffi::AnyBuffer>* winner) {
  EntitySizes sizes;
  if (auto error = CheckEntityForward(op, operands, y, winner, &sizes); error.failure()) return error;
  if (y->element_count() == 0) return ffi::Error::Success();
  const EntityLayer layer{sizes, operands.w1 != nullptr};
  const auto dims = y->dimensions(), bias_dims = operands.bias->dimensions();
  const auto lead = dims.first(dims.size() - 2);
  const int64_t units = layer.units, hidden = layer.hidden, padded_hidden = layer.padded_hidden();
  const int64_t padded_units = layer.padded_units();
  const Prepared w1(Padded, operands.w1, layer.features, units, padded_units, layer.features * padded_units, lead);
  const Prepared b1(Padded, operands.b1, 1, units, padded_units, padded_units, lead);
  const Prepared weight(Padded, &operands.weight, units, hidden, padded_hidden, units * padded_hidden, lead);
  if (!w1.ok() || !b1.ok() || !weight.ok()) return NoMemory(op);
  const bool is_tame = AreTame(operands.weight.typed_data(), operands.weight.element_count());
  const int64_t row_winners = hidden * NumberBytes(layer.entities);
  std::atomic<bool> out_of_memory{false};
  const int64_t row_work =
      std::max<int64_t>(1, layer.entities * (hidden + layer.features) * std::max<int64_t>(1, units));
  ParallelFor(pool, LeadingSize(dims, 2) * layer.rows, kGrain / row_work, [&](int64_t begin, int64_t end) {
    const ForwardScratch scratch(layer);
    if (!scratch.ok()) out_of_memory = true;
    while (begin < end && scratch.ok()) {
      const int64_t lane = begin / layer.rows, first = begin % layer.rows;
      const int64_t stop = std::min(layer.rows, first + (end - begin));
      const EntityForward call{
          Inputs(operands, layer, lane, lead),
          {w1.Lane(lane), b1.Lane(lane)},
          weight.Lane(lane),
          operands.bias->typed_data() + LaneIndex(lane, bias_dims, lead) * hidden,
          is_tame,
          y->typed_data() + lane * layer.rows * hidden,
          winner == nullptr ? nullptr : static_cast<char*>((*winner)->untyped_data()) + lane * layer.rows * row_winners,
      };
      ForwardRows(layer, call, first, stop, scratch);
      begin += stop - first;
    }
  });
  return out_of_memory ? NoMemory(op) : ffi::Error::Success();
}

namespace {

constexpr int64_t kRowsPerPart = 64;

// Where the sums over a part's rows lie in its block; each begins at a whole vector.
struct SumsLayout {
  int64_t weight, bias, w1, b1, size;
  explicit SumsLayout(const EntityLayer& layer) {
    const int64_t padded_units = layer.padded_units();
    weight = 0;
    bias = weight + layer.hidden * padded_units;
    w1 = bias + layer.padded_hidden();
    b1 = w1 + (layer.has_first ? layer.features * padded_units : 0);
    size = b1 + (layer.has_first ? padded_units : 0);
  }
};

// The sums over all rows of a lane, without their padding, to where its cotangents are.
void StoreSums(const EntityLayer& layer, const SumsLayout& layout, const float* sum, int64_t lane,
               const EntityCotangents& cotangents) {
  const int64_t units = layer.units, hidden = layer.hidden, features = layer.features;
  const int64_t padded_units = layer.padded_units();
  float* const weight_bar = cotangents.weight->typed_data() + lane * units * hidden;
  for (int64_t k = 0; k < units; ++k) {
    for (int64_t h = 0; h < hidden; ++h) weight_bar[k * hidden + h] = sum[layout.weight + h * padded_units + k];
  }
  std::memcpy(cotangents.bias->typed_data() + lane * hidden, sum + layout.bias, hidden * sizeof(float));
  if (!layer.has_first) return;
  float* const w1_bar = (*cotangents.w1)->typed_data() + lane * features * units;
  for (int64_t d = 0; d < features; ++d) {
    std::memcpy(w1_bar + d * units, sum + layout.w1 + d * padded_units, units * sizeof(float));
  }
  std::memcpy((*cotangents.b1)->typed_data() + lane * units, sum + layout.b1, units * sizeof(float));
}

}  // namespace

ffi::Error EntityBackwardCpu(const char* op, ffi::ThreadPool& pool, const EntityOperands& operands,
                             const ffi::AnyBuffer& winner, const ffi::Buffer<ffi::F32>& y_bar,
                             const EntityCotangents& cotangents) {
  EntitySizes sizes;
  const auto error = CheckEntityBackward(op, operands, winner, y_bar, cotangents, &sizes);
  if (error.failure()) return error;
  const EntityLayer layer{sizes, operands.w1 != nullptr};
  const auto dims = cotangents.x->dimensions(), lead = dims.first(dims.size() - 3);
  const int64_t rows = layer.rows, units = layer.units, hidden = layer.hidden, features = layer.features;
  const int64_t lanes = LeadingSize(dims, 3);
  const int64_t padded_units = layer.padded_units(), padded_features = layer.padded_features();
  const int64_t number_bytes = NumberBytes(layer.entities);
  const Prepared w1(Padded, operands.w1, features, units, padded_units, features * padded_units, lead);
  const Prepared b1(Padded, operands.b1, 1, units, padded_units, padded_units, lead);
  const Prepared w1_transposed(PaddedTranspose, operands.w1, features, units, padded_features, units * padded_features,
                               lead);
  const Prepared weight_transposed(PaddedTranspose, &operands.weight, units, hidden, padded_units,
                                   hidden * padded_units, lead);
  const SumsLayout layout(layer);
  const OrderedParts parts(layer.entities == 0 ? 0 : lanes, rows, kRowsPerPart);
  const auto sums = AllocateScratch<float>(lanes * parts.count() * layout.size);
  if (!w1.ok() || !b1.ok() || !w1_transposed.ok() || !weight_transposed.ok() || sums == nullptr) return NoMemory(op);
  std::atomic<bool> out_of_memory{false}, bad_winner{false};
  const auto call_of = [&](int64_t lane, float* sum) {
    const int64_t winner_lane = LaneIndex(lane, winner.dimensions(), lead);
    return EntityBackward{
        Inputs(operands, layer, lane, lead),
        {w1.Lane(lane), b1.Lane(lane)},
        w1_transposed.Lane(lane),
        weight_transposed.Lane(lane),
        static_cast<const char*>(winner.untyped_data()) + winner_lane * rows * hidden * number_bytes,
        y_bar.typed_data() + LaneIndex(lane, y_bar.dimensions(), lead) * rows * hidden,
        static_cast<char*>(cotangents.x->untyped_data()) +
            lane * rows * layer.entities * features * ItemBytes(operands.x),
        sum + layout.weight,
        sum + layout.bias,
        sum + layout.w1,
        sum + layout.b1,
    };
  };
  const auto make_work = [&] {
    return [&, scratch = BackwardScratch(layer)](int64_t lane, int64_t part, int64_t first, int64_t stop) {
      const EntityBackward call = call_of(lane, sums.get() + (lane * parts.count() + part) * layout.size);
      const char* const winners = static_cast<const char*>(call.winner) + first * hidden * number_bytes;
      if (!scratch.ok()) {
        out_of_memory = true;
      } else if (!AreEntities(winners, (stop - first) * hidden, layer.entities)) {
        bad_winner = true;
      } else {
        BackwardRows(layer, call, first, stop, scratch);
      }
    };
  };
  const int64_t row_work = std::max<int64_t>(1, hidden * std::max<int64_t>(1, units));
  parts.ForEach(pool, kGrain / std::max<int64_t>(1, row_work * (rows / parts.count())), make_work);
  if (out_of_memory) return NoMemory(op);
  if (bad_winner) return InvalidArgument(op, ": winner must hold numbers of entities, in 0..", layer.entities - 1);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    float* const sum = sums.get() + lane * parts.count() * layout.size;
    parts.AddOthers(sum, sum + layout.size, layout.size, layout.size);
    StoreSums(layer, layout, sum, lane, cotangents);
  }
  return ffi::Error::Success();
}

namespace {

// x f32 or bf16 [..., R, N, D], weight [..., D, H], bias [..., H], mask [..., R, N] or [..., 0, 0] -> y [..., R, H]
ffi::Error LinearMaxCpu(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> weight,
                        ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::PRED> mask, EntityPasses passes,
                        ffi::ResultBuffer<ffi::F32> y) {
  return EntityForwardCpu("linear_max", pool, {x, nullptr, nullptr, weight, &bias, mask, *passes}, y, nullptr);
}
PJX_REGISTER("pufferjax.linear_max", HandlerOf<LinearMaxCpu>);

// Also -> winner u8, u16 or i32 [..., R, H]
ffi::Error LinearMaxFwdCpu(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> weight,
                           ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::PRED> mask, EntityPasses passes,
                           ffi::ResultBuffer<ffi::F32> y, ffi::Result<ffi::AnyBuffer> winner) {
  return EntityForwardCpu("linear_max.fwd", pool, {x, nullptr, nullptr, weight, &bias, mask, *passes}, y, &winner);
}
PJX_REGISTER("pufferjax.linear_max.fwd", HandlerOf<LinearMaxFwdCpu>);

// Every cotangent has the shape of its primal, weights' cotangents with all the lanes.
ffi::Error LinearMaxBwdCpu(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::F32> weight,
                           ffi::Buffer<ffi::PRED> mask, ffi::AnyBuffer winner, ffi::Buffer<ffi::F32> y_bar,
                           ffi::Result<ffi::AnyBuffer> x_bar, ffi::ResultBuffer<ffi::F32> weight_bar,
                           ffi::ResultBuffer<ffi::F32> bias_bar) {
  return EntityBackwardCpu("linear_max.bwd", pool, {x, nullptr, nullptr, weight, nullptr, mask}, winner, y_bar,
                           {x_bar, nullptr, nullptr, weight_bar, bias_bar});
}
PJX_REGISTER("pufferjax.linear_max.bwd", HandlerOf<LinearMaxBwdCpu>);

}  // namespace
}  // namespace pjx
